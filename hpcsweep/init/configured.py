"""Values in a configuration that the command line overrides: Hydra's YAML files, and plain globals."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcsweep.errors import SpecError
from hpcsweep.init.argparse_options import kind_of
from hpcsweep.init.found import Argument, Interface
from hpcsweep.init.signatures import parameters
from hpcsweep.init.sources import UNKNOWN, Source, assignments, keywords, last_name
from hpcsweep.spec.yaml_io import read_yaml


def read_hydra(sources: Sequence[Source]) -> Interface | None:
    """The keys of the configuration that `@hydra.main` names, dotted."""
    for source in sources[:1]:
        for function in source.nodes:
            if not isinstance(function, ast.FunctionDef):
                continue
            for call in function.decorator_list:
                if isinstance(call, ast.Call) and source.dotted(call) == "hydra.main":
                    return _hydra(sources, call)
    return None


def _hydra(sources: Sequence[Source], call: ast.Call) -> Interface:
    source, given = sources[0], keywords(call)
    texts = [source.constant(argument) for argument in call.args]
    folder = source.constant(given.get("config_path"))
    folder = texts[0] if folder is UNKNOWN and texts else folder
    name = source.constant(given.get("config_name"))
    name = texts[1] if name is UNKNOWN and len(texts) > 1 else name
    notes: list[str] = []
    values: dict[str, Any] = {}
    if isinstance(name, str):
        root = source.path.parent / (folder if isinstance(folder, str) else "")
        values = _config(root, name.removesuffix(".yaml"), notes, package="")
        values = values or {argument.name: argument for argument in _stored(sources, name)}
    if not values:
        notes.append("the keys of its Hydra config were not found: write them into `space` yourself")
    arguments = tuple(
        value if isinstance(value, Argument) else _of_value(key, value) for key, value in values.items()
    )
    # Hydra's own folder is named after the second: runs that start together would share it.
    return Interface(
        "a Hydra config", "name=value", arguments, suffix="hydra.run.dir={output_dir}", notes=tuple(notes)
    )


def _of_value(key: str, value: Any) -> Argument:
    """A key of a configuration; `???` is Hydra's word for a value that must be given."""
    missing = value == "???"
    if isinstance(value, list):
        plain = all(isinstance(item, str | int | float) for item in value)
        return Argument(key, key, "list", tuple(value) if plain else None)
    return Argument(key, key, kind_of(value), None if missing else value, required=missing)


def _config(root: Path, name: str, notes: list[str], *, package: str, depth: int = 0) -> dict[str, Any]:
    """The keys of a configuration and of its default groups, dotted."""
    path = root / f"{name}.yaml"
    try:
        data = read_yaml(path)
    except SpecError:
        return {}
    found: dict[str, Any] = {}
    defaults = data.pop("defaults", None)
    for entry in defaults if isinstance(defaults, list) else []:
        if not isinstance(entry, Mapping) or depth > 3:
            continue
        for group, choice in entry.items():
            group = str(group).removeprefix("override ").removeprefix("optional ").partition("@")[0]
            if not isinstance(choice, str) or group.startswith("hydra/"):
                continue
            options = _options(root / group)
            if len(options) > 1:
                others = ", ".join(options)
                notes.append(
                    f"config group {group}: {others} (now {choice}); to search it: {group}: [{others}]"
                )
            inner = f"{package}{group.replace('/', '.')}."
            found |= _config(root / group, choice, notes, package=inner, depth=depth + 1)
    return found | {f"{package}{key}": value for key, value in _flat(data, "")}


def _options(folder: Path) -> list[str]:
    try:
        return sorted(name[:-5] for name in os.listdir(folder) if name.endswith(".yaml"))
    except OSError:
        return []


def _flat(data: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if str(key) in ("hydra", "_target_"):
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _stored(sources: Sequence[Source], name: str) -> Iterator[Argument]:
    """The fields of the class that `ConfigStore.store` has under this name."""
    for source in sources:
        for call in source.calls():
            given = keywords(call)
            node = given.get("node")
            stores = last_name(source.dotted(call)) == "store" and source.constant(given.get("name")) == name
            if stores and isinstance(node, ast.Name):
                yield from _class(sources, node.id, "")


def _class(sources: Sequence[Source], name: str, prefix: str, depth: int = 0) -> Iterator[Argument]:
    classes = [
        (source, node)
        for source in sources
        for node in source.tree.body
        if isinstance(node, ast.ClassDef) and node.name == name
    ]
    for source, node in classes[:1]:
        function = ast.FunctionDef(name, _as_parameters(node), [], [])
        for argument in parameters(source, function):
            inner = next((each.annotation for each in function.args.args if each.arg == argument.name), None)
            nested = inner.id if isinstance(inner, ast.Name) else ""
            known = {
                each.name for every in sources for each in every.tree.body if isinstance(each, ast.ClassDef)
            }
            if nested in known and depth < 4:
                yield from _class(sources, nested, f"{prefix}{argument.name}.", depth + 1)
            else:
                key = f"{prefix}{argument.name}"
                yield argument._replace(name=key, option=key)


def _as_parameters(node: ast.ClassDef) -> ast.arguments:
    """The annotated fields of a class as parameters without defaults in the way of each other."""
    fields = [
        (ast.arg(each.target.id, each.annotation), each.value or ast.Constant(value=...))
        for each in node.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    ]
    return ast.arguments([], [arg for arg, _ in fields], None, [], [], None, [value for _, value in fields])


def read_globals(sources: Sequence[Source]) -> Interface | None:
    """Constants of a module that its command line overrides, as `--key=value`."""
    source = sources[0]
    override = _override(source)
    if override is None:
        return None
    arguments = []
    for statement in source.tree.body:
        if statement.lineno >= override:
            break
        for name, node in assignments(statement):
            value = source.constant(node)
            if value is UNKNOWN or name.startswith("_"):
                continue
            truth = ("True", "False") if isinstance(value, bool) else ()
            arguments.append(Argument(name, f"--{name}", kind_of(value), value, truth=truth))
    return Interface("globals", "--name=value", tuple(arguments)) if arguments else None


def _override(source: Source) -> int | None:
    """The line from which on the globals of a module are overridden by its arguments."""
    for statement in source.tree.body:
        text = ast.unparse(statement)
        runs_file = isinstance(statement, ast.Expr) and source.dotted(statement.value) == "exec"
        if runs_file or ("globals()" in text and "sys.argv" in text):
            return statement.lineno
    return None
