"""What a site and a sweep want of Slurm, as one frozen value."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec

#: One sbatch option's value: True is a bare flag, False and None leave the option out.
OptionValue: TypeAlias = str | int | float | bool | None


class SlurmOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `SlurmCluster` is told besides the batches.

    Attributes:
        gpu_type: As in the site's `gres.conf`; None takes any.
        template: A file (a relative path is looked up in `spec_dir`) or one of ours by name.
        setup: Shell lines before the worker's command.
        environment: Exported before `setup`.
        inherited: Variables that the jobs are to have from whoever submits them.
        options: Further sbatch options; they win over ours by name, False or null drops ours.
        tick_options: Further sbatch options of the small jobs that tick a detached sweep.
        python: Absolute path of the interpreter on the compute nodes.
        module: What it runs in each task, with the batch's folder as its argument.
        workdir: Where the script starts; None is the batch's own folder, which is sure to exist.
        signal_s: The worker is told so many seconds before the time limit.
        settle_s: How long a submission without an answer may still turn up.
        grace_s: How long a result may stay invisible after its task has ended.
        poll_s: Shortest and longest time between two polls.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    nodelist: str | None = None
    exclude: str | None = None
    gpu_type: str | None = None
    template: str = "default.sbatch"
    setup: Sequence[str] = ()
    environment: Mapping[str, str] = msgspec.field(default_factory=dict)
    inherited: Sequence[str] = ()
    options: Mapping[str, OptionValue] = msgspec.field(default_factory=dict)
    tick_options: Mapping[str, OptionValue] = msgspec.field(default_factory=dict)
    python: str = sys.executable
    module: str = "hpcsweep.cluster.slurm.task"
    workdir: str | None = None
    signal_s: int = 60
    settle_s: float = 150.0
    grace_s: float = 60.0
    poll_s: tuple[float, float] = (5.0, 60.0)
    spec_dir: Path = Path()
