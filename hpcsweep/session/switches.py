"""Options of Python programs that take no value, and that a command gives one.

Their declarations (argparse, click, typer) are read as `hpcsweep init` reads them; nothing is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from hpcsweep.errors import SpecError
from hpcsweep.init.reading import read
from hpcsweep.session.program_files import ShellCommand
from hpcsweep.spec import SweepSpec
from hpcsweep.worker.template import Fragment, Part, Placeholder, parse_template

_KINDS: Final = ("argparse", "click", "typer")
#: The option before a placeholder that is an argument of its own, or its value behind `=`.
_OPTION: Final = re.compile(r"(?:^|\s)(--?[A-Za-z][\w.-]*)(?:=|\s+)$")


def switch_problems(spec: SweepSpec, commands: Sequence[ShellCommand]) -> Iterator[str]:
    """Switches, such as those of `action="store_true"`, that the command gives the value of a parameter."""
    train, space = spec.train, spec.space
    assert train.command is not None
    template = parse_template(train.command, shell=train.shell, parameters=space.names)
    given = {name: option for name, option in _given(template.words, "") if name in space.names}
    if not given:
        return
    switches = dict(_switches(commands, Path(train.workdir or ".")))
    for name, option in given.items():
        if option in switches:
            script, switch = switches[option]
            form = "no-" if switch == "no-" else "present"
            yield (
                f"train.command: {option} of {script} takes no value, and {{{name}}} gives it one: write "
                f"{{{name}?{option}}}, which is left out where {name} is false, or {{args}} with "
                f"train.flags: {form}"
            )


def _switches(commands: Sequence[ShellCommand], workdir: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    """Each option that takes no value, with its script and its kind; none where that is not sure."""
    for command in commands:
        if command.script is None or not (workdir / command.script).is_file():
            continue
        try:
            script = read(workdir / command.script)
        except SpecError:
            continue
        first = script.interfaces[0] if script.interfaces else None
        if (
            first is None
            or first.kind not in _KINDS
            or first.notes
            or not all(argument.option for argument in first.arguments)  # it might take the value
        ):
            continue
        for argument in first.arguments:
            if argument.switch:
                yield argument.option, (command.script, argument.switch)


def _given(words: Sequence[Sequence[Part]], before: str) -> Iterator[tuple[str, str]]:
    """Parameters that follow an option, or are its value behind `=`, with the option."""
    for word in words:
        for index, part in enumerate(word):
            match part:
                case Placeholder(name):
                    after = word[index + 1] if index + 1 < len(word) else ""
                    found = _OPTION.search(before)
                    if found and (not isinstance(after, str) or not after or after[0].isspace()):
                        yield name, found[1]
                    before += "\0"
                case Fragment():
                    yield from _given(part.words, before)
                    before += "\0"
                case str():
                    before += part
                case _:
                    before += "\0"
        before += " "
