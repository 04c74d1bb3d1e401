"""Python source as trees: a script with the modules beside it that it imports, and helpers to read them."""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from hpcsweep.errors import SpecError

#: Bytes of a source file, and files of a program, at most.
MAX_BYTES: Final = 2**20
MAX_FILES: Final = 40
#: What `constant` returns for what is only known when the program runs.
UNKNOWN: Final = object()


class Source:
    """One module: its tree, what its imported names stand for, and the plain values of its constants."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in strings: not our concern
            self.tree = ast.parse(text)
        #: Every node, the outer ones first.
        self.nodes = list(ast.walk(self.tree))
        #: The dotted origin of each imported name.
        self.origins: dict[str, str] = {}
        #: Modules by name, as imported; a relative one begins with a dot.
        self.imported: set[str] = set()
        for node in self.nodes:
            self._note_import(node)
        self.constants: dict[str, Any] = {}
        for statement in self.tree.body:
            for name, value in assignments(statement):
                found = self.constant(value)
                if found is not UNKNOWN:
                    self.constants.setdefault(name, found)
        #: The parent of each node.
        self.parents = {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}
        self._calls = sorted(
            (node for node in self.nodes if isinstance(node, ast.Call)),
            key=lambda call: (call.lineno, call.col_offset),
        )

    def _note_import(self, node: ast.AST) -> None:
        match node:
            case ast.Import(names=names):
                for name in names:
                    self.imported.add(name.name)
                    self.origins[name.asname or name.name.partition(".")[0]] = (
                        name.name if name.asname else name.name.partition(".")[0]
                    )
            case ast.ImportFrom(module=module, names=names, level=level):
                whole = "." * level + (module or "")
                self.imported.add(whole)
                for name in names:
                    self.origins[name.asname or name.name] = f"{whole}.{name.name}".lstrip(".")
                    self.imported.add(f"{whole}{'' if whole.endswith('.') else '.'}{name.name}")

    def dotted(self, node: ast.AST) -> str:
        """The dotted name that an expression stands for, imports resolved; empty if it is none."""
        match node:
            case ast.Name(id=name):
                return self.origins.get(name, name)
            case ast.Attribute(value=value, attr=attr):
                base = self.dotted(value)
                return f"{base}.{attr}" if base else attr
            case ast.Call(func=function):
                return self.dotted(function)
            case _:
                return ""

    def constant(self, node: ast.AST | None) -> Any:
        """The value of a literal, of a constant of the module or of plain arithmetic; else UNKNOWN."""
        match node:
            case ast.Name(id=name):
                return self.constants.get(name, UNKNOWN)
            case ast.BinOp(left=left, op=op, right=right):
                return _arithmetic(self.constant(left), op, self.constant(right))
            case ast.List(elts=items) | ast.Tuple(elts=items):
                values = [self.constant(item) for item in items]
                return UNKNOWN if any(value is UNKNOWN for value in values) else tuple(values)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                value = self.constant(operand)
                return -value if isinstance(value, int | float) else UNKNOWN
            case ast.Call(args=[inner]) if self.dotted(node) == "pathlib.Path":
                return self.constant(inner)
            case ast.Constant(value=value) if not isinstance(value, bytes | complex) and value is not ...:
                return value
            case _:
                return UNKNOWN

    def calls(self, within: ast.AST | None = None) -> Iterator[ast.Call]:
        """Every call in the module, or in a part of it, in the order of the text."""
        if within is None:
            return iter(self._calls)
        inside = set(ast.walk(within))
        return (call for call in self._calls if call in inside)

    def around(self, node: ast.AST) -> Iterator[ast.AST]:
        """What the node stands in, from the inside outwards."""
        while (parent := self.parents.get(node)) is not None:
            yield parent
            node = parent

    def function_of(self, node: ast.AST) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
        """The function that the node stands in."""
        inner = (
            each for each in self.around(node) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
        )
        return next(inner, None)


def assignments(statement: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Names and values of an assignment; several targets and tuples are taken apart."""
    match statement:
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                yield from _targets(target, value)
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            yield name, value


def _targets(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    match target, value:
        case ast.Name(id=name), _:
            yield name, value
        case ast.Tuple(elts=names), ast.Tuple(elts=values) if len(names) == len(values):
            for inner, each in zip(names, values, strict=True):
                yield from _targets(inner, each)


def _arithmetic(left: Any, op: ast.operator, right: Any) -> Any:
    if not isinstance(left, int | float) or not isinstance(right, int | float):
        return UNKNOWN
    try:
        match op:
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Mult():
                return left * right
            case ast.Div():
                return left / right
            case ast.FloorDiv():
                return left // right
            case ast.Pow() if abs(left) < 1e6 and abs(right) < 100:
                return left**right
    except ArithmeticError:
        pass
    return UNKNOWN


def keywords(call: ast.Call) -> Mapping[str, ast.expr]:
    """The keyword arguments of a call."""
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


def last_name(dotted: str) -> str:
    """The last part of a dotted name."""
    return dotted.rpartition(".")[2]


def read_text(path: Path) -> str:
    """The text of a script.

    Raises:
        SpecError: It cannot be read as text.
    """
    try:
        if not path.is_file():  # a pipe would wait for ever
            os.stat(path)
            raise SpecError(f"{path}: is no regular file: expected a script")
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise SpecError(f"{path}: is larger than 1 MiB: expected a script")
    return data.decode("utf-8-sig", errors="replace")


def read_program(script: Path) -> list[Source]:
    """The script, and the modules of its own that it imports, nearest first.

    Raises:
        SpecError: The script cannot be read, or is no Python.
    """
    try:
        first = Source(script, read_text(script))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        reason = error.msg if isinstance(error, SyntaxError) else error if str(error) else "too deeply nested"
        raise SpecError(f"{script}{line}: is not Python that this version can read: {reason}") from None
    found, known = [first], {script.resolve()}
    for source in found:  # grows
        for path in _own_modules(source, script.parent):
            if path.resolve() in known or len(found) >= MAX_FILES:
                continue
            known.add(path.resolve())
            try:
                found.append(Source(path, read_text(path)))
            except (SyntaxError, ValueError, RecursionError, MemoryError, SpecError):
                continue  # the program may never import it
    return found


def _own_modules(source: Source, folder: Path) -> Iterator[Path]:
    """Files of the modules that a source imports from beside itself or the script."""
    for name in sorted(source.imported):
        level = len(name) - len(name.lstrip("."))
        base = source.path.parent
        for _ in range(level - 1):
            base = base.parent
        parts = [part for part in name.split(".") if part]
        for root in {base, *([] if level else [folder, *_package_root(folder)])}:
            path = root.joinpath(*parts)
            if parts and path.with_suffix(".py").is_file() and path.suffix == "":
                yield path.with_suffix(".py")
            elif (path / "__init__.py").is_file():
                yield path / "__init__.py"


def _package_root(folder: Path) -> list[Path]:
    """The folder that holds the package of a script, where it stands in one."""
    if not (folder / "__init__.py").is_file():
        return []
    while (folder / "__init__.py").is_file() and folder.parent != folder:
        folder = folder.parent
    return [folder]


def module_name(script: Path, source: Source) -> str:
    """`package.name` for a script with relative imports, which only `python -m` starts; else empty."""
    relative = any(name.startswith(".") for name in source.imported)
    roots = _package_root(script.parent)
    if not relative or not roots:
        return ""
    return ".".join(script.resolve().with_suffix("").relative_to(roots[0].resolve()).parts)
