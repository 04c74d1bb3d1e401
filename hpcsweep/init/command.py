"""The command line of a spec: how a script is started, and how it is given the values of a run."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from hpcsweep.init.found import Argument, Interface, MetricFile, Script, Style
from hpcsweep.init.names import metric_name
from hpcsweep.init.roles import Role, normalised

#: How `{args}` writes a parameter.
_PATTERNS: Final[dict[Style, str]] = {
    "--name value": "{args}",
    "--name=value": "{args:--name=value}",
    "-name value": "{args:-name value}",
    "name=value": "{args:name=value}",
}
#: Kinds of metrics for which a program has a folder rather than a file.
FOLDERS: Final = ("tensorboard", "wandb", "mlflow", "lightning")
#: Stands for a value that only the user knows.
FILL_IN: Final = "FILL_IN"


class CommandLine(NamedTuple):
    """The command with the keys of `train` that go with it.

    Attributes:
        keys: Further keys, such as `flags` and `resume`.
        unwritable: Arguments of the search that it cannot give.
        resumes: The program can go on from a checkpoint.
        absolute_steps: Steps that the program prints count from the beginning of its training.
        notes: What was decided, and why.
        todo: What the user must fill in.
    """

    command: str
    keys: dict[str, Any]
    unwritable: tuple[Argument, ...]
    resumes: bool
    absolute_steps: bool
    notes: tuple[str, ...]
    todo: tuple[str, ...]
    folder: str = ""

    def metric_source(self, file: MetricFile, objective: str) -> dict[str, Any]:
        """A metrics file as `train.metrics` has it."""
        folder = self.folder or "{output_dir}"
        below = {"mlflow": "mlruns", "lightning": "**/metrics.csv"}.get(file.kind, file.path)
        source: dict[str, Any] = {"file": os.path.join(folder, below) if below else folder}
        if file.kind in FOLDERS and file.kind != "lightning":
            source["kind"] = file.kind
        if file.step:
            source["step"] = file.step
        return source | {"values": {name: key for key, name in metric_names(file).items()}}


def metric_names(file: MetricFile) -> dict[str, str]:
    """A name for each key of a metrics file: `val_loss` for `Loss/val`."""
    names: dict[str, str] = {}
    for key in file.metrics:
        name = metric_name(key) or key
        names[key] = key if name in names.values() else name
    return names


def parameter_name(name: str) -> str:
    """The name of an argument as a spec has it."""
    return name.replace("-", "_")


class _Builder:
    """Collects the words of a command."""

    def __init__(self, interface: Interface | None, program: str) -> None:
        self.style: Style = interface.style if interface else "--name value"
        self.words = [program, *([interface.prefix] if interface and interface.prefix else [])]
        self.notes: list[str] = []
        self.todo: list[str] = []
        self.keys: dict[str, Any] = {}

    def written(self, argument: Argument, value: str) -> str:
        """One argument with a value, in the program's style."""
        if not argument.option:
            return value
        match self.style:
            case "--name=value":
                return f"{argument.option}={value}"
            case "name=value":
                return f"{argument.name}={value}"
            case _:
                return f"{argument.option} {value}"

    def give(self, argument: Argument, value: str) -> None:
        self.words.append(self.written(argument, value))


def build_command(
    script: Script,
    interface: Interface | None,
    *,
    program: str,
    searched: Sequence[Argument],
    roles: Mapping[Argument, Role],
    resource: Argument | None,
    metric_file: MetricFile | None,
) -> CommandLine:
    """The command that gives a run the parameters, its resource, its seed and its folders."""
    builder = _Builder(interface, program)
    unwritable: list[Argument] = []
    if script.own is not None and (interface is None or interface.style == "asked"):
        return _finished(builder, interface, unwritable, resumes=script.own.resumes, absolute=True)
    if interface is not None and interface.style in ("positional", "environment"):
        _in_order(builder, interface, searched, roles, resource, script)
        return _finished(builder, interface, unwritable, resumes=False, absolute=True)
    by_args, unwritable = _through_args(builder, searched)
    if by_args:
        builder.words.append(_PATTERNS[builder.style])
    saves, resumes, absolute = _checkpoints(builder, script, roles, resource)
    folder = _outputs(builder, script, roles, saves, metric_file)
    if resource is not None:
        builder.give(resource, "{resource}" if absolute else "{epochs_left}")
    for argument, role in roles.items():
        if role == "seed" and argument.kind != "text" and script.language == "python":
            builder.give(argument, "{seed}")
            break
    _required(builder, searched, roles, resource)
    return _finished(builder, interface, unwritable, resumes=resumes, absolute=absolute, folder=folder)


def _finished(
    builder: _Builder,
    interface: Interface | None,
    unwritable: Iterable[Argument],
    *,
    resumes: bool,
    absolute: bool,
    folder: str = "",
) -> CommandLine:
    if interface and interface.suffix:
        builder.words.append(interface.suffix)
    command = " ".join(builder.words)
    return CommandLine(
        command,
        builder.keys,
        tuple(unwritable),
        resumes,
        absolute,
        tuple(builder.notes),
        tuple(builder.todo),
        folder,
    )


def _through_args(builder: _Builder, searched: Sequence[Argument]) -> tuple[list[Argument], list[Argument]]:
    """Those that `{args}` gives, and those that cannot be given; others are written by name."""
    booleans = [argument for argument in searched if argument.kind == "bool"]
    forms = {_flag_form(argument, builder.style) for argument in booleans}
    form = next((form for form in ("no-", "present") if form in forms), min(forms, default=""))
    unwritable = [argument for argument in booleans if _flag_form(argument, builder.style) != form]
    if form:
        builder.keys["flags"] = form
    given = [argument for argument in searched if argument not in unwritable]
    dashed = [argument for argument in given if "-" in argument.name]
    underscored = [argument for argument in given if "_" in argument.name and "-" not in argument.name]
    regular = [
        argument
        for argument in given
        if argument.option.lstrip("-") == argument.name and _is_long(argument, builder.style)
    ]
    if dashed:
        builder.keys["dashes"] = True
        regular = [argument for argument in regular if argument not in underscored]
    for argument in given:
        if argument not in regular and argument.kind != "bool":
            builder.give(argument, f"{{{parameter_name(argument.name)}}}")
        elif argument not in regular:
            unwritable.append(argument)
    return regular, unwritable


def _is_long(argument: Argument, style: Style) -> bool:
    """Whether the option has the dashes that the style writes."""
    dashes = {"--name value": "--", "--name=value": "--", "-name value": "-", "name=value": ""}.get(style, "")
    return len(argument.option) - len(argument.option.lstrip("-")) == len(dashes)


def _flag_form(argument: Argument, style: Style) -> str:
    """What `train.flags` says for a boolean; empty where the default is right."""
    if argument.switch:
        return argument.switch
    if style == "name=value":
        return ""
    texts = "/".join(argument.truth) or "true/false"
    return "" if style == "--name=value" else texts


def _checkpoints(
    builder: _Builder, script: Script, roles: Mapping[Argument, Role], resource: Argument | None
) -> tuple[Argument | None, bool, bool]:
    """Write where checkpoints go and what resumes from them.

    Returns:
        The argument that checkpoints are written to, whether the program resumes, and whether it then trains
        up to its resource (else: for as many steps more).
    """
    files = dict(script.saved)
    resumes = [argument for argument, has in roles.items() if has == "resume"]
    resumes.sort(key=lambda argument: normalised(argument.name) not in ("resume", "resume_from", "init_from"))
    resume = next(iter(resumes), None)
    if resume is None:
        return None, False, True
    saves = [
        argument
        for role in ("save", "output")
        for argument, has in roles.items()
        # A folder for logs is one for checkpoints only if the script shows it.
        if has == role and (role == "save" or resume.kind == "bool" or parameter_name(argument.name) in files)
    ]
    saves.sort(key=lambda argument: parameter_name(argument.name) not in files)
    save = next(iter(saves), None)
    if save is None:
        builder.notes.append(
            f"{resume.option or resume.name} resumes, but where checkpoints are saved was not found: "
            "train.checkpoint and train.resume say it"
        )
        return None, False, True
    file = files.get(parameter_name(save.name), "")
    is_file = isinstance(save.default, str) and "." in os.path.basename(save.default)
    absolute = script.resumes_in_loop or resource is None
    if not absolute:
        builder.notes.append("it trains for as many epochs as it is told, also after it has resumed")
    switched = resume.kind == "bool" or "resume" in resume.choices or resume.default in ("scratch", "none")
    if switched and not is_file:
        builder.give(save, "{output_dir}")
        text = resume.option if resume.kind == "bool" else builder.written(resume, "resume")
        builder.keys["checkpoint"] = {"path": f"{{output_dir}}/{file or '*'}", "when": "changed"}
        builder.keys["resume"] = {"args": text}
        return save, True, absolute
    name = os.path.basename(save.default) if is_file and isinstance(save.default, str) else file
    builder.give(save, f"{{checkpoint_dir}}/{name}" if is_file else "{checkpoint_dir}")
    whole = _takes_file(script, resume, name, is_file=is_file)
    value = f"{{resume_from}}/{name}" if whole and name else "{resume_from}"
    builder.words.append(f"{{resume_from?{builder.written(resume, value)}}}")
    what = "the folder" if value == "{resume_from}" else "the file"
    builder.notes.append(
        f"{resume.option or resume.name} gets {what} that {save.option or save.name} had before"
    )
    return save, True, absolute


def _takes_file(script: Script, resume: Argument, name: str, *, is_file: bool) -> bool:
    """Whether the program resumes from a file; else from the folder that it wrote."""
    if is_file:
        return True
    below = dict(script.saved).get(parameter_name(resume.name))
    return below is None and bool(name)


def _outputs(
    builder: _Builder,
    script: Script,
    roles: Mapping[Argument, Role],
    saves: Argument | None,
    metric_file: MetricFile | None,
) -> str:
    """Give every run a folder of its own for what it writes; the folder of the metrics file."""
    folder = ""
    for argument, role in roles.items():
        measured = metric_file if metric_file is not None and _is_of(metric_file, argument) else None
        if argument is saves or (role not in ("output", "save") and measured is None):
            continue
        if argument.default is None and not argument.required and measured is None:
            continue
        here = _place(argument, measured)
        builder.give(argument, here)
        folder = here if measured is not None else folder
    if metric_file is not None and not folder:
        if saves is not None and _is_of(metric_file, saves):
            return "{output_dir}" if "resume" in builder.keys else "{checkpoint_dir}"
        _in_own_folder(builder, metric_file)
    return folder


def _place(argument: Argument, measured: MetricFile | None) -> str:
    """The run's folder, or a file in it where the argument names a file."""
    name = os.path.basename(argument.default) if isinstance(argument.default, str) else ""
    if measured is not None and measured.kind in FOLDERS:
        return "{output_dir}"
    if measured is not None and not measured.path:
        return f"{{output_dir}}/{name or f'metrics.{measured.kind}'}"
    return f"{{output_dir}}/{name}" if "." in name.strip(".") else "{output_dir}"


def _is_of(file: MetricFile, argument: Argument) -> bool:
    return file.argument == parameter_name(argument.name)


#: Variables that name the folder of a library.
_FOLDER_VARIABLES: Final = {
    "wandb": "WANDB_MODE=offline WANDB_DIR={output_dir}",
    "mlflow": "MLFLOW_TRACKING_URI=file://{output_dir}/mlruns",
}


def _in_own_folder(builder: _Builder, file: MetricFile) -> None:
    """Have the program write its metrics into the run's folder, though it has no argument for that."""
    variables = _FOLDER_VARIABLES.get(file.kind)
    if variables is not None:
        builder.words[0] = f"env {variables} {builder.words[0]}"
        return
    program = builder.words[0].split()
    builder.words[0] = " ".join(
        ["cd {output_dir} &&", *program[:-1], f'"$OLDPWD"/{shlex.quote(program[-1])}']
    )
    builder.keys["shell"] = True
    builder.notes.append(
        f"{file.path or file.kind} has no argument for its place: each run starts in a folder of its own, "
        "where relative paths to data are not found"
    )


def _required(
    builder: _Builder, searched: Sequence[Argument], roles: Mapping[Argument, Role], resource: Argument | None
) -> None:
    """Arguments without which the program does not start."""
    command = " ".join(builder.words)
    for argument, role in roles.items():
        name = parameter_name(argument.name)
        if not argument.required or argument in searched or argument is resource or role == "seed":
            continue
        if argument.option and f"{argument.option}" in command.replace("=", " ").split():
            continue
        if role in ("output", "save"):
            continue
        builder.give(argument, FILL_IN)
        builder.todo.append(f"{argument.option or name} must be given: write it in place of {FILL_IN}")


def _in_order(
    builder: _Builder,
    interface: Interface,
    searched: Sequence[Argument],
    roles: Mapping[Argument, Role],
    resource: Argument | None,
    script: Script,
) -> None:
    """Positions and variables: each by name."""
    variables = interface.style == "environment"
    words = []
    for argument in interface.arguments:
        if argument in searched:
            value = f"{{{parameter_name(argument.name)}}}"
        elif argument is resource:
            value = "{resource}"
        elif roles[argument] == "seed" and script.language == "python":
            value = "{seed}"
        elif roles[argument] in ("output", "save"):
            value = "{output_dir}"
        elif variables and not argument.required:
            continue
        elif argument.default is not None:
            value = shlex.quote(str(argument.default)).replace("{", "{{").replace("}", "}}")
        else:
            value = FILL_IN
            builder.todo.append(
                f"{argument.option or argument.name} must be given: write it in place of {FILL_IN}"
            )
        words.append(f"{argument.option}={value}" if variables else value)
    if script.language == "awk":
        awk, rest = builder.words[0].split(" ", 1)
        builder.words[0] = " ".join([awk, *(f"-v {word}" for word in words), rest])
    elif variables:
        builder.words[0] = " ".join(["env", *words, builder.words[0]])
    else:
        builder.words += words
