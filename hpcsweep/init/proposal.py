"""Decides what a spec for a script should say: space, scheduler, metrics and resources. Values only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from hpcsweep.init.command import CommandLine, build_command, metric_names, parameter_name
from hpcsweep.init.found import Argument, Interface, MetricFile, MetricLine, Script
from hpcsweep.init.names import is_cost, mode_of, rank
from hpcsweep.init.ranges import Domain, domain_of, guess
from hpcsweep.init.roles import Role, normalised, role_of

#: Trials of a proposed sweep.
TRIALS: Final = 50
#: What a spec takes as the name of a parameter, in upper case.
_NAME: Final = re.compile(r"[A-Z_][A-Z0-9_./]*")
#: How many epochs are proposed where the script has no default.
_EPOCHS: Final = 27
#: With as many epochs a ladder of rungs is of use.
_FEWEST: Final = 3
_MOST_CPUS: Final = 16


class Parameter(NamedTuple):
    """One parameter of the proposed space."""

    argument: Argument
    domain: Domain


class Proposal(NamedTuple):
    """A spec to be written, with what to say beside its keys.

    Attributes:
        key: `command`, or `function` where `command` is that of a module, as in `train.py:train`.
        notes: What was found, by key.
        todo: What the user must do before it works, by key.
        left_out: Arguments that are no parameters, by why.
        ideas: Parameters that could be searched, as comments.
        costs: Metrics of what a model costs, which could be objectives, too.
    """

    key: str
    command: CommandLine
    space: tuple[Parameter, ...]
    ideas: tuple[Parameter, ...]
    left_out: dict[str, list[Argument]]
    metrics: tuple[Any, ...]
    objective: str
    mode: str
    first_step: int | None
    scheduler: dict[str, Any]
    budget: dict[str, Any]
    resources: dict[str, Any]
    notes: dict[str, list[str]]
    todo: dict[str, list[str]]
    costs: tuple[str, ...] = ()


_WHY: Final[dict[Role, str]] = {
    "resource": "how long to train",
    "seed": "seed",
    "output": "where to write",
    "save": "where to write",
    "resume": "where to go on",
    "device": "hardware",
    "data": "data",
    "logging": "logging",
    "": "not known as a hyperparameter",
}


def propose(script: Script, *, program: str, workdir: str = "") -> Proposal:
    """The spec for a script; `program` starts it there, such as `{python} train.py`."""
    interface = script.interfaces[0] if script.interfaces else None
    arguments = interface.arguments if interface else ()
    roles = {argument: role_of(argument) for argument in arguments}
    space, ideas = _space(arguments, roles)
    left_out: dict[str, list[Argument]] = {}
    for argument in arguments:
        if argument not in {parameter.argument for parameter in (*space, *ideas)}:
            left_out.setdefault(_WHY[roles[argument]], []).append(argument)
    notes: dict[str, list[str]] = {}
    todo: dict[str, list[str]] = {}
    resource = _resource(arguments, roles, script)
    found = _metrics(script)
    command = build_command(
        script,
        interface,
        program=program,
        searched=[parameter.argument for parameter in space],
        roles=roles,
        resource=resource,
        metric_file=found.file,
    )
    if workdir:
        command.keys["workdir"] = workdir
    space = [parameter for parameter in space if parameter.argument not in command.unwritable]
    for argument in command.unwritable:
        left_out.setdefault("a value that no command line can switch off", []).append(argument)
    notes["command"] = [*_interface_note(script, interface), *command.notes]
    todo["command"] = list(command.todo)
    if not space:
        why = "no hyperparameter was found" if interface else "the script takes no arguments that were found"
        todo["space"] = [
            f"{why}: write its parameters here, and their placeholders into train.command",
            *_how_without_arguments(script, interface),
        ]
    scheduler, budget, scheduler_notes = _scheduler(script, resource, arguments)
    notes["scheduler"] = scheduler_notes
    if scheduler["name"] == "asha" and not command.resumes:
        notes["scheduler"].append("no argument to resume from was found: each rung trains from scratch")
    notes["metrics"], todo["metrics"] = found.notes, found.todo
    return Proposal(
        "function" if script.own is not None and script.own.function else "command",
        command,
        tuple(space),
        tuple(ideas),
        left_out,
        found.sources(command),
        found.objective,
        mode_of(found.objective),
        found.first_step if command.absolute_steps else None,
        scheduler,
        budget,
        _resources(script, arguments, roles),
        notes,
        todo,
        found.costs,
    )


def _space(
    arguments: Sequence[Argument], roles: dict[Argument, Role]
) -> tuple[list[Parameter], list[Parameter]]:
    """The parameters to search, and others that could be."""
    space, ideas = [], []
    known: set[str] = set()  # names must differ in more than case
    for argument in arguments:
        name = parameter_name(argument.name).upper()
        if roles[argument] or name in known or not _NAME.fullmatch(name):
            continue
        known.add(name)
        domain = domain_of(argument)
        if domain is not None:
            space.append(Parameter(argument, domain))
            continue
        idea = list(argument.choices) if len(argument.choices) > 1 else guess(argument)
        if idea is not None:
            ideas.append(Parameter(argument, idea))
    return (space, ideas) if space else (ideas, [])


def _interface_note(script: Script, interface: Interface | None) -> Iterator[str]:
    if interface is not None:
        count = len(interface.arguments)
        yield f"{interface.kind}: {count} argument{'' if count == 1 else 's'} found"
        yield from interface.notes


def _how_without_arguments(script: Script, interface: Interface | None) -> Iterator[str]:
    if interface is None and script.language == "python":
        yield "a script of constants can read them: lr = float(os.environ.get('HPCSWEEP_PARAM_LR', 0.1))"
    elif interface is None and script.language:
        yield "every run has its values in the environment: HPCSWEEP_PARAM_LR for `lr`"


# ---------------------------------------------------------------------- how long


def _resource(arguments: Sequence[Argument], roles: dict[Argument, Role], script: Script) -> Argument | None:
    """The argument that says how long to train: epochs before steps, one with a default before others."""
    found = [argument for argument in arguments if roles[argument] == "resource"]

    def fitness(argument: Argument) -> tuple[bool, bool, bool]:
        name = normalised(argument.name)
        used = name in {str(end) for end in script.loops}
        default = argument.default
        has_default = isinstance(default, int | float) and default > 0
        return (not used, not has_default, "epoch" not in name)

    return min(found, key=fitness, default=None)


def _scheduler(
    script: Script, resource: Argument | None, arguments: Sequence[Argument]
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    budget = {"trials": TRIALS}
    if script.own is not None and script.own.rungs:
        longest = script.own.resource or _EPOCHS
        why = "what the script has" if script.own.resource else "to be set to the longest training"
        ladder = {"name": "asha", "max_resource": longest, "eta": 3}
        if longest < _FEWEST:
            ladder = {"name": "fifo", "max_resource": longest}
        return ladder, budget, [f"max_resource is {why}"]
    if resource is None:
        numbers = [end for end in script.loops if isinstance(end, int) and end > 1]
        name = "how long to train is no argument: every run trains to its end"
        if len(set(numbers)) == 1 and any(line.repeated for line in script.lines):
            return {"name": "fifo", "max_resource": numbers[0]}, budget, [f"{name}, {numbers[0]} steps"]
        return {"name": "fifo"}, budget, [name]
    default = resource.default
    known = isinstance(default, int | float) and default >= 1
    most = int(default) if known else _EPOCHS
    note = (
        [f"{resource.option or resource.name} is the resource, its default {most}"]
        if known
        else [f"{resource.option or resource.name} has no default: set max_resource to the longest training"]
    )
    if most < _FEWEST:
        return {"name": "fifo", "max_resource": most}, budget, note
    least = _round_down(max(1, most // 27))
    interval = _interval(arguments) if "epoch" not in normalised(resource.name) else 1
    if interval > 1:
        least = min(max(interval, least // interval * interval), most)
        note.append(f"rungs are multiples of {interval}, the steps between two evaluations")
    return (
        {"name": "asha"} | ({"min_resource": least} if least > 1 else {}) | {"max_resource": most, "eta": 3},
        budget,
        note,
    )


def _round_down(value: int) -> int:
    """Two digits."""
    unit = int(f"1{'0' * max(0, len(str(value)) - 2)}")
    return value // unit * unit


def _interval(arguments: Sequence[Argument]) -> int:
    """Steps between two evaluations, where an argument says so."""
    for name in ("eval_interval", "eval_every", "val_interval", "eval_freq", "log_interval"):
        for argument in arguments:
            if normalised(argument.name) == name and isinstance(argument.default, int):
                return max(1, argument.default)
    return 1


def _resources(script: Script, arguments: Sequence[Argument], roles: dict[Argument, Role]) -> dict[str, Any]:
    workers = [
        argument.default
        for argument in arguments
        if roles[argument] == "device"
        and ("workers" in argument.name or "jobs" in argument.name or "threads" in argument.name)
        and isinstance(argument.default, int)
        and argument.default > 1
    ]
    return {"gpus": int(script.gpu), "cpus": min(max(workers, default=1), _MOST_CPUS)}


# ---------------------------------------------------------------------- metrics


class _Found(NamedTuple):
    """Where the metrics come from: printed lines, or a file."""

    lines: tuple[MetricLine, ...]
    file: MetricFile | None
    objective: str
    first_step: int | None
    notes: list[str]
    todo: list[str]
    costs: tuple[str, ...] = ()

    def sources(self, command: CommandLine) -> tuple[Any, ...]:
        """As `train.metrics` has them."""
        if self.file is None:
            if not command.absolute_steps:  # it counts anew after it has resumed: its lines are counted
                return tuple(re.sub(r"\(\?P<step>([^)]*)\)", r"\1", line.pattern) for line in self.lines)
            return tuple(line.pattern for line in self.lines)
        return (command.metric_source(self.file, self.objective),)


#: For programs in which nothing was found, to be changed.
_PLACEHOLDER: Final = MetricLine(r"val_loss[:= ]+(?P<val_loss>\S+)", ("val_loss",))
_NO_METRIC: Final = (
    "no metric was found in what the script prints or writes: write a pattern for the line that has it, or "
    "print one such as `print(f'val_loss {val_loss}')`; `hpcsweep try` shows what it prints"
)

_NO_REPORT: Final = (
    "which metrics the script reports was not found: objective.metric names the one to optimise"
)


def _metrics(script: Script) -> _Found:
    if script.own is not None and script.own.reports:
        logged = [name for line in script.lines for name in line.metrics]
        logged += [name for file in script.files for name in file.metrics]
        names = script.own.metrics or logged
        costs = tuple(name for name in names if is_cost(name, reported=True))
        best = min((name for name in names if name not in costs), key=rank, default="")
        best, costs = (best, costs) if best else (min(costs, key=rank, default=""), ())
        notes = ["the script reports to hpcsweep itself"]
        return _Found((), None, best or "val_loss", None, notes, [] if best else [_NO_REPORT], costs)
    lines = script.lines
    best_line = min(
        (
            (rank(name), not line.repeated, line, name)
            for line in lines
            for name in line.metrics
            if not is_cost(name)
        ),
        default=None,
        key=lambda each: each[:2],
    )
    best_file = min(
        ((rank(name), file, name) for file in script.files for name in file.metrics if not is_cost(name)),
        default=None,
        key=lambda each: each[0],
    )
    if best_file is not None and (best_line is None or best_file[0] < best_line[0]):
        _, file, name = best_file
        shown = file.path or file.kind
        note = f"{shown} is read while the run writes it"
        by_key = metric_names(file)
        costs = tuple(by_key[key] for key in file.metrics if is_cost(key))
        return _Found((), file, by_key[name], file.first_step, [note], [], costs)
    if best_line is None:
        return _Found((_PLACEHOLDER,), None, "val_loss", None, [], [_NO_METRIC])
    *_, line, name = best_line
    chosen = [line, *_beside(line, lines)]
    first = next((each.first_step for each in chosen if each.first_step is not None), None)
    notes = [f"from {line.where}"] if line.where else []
    if line.first_step is None and "(?P<step>" not in line.pattern and line.repeated:
        notes.append("without a step in the line the lines are counted: one for each epoch")
    if rank(name)[1] == 3:
        notes.append("only training metrics were found: a validation metric is a better objective")
    costs = tuple(each for line in chosen for each in line.metrics if is_cost(each))
    return _Found(tuple(chosen), None, name, first, notes, [], costs)


def _beside(line: MetricLine, lines: Sequence[MetricLine]) -> Iterator[MetricLine]:
    """Other lines of validation or test metrics, or costs, that have names of their own and count alike."""
    known = set(line.metrics)
    for other in lines:
        names = set(other.metrics)
        alike = other.repeated and line.repeated and other.first_step == line.first_step
        steps = ("(?P<step>" in line.pattern) == ("(?P<step>" in other.pattern)
        wanted = min(rank(name)[1] for name in names) < 2 or any(map(is_cost, names))
        if alike and steps and not names & known and wanted:
            known |= names
            yield other
