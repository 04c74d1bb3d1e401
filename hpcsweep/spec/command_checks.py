"""Checks that a command fits the parameters: what each argument would be, and what the program never gets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from hpcsweep.core.space import Choice, Constant, Ordinal, Parameter, Space
from hpcsweep.core.text import format_value
from hpcsweep.errors import TrainerError
from hpcsweep.spec.models import Train
from hpcsweep.spec.sweep import SweepSpec
from hpcsweep.worker.template import (
    CONFIG_FILE,
    DEFAULT_PATTERN,
    NEGATED,
    PRESENT,
    Placeholder,
    Template,
    as_text,
    boolean_texts,
    parse_template,
)


class Problem(NamedTuple):
    """A problem at a key of the spec."""

    path: str
    text: str


def listed_values(parameter: Parameter) -> tuple[Any, ...]:
    """The values of a parameter that lists them; those of numbers between bounds are all alike."""
    match parameter.domain:
        case Choice(values) | Ordinal(values):
            return tuple(values)
        case Constant(value):
            return (value,)
        case _:
            return ()


def is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def command_problems(train: Train, space: Space) -> Iterator[Problem]:
    """What is wrong with a command whatever the sweep does with it."""
    assert train.command is not None
    try:
        template = parse_template(train.command, shell=train.shell, parameters=space.names)
    except TrainerError as error:
        yield Problem("train.command", str(error).removeprefix("train.command: "))
        return
    if train.resume is not None:
        try:
            parse_template(train.resume.args, shell=train.shell, parameters=space.names)
        except TrainerError as error:
            yield Problem("train.resume.args", str(error).removeprefix("train.command: "))
    yield from _flags_problems(train, template)
    yield from _config_problems(train, space, template)
    for parameter in space.parameters:
        yield from _format_problems(parameter, template)
        if parameter.name not in template.names:
            for pattern in template.patterns:
                yield from _argument_problems(parameter, train.flags or "", pattern)


def _flags_problems(train: Train, template: Template) -> Iterator[Problem]:
    flags = train.flags
    yes, slash, no = (flags or "").partition("/")
    if flags is not None and flags not in (PRESENT, NEGATED) and not (yes and slash and no):
        expected = f"must be {PRESENT}, {NEGATED} or the texts for true and false such as true/false or 1/0"
        yield Problem("train.flags", f"{expected}, got {format_value(flags)}")
    if not template.patterns:
        if train.dashes:
            yield Problem("train.dashes", "is of no use without {args} in train.command")
        if flags in (PRESENT, NEGATED):
            yield Problem("train.flags", f"{flags} is of no use without {{args}} in train.command")
    if flags in (PRESENT, NEGATED):
        for pattern in template.patterns:
            if not next(word for word in pattern if "name" in word).startswith("-"):
                shown = " ".join(pattern)
                expected = f"must be the texts for true and false, such as true/false, with {{args:{shown}}}"
                yield Problem("train.flags", f"{expected}, got {flags}")


def _config_problems(train: Train, space: Space, template: Template) -> Iterator[Problem]:
    """Whether the config file is used, and its parameters have places of their own."""
    if train.config is None:
        if CONFIG_FILE in template.names and CONFIG_FILE not in space.names:
            missing = "{config_file} needs train.config, the file that the parameters are merged with"
            yield Problem("train.command", missing)
        return
    if CONFIG_FILE not in template.names:
        yield Problem("train.command", "must have {config_file}, as train.config is given")
    if template.patterns:
        yield Problem("train.command", "must not have {args} with train.config, which gives all parameters")
    written = [name for name in space.names if name not in template.names]
    for name in written:
        above = next((other for other in written if name.startswith(f"{other}.")), None)
        if above is not None:
            yield Problem(f"space.{name}", f"must not be within {above!r}, which is a value of its own")
    if not train.config.lower().endswith((".ini", ".cfg", ".conf")):
        return
    for parameter in space.parameters:
        for value in listed_values(parameter) if parameter.name in written else ():
            text = as_text(value)
            if text != text.strip() or "%" in text or not (text.isprintable()):
                expected = "must be one line without % and blanks at its ends, to stand in an INI file"
                yield Problem(f"space.{parameter.name}", f"{expected}, got {format_value(value)}")
                break


def _format_problems(parameter: Parameter, template: Template) -> Iterator[Problem]:
    form, path = parameter.format, f"space.{parameter.name}.format"
    if not form:
        return
    lists = [value for value in listed_values(parameter) if is_list(value)]
    if form != "json" and not lists:
        yield Problem(path, f"must be json, as no value is a list, got {form}")
    if form == "repeat" and parameter.name in template.joined:
        yield Problem(path, f"must not be repeat, as {{{parameter.name}}} stands within an argument")
    if form == "append" and parameter.name in template.names:
        yield Problem(
            path, f"append is only for {{args}}, and the command names {{{parameter.name}}}: use repeat"
        )
    if form == "comma":
        for item in (item for value in lists for item in value):
            if is_list(item) or "," in as_text(item):
                yield Problem(path, f"must be json, as a comma is within {format_value(item)}, got comma")
                return


def _argument_problems(parameter: Parameter, flags: str, pattern: Sequence[str]) -> Iterator[Problem]:
    """What `{args}` cannot write without being told how."""
    values, name, shown = listed_values(parameter), parameter.name, " ".join(pattern)
    own = "{args}" if tuple(pattern) == DEFAULT_PATTERN else f"{{args:{shown}}}"
    if parameter.format == "json":
        return
    if not flags and not boolean_texts(pattern) and any(isinstance(value, bool) for value in values):
        yield Problem(
            "train.flags",
            f"missing; say how {own} writes the boolean {name!r}: {PRESENT} (--{name}, or nothing if false), "
            f"{NEGATED} (--{name} or --no-{name}), or texts such as true/false",
        )
    lists = [value for value in values if is_list(value)]
    if lists and not parameter.format and len(pattern) == 2:
        example = next((value for value in lists if len(value) > 1), lists[0])
        texts = list(map(as_text, example))
        yield Problem(
            f"space.{name}.format",
            f"missing; say how {own} writes the list {format_value(example)}: repeat "
            f"(--{name} {' '.join(texts)}), append (--{name} once for each), comma "
            f"(--{name} {','.join(texts)}) or json",
        )
    if parameter.format == "repeat" and tuple(pattern) == DEFAULT_PATTERN:
        wrong = [item for value in lists for item in value if _looks_like_option(item)]
        if wrong:
            problem = f"must be append, comma or json, as {format_value(wrong[0])} looks like an option"
            yield Problem(f"space.{name}.format", f"{problem}, got repeat")


def _looks_like_option(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("-")


def absent_problems(spec: SweepSpec) -> Iterator[Problem]:
    """Placeholders of parameters that may have no value, which would leave an empty text in the command."""
    train, space = spec.train, spec.space
    if train.command is None:
        return
    template = parse_template(train.command, shell=train.shell, parameters=space.names)
    bare = {
        part.name
        for part, within in template.walk()
        if isinstance(part, Placeholder) and part.name not in within
    }
    for parameter in space.parameters:
        if parameter.name not in bare:
            continue
        if parameter.when:
            why = f"is active only when {' and '.join(parameter.when)} has the right value"
        elif None in listed_values(parameter) and parameter.format != "json":
            why = "may be null"
        else:
            continue
        name = parameter.name
        yield Problem(
            "train.command",
            f"{{{name}}} {why}, and would then be empty: write {{{name}?--{name} {{{name}}}}}, which is left "
            f"out then, or {{args}}, which gives every parameter that has a value",
        )


def unnamed_parameters(spec: SweepSpec) -> list[str]:
    """Parameters of which the command says nothing; none where `{args}` gives all of them."""
    train, space = spec.train, spec.space
    if train.command is None:
        return []
    template = parse_template(train.command, shell=train.shell, parameters=space.names)
    return (
        []
        if template.patterns or train.config
        else [name for name in space.names if name not in template.names]
    )
