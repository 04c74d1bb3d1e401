"""Sections of a spec.

Made by `python -m tests.docs.reference`: change the code that it is made from, not this file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from hpcsweep.api.parts import Section

__all__ = ["Budget", "Objective", "Resources", "Retries", "Store", "Train"]


@dataclass(frozen=True, repr=False)
class Train(Section):
    """The training code: `function` or `command`.

    Attributes:
        function: A callable that takes a `Trial`: `FILE.py:NAME`, relative to the spec, or
            `package.module:NAME`.
        call: How `function` is called: with a `Trial`, with a trial like Optuna's, or with a configuration as
            by Ray Tune. See porting.md.
        command: A command line with placeholders such as `{lr}`, `{resource}`, and `{args}` for all other
            parameters, instead of `function`. See commands.md.
        shell: Run `command` in a shell; placeholder values are shell-quoted.
        flags: How `command` gets booleans: `present` (`--name`, or nothing), `no-` (`--name` or `--no-name`),
            or the texts for true and false such as `1/0`. See commands.md.
        dashes: Write dashes for the underscores of names in `{args}`: `--batch-size` for `batch_size`.
        config: A YAML, JSON, TOML or INI file, relative to the spec. With the parameters at their dotted keys
            it is the `{config_file}` of `command`.
        metrics: Where a program leaves metrics: regular expressions for printed lines, whose named groups are
            metrics, and files. See metrics.md.
        workdir: Working directory of the training code, relative to the spec file. Default: the folder of
            that file.
        keep_checkpoints: Number of newest checkpoints to keep per trial.
        keep: Trials whose checkpoints are kept: `survivors` are those that may be promoted, and the best one.
        log_limit: Size limit of an attempt's log; beginning and end of a longer one are kept. null keeps
            everything.
        check: Import `function`, or look up the program of `command`, before the sweep is started.
        warm: Whether a task with `cluster.reuse` may import `function` once and fork each run from that
            process. `auto`: where that is safe.
        launcher: What starts the processes of a run, on all its nodes; `none`: the run is one process, which
            may start others itself. See distributed.md.
        processes: Processes on each node with a `launcher`. Default: one for each GPU, else 1.
        first_step: The number of the first step in what `command` prints: 0 for programs that count steps
            from 0.
        checkpoint: The files that `command` keeps by itself, if not in `{checkpoint_dir}`. See programs.md.
        resume: Arguments for `command` where there is something to resume from. See programs.md.
        stop_at_resource: End `command` once the objective was reported at the run's resource, for programs
            that train on.
        snapshot: Copy the code into the results folder when the sweep starts, and run this copy for the whole
            sweep.
    """

    _: KW_ONLY
    function: Callable[..., object] | str | None = None
    call: Literal["trial", "optuna", "ray"] = "trial"
    command: str | Sequence[str] | None = None
    shell: bool = False
    flags: str | None = None
    dashes: bool = False
    config: str | None = None
    metrics: str | Mapping[str, Any] | Sequence[Any] | None = None
    workdir: str | None = None
    keep_checkpoints: int = 1
    keep: Literal["survivors", "all"] = "survivors"
    log_limit: str | None = "100M"
    check: bool = True
    warm: Literal["auto", False] = "auto"
    launcher: Literal["none", "torchrun", "srun", "accelerate"] = "none"
    processes: int | None = None
    first_step: Literal[0, 1] = 1
    checkpoint: Mapping[str, Any] | None = None
    resume: Mapping[str, Any] | None = None
    stop_at_resource: bool = False
    snapshot: bool = False


@dataclass(frozen=True, repr=False)
class Objective(Section):
    """The metric to optimise.

    Attributes:
        metric: The name of the metric that the training code reports.
        mode: Minimise or maximise it.
        at: The value of a run: the metric at its last step, or the best of the trial's steps so far.
        at_most: A configuration with a larger value is infeasible: worse than any that keeps all bounds.
        at_least: A configuration with a smaller value is infeasible: worse than any that keeps all bounds.
        reference: Hypervolumes are measured up to this value. All of several objectives have one, or none
            has.
    """

    metric: str
    _: KW_ONLY
    mode: Literal["min", "max"] = "min"
    at: Literal["last", "best"] = "last"
    at_most: float | None = None
    at_least: float | None = None
    reference: float | None = None


@dataclass(frozen=True, repr=False)
class Resources(Section):
    """Resources of one run. With several nodes, `gpus`, `cpus` and `mem` are those of each node.

    Attributes:
        nodes: Number of nodes, for training over several of them: see `train.launcher`.
        gpus: Number of GPUs, or an expression over parameters such as `1 if width <= 1024 else 4`. See
            resources.md.
        cpus: Number of CPU cores, or an expression such as `4 * gpus`.
        mem: Memory such as `16G`, an expression in MiB, start and max, or `auto`: learned from other runs.
            Default: the cluster's, or less as other runs show.
        time: Time limit such as `30m`, an expression in seconds, base, per_unit and max, or `auto`: learned
            from other runs. Default: as for `mem`.
    """

    _: KW_ONLY
    nodes: int = 1
    gpus: int | str = 0
    cpus: int | str = 1
    mem: str | Mapping[str, Any] | None = None
    time: str | Mapping[str, Any] | None = None


@dataclass(frozen=True, repr=False)
class Budget(Section):
    """Limits of the whole sweep.

    Attributes:
        trials: Maximum number of trials.
        gpu_hours: Maximum GPU-hours, never exceeded: each started task counts with its full time limit.
        time: Time after which no further run is started, such as `12h`.
    """

    _: KW_ONLY
    trials: int | None = None
    gpu_hours: float | None = None
    time: str | None = None


@dataclass(frozen=True, repr=False)
class Retries(Section):
    """How often a failed or interrupted run is repeated.

    Attributes:
        training: Retries after an error in the training code, a missing or NaN value, or out of memory.
        infrastructure: Retries after preemption, time limit, node failure or lost task, in a row without
            progress: a new checkpoint, or steps beyond those of earlier attempts.
        timeouts: Retries after a time limit. Default: unlimited as long as there is progress.
        fail_fast: Pause the sweep after this many trials failed within seconds with the same error, before
            any run did better. 0 or false turns this off.
    """

    _: KW_ONLY
    training: int = 0
    infrastructure: int = 5
    timeouts: int | None = None
    fail_fast: int | Literal[False] = 5


@dataclass(frozen=True, repr=False)
class Store(Section):
    """Limits of what the sweep keeps on disk.

    Attributes:
        checkpoint_quota: Maximum size of all checkpoints and output folders, such as `500G`. See training.md.
        checkpoint_files: Maximum number of their files.
    """

    _: KW_ONLY
    checkpoint_quota: str | None = None
    checkpoint_files: int | None = None
