"""Generates the reference pages of the documentation from the code: `python -m tests.docs.reference`."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

import hpcsweep
from hpcsweep.api import objects
from hpcsweep.cli import app
from tests.test_imports import EXCEPTIONS

from .objects import modules
from .spec_keys import spec_keys

PACKAGE = Path(hpcsweep.__file__).parent
DOCS = PACKAGE / "docs"
ARCHITECTURE = PACKAGE.parent / "ARCHITECTURE.md"

NOTE = "<!-- Made by `python -m tests.docs.reference`: change the code, not this page. -->"

INTRODUCTION = """\
Every key of a sweep file. A name in brackets says which type of parameter, searcher, scheduler, cluster or
stopping rule has the key. `hpcsweep plan --schema` prints the same as a JSON schema for editors."""

#: Of Google's docstring style.
SECTIONS = {"Args", "Attributes", "Raises", "Returns", "Yields"}

#: Files of `hpcsweep/api/objects`.
OBJECTS = ("__init__", "parameters", "sections", "searchers", "schedulers", "clusters")

#: The public API: the file and the name of each function or class in it.
API = (
    ("api/sweep.py", "Sweep"),
    ("api/sweep.py", "Plan"),
    ("api/search_cv.py", "SearchCV"),
    ("optuna.py", "create_study"),
    ("optuna.py", "Study"),
    *((f"api/objects/{name}.py", cls) for name in OBJECTS[1:] for cls in getattr(objects, name).__all__),
    ("trial.py", "current_trial"),
    ("trial.py", "Trial"),
    ("views/results.py", "load"),
    ("views/results.py", "Results"),
    ("html/plots.py", "Plots"),
    ("training/pytorch.py", "TorchState"),
    ("training/lightning.py", "SweepCallback"),
    ("training/transformers.py", "SweepCallback"),
)


def cli_page() -> str:
    """Every verb with its arguments and options."""
    parts = ["# Command line", NOTE, "`python -m hpcsweep VERB`, or `hpcsweep VERB`."]
    for command in app.registered_commands:
        assert command.callback is not None
        hints = get_type_hints(command.callback, include_extras=True)
        rows = [
            _row(name, next(m for m in hint.__metadata__ if isinstance(m, ArgumentInfo | OptionInfo)), hint)
            for name, hint in hints.items()
            if name != "return"
        ]
        parts += [f"## {command.name or command.callback.__name__}", inspect.getdoc(command.callback) or ""]
        parts += ["\n".join(["| | meaning |", "| --- | --- |", *rows])]
    return "\n\n".join(parts) + "\n"


def _row(name: str, parameter: ArgumentInfo | OptionInfo, hint: Any) -> str:
    assert parameter.help, f"{name} has no help text"
    metavar = parameter.metavar or name.strip("_").upper()
    if isinstance(parameter, OptionInfo):
        named = [option for option in parameter.param_decls or () if option.startswith("--")]
        option = named[0] if named else f"--{name.strip('_').replace('_', '-')}"
        metavar = option if get_args(hint)[0] in (bool, bool | None) else f"{option} {metavar}"
    text = parameter.help.replace("|", "\\|")
    return f"| `{metavar}` | {text} |"


def api_page() -> str:
    """Every public class and function with its docstring."""
    parts = ["# Python API", NOTE, "`import hpcsweep as hs`, then `hs.Sweep`, `hs.Float` and so on."]
    for file, name in API:
        module = ".".join(["hpcsweep", *Path(file).with_suffix("").parts])
        tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
        (node,) = (n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == name)
        where = "hpcsweep" if name in (*hpcsweep.__all__, *objects.__all__) else module
        parts += [f"## {where}.{name}", *_documented(node)]
    return "\n\n".join(parts) + "\n"


def _documented(node: ast.ClassDef | ast.FunctionDef) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef):
        yield f"`{_signature(node)}`"
    yield _text(node)
    if isinstance(node, ast.ClassDef):
        for member in node.body:
            if isinstance(member, ast.FunctionDef) and (member.name == "__init__" or member.name[0] != "_"):
                if not ast.get_docstring(member):
                    continue
                property_ = any("property" in ast.unparse(line) for line in member.decorator_list)
                yield (
                    f"### {node.name}.{member.name}" if property_ else f"### {_signature(member, node.name)}"
                )
                yield _text(member)


def _signature(node: ast.FunctionDef, owner: str = "") -> str:
    arguments = ast.unparse(node.args)
    for own in ("self, ", "self", "cls, ", "cls"):
        arguments = arguments.removeprefix(own)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns and node.name != "__init__" else ""
    name = owner if node.name == "__init__" else f"{owner}.{node.name}" if owner else node.name
    return f"{name}({arguments}){returns}"


def _text(node: ast.ClassDef | ast.FunctionDef) -> str:
    """The docstring, its sections as text blocks."""
    lines = (ast.get_docstring(node) or "").splitlines()
    out: list[str] = []
    block: list[str] = []
    for line in [*lines, ""]:
        if line.startswith(" ") or (
            line.rstrip(":") in {"Args", "Attributes", "Raises", "Returns", "Yields"}
        ):
            block.append(line)
        elif block and not line:
            out += ["```text", *block, "```", ""]
            block = []
        else:
            out.append(line)
    return "\n".join(out).strip()


def spec_page() -> str:
    """Every key of a sweep file, by section."""
    parts = ["# Spec keys", NOTE, INTRODUCTION]
    section = ""
    for key in spec_keys():
        first, _, rest = key.path.partition(".")
        if first != section:
            section = first
            parts.append(f"## {first}\n\n| key | type | default | meaning |\n| --- | --- | --- | --- |")
        of = f" ({key.variant})" if key.variant else ""
        default = f"`{key.default}`" if key.default else "required"
        cells = (f"`{rest or first}`{of}", key.type, default, key.description)
        parts[-1] += "\n| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    return "\n\n".join(parts) + "\n"


def architecture_page() -> str:
    """ARCHITECTURE.md with the picture of its rooms as the imports are now."""
    text = ARCHITECTURE.read_text(encoding="utf-8")
    begin, end = (text.index(mark) for mark in ("<!-- rooms:", "<!-- /rooms"))
    first_line = text[begin:].partition("\n")[0]
    return f"{text[:begin]}{first_line}\n\n```mermaid\n{_rooms()}```\n\n{text[end:]}"


def _rooms() -> str:
    """Who imports whom, in Mermaid's language, without the arrows that follow from others."""
    imports: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE).as_posix()
        room = file.partition("/")[0].removesuffix(".py")
        if room.startswith("__"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            if module and module.startswith("hpcsweep."):
                imported = module.split(".")[1]
                if (file, imported) not in EXCEPTIONS:
                    imports.setdefault(room, set()).add(imported)
    below = {room: others - {room} for room, others in imports.items()}
    arrows = [
        f"    {room} --> {other}\n"
        for room, others in sorted(below.items())
        for other in sorted(others)
        if not any(_reaches(below, via, other) for via in others - {other})
    ]
    return "graph TD\n" + "".join(arrows)


def _reaches(below: Mapping[str, set[str]], room: str, other: str) -> bool:
    return other in below.get(room, set()) or any(
        _reaches(below, via, other) for via in below.get(room, set())
    )


def _object_module(name: str) -> str:
    return modules()[f"{name}.py"]


#: The page of the API is made of the modules before it.
PAGES: dict[Path, Callable[[], str]] = {
    **{PACKAGE / f"api/objects/{name}.py": functools.partial(_object_module, name) for name in OBJECTS},
    DOCS / "reference_spec.md": spec_page,
    DOCS / "reference_cli.md": cli_page,
    DOCS / "reference_api.md": api_page,
    ARCHITECTURE: architecture_page,
}


def main() -> None:
    """Write all pages."""
    for path, page in PAGES.items():
        path.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
