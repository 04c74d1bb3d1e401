"""Printed lines with metrics: regular expressions made from the literal parts of print and log calls."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from hpcsweep.init.found import MetricLine
from hpcsweep.init.loops import counts_from, is_repeated
from hpcsweep.init.names import data_of, is_step, metric_name, words
from hpcsweep.init.sources import Source, keywords, last_name

#: Calls that print a line, by the last part of their names.
_PRINTERS: Final = re.compile(
    r"print\w*|\w*_?print|log|log_?\w*|info|warning|debug|critical|write|echo|secho|set_description\w*"
    r"|set_postfix\w*|logger|tqdm_write"
)
#: Of a percent format.
_PERCENT: Final = re.compile(r"%(?:\((\w+)\))?([-+ #0]*)(\d+|\*)?(?:\.(\d+|\*))?[hlL]?([diouxXeEfFgGcrsa%])")
#: Characters of literal text before the first value and after the last one.
_BEFORE: Final = 40


class Value(NamedTuple):
    """A value within a printed line."""

    node: ast.expr
    wide: bool = False  # padded to a width
    number: bool = False  # its format is that of a number


Part = str | Value


def read_lines(source: Source) -> Iterator[MetricLine]:
    """The lines with metrics that a module prints."""
    for call in source.calls():
        name = last_name(source.dotted(call))
        if not _PRINTERS.fullmatch(name):
            continue
        parts = [*_printed(source, call, name)]
        data = ""
        for line in _lines(parts):
            found, data = _metric_line(source, call, line, data)
            if found is not None:
                yield found


def _printed(source: Source, call: ast.Call, name: str) -> Iterator[Part]:
    """What a call prints, literal text and values."""
    arguments = [argument for argument in call.args if not isinstance(argument, ast.Starred)]
    if name.startswith("set_postfix"):
        given = keywords(call)
        if arguments and isinstance(arguments[0], ast.Dict):
            items = [(source.constant(key), value) for key, value in _items(arguments[0])]
        else:
            items = [(key, value) for key, value in given.items() if key != "refresh"]
        for index, (key, value) in enumerate(items):
            yield f"{', ' if index else ''}{key}="
            yield Value(value)
        return
    structured = bool(arguments) and isinstance(_resolved(source, arguments[0]), ast.Dict)
    if not arguments or (structured and name.startswith("log")):  # of W&B, Lightning and their like
        return
    separator = source.constant(keywords(call).get("sep"))
    first = arguments[0]
    if name not in ("print", "echo", "secho") and len(arguments) > 1:
        text = source.constant(_resolved(source, first))
        if isinstance(text, str) and "%" in text:  # logging.info("loss %f", loss)
            yield from _percent(text, arguments[1:])
            return
        if name == "log":  # logging.log(level, "...", ...); of others the first is the metric's name
            arguments = arguments[1:] if not isinstance(text, str) else []
    for index, argument in enumerate(arguments):
        if index:
            yield separator if isinstance(separator, str) else " "
        yield from _text(source, argument)


def _items(node: ast.Dict) -> Iterator[tuple[ast.expr, ast.expr]]:
    for key, value in zip(node.keys, node.values, strict=True):
        if key is not None:
            yield key, value


def _resolved(source: Source, node: ast.expr) -> ast.expr:
    """For a name: the text, dictionary or list that it is assigned within the same function."""
    if not isinstance(node, ast.Name):
        return node
    scope = source.function_of(node) or source.tree
    last: ast.expr = node
    for inner in ast.walk(scope):
        if isinstance(inner, ast.Assign) and inner.lineno <= node.lineno:
            for target in inner.targets:
                if isinstance(target, ast.Name) and target.id == node.id and inner.value is not node:
                    last = inner.value
    textual = isinstance(last, ast.JoinedStr | ast.Dict | ast.Constant)
    makers = ("format", "join", "dumps", "dict")
    formatted = isinstance(last, ast.Call) and last_name(source.dotted(last)) in makers
    mod = isinstance(last, ast.BinOp) and isinstance(last.op, ast.Mod | ast.Add)
    return last if textual or formatted or mod else node


def _text(source: Source, node: ast.expr, depth: int = 0) -> Iterator[Part]:
    """The parts of an expression as text."""
    node = _resolved(source, node)
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.Constant(value=value):
            yield str(value)
        case ast.JoinedStr(values=values):
            for each in values:
                if isinstance(each, ast.FormattedValue):
                    yield _formatted(each)
                elif isinstance(each, ast.Constant):
                    yield str(each.value)
        case ast.BinOp(op=ast.Mod(), left=left, right=right) if isinstance(source.constant(left), str):
            values = right.elts if isinstance(right, ast.Tuple) else [right]
            yield from _percent(source.constant(left), values)
        case ast.BinOp(op=ast.Add(), left=left, right=right) if depth < 20 and _is_text(source, node):
            yield from _text(source, left, depth + 1)
            yield from _text(source, right, depth + 1)
        case ast.Call(func=ast.Name(id="str" | "repr"), args=[inner]):
            yield Value(inner)
        case ast.Call(func=ast.Attribute(attr="format", value=template)) if isinstance(
            source.constant(template), str
        ):
            yield from _format(source, source.constant(template), node)
        case ast.Call(func=ast.Name(id="format"), args=[inner, *_]):
            yield Value(inner, wide=True, number=True)
        case ast.Call(func=ast.Attribute(attr="join", value=glue), args=[ast.List(elts=items)]):
            for index, item in enumerate(items):
                if index:
                    yield str(source.constant(glue))
                yield from _text(source, item, depth + 1)
        case ast.Call(args=[inner, *_]) if last_name(source.dotted(node)) == "dumps" and depth < 20:
            yield from _dictionary(source, inner, '"')
        case ast.Dict() | ast.Call(func=ast.Name(id="dict")):
            yield from _dictionary(source, node, "'")
        case _:
            yield Value(node)


def _is_text(source: Source, node: ast.expr) -> bool:
    """Whether a sum is one of texts."""
    return any(
        isinstance(each, ast.JoinedStr) or (isinstance(each, ast.Constant) and isinstance(each.value, str))
        for each in ast.walk(node)
    )


def _dictionary(source: Source, node: ast.expr, quote: str) -> Iterator[Part]:
    """A printed dictionary."""
    node = _resolved(source, node)
    if isinstance(node, ast.Call) and source.dotted(node) == "dict":
        items = list(keywords(node).items())
    elif isinstance(node, ast.Dict):
        items = [(str(source.constant(key)), value) for key, value in _items(node)]
    else:
        yield Value(node)
        return
    for index, (key, value) in enumerate(items):
        yield f"{', ' if index else '{'}{quote}{key}{quote}: "
        yield Value(value, number=True)
    yield "}"


def _formatted(node: ast.FormattedValue) -> Value:
    spec = ast.unparse(node.format_spec)[2:-1] if node.format_spec is not None else ""
    return Value(node.value, *_shape(spec))


def _shape(spec: str) -> tuple[bool, bool]:
    """Of a format: whether it pads, and whether it is one of numbers."""
    wide = re.search(r"^.?[<>^=]|^[-+ ]?0?[1-9]", spec) is not None
    return wide, spec[-1:] in ("d", "f", "e", "g", "%", "F", "E", "G")


def _percent(template: str, values: Sequence[ast.expr]) -> Iterator[Part]:
    """The parts of `"..." % values`."""
    rest, at = list(values), 0
    named: dict[str, ast.expr] = {}
    if len(rest) == 1 and isinstance(rest[0], ast.Dict):
        for key, item in _items(rest[0]):
            if isinstance(key, ast.Constant):
                named[str(key.value)] = item
    for match in _PERCENT.finditer(template):
        yield template[at : match.start()]
        at = match.end()
        if match[5] == "%":
            yield "%"
            continue
        unknown = ast.Name(match[1] or "value")
        node = named.get(match[1], unknown) if match[1] else rest.pop(0) if rest else unknown
        yield Value(node, match[3] is not None, match[5] in "dieEfFgG")
    yield template[at:]


def _format(source: Source, template: str, call: ast.Call) -> Iterator[Part]:
    """The parts of `"...".format(values)`."""
    given, position = keywords(call), 0
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError:
        return
    for text, field, spec, _ in pieces:
        if text:
            yield text
        if field is None:
            continue
        name = re.split(r"[.\[]", field, maxsplit=1)[0]
        if name == "" or name.isdigit():
            index = int(name) if name else position
            position += 1
            node = call.args[index] if index < len(call.args) else ast.Name("value")
        else:
            node = given.get(name, ast.Name(name))
        rest = field[len(name) :]
        wide, number = _shape(spec or "")
        yield Value(ast.Attribute(node, rest.strip(".[]")) if rest else node, wide, number)


def _lines(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """The parts of each printed line; neighbouring texts are one."""
    line: list[Part] = []
    for is_text, group in groupby(parts, key=lambda part: isinstance(part, str)):
        if not is_text:
            line.extend(group)
            continue
        first, *others = re.split(r"[\n\r]", "".join(part for part in group if isinstance(part, str)))
        line.append(first)
        for text in others:
            yield line
            line = [text]
    yield line


def names_of(node: ast.expr) -> str:
    """The names in an expression, as text: `losses['val'].item()` is `losses val`."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr="val" | "avg" | "value" | "global_avg" | "median"):  # of a meter
            return names_of(value)
        case ast.Attribute(value=value, attr=attr):
            return f"{names_of(value)} {attr}"
        case ast.Subscript(value=value, slice=key):
            inner = key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else ""
            return f"{names_of(value)} {inner}"
        case ast.Call(func=ast.Attribute(value=value, attr="item" | "cpu" | "detach" | "compute" | "mean")):
            return names_of(value)
        case ast.Call(func=function, args=[first, *_]):
            outer = names_of(function) if isinstance(function, ast.Name | ast.Attribute) else ""
            return f"{names_of(first)} {outer if metric_name(outer) else ''}".strip()
        case ast.Call(func=function):
            return names_of(function)
        case ast.BinOp(left=left, right=right):
            sides = [names_of(side) for side in (left, right)]
            return next((side for side in sides if metric_name(side)), " ".join(sides).strip())
        case ast.IfExp(body=body):
            return names_of(body)
        case _:
            return ""


def _label(text: str) -> str:
    """What a literal says of the value behind it: its last piece."""
    pieces = re.split(r"[,;|()\[\]{}\t]| - | / ", text.rstrip(" :=\t'\""))
    return pieces[-1].strip(" '\"")


def _metric_line(
    source: Source, call: ast.Call, line: Sequence[Part], data: str
) -> tuple[MetricLine | None, str]:
    """The pattern of one line, if it has metrics; and the data that it, or the line before, is about."""
    function = source.function_of(call)
    around = data_of(words(function.name)) if function is not None else ""
    if all(isinstance(part, str) for part in line):  # a heading of what follows
        return None, data_of(words(_text_at(line, 0))) or data
    groups: dict[int, str] = {}
    step: ast.expr | None = None
    carried = ""
    for index, part in enumerate(line):
        if isinstance(part, str):
            continue
        before, after = _text_at(line, index - 1), _text_at(line, index + 1)
        data = data_of(words(before)) or data
        label, own = _label(before), names_of(part.node)
        fraction = before.rstrip().endswith("/")
        if after.lstrip().startswith("/") and not is_step(label) and not is_step(own):
            carried = label  # `12/100 (12%)`: the share is the metric
            continue
        label = label or ("" if fraction else carried)
        if step is None and not fraction and (is_step(label) or (not metric_name(label) and is_step(own))):
            step, groups[index] = part.node, "step"
            continue
        name = metric_name(label, data=data_of(words(own)) or data or around) or metric_name(
            own, data=data or around
        )
        if name and not fraction:
            count = sum(each == name or each.startswith(f"{name}_") for each in groups.values())
            groups[index] = f"{name}_{count + 1}" if count else name
        carried = carried if fraction else ""
    metrics = tuple(name for name in groups.values() if name != "step")
    if not metrics:
        return None, data
    first = counts_from(source, step) if step is not None else None
    pattern = _pattern(line, groups)
    where = f"{source.path.name}, line {call.lineno}"
    return MetricLine(pattern, metrics, is_repeated(source, call), first, where), data


def _text_at(line: Sequence[Part], index: int) -> str:
    """The literal at this place of a line; empty where there is a value, or nothing."""
    part = line[index] if 0 <= index < len(line) else ""
    return part if isinstance(part, str) else ""


def _pattern(line: Sequence[Part], groups: dict[int, str]) -> str:
    """The regular expression from the first group to the last."""
    first, last = min(groups), max(groups)
    out: list[str] = []
    bare = not any(isinstance(part, str) and part.strip() for part in line)
    for index in range(max(0, first - 1), min(last + 2, len(line))):
        part = line[index]
        if isinstance(part, str):
            if index < first:
                part = _tail(part)
            elif index > last:
                part = part.partition(" ")[0]
            out.append(_escaped(part))
        elif index in groups:
            digits = groups[index] == "step"
            # `float(epoch)` and the like print `1.0`.
            whole = not isinstance(part.node, ast.Call)
            inner = (
                (r"\d+" if whole else r"[\d.]+")
                if digits
                else r"[-+.\w]+"
                if bare or index == len(line) - 1
                else r"\S+"
            )
            out.append(f"(?P<{groups[index]}>{inner})")
            if part.wide:
                out[-1] = rf"\s*{out[-1]}\s*"
        elif first < index < last:
            out.append(r"\s*\S+\s*" if part.number else ".*?")
    text = re.sub(r"(?:\\s\*| )?\\s\*(?:\\s\*| )?", r"\\s*", "".join(out)).strip(" ")
    text = text.removeprefix(r"\s*").removesuffix(r"\s*")
    return f"^{text}$" if bare else text


def _tail(text: str) -> str:
    """The end of a literal, from the beginning of a word on."""
    if len(text) <= _BEFORE:
        return text.lstrip()
    return text[-_BEFORE:].partition(" ")[2] or text[-_BEFORE:]


def _escaped(text: str) -> str:
    """The literal as a regular expression; several blanks are any."""
    escaped = re.sub(r"([.^$*+?{}\[\]\\|()])", r"\\\1", text)
    return re.sub(r"\s{2,}|\t", r"\\s+", escaped)
