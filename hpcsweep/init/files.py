"""Files that a program writes: those with metrics, and its model below a folder that an argument names."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

from hpcsweep.init.found import MetricFile
from hpcsweep.init.loops import counts_from
from hpcsweep.init.names import is_metric, is_step, measured
from hpcsweep.init.sources import UNKNOWN, Source, assignments, keywords, last_name

_MODELS: Final = re.compile(
    r"[\w.{}-]*\.(pt|pth|ckpt|bin|pkl|pickle|joblib|npz|npy|h5|keras|safetensors|tar|msgpack|json)"
)
#: Modules that have a function `open`.
_OPENERS: Final = ("io", "codecs", "gzip", "bz2", "lzma")
_SUFFIXES: Final = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json"}


class Paths:
    """Reads paths as an argument of the program and what stands below it.

    Args:
        names: The names of all arguments, dashes as underscores.
    """

    def __init__(self, source: Source, names: Collection[str]) -> None:
        self._source = source
        self._names = names
        self._assigned = {name: value for node in source.nodes for name, value in assignments(node)}

    def read(self, node: ast.expr | None, depth: int = 0) -> tuple[str, str] | None:
        """The argument (or an empty name) and the path below it; None if the path is not known."""
        pieces = list(self._pieces(node, depth))
        if not pieces or None in pieces:
            return None
        first = pieces[0]
        argument = first[1:] if first and first.startswith("\0") else ""
        texts = [piece for piece in (pieces[1:] if argument else pieces) if piece]
        if any(text.startswith("\0") for text in texts):
            return None
        return argument, re.sub(r"/{2,}", "/", "".join(texts)).lstrip("/" if argument else "")

    def _pieces(self, node: ast.expr | None, depth: int) -> Iterator[str | None]:
        """Literal text, arguments (marked by NUL), and None for what is not known."""
        source = self._source
        match node:
            case _ if depth > 8:
                yield None
            case ast.Constant(value=str(literal)):
                yield literal
            case ast.Name(id=name) if name in self._names and (
                name in source.constants or name not in self._assigned
            ):
                yield f"\0{name}"
            case ast.Name(id=name):
                text = source.constants.get(name)
                if isinstance(text, str):
                    yield text
                else:
                    yield from self._pieces(self._assigned.get(name), depth + 1)
            case ast.Attribute(attr=attr) if (named := self._argument(node)) is not None:
                yield f"\0{named}"
            case ast.Attribute(value=ast.Name(id="self"), attr=attr):
                yield f"\0{attr}" if attr in self._names else None
            case ast.JoinedStr(values=values):
                for value in values:
                    inner = value.value if isinstance(value, ast.FormattedValue) else value
                    yield from self._pieces(inner, depth + 1)
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                yield from self._pieces(left, depth + 1)
                yield from self._pieces(right, depth + 1)
            case ast.BinOp(op=ast.Div(), left=left, right=right):
                yield from self._joined([left, right], depth)
            case ast.Call(args=args) if last_name(source.dotted(node)) in ("join", "Path", "PurePath"):
                yield from self._joined(args, depth)
            case ast.Call(func=ast.Name(id="str"), args=[inner]):
                yield from self._pieces(inner, depth + 1)
            case ast.Call(func=ast.Attribute(attr="expanduser" | "resolve" | "absolute", value=inner)):
                yield from self._pieces(inner, depth + 1)
            case _:
                yield None

    def _joined(self, nodes: Sequence[ast.expr], depth: int) -> Iterator[str | None]:
        for index, node in enumerate(nodes):
            if index:
                yield "/"
            yield from self._pieces(node, depth + 1)

    def _argument(self, node: ast.Attribute) -> str | None:
        """The longest end of a dotted name that is an argument, as `train.lr` of `cfg.train.lr`."""
        parts = self._source.dotted(node).split(".")
        ends = [".".join(parts[index:]) for index in range(1, len(parts))]
        return next((end for end in ends if end in self._names), None)


def read_files(source: Source, names: Collection[str]) -> Iterator[MetricFile]:
    """The files and folders with metrics that a module writes."""
    paths = Paths(source, names)
    yield from _libraries(source, paths)
    for call in source.calls():
        verb = last_name(source.dotted(call))
        if verb == "DictWriter" or (verb == "writer" and "csv" in source.dotted(call)):
            header = keywords(call).get("fieldnames") or (call.args[1] if len(call.args) > 1 else None)
            names_ = _strings(source, header) if verb == "DictWriter" else _first_row(source, call)
            yield from _file(source, paths, call.args[0] if call.args else None, names_, "csv")
        elif verb == "dump" and len(call.args) > 1:
            yield from _file(source, paths, call.args[1], _keys(source, call.args[0]), "json")
        elif verb == "write_text" and isinstance(call.func, ast.Attribute) and call.args:
            yield from _dumped(source, paths, call.func.value, call.args[0], "json")
        elif verb == "write" and isinstance(call.func, ast.Attribute) and call.args:
            yield from _dumped(source, paths, call.func.value, call.args[0], "jsonl")
        elif verb == "to_csv" and call.args:
            yield from _file(source, paths, call.args[0], _all_keys(source), "csv")


def _dumped(
    source: Source, paths: Paths, target: ast.expr, content: ast.expr, kind: str
) -> Iterator[MetricFile]:
    """`file.write(json.dumps(...))`, or the head of a table that is written as text."""
    for inner in ast.walk(content):
        if isinstance(inner, ast.Call) and last_name(source.dotted(inner)) == "dumps" and inner.args:
            yield from _file(source, paths, target, _keys(source, inner.args[0]), kind)
            return
    head = source.constant(content)
    if isinstance(head, str) and "," in head and head.endswith("\n"):
        yield from _file(source, paths, target, [name.strip() for name in head.split(",")], "csv")


def _file(
    source: Source, paths: Paths, target: ast.expr | None, keys: Sequence[str], kind: str
) -> Iterator[MetricFile]:
    metrics = measured(keys)
    found = paths.read(_opened(source, target))
    if not metrics or found is None:
        return
    argument, path = found
    suffix = re.search(r"\.\w+$", path)
    kind = _SUFFIXES.get(suffix[0], kind) if suffix else kind
    step = next((key for key in keys if is_step(key)), "")
    yield MetricFile(kind, argument, path, metrics, step, _first_step(source, step, list(keys)))


def _opened(source: Source, node: ast.expr | None) -> ast.expr | None:
    """The path of a file object: of `open(path)`, `path.open()` or the name that stands for one."""
    match node:
        case ast.Call(func=ast.Attribute(attr="open", value=path)) if source.dotted(path) not in _OPENERS:
            return path
        case ast.Call(args=[path, *_]) if last_name(source.dotted(node)) == "open":
            return path
        case ast.Name(id=name):
            for each in source.nodes:
                if isinstance(each, ast.withitem) and _names_it(each.optional_vars, name):
                    return _opened(source, each.context_expr)
                for assigned, value in assignments(each):
                    if assigned == name and isinstance(value, ast.Call):
                        return _opened(source, value)
            return node
        case _:
            return node


def _names_it(node: ast.expr | None, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _strings(source: Source, node: ast.expr | None) -> list[str]:
    for each in source.nodes if isinstance(node, ast.Name) else ():
        for name, assigned in assignments(each):
            if _names_it(node, name):
                node = assigned
    value = source.constant(node)
    return [item for item in value if isinstance(item, str)] if isinstance(value, tuple) else []


def _first_row(source: Source, writer: ast.Call) -> list[str]:
    """The head that the writer is given."""
    scope = source.function_of(writer) or source.tree
    for call in source.calls(scope):
        if last_name(source.dotted(call)) == "writerow" and call.args:
            found = _strings(source, call.args[0])
            if found:
                return found
    return []


def _keys(source: Source, node: ast.expr) -> list[str]:
    """The keys of a dictionary, of one that a name stands for, or of those in a list."""
    if isinstance(node, ast.Name):
        scope = source.function_of(node) or source.tree
        found: list[str] = []
        for each in ast.walk(scope):
            for name, value in assignments(each):
                if name == node.id and not isinstance(value, ast.Name):
                    found += _keys(source, value)
            match each:
                case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str(key))):
                    if name == node.id and isinstance(each.ctx, ast.Store):
                        found.append(key)
        return list(dict.fromkeys(found))
    if isinstance(node, ast.Dict):
        return [key for key in map(source.constant, node.keys) if isinstance(key, str)]
    if isinstance(node, ast.Call) and source.dotted(node) == "dict":
        return list(keywords(node))
    return []


def _all_keys(source: Source) -> list[str]:
    """The keys of all dictionaries with metrics in the module."""
    found: list[str] = []
    for node in source.nodes:
        if isinstance(node, ast.Dict):
            keys = _keys(source, node)
            found += keys if any(map(is_metric, keys)) else []
    return list(dict.fromkeys(found))


def _first_step(source: Source, step: str, keys: Sequence[str]) -> int | None:
    """What the first row has at the step's key."""
    if not step:
        return None
    for node in source.nodes:
        match node:
            case ast.Dict(keys=names, values=values):
                for name, value in zip(names, values, strict=True):
                    if name is not None and source.constant(name) == step:
                        return counts_from(source, value)
            case ast.Call(args=[ast.List(elts=items) | ast.Tuple(elts=items)]) if last_name(
                source.dotted(node)
            ) == "writerow" and len(items) == len(keys):
                value = items[list(keys).index(step)]
                if not isinstance(value, ast.Constant):
                    return counts_from(source, value)
    return counts_from(source, ast.Name(step))


def _libraries(source: Source, paths: Paths) -> Iterator[MetricFile]:
    """What TensorBoard, W&B and MLflow write."""
    tags: dict[str, list[str]] = {"tensorboard": [], "wandb": [], "mlflow": []}
    folder: tuple[str, str] | None = None
    kind = ""
    for call in source.calls():
        name = source.dotted(call)
        verb, given = last_name(name), keywords(call)
        first = source.constant(call.args[0]) if call.args else UNKNOWN
        if verb == "SummaryWriter":
            kind = "tensorboard"
            folder = paths.read(call.args[0] if call.args else given.get("log_dir"))
        elif verb == "add_scalar" and isinstance(first, str):
            tags["tensorboard"].append(first)
        elif name == "wandb.init":
            kind = kind or "wandb"
            folder = folder or paths.read(given.get("dir"))
        elif verb == "log" and call.args and isinstance(call.args[0], ast.Dict | ast.Name):
            tags["wandb"] += _keys(source, call.args[0])
        elif verb == "log_metric" and isinstance(first, str):
            kind = kind or "mlflow"
            tags["mlflow"].append(first)
        elif verb == "log_metrics" and call.args:
            kind = kind or "mlflow"
            tags["mlflow"] += _keys(source, call.args[0])
    metrics = measured(dict.fromkeys(tags.get(kind, ())))
    if kind and metrics:
        argument, path = folder or ("", "")
        step = next((tag for tag in tags[kind] if is_step(tag)), "")
        yield MetricFile(kind, argument, path, metrics, step, _first_step(source, step, tags[kind]))


def saved_files(source: Source, names: Collection[str]) -> Iterator[tuple[str, str]]:
    """For an argument that names a folder: the file of a model or checkpoint below it."""
    paths = Paths(source, names)
    for node in source.nodes:
        if isinstance(node, ast.JoinedStr | ast.BinOp | ast.Call):
            found: Any = paths.read(node)
            if found is not None and found[0] and _MODELS.fullmatch(found[1]):
                yield found
