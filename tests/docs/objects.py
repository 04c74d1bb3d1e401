"""Generates `hpcsweep/api/objects`: a class for each thing that a spec names, from the models that check it.

So mypy, `help()` and editors know every option, and no list of them is kept by hand.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

from hpcsweep.cluster import CLUSTERS
from hpcsweep.cluster.backend import find_backend
from hpcsweep.options import descriptions
from hpcsweep.schedulers import SCHEDULERS, scheduler_class
from hpcsweep.schedulers.stopping_rules import STOP_RULES
from hpcsweep.searchers import SEARCHERS, searcher_class
from hpcsweep.spec.models import (
    SCHEDULER,
    SEARCHER,
    STOP_RULE,
    Budget,
    Cluster,
    Objective,
    Retries,
    Store,
    Train,
    cluster_model,
)
from hpcsweep.spec.parameters import PARAMETER_MODELS
from hpcsweep.spec.resources import Resources

WIDTH: Final = 106
HEAD: Final = '''\
"""{title}

Made by `python -m tests.docs.reference`: change the code that it is made from, not this file.
"""

from __future__ import annotations
'''
#: What Python takes beyond YAML, by class and field.
WIDER: Final = {
    ("Train", "function"): "Callable[..., object] | str | None",
    ("Train", "command"): "str | Sequence[str] | None",
}
LISTED_DOCS: Final = {
    "choice": "One of these values, in no order: `Choice(1, 2)`, or `Choice([1, 2])`.",
    "ordinal": "One of these values, whose order matters: `Ordinal(1, 2)`, or `Ordinal([1, 2])`.",
}
_TYPES: Final = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "array": "Sequence[Any]",
    "object": "Mapping[str, Any]",
    "null": "None",
}
_SEED: Final = ("seed", "int", "0", "The same seed, spec and results give the same sweep.")


class Field(NamedTuple):
    """One field; `default` is empty where it is required."""

    name: str
    type: str
    default: str
    description: str


class Class(NamedTuple):
    """One class.

    Attributes:
        fixed: Its class attribute that is its name in YAML: the attribute and its value.
        positional: Whether required fields may be given by position.
        open: Whether it takes any further keywords.
    """

    name: str
    base: str
    doc: str
    fields: list[Field]
    fixed: tuple[str, str] | None = None
    positional: bool = False
    open: bool = False


def modules() -> dict[str, str]:
    """File name -> its text."""
    found = {
        "parameters.py": _module("Parameters of a space.", _parameters()),
        "sections.py": _module("Sections of a spec.", _sections()),
        "searchers.py": _module("Searchers.", _searchers()),
        "schedulers.py": _module("Schedulers and stopping rules.", [*_schedulers(), *_stopping_rules()]),
        "clusters.py": _module("Clusters.", _clusters()),
    }
    names = {name.removesuffix(".py"): text for name, text in found.items()}
    imports = "".join(f"from hpcsweep.api.objects.{name} import *\n" for name in sorted(names))
    exported = _exported(re.findall(r"^class (\w+)", "\n".join(names.values()), re.MULTILINE))
    all_ = "__all__ = [\n" + "".join(f"    {name},\n" for name in exported) + "]\n"
    head = HEAD.format(title="The objects that a spec is made of.")
    return {**found, "__init__.py": f"# ruff: noqa: F403, F405\n{head}\n{imports}\n{all_}"}


def _parameters() -> Iterator[Class]:
    for kind, model in PARAMETER_MODELS.items():
        fields = [field for field in _fields(model) if field.name != "type"]
        listed = any(field.name == "values" for field in fields)
        base = "Listed" if listed else "Parameter"
        words = LISTED_DOCS.get(kind, model.__doc__ or "")
        fields.sort(key=lambda field: field.name == "when")
        yield Class(kind.capitalize(), base, words, fields, ("type", kind), positional=True)


def _sections() -> Iterator[Class]:
    for model in (Train, Objective, Resources, Budget, Retries, Store):
        fields = [
            field._replace(type=WIDER.get((model.__name__, field.name), field.type))
            for field in _fields(model)
        ]
        yield Class(model.__name__, "Section", model.__doc__ or "", fields, positional=True)


def _searchers() -> Iterator[Class]:
    for name in SEARCHERS:
        cls = searcher_class(name)
        yield _named(cls, SEARCHER.model(name), "Searcher", name, [Field(*_SEED)])


def _schedulers() -> Iterator[Class]:
    for name in SCHEDULERS:
        yield _named(scheduler_class(name), SCHEDULER.model(name), "Scheduler", name)


def _stopping_rules() -> Iterator[Class]:
    for name, cls in STOP_RULES.items():
        yield _named(cls, STOP_RULE.model(name), "StoppingRule", name)


def _named(cls: type[Any], model: type[BaseModel], base: str, name: str, more: Iterable[Field] = ()) -> Class:
    doc = (cls.__doc__ or "").partition("\n\n")[0]
    fields = [*_fields(model), *more]
    open_ = model.model_config.get("extra") == "allow"
    return Class(cls.__name__, base, " ".join(doc.split()), fields, ("name", name), open=open_)


def _clusters() -> Iterator[Class]:
    common = [field for field in _fields(Cluster) if field.name != "name"]
    every = [field for field in _fields(cluster_model("")) if field.name != "name"]
    name = next(field for field in _fields(Cluster) if field.name == "name")
    doc = "A cluster by its name, by default the first batch system that answers here, else this machine."
    yield Class("Cluster", "AnyCluster", doc, [name, *every])
    for key in CLUSTERS:
        backend = find_backend(key)
        known = {field.name for field in common}
        own = [field for field in _fields(backend.options) if field.name not in known]
        title = backend.title if backend.title.lower() == key else key.capitalize()
        yield Class(title, "NamedCluster", f"{title} as a cluster.", [*common, *own], ("name", key))


def _fields(model: type[BaseModel]) -> list[Field]:
    """Those of a model, the required ones first."""
    schema, described = model.model_json_schema(), descriptions(model)
    defaults = model.model_construct().model_dump(mode="json")
    found = []
    for name, info in model.model_fields.items():
        kind = schema["properties"][name]
        default = "" if info.is_required() else _default(defaults[name])
        annotation = _type(kind)
        if default == "None" and "None" not in annotation.split(" | "):
            annotation += " | None"
        found.append(Field(name, annotation, default, " ".join(described.get(name, "").split())))
    return sorted(found, key=lambda field: field.default != "")


def _default(value: object) -> str:
    """Of a number, a text or a truth value itself; of others None, which is left out."""
    if isinstance(value, bool | int | float) or value is None:
        return repr(value)
    return f'"{value}"' if isinstance(value, str) else "None"


def _type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        kinds = [part for form in schema["anyOf"] for part in _type(form).split(" | ")]
    elif "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        shown = ", ".join(f'"{value}"' if isinstance(value, str) else repr(value) for value in values)
        kinds = [f"Literal[{shown}]"]
    elif "$ref" in schema:
        kinds = ["Mapping[str, Any]"]
    elif schema.get("type") == "array" and schema.get("items", {}).get("type") == "string":
        kinds = ["Sequence[str]"]
    else:
        given = schema.get("type", [])
        kinds = [_TYPES[kind] for kind in ([given] if isinstance(given, str) else given)] or ["Any"]
    distinct = list(dict.fromkeys(kinds))
    return "Any" if "Any" in distinct else " | ".join(sorted(distinct, key=lambda kind: kind == "None"))


def _module(title: str, classes: Iterable[Class]) -> str:
    made = list(classes)
    body = "\n\n".join(map(_class, made))
    abc = [name for name in ("Callable", "Mapping", "Sequence") if f"{name}[" in body]
    keyword = "KW_ONLY, " if "KW_ONLY" in body else ""
    used = {name: rf"[:\[|] ?{name}\b|, {name}\]" for name in ("Any", "ClassVar", "Literal")}
    typing = [name for name, pattern in used.items() if re.search(pattern, body)]
    bases = sorted({each.base for each in made} | ({"listed"} if "listed(" in body else set()))
    lines = ["from collections.abc import " + ", ".join(abc)] if abc else []
    lines += [f"from dataclasses import {keyword}dataclass", "from typing import " + ", ".join(typing), ""]
    lines += ["from hpcsweep.api.parts import " + ", ".join(bases), ""]
    all_ = f"__all__ = [{', '.join(_exported(each.name for each in made))}]"
    return HEAD.format(title=title) + "\n" + "\n".join([*lines, all_]) + "\n\n\n" + body


def _exported(names: Iterable[str]) -> list[str]:
    """The names as texts, in the order that Ruff wants."""
    return [f'"{name}"' for name in sorted(names, key=lambda name: (not name.isupper(), name))]


def _class(made: Class) -> str:
    own_init = made.open or any(field.name == "values" for field in made.fields)
    init = ", init=False" if own_init else ""
    lines = [f"@dataclass(frozen=True, repr=False{init})", f"class {made.name}({made.base}):"]
    doc = textwrap.fill(made.doc, WIDTH + 4, initial_indent='    """', subsequent_indent="    ")
    lines += [doc, "", "    Attributes:" if not own_init else "    Args:"]
    for field in made.fields:
        assert field.description, f"{made.name}.{field.name} has no description"
        text = f"{field.name}: {field.description}"
        lines.append(textwrap.fill(text, WIDTH + 4, initial_indent=" " * 8, subsequent_indent=" " * 12))
    if made.open:
        lines.append("        **arguments: Its further options.")
    lines += ['    """', ""]
    if made.fixed:
        lines += [f'    {made.fixed[0]}: ClassVar[str] = "{made.fixed[1]}"', ""]
    if own_init:
        return "\n".join([*lines, *_own_init(made)]) + "\n"
    required = [field for field in made.fields if not field.default]
    optional = [field for field in made.fields if field.default]
    if not made.positional:
        lines.append("    _: KW_ONLY")
    lines += [f"    {field.name}: {field.type}" for field in required]
    if made.positional and optional:
        lines.append("    _: KW_ONLY")
    lines += [f"    {field.name}: {field.type} = {field.default}" for field in optional]
    return "\n".join(lines) + "\n"


def _own_init(made: Class) -> Iterator[str]:
    """Fields and constructor of a class with any number of values, or with any keywords."""
    listed = any(field.name == "values" for field in made.fields)
    others = [field for field in made.fields if field.name != "values"]
    if listed:
        yield "    values: tuple[Any, ...]"
    yield from (f"    {field.name}: {field.type} = {field.default}" for field in others)
    if made.open:
        yield "    arguments: Mapping[str, Any] | None = None"
    yield ""
    first = "*values: object" if listed else "*"
    signature = [first, *(f"{field.name}: {field.type} = {field.default}" for field in others)]
    signature += ["**arguments: object"] if made.open else []
    one = f"    def __init__(self, {', '.join(signature)}) -> None:"
    if len(one) <= WIDTH + 4:
        yield one
    else:
        inner = f"        self, {', '.join(signature)}"
        yield "    def __init__("
        yield from (
            [inner] if len(inner) <= WIDTH + 4 else [f"        {each}," for each in ("self", *signature)]
        )
        yield "    ) -> None:"
    given = ["values=listed(values)"] if listed else []
    given += [f"{field.name}={field.name}" for field in others]
    given += ["arguments=arguments or None"] if made.open else []
    yield f"        self._set({', '.join(given)})"
