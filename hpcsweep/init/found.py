"""What a script shows of itself: its arguments, its metrics, its files. Values only."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

#: How a program takes its values; `asked`: it asks hpcsweep for them.
Style = Literal[
    "--name value", "--name=value", "-name value", "name=value", "positional", "environment", "asked"
]
#: How an option without a value is switched: there or not, there or as `--no-...`; empty: it takes a value.
Switch = Literal["", "present", "no-"]


class Argument(NamedTuple):
    """One value that the program takes.

    Attributes:
        name: The name without leading dashes, as the program spells it.
        option: As on the command line, such as `--batch-size` or `-b`; empty for a positional one.
        kind: Type of its value; `list` where it takes several.
        default: None where there is none, or none that can be read.
        choices: The values that the program allows; empty: any.
        required: The program does not start without it.
        switch: Of a boolean.
        truth: How a boolean that takes a value says true and false; empty: as hpcsweep does.
        help: What the program says of it.
    """

    name: str
    option: str = ""
    kind: Literal["float", "int", "bool", "text", "list"] = "text"
    default: Any = None
    choices: tuple[Any, ...] = ()
    required: bool = False
    switch: Switch = ""
    truth: tuple[str, ...] = ()
    help: str = ""


class Interface(NamedTuple):
    """How the program is given values.

    Attributes:
        kind: For the user, such as `argparse` or `a Hydra config`.
        style: The form of one value on the command line.
        arguments: All of them.
        prefix: Words between the program and its arguments, such as a subcommand.
        suffix: Words that must follow.
        notes: What the user should know of it.
    """

    kind: str
    style: Style
    arguments: tuple[Argument, ...]
    prefix: str = ""
    suffix: str = ""
    notes: tuple[str, ...] = ()


class MetricLine(NamedTuple):
    """A printed line that has metrics in it.

    Attributes:
        pattern: A regular expression with a named group for each metric, and perhaps `step`.
        metrics: The names of its groups without `step`.
        repeated: It is printed in a loop, as far as the script shows.
        first_step: The first number that the group `step` has; None if unknown or without the group.
        where: File and line.
    """

    pattern: str
    metrics: tuple[str, ...]
    repeated: bool = False
    first_step: int | None = None
    where: str = ""


class MetricFile(NamedTuple):
    """A file or folder in which the program leaves metrics.

    Attributes:
        kind: `csv`, `json`, `jsonl`, `tensorboard`, `wandb` or `mlflow`.
        argument: The argument that names the folder (or the file); empty if none does.
        path: Below the folder of that argument, or as the script says it; empty: the folder itself.
        metrics: The keys of numbers, as the file has them.
        step: The key of the step; empty if there is none.
        first_step: The first step; None if unknown.
    """

    kind: str
    argument: str
    path: str
    metrics: tuple[str, ...]
    step: str = ""
    first_step: int | None = None


class OwnTrial(NamedTuple):
    """What a script that is written for hpcsweep does with its trial.

    Attributes:
        function: The function that is given the trial; empty where the script calls `current_trial`.
        resource: How long it trains outside a sweep; None if it does not say.
        reports: It reports to hpcsweep, by itself or by a callback.
        metrics: The names that it reports by itself.
        rungs: It trains up to the resource that it is given.
        resumes: It goes on from checkpoints.
    """

    function: str = ""
    resource: int | None = None
    reports: bool = False
    metrics: tuple[str, ...] = ()
    rungs: bool = False
    resumes: bool = False


class Script(NamedTuple):
    """All that is known of a script.

    Attributes:
        language: `python` and so on.
        interfaces: The ways in which it takes values, the likeliest first.
        lines: Printed lines with metrics.
        files: Files with metrics.
        saved: For each argument that names a folder, the file that the script saves its model to there.
        constants: Numbers that are fixed in the script, by name.
        loops: Names and numbers that loops over epochs or steps run to.
        resumes_in_loop: A loop over epochs starts where a checkpoint says.
        gpu: It imports a library that trains on GPUs.
        module: `package.name` where it must be started with `python -m`; else empty.
        own: What it does with its trial; None where it does not know hpcsweep.
    """

    language: str
    interfaces: tuple[Interface, ...] = ()
    lines: tuple[MetricLine, ...] = ()
    files: tuple[MetricFile, ...] = ()
    saved: tuple[tuple[str, str], ...] = ()
    constants: tuple[tuple[str, Any], ...] = ()
    loops: tuple[str | int, ...] = ()
    resumes_in_loop: bool = False
    gpu: bool = False
    module: str = ""
    own: OwnTrial | None = None
