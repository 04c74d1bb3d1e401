"""What the spec says of Slurm under `cluster:`, and what else `SlurmCluster` is told."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeAlias

from pydantic import Field

from hpcsweep.options import Options, Section, Text

#: One sbatch option's value: True is a bare flag, False and None leave the option out.
OptionValue: TypeAlias = str | int | float | bool | None
DEFAULT_TEMPLATE: Final = "default.sbatch"


class SlurmSection(Section):
    """Keys of Slurm under `cluster:`."""

    partition: Text | None = None
    """Slurm partition, or several separated by commas."""
    account: Text | None = None
    """Slurm account to charge."""
    qos: Text | None = None
    """Slurm quality of service (QOS)."""
    constraint: Text | None = None
    """Required node features, as for `sbatch --constraint`."""
    gpu_type: Text | None = None
    """GPU type as named in Slurm's gres, such as `a100`. Default: any."""
    nodelist: Text | None = None
    """Nodes that may be used, such as `n[3-4]`. Default: all."""
    exclude: Text | None = None
    """Nodes that must not be used, such as `n7,n9`."""
    template: Text | None = Field(default=None, json_schema_extra={"format": "path"})
    """The template of job scripts: a file, or one that comes with hpcsweep; default.sbatch if not given."""
    options: Options = Field(default_factory=dict)
    """Further sbatch options without their dashes, such as mail-type; null for one without value."""
    tick_options: Options = Field(default_factory=dict)
    """Further sbatch options of the small jobs that drive a sweep under --detach, such as partition."""


class SlurmOptions(SlurmSection):
    """Everything that `SlurmCluster` is told besides the batches: the section, and the sweep's common keys.

    `options` and `tick_options` go before ours by name; False or null drops ours. A relative `template` is
    looked up in `spec_dir` first.
    """

    setup: Sequence[str] = ()
    """Shell lines before the worker's command."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Exported before `setup`."""
    inherited: tuple[str, ...] = ()
    """Variables that the jobs are to have from whoever submits them."""
    python: str = sys.executable
    """Absolute path of the interpreter on the compute nodes."""
    module: str = "hpcsweep.worker"
    """What a task runs, with the batch's folder as its argument."""
    workdir: str | None = None
    """Where the script starts; None is the batch's own folder, which is sure to exist."""
    signal_s: int = 60
    """The worker is told so many seconds before the time limit."""
    settle_s: float = 150.0
    """How long a submission without an answer may still turn up."""
    grace_s: float = 60.0
    """How long a result may stay invisible after its task has ended."""
    poll_s: tuple[float, float] = (5.0, 60.0)
    """Shortest and longest time between two polls."""
    spec_dir: Path = Path()
