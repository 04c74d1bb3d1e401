"""Writes a proposal as a commented sweep file."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from hpcsweep.init.command import parameter_name
from hpcsweep.init.found import Argument
from hpcsweep.init.names import mode_of
from hpcsweep.init.proposal import Parameter, Proposal

_WIDTH: Final = 100
#: Texts that YAML reads as they are, in flow style, too.
_PLAIN: Final = re.compile(r"[A-Za-z_/.][\w./-]*")
_WORDS: Final = frozenset(
    {"true", "false", "null", "yes", "no", "on", "off", "~", "nan", "inf", ".nan", ".inf"}
)


def write_spec(proposal: Proposal, *, name: str, script: str) -> str:
    """The text of the file."""
    lines = [
        f"# Proposed by `hpcsweep init` for {script}.",
        "# Check it, then try one configuration: hpcsweep try (this file). `hpcsweep plan` shows the sweep.",
        f"name: {name}",
        *_train(proposal),
        "",
        f"objective: {flow({'metric': proposal.objective, 'mode': proposal.mode})}",
        *_several_objectives(proposal),
        "",
        *_space(proposal),
        "",
        *_comments(proposal.notes.get("scheduler", ())),
        f"scheduler: {flow(proposal.scheduler)}",
        f"budget: {flow(proposal.budget)}",
        "# Of one run. Add its time limit and memory, such as time: 2h and mem: 8G.",
        f"resources: {flow(proposal.resources)}",
    ]
    return "\n".join(lines) + "\n"


def _comments(notes: Sequence[str], indent: str = "", mark: str = "#") -> Iterator[str]:
    for note in notes:
        first, later = f"{indent}{mark} ", f"{indent}#   "
        yield from textwrap.wrap(
            note, _WIDTH, initial_indent=first, subsequent_indent=later, break_long_words=False,
            break_on_hyphens=False,
        )  # fmt: skip


def _train(proposal: Proposal) -> Iterator[str]:
    command = proposal.command
    yield "train:"
    yield from _comments(proposal.notes.get("command", ()), "  ")
    yield from _comments(proposal.todo.get("command", ()), "  ", "# TO DO:")
    yield f"  {proposal.key}: {quoted(command.command)}"
    for key, value in command.keys.items():
        yield f"  {key}: {flow(value)}"
    if proposal.first_step == 0:
        yield "  # The program counts from 0."
        yield "  first_step: 0"
    yield from _comments(proposal.notes.get("metrics", ()), "  ")
    yield from _comments(proposal.todo.get("metrics", ()), "  ", "# TO DO:")
    if len(proposal.metrics) == 1:
        yield f"  metrics: {flow(proposal.metrics[0])}"
    elif proposal.metrics:
        yield "  metrics:"
        yield from (f"    - {flow(metric)}" for metric in proposal.metrics)


def _several_objectives(proposal: Proposal) -> Iterator[str]:
    """The same with what else is measured, as a comment."""
    if proposal.costs:
        costs = [{"metric": name, "mode": mode_of(name)} for name in proposal.costs]
        yield "# Several objectives, for the trade-offs between them (add at_most: 50 for a bound):"
        yield f"# objective: {flow([{'metric': proposal.objective, 'mode': proposal.mode}, *costs])}"


def _space(proposal: Proposal) -> Iterator[str]:
    yield from _comments(proposal.todo.get("space", ()), "", "# TO DO:")
    yield "space:"
    if not proposal.space:
        yield "  lr: {type: float, low: 1e-4, high: 1.0, log: true}"
    for parameter in proposal.space:
        yield f"  {_parameter(parameter)}"
    if proposal.ideas:
        yield "  # Not searched, as their names say nothing of a range: take out the # of those that matter."
        for parameter in proposal.ideas:
            yield f"  # {_parameter(parameter)}"
    for why, arguments in proposal.left_out.items():
        shown = ", ".join(map(_default, arguments))
        yield from _comments([f"Left out ({why}): {shown}"], "  ")


def _parameter(parameter: Parameter) -> str:
    text = f"{flow(parameter_name(parameter.argument.name))}: {flow(parameter.domain)}"
    default = parameter.argument.default
    return text if default is None else f"{text}   # default {flow(default)}"


def _default(argument: Argument) -> str:
    name = argument.option or argument.name
    if argument.default in (None, "", False):
        return name
    return f"{name} ({flow(argument.default)})"


def flow(value: Any) -> str:
    """A value as YAML in one line."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _number(value)
        case Mapping():
            return "{" + ", ".join(f"{flow(str(key))}: {flow(item)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(flow, value)) + "]"
        case _:
            text = str(value)
            return text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else quoted(text)


def _number(value: float) -> str:
    """As YAML reads it back: `1e-05` is `1e-5`, infinity and NaN are never proposed."""
    text = f"{value:.12g}"
    if "e" in text:
        digits, _, power = text.partition("e")
        return f"{digits}e{int(power)}"
    return text if "." in text or "n" in text else f"{text}.0"


def quoted(text: str) -> str:
    """In single quotes where there are backslashes or double quotes, as in patterns; else in double ones."""
    if "\n" in text or not text.isprintable():
        return json.dumps(text)
    if "\\" in text or '"' in text:
        return "'" + text.replace("'", "''") + "'"
    return f'"{text}"'
