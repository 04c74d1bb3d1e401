"""Options: the keys of Slurm under `cluster:`, and those of sbatch, by who may set them. Pure.

A user's sbatch option that changes how much a task holds, how many tasks there are, or where their files
go, is refused with the key to use instead, or counted. sbatch takes any unambiguous beginning of a long
name, so beginnings are judged as the names that they may stand for.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from pydantic import Field

from hpcsweep.cluster.slurm.pools import Pools, SlurmPart, pool_problems
from hpcsweep.core.cluster_protocol import TaskResources
from hpcsweep.options import Options, Text

#: One sbatch option's value: True is a bare flag, False and None leave the option out.
OptionValue: TypeAlias = str | int | float | bool | None
DEFAULT_TEMPLATE: Final = "default.sbatch"


class SlurmSection(SlurmPart):
    """Keys of Slurm under `cluster:`."""

    pools: Pools | None = None
    """Partitions, QOS or kinds of GPUs to use side by side, each with its own `max_gpus`, in this order."""
    template: Text | None = Field(default=None, json_schema_extra={"format": "path"})
    """The template of job scripts: a file, or one that comes with hpcsweep; default.sbatch if not given."""
    options: Options = Field(default_factory=dict)
    """Further sbatch options without their dashes, such as mail-type; null for one without value."""
    tick_options: Options = Field(default_factory=dict)
    """Further sbatch options of the small jobs that drive a sweep under --detach, such as partition."""

    def problems(self, space: object) -> list[str]:
        """What does not fit together, each line beginning with the key path."""
        return pool_problems(self.pools)


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


_FILES: Final = "belongs to hpcsweep, which reads the logs from its own folder"
_OURS: Final = "belongs to hpcsweep"
_GPUS: Final = "belongs to resources.gpus and cluster.gpu_type, by which max_gpus and budgets are counted"
_CPUS: Final = "belongs to resources.cpus"
_ONE: Final = "a task is one process on each node; use resources.nodes, gpus and cpus for a larger one"
_NO_SUBMISSION: Final = "would submit nothing; see `hpcsweep plan`"
_TIME: Final = "belongs to resources.time, by which budgets are counted"

#: Refused in every job of ours.
_REFUSED: Final[Mapping[str, str]] = {
    "job-name": "belongs to hpcsweep, which finds its batches by it",
    "array": "belongs to hpcsweep; see cluster.max_gpus",
    "wait": "would keep sbatch from answering",
    "test-only": _NO_SUBMISSION,
    "help": _NO_SUBMISSION,
    "usage": _NO_SUBMISSION,
    "version": _NO_SUBMISSION,
    "wrap": "would replace the script; see cluster.template",
    "clusters": "would hide the jobs from squeue; set SLURM_CLUSTERS in the environment instead",
    "cluster-constraint": "would hide the jobs from squeue; set SLURM_CLUSTERS in the environment instead",
    "uid": "would hide the jobs from squeue",
    "gid": _OURS,
    "output": _FILES,
    "error": _FILES,
    "open-mode": _FILES,
    "chdir": "belongs to train.workdir",
    "requeue": "belongs to hpcsweep, which requeues by the budget",
    "no-requeue": "belongs to hpcsweep, which requeues by the budget",
    "dependency": "belongs to hpcsweep, by which the cap on GPUs holds",
    "hetjob": _ONE,
    "packjob": _ONE,
    "gpus-per-socket": _GPUS,
    "ntasks-per-gpu": _ONE,
    "ntasks-per-tres": _ONE,
}
#: Refused in the jobs that train.
_TASK_REFUSED: Final[Mapping[str, str]] = {
    "time": _TIME,
    "time-min": _TIME,
    "cpus-per-task": _CPUS,
    "cpus-per-gpu": _CPUS,
    "mincpus": _CPUS,
    "overcommit": _CPUS,
    "mem": "belongs to resources.mem",
    "signal": "belongs to cluster.signal",
    "exclude": "belongs to cluster.exclude",
    "nodelist": "belongs to cluster.nodelist",
    "nodefile": "belongs to cluster.nodelist",
}
#: Refused in the small jobs that tick.
_TICK_REFUSED: Final[Mapping[str, str]] = {
    "begin": _OURS,
    "exclusive": "a job that ticks needs one CPU, and no node of its own",
    "core-spec": "a job that ticks needs one CPU, and no node of its own",
    "thread-spec": "a job that ticks needs one CPU, and no node of its own",
}
#: Other ways to ask for the GPUs of resources.gpus: taken where they ask for as many.
GPU_FORMS: Final = ("gres", "gpus", "gpus-per-node", "gpus-per-task", "tres-per-task")
#: Must be 1 where it is given.
_SINGLE: Final = (
    "nodes",
    "ntasks",
    "ntasks-per-node",
    "tasks-per-node",
    "ntasks-per-core",
    "ntasks-per-socket",
)
#: By these a task holds its node whole.
WHOLE_NODE: Final = ("exclusive", "core-spec", "thread-spec")
#: Values of --exclusive that leave the rest of the node to other jobs of the user or group.
_SHARED: Final = ("user", "mcs")

#: Every other long option of sbatch, 22.05 to 25.11.
_HARMLESS: Final = frozenset(
    [
        "account",
        "acctg-freq",
        "batch",
        "bb",
        "bbf",
        "begin",
        "comment",
        "consolidate-segments",
        "constraint",
        "container",
        "container-id",
        "contiguous",
        "cores-per-socket",
        "cpu-freq",
        "deadline",
        "delay-boot",
        "distribution",
        "export",
        "export-file",
        "extra",
        "extra-node-info",
        "get-user-env",
        "gpu-bind",
        "gpu-freq",
        "gres-flags",
        "hint",
        "hold",
        "ignore-pbs",
        "input",
        "kill-on-invalid-dep",
        "licenses",
        "mail-type",
        "mail-user",
        "mcs-label",
        "mem-bind",
        "mem-per-cpu",
        "mem-per-gpu",
        "network",
        "nice",
        "no-kill",
        "oom-kill-step",
        "oversubscribe",
        "parsable",
        "partition",
        "power",
        "prefer",
        "priority",
        "profile",
        "propagate",
        "qos",
        "quiet",
        "reboot",
        "reservation",
        "resv-ports",
        "segment",
        "share",
        "sockets-per-node",
        "spread-job",
        "spread-segments",
        "stepmgr",
        "switches",
        "threads-per-core",
        "tmp",
        "tres-bind",
        "umask",
        "use-min-nodes",
        "verbose",
        "wait-all-nodes",
        "wckey",
    ]
)
_NAMES: Final = _HARMLESS | {*_REFUSED, *_TASK_REFUSED, *_TICK_REFUSED, *GPU_FORMS, *_SINGLE, *WHOLE_NODE}
_SHORT: Final[Mapping[str, str]] = {
    "a": "array", "A": "account", "b": "begin", "B": "extra-node-info", "c": "cpus-per-task",
    "C": "constraint", "d": "dependency", "D": "chdir", "e": "error", "F": "nodefile", "G": "gpus",
    "h": "help", "H": "hold", "i": "input", "J": "job-name", "k": "no-kill", "L": "licenses",
    "m": "distribution", "M": "clusters", "n": "ntasks", "N": "nodes", "o": "output", "O": "overcommit",
    "p": "partition", "q": "qos", "Q": "quiet", "s": "oversubscribe", "S": "core-spec", "t": "time",
    "u": "usage", "v": "verbose", "V": "version", "w": "nodelist", "W": "wait", "x": "exclude",
}  # fmt: skip
#: Short options without a value.
_FLAGS: Final = frozenset("hHkOsQuvVW")


class OptionLine(NamedTuple):
    """One option in a script, as it is written there.

    Attributes:
        number: Of the line, from 1.
        text: The line.
    """

    number: int
    text: str
    name: str
    value: str | bool


class SbatchOptions(NamedTuple):
    """Options by their long names, and what is wrong with those that are not among them."""

    values: dict[str, OptionValue]
    problems: list[str]


def canonical(given: Mapping[str, OptionValue], *, key: str, ticks: bool = False) -> SbatchOptions:
    """The options by their long names, less those that are not the user's to set."""
    values: dict[str, OptionValue] = {}
    problems: list[str] = []
    for name, value in given.items():
        long, problem = resolve(name, value, ticks=ticks)
        if problem:
            problems.append(f"{key}.{name}: {problem}")
        elif long in values:
            problems.append(f"{key}.{name}: is given twice, the other time in another way of writing it")
        else:
            values[long] = value
    return SbatchOptions(values, problems)


def resolve(name: str, value: OptionValue, *, ticks: bool = False) -> tuple[str, str]:
    """The option's long name, and why it is refused; empty if it is not."""
    bare = name.lstrip("-")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", bare):
        return name, "expected the name of one option, and its value behind the colon, as in `comment: sweep`"
    if len(bare) == 1:
        long = _SHORT.get(bare, "")
        if not long:
            return name, "sbatch has no such option"
        return long, _why(long, value, ticks=ticks, instead=f"is short for {long}, which ")
    plain = bare.lower().replace("_", "-")
    if plain in _NAMES:
        return plain, _why(plain, value, ticks=ticks)
    longer = sorted(each for each in _NAMES if each.startswith(plain))
    if len(longer) > 1:  # sbatch takes the shortest of some
        return plain, f"may stand for {' or '.join(longer)}: write it in full"
    if longer and (why := _why(longer[0], value, ticks=ticks, instead=f"is short for {longer[0]}, which ")):
        return longer[0], why
    # What sbatch itself does not know may be an option of a plugin of the site.
    return (longer[0] if longer else bare.replace("_", "-")), ""


def _why(name: str, value: OptionValue, *, ticks: bool, instead: str = "") -> str:
    """Why the option is refused, empty if it is not."""
    why = _REFUSED.get(name) or (_TICK_REFUSED if ticks else _TASK_REFUSED).get(name)
    if why:
        return instead + why
    if value is None or value is False:
        return ""
    if name in _SINGLE and str(value) not in ("1", "1-1"):
        return f"{instead}must be 1: {_ONE}"
    if ticks and name in GPU_FORMS and gpus_asked(name, value) != 0:
        return f"{instead}would hold GPUs for a job that needs none"
    return ""


def gpus_asked(name: str, value: OptionValue) -> int | None:
    """GPUs that an option of `GPU_FORMS` asks for, None where that cannot be read."""
    if value is None or isinstance(value, bool):
        return None if value else 0
    found = 0
    for part in str(value).split(","):
        fields = re.split(r"[:=/]", re.sub(r"\([^)]*\)", "", part.strip()).lower())
        if name in ("gres", "tres-per-task"):
            while fields and fields[0] in ("gres", ""):
                fields = fields[1:]
            if not fields or fields[0] != "gpu":
                continue
        number = fields[-1]
        if not number.isdecimal():
            if name in ("gres", "tres-per-task") and len(fields) <= 2 and re.fullmatch(r"[a-z_-]\w*", number):
                found += 1  # `gpu` and `gpu:a100` are one
                continue
            return None
        found += int(number)
    return found


def gpu_problems(
    options: Mapping[str, OptionValue], shape: TaskResources, *, where: Callable[[str], str]
) -> list[str]:
    """Why the options ask for other GPUs than `resources.gpus`, one line each."""
    # Of these alone --gpus counts those of all nodes together.
    wanted = {name: shape.total_gpus if name == "gpus" else shape.gpus for name in GPU_FORMS}
    asked = {
        name: gpus_asked(name, options[name]) for name in GPU_FORMS if options.get(name) not in (None, False)
    }
    return [
        f"{where(name)}: {_GPUS}: it must ask for as many, {wanted[name]}, got {options[name]!r}"
        for name, count in asked.items()
        if count != wanted[name]
    ]


def takes_whole_nodes(options: Mapping[str, OptionValue]) -> str:
    """The option by which a task holds its node whole, empty if there is none."""
    for name in WHOLE_NODE:
        value = options.get(name)
        if value not in (None, False) and not (name == "exclusive" and str(value).lower() in _SHARED):
            return name
    return ""


def script_lines(text: str) -> Iterator[OptionLine]:
    """The options in the `#SBATCH` lines of a script, in the order in which sbatch reads them."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            return  # sbatch reads none after the first command
        if not line.startswith("#SBATCH"):
            continue
        try:
            words = shlex.split(line.removeprefix("#SBATCH"), comments=True)
        except ValueError:
            words = line.removeprefix("#SBATCH").split()
        while words:
            word = words.pop(0)
            if not word.startswith("-"):
                yield OptionLine(number, line, word, True)
            elif word.startswith("--"):
                name, equals, value = word[2:].partition("=")
                if not equals and words and not words[0].startswith("-"):
                    yield OptionLine(number, line, name, words.pop(0))
                else:
                    yield OptionLine(number, line, name, value if equals else True)
            else:
                yield from _short_options(number, line, word[1:], words)


def _short_options(number: int, line: str, letters: str, words: list[str]) -> Iterator[OptionLine]:
    """`-N2`, `-N 2`, `-HO`."""
    while letters:
        letter, letters = letters[0], letters[1:]
        if letter in _FLAGS:
            yield OptionLine(number, line, letter, True)
            continue
        value = letters.removeprefix("=") or (words.pop(0) if words else "")
        yield OptionLine(number, line, letter, value)
        return
