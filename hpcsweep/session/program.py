"""What can be known of a command's program before it runs: whether it is there, and what it never gets.

Nothing is run. The script of the command, and what it imports or starts from the same folder, are read for
the word `hpcsweep`: a program that uses `current_trial()` or the variables needs no placeholder.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from hpcsweep.core.arrays import np
from hpcsweep.core.text import format_value, shell_quote
from hpcsweep.errors import SpecError, TrainerError
from hpcsweep.session.algorithms import make_scheduler
from hpcsweep.session.program_files import ShellCommand, commands_of, uses_hpcsweep
from hpcsweep.spec import SweepSpec
from hpcsweep.spec.command_checks import absent_problems, unnamed_parameters
from hpcsweep.spec.config_base import near_key, read_config_base
from hpcsweep.store.layout import Layout
from hpcsweep.store.run_files import RunFile
from hpcsweep.worker.command import command_line, program_arguments
from hpcsweep.worker.metrics.files import placeholders
from hpcsweep.worker.template import parse_template

OPT_OUT: Final = "train.check: false turns this check off"
#: Folders of a run that a program only knows if it is told.
RUN_FOLDERS: Final = ("output_dir", "checkpoint_dir")


class Found(NamedTuple):
    """Problems, which refuse the sweep, and warnings; each begins with its key path."""

    problems: list[str]
    warnings: list[str]


def check_program(spec: SweepSpec) -> Found:
    """What is wrong with the command of a new sweep, as far as it shows before anything runs."""
    if spec.train.command is None:
        return Found([], [])
    problems = [f"{path}: {text}" for path, text in absent_problems(spec)]
    if not spec.train.check or not os.path.isdir(spec.train.workdir or "."):
        return Found(problems, [])
    config_problems, config_warnings = _config_file(spec)
    for_a_shell = _for_a_shell(spec)
    if for_a_shell.problems:
        return Found([*problems, *for_a_shell.problems], [])
    commands = list(commands_of(spec))
    missing, unsure = _missing(spec, commands)
    # What reads scripts is loaded for new sweeps only: each tick has no use for it.
    from hpcsweep.session.switches import switch_problems

    problems += [f"{line} ({OPT_OUT})" for line in switch_problems(spec, commands)]
    uses = uses_hpcsweep(spec, commands)
    unused = _unused(spec, uses=uses)
    problems += [*missing, *unused.problems, *config_problems]
    unsure += [*for_a_shell.warnings, *unused.warnings, *config_warnings]
    (problems if uses is False else unsure).extend(_never_told(spec, uses=uses))
    return Found(problems, unsure)


def example_command(spec: SweepSpec, folder: Path) -> str:
    """The command line of a first run, with a random configuration."""
    trial = Layout(folder).trial(0)
    plan = make_scheduler(spec).plan()
    config = spec.space.sample(1, np.random.default_rng(spec.searcher.seed))[0]
    file = RunFile(
        trial=0,
        rung=0,
        bracket=0,
        resource=plan.brackets[0].resources[0] if plan.brackets else 1,
        attempt=0,
        restart=0,
        seed=spec.searcher.seed,
        config=config,
        start=0,
        resume_from=None,
        checkpoint_dir=str(trial.checkpoints / "work"),
        stop_file=str(folder / "stop"),
        trial_folder=str(trial.root),
        metrics_file=str(folder / "metrics.jsonl"),
        output_dir=str(trial.output),
        metric=spec.objective.metric,
        config_file=str(folder / Path(spec.train.config).name) if spec.train.config else None,
    )
    python = spec.cluster.python or sys.executable
    return command_line(program_arguments(spec.program(), file, ending=folder, python=python))


#: Words that a shell acts on, and the beginning of a command that sets variables.
_SHELL_WORD: Final = re.compile(r"\|\|?|&&?|[12&]?>>?|<|2>&1|.*;")
#: What it replaces.
_EXPANDED: Final = re.compile(r"(^|=)~(/|$)|\$\w|\$\{")
_SETS_VARIABLE: Final = re.compile(r"[A-Za-z_]\w*=")
_QUOTED: Final = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|\\.""", re.DOTALL)


def _for_a_shell(spec: SweepSpec) -> Found:
    """What is wrong with a command that is written for a shell, and that none reads."""
    if spec.train.shell or spec.train.command is None:
        return Found([], [])
    words = _QUOTED.sub("quoted", spec.train.command).split()
    way_out = "write train.shell: true to have bash read the command"
    found = next((word for word in words if _SHELL_WORD.fullmatch(word)), "")
    if not found and not (words[0] == "cd" or _SETS_VARIABLE.match(words[0])):
        expanded = [word for word in words if _EXPANDED.search(word)]
        return Found([], [f"train.command: {word!r} stays as it is: {way_out}" for word in expanded])
    return Found([f"train.command: {(found or words[0])!r} is for a shell: {way_out} ({OPT_OUT})"], [])


def _missing(spec: SweepSpec, commands: Sequence[ShellCommand]) -> tuple[list[str], list[str]]:
    """Programs and scripts that are not there; of what another PATH may have only warnings."""
    problems, unsure = [], []
    workdir = Path(spec.train.workdir or ".")
    elsewhere = bool(spec.cluster.setup) or "PATH" in spec.cluster.environment
    for command in commands:
        program = command.words[0]
        if program is None or "=" in program or "$" in program:
            continue
        if os.path.sep in program:
            if problem := _file_problem(workdir, program, executable=True):
                problems.append(f"train.command: {problem}")
                continue
        elif not spec.train.shell and shutil.which(program) is None:  # a shell has words of its own
            here = f"; write ./{program} for the one in {workdir}" if (workdir / program).is_file() else ""
            text = f"train.command: {program!r}: there is no such program on the PATH{here}"
            if elsewhere:
                unsure.append(f"{text} of this machine")
            else:
                problems.append(f"{text}; {OPT_OUT}")
            continue
        script = command.script
        problem = "" if script is None or "$" in script else _file_problem(workdir, script, executable=False)
        if problem:
            problems.append(f"train.command: {problem}")
    return problems, unsure


def _file_problem(workdir: Path, name: str, *, executable: bool) -> str:
    path = workdir / name
    if path.is_dir() and not executable:  # Python runs a folder with a __main__.py
        return ""
    if not path.is_file():
        return f"{name}: there is no such file in {workdir}"
    if executable and not os.access(path, os.X_OK):
        fix = f"`chmod +x {shell_quote(str(path))}`, or name the program that runs it"
        return f"{name}: is not executable; {fix}"
    if not os.access(path, os.R_OK):
        return f"{name}: you may not read {path}"
    return ""


def _unused(spec: SweepSpec, *, uses: bool | None) -> Found:
    """Parameters of several values of which the command says nothing.

    That is no problem where the program may ask for all of them itself.
    """
    space = spec.space
    single = {each.name for each in space.parameters if each.domain.size == 1}
    names = [name for name in unnamed_parameters(spec) if name not in single]
    named = len(names) < len(set(space.names) - single)
    if not names or (uses is True and not named):
        return Found([], [])
    what = f"{'the parameter' if len(names) == 1 else 'the parameters'} {', '.join(names)}"
    add = f"add {', '.join(f'{{{name}}}' for name in names)}, or {{args}} for all of them"
    text = (
        f"train.command: never uses {what}: trials would differ in nothing that the program sees; {add}"
        if uses is not True
        else f"train.command: does not use {what}; if the program does not ask hpcsweep for it, {add}"
    )
    unsure = uses is True or (uses is None and not named)
    return Found([], [text]) if unsure else Found([f"{text} ({OPT_OUT})"], [])


def _config_file(spec: SweepSpec) -> Found:
    """What is wrong with the config file, and parameters that it does not know but nearly."""
    train = spec.train
    if train.config is None:
        return Found([], [])
    try:
        base = read_config_base(Path(train.config))
    except SpecError as error:
        return Found(list(error.problems), [])
    assert train.command is not None
    named = parse_template(train.command, shell=train.shell, parameters=spec.space.names).names
    problems, unsure = [], []
    for name in spec.space.names:
        if name in named:
            continue
        try:
            hint = near_key(base, name)
        except TrainerError as error:
            problems.append(f"space.{name}: {str(error).removeprefix('train.config: ')}")
        else:
            if hint:
                unsure.append(f"space.{name}: is not in {train.config}, which has {hint}")
    return Found(problems, unsure)


def _never_told(spec: SweepSpec, *, uses: bool | None) -> Iterator[str]:
    """What the program could only learn by asking hpcsweep itself."""
    train = spec.train
    assert train.command is not None
    if uses is True:
        return
    parsed = parse_template(train.command, shell=train.shell, parameters=spec.space.names)
    told = parsed.names & {"resource", "epochs_left"} or train.stop_at_resource
    rungs = max((bracket.resources for bracket in make_scheduler(spec).plan().brackets), key=len, default=())
    if len(rungs) > 1 and not told:
        levels = ", ".join(map(str, rungs[:3])) + (", ..." if len(rungs) > 3 else "")
        yield (
            f"train.command: must have {{resource}}, as scheduler {spec.scheduler.name} trains trials up to "
            f"{levels} and the program would not know; {OPT_OUT}"
        )
    if uses is False and not train.metrics:
        metric = format_value(spec.objective.metric)
        yield (
            f"train.metrics: missing; the program does not report {metric} by itself, so say how it is "
            f"found in what it prints, such as '{spec.objective.metric}=(?P<{_group(spec)}>\\S+)'; {OPT_OUT}"
        )
    for file in train.metric_files if uses is False else ():
        own = sorted(placeholders(file.file).intersection(RUN_FOLDERS))
        if own and not parsed.names.intersection(own):
            yield (
                f"train.metrics: {file.file!r} cannot be there: the command does not name {{{own[0]}}}, so "
                f"the program cannot write into it; {OPT_OUT}"
            )


def _group(spec: SweepSpec) -> str:
    return spec.objective.metric if spec.objective.metric.isidentifier() else "NAME"
