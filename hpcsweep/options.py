"""What sections and options of a spec are made of: their base class, field types and units.

Options of searchers, schedulers, stopping rules and clusters are the keyword parameters of their
constructors: `options_model` makes a model of them.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import itertools
import math
import re
import textwrap
from collections.abc import Callable, Mapping
from types import NoneType, SimpleNamespace, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    TypeAlias,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
    create_model,
)

from hpcsweep.core import protocols
from hpcsweep.core.protocols import LARGEST
from hpcsweep.core.text import format_value
from hpcsweep.core.units import (
    LONGEST_S,
    format_duration,
    format_memory,
    parse_duration,
    parse_memory,
    parse_size,
    size_text,
)


def read_time_limit(value: Any) -> Any:
    """Whole seconds of a time with its unit, rounded up; None for null."""
    if value is None:
        return None
    seconds = parse_duration(value)
    if seconds < 1:
        raise ValueError(f"must be at least 1s, got {format_value(value)}")
    return math.ceil(seconds)


def _seconds(value: Any) -> Any:
    if isinstance(value, str):
        return parse_duration(value)
    if value is None or _is_number(value):
        return value
    raise ValueError(f"must be seconds or a time such as 30s or 5m, got {format_value(value)}")


def _memory(value: Any) -> Any:
    return None if value is None else parse_memory(value)


def _disk_size(value: Any) -> Any:
    return None if value is None else parse_size(value)


def _whole(value: Any) -> Any:
    """1e3 is a float in YAML, and an integer to whoever writes it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _texts(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def _environment(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    for name, item in value.items():
        if isinstance(item, bool) or not isinstance(item, str | int | float | None):
            raise ValueError(f"{name}: must be text, got {format_value(item)}; quote it")
    return {str(name): None if item is None else str(item) for name, item in value.items()}


def _options(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    for name, item in value.items():
        if not isinstance(item, str | int | float | bool | None):
            raise ValueError(f"{name}: must be one value, got {format_value(item)}")
    return {str(name).lstrip("-"): item for name, item in value.items()}


def _wait(value: Any) -> Any:
    """Seconds, or pairs of a quantile and seconds; their order is checked with the rest of the site.

    A mapping has such waits by time limit, as pairs of the limit's seconds and a wait, the shortest first.
    """
    if isinstance(value, Mapping):
        if not value:
            raise ValueError("must have a wait for each time limit, such as {1h: 5m, 1d: 2h}, got {}")
        if any(isinstance(wait, Mapping) for wait in value.values()):
            raise ValueError(f"must have a time or quantiles for each time limit, got {format_value(value)}")
        waits = {float(_within_years(_seconds(limit))): _wait(wait) for limit, wait in value.items()}
        return {limit: waits[limit] for limit in sorted(waits)}
    if not isinstance(value, list | tuple):
        return _within_years(_seconds(value))
    pairs = []
    for pair in value:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not _is_number(pair[0]) or pair[1] is None:
            raise ValueError(f"must hold pairs such as [0.5, 10m], got {format_value(pair)}")
        pairs.append((float(pair[0]), float(_within_years(_seconds(pair[1])))))
    return tuple(pairs)


def _within_years(seconds: Any) -> Any:
    if seconds is not None and seconds > LONGEST_S:
        raise ValueError(f"must be at most {format_duration(LONGEST_S)}, got {format_value(seconds)}")
    return seconds


def _speed(value: Any) -> Any:
    if not (isinstance(value, str) or _is_number(value)):
        raise ValueError(
            f"must be seconds or an expression such as '2 + 0.1 * layers', got {format_value(value)}"
        )
    if not isinstance(value, str) and value > LONGEST_S:
        raise ValueError(f"must be at most {LONGEST_S}, got {format_value(value)}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TIME_SCHEMA: Final = {"type": "string", "examples": ["90s", "30m", "1d12h", "01:30:00", "1-12:00:00"]}

Whole: TypeAlias = Annotated[int, BeforeValidator(_whole)]
Natural: TypeAlias = Annotated[protocols.Natural, BeforeValidator(_whole)]
NumberOrOff: TypeAlias = Annotated[
    int,
    Field(ge=0, le=LARGEST),
    BeforeValidator(lambda value: 0 if value is False else _whole(value)),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"const": False}]}),
]
Positive: TypeAlias = Annotated[protocols.Positive, BeforeValidator(_whole)]
#: What becomes a list, a process or a row for each: GPUs, slots, members of a population.
Hundreds: TypeAlias = Annotated[protocols.UpTo10000, BeforeValidator(_whole)]
#: Tasks and GPUs of a whole site.
Millions: TypeAlias = Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(_whole)]
Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
PositiveNumber: TypeAlias = Annotated[float, Field(gt=0, le=LARGEST, allow_inf_nan=False)]
Text: TypeAlias = Annotated[str, Field(min_length=1)]
Texts: TypeAlias = Annotated[
    tuple[str, ...],
    BeforeValidator(_texts),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
Memory: TypeAlias = Annotated[
    int | None,
    BeforeValidator(_memory),
    PlainSerializer(format_memory, when_used="json-unless-none"),
    WithJsonSchema({"type": ["string", "null"], "examples": ["500M", "16G", "1.5T"]}),
]
#: On a disk, in bytes.
DiskSize: TypeAlias = Annotated[
    int | None,
    BeforeValidator(_disk_size),
    PlainSerializer(size_text, when_used="json-unless-none"),
    WithJsonSchema({"type": ["string", "null"], "examples": ["500M", "16G", "1.5T"]}),
]
TimeLimit: TypeAlias = Annotated[
    int | None,
    BeforeValidator(read_time_limit),
    PlainSerializer(format_duration, when_used="json-unless-none"),
    WithJsonSchema({**_TIME_SCHEMA, "type": ["string", "null"]}),
]
Seconds: TypeAlias = Annotated[
    float,
    BeforeValidator(_seconds),
    Field(ge=0, le=LONGEST_S, allow_inf_nan=False),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "maximum": LONGEST_S}, _TIME_SCHEMA]}),
]
#: Seconds between two looks: none at all would be a loop that only asks.
Pause: TypeAlias = Annotated[
    float,
    BeforeValidator(_seconds),
    Field(ge=0.01, le=LONGEST_S, allow_inf_nan=False),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0.01, "maximum": LONGEST_S}, _TIME_SCHEMA]}),
]
Environment: TypeAlias = Annotated[
    dict[str, str | None],
    BeforeValidator(_environment),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": ["string", "number", "null"]}}),
]
Options: TypeAlias = Annotated[
    dict[str, Any],
    BeforeValidator(_options),
    WithJsonSchema(
        {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}}
    ),
]
Wait: TypeAlias = Annotated[
    Any,
    BeforeValidator(_wait),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0},
                _TIME_SCHEMA,
                {"type": "array", "items": {"type": "array", "minItems": 2, "maxItems": 2}},
                {"type": "object"},
            ]
        }
    ),
]
Speed: TypeAlias = Annotated[
    Any, BeforeValidator(_speed), WithJsonSchema({"type": ["number", "string"], "minimum": 0})
]
ArrayUsage: TypeAlias = Annotated[float, Field(ge=0, le=1)]
#: Per hour; more than once in a second nothing would ever end.
Rate: TypeAlias = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]


class Section(BaseModel):
    """A frozen section of a spec: unknown keys and values of another type are errors.

    The docstring below a field is its description: see `descriptions`. What a process does not read is
    not built.

    Attributes:
        fields_of: Other sections that its fields were taken from, for their descriptions.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, strict=True, defer_build=True
    )
    fields_of: ClassVar[tuple[type[BaseModel], ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> Any:
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for key, text in descriptions(cls).items():
            properties[key]["description"] = text
        return schema

    def plain(self) -> dict[str, Any]:
        """As written in YAML, defaults included, without what is null anyway."""
        fields = type(self).model_fields
        return {
            key: value
            for key, value in self.model_dump(mode="json").items()
            if value is not None or key not in fields or fields[key].default is not None
        }


class OtherSchema:
    """As an annotation: the field's JSON schema is what `make` gives, when somebody asks for it."""

    def __init__(self, make: Callable[[], dict[str, Any]]) -> None:
        self._make = make

    def __get_pydantic_json_schema__(self, _core_schema: Any, _handler: GetJsonSchemaHandler) -> Any:
        return self._make()


def section_schema(model: type[Section]) -> dict[str, Any]:
    """The JSON schema of a section within another one."""
    schema = model.model_json_schema()
    for about in (schema, *schema["properties"].values()):
        about.pop("title", None)
    return schema


@functools.cache
def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Field -> its description, from the source: only the schema, the docs and some errors need it."""
    found = {key: field.description for key, field in model.model_fields.items() if field.description}
    for kind in model.__mro__:
        if issubclass(kind, Section) and kind is not Section:
            with contextlib.suppress(OSError, SyntaxError, TypeError):  # made in memory
                tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
                found = _docstrings(tree.body[0]) | found
    for other in getattr(model, "fields_of", ()):
        found = descriptions(other) | found
    return {key: text for key, text in found.items() if key in model.model_fields}


def _docstrings(node: ast.AST) -> dict[str, str]:
    """Attribute of a class -> the text below it."""
    found = {}
    for field, below in itertools.pairwise(getattr(node, "body", ())):
        match field, below:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(value=ast.Constant(str(text))):
                found[name] = inspect.cleandoc(text)
    return found


def options_model(constructor: Callable[..., Any], supplied: tuple[str, ...] = ()) -> type[BaseModel]:
    """The options that a searcher, scheduler, stopping rule or cluster has in the spec.

    They are the fields of its parameter `options` where it has one that is a `Section`, else its
    parameters. Descriptions are those of its docstring ("Args:"). A constructor that takes any
    keywords has to check them itself.

    Args:
        constructor: A class or function.
        supplied: Parameters that are not options.
    """
    function = constructor.__init__ if inspect.isclass(constructor) else constructor
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(constructor).parameters.items()
        if name not in supplied
    }
    annotations = {
        name: parameter.annotation
        for name, parameter in parameters.items()
        if parameter.annotation is not parameter.empty
    }
    hints = get_type_hints(
        SimpleNamespace(__annotations__=annotations),
        getattr(function, "__globals__", {}),
        include_extras=True,
    )
    own = hints.get("options")
    if isinstance(own, type) and issubclass(own, Section):
        return own
    descriptions = _described_parameters(inspect.getdoc(constructor) or "")
    fields: dict[str, Any] = {
        name: (
            _with_whole_floats(hints.get(name, Any)),
            Field(
                ... if parameter.default is parameter.empty else parameter.default,
                description=descriptions.get(name),
            ),
        )
        for name, parameter in parameters.items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    any_keyword = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    config = ConfigDict(
        extra="allow" if any_keyword else "forbid", frozen=True, strict=True, allow_inf_nan=False
    )
    model: type[BaseModel] = create_model(
        getattr(constructor, "__name__", "Options"), __config__=config, **fields
    )
    return model


def _described_parameters(docstring: str) -> dict[str, str]:
    """Parameter -> its description in the "Args:" of a Google-style docstring."""
    found: dict[str, str] = {}
    name = ""
    for line in docstring.partition("Args:\n")[2].splitlines():
        if line and not line.startswith(" "):
            break
        entry = re.fullmatch(r" {4}(\w+)(?: \([^)]*\))?: (.*)", line)
        if entry:
            name = entry[1]
            found[name] = entry[2].strip()
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return found


def _with_whole_floats(annotation: Any) -> Any:
    """The annotation of an option; integers may be written 1e3."""
    types = _member_types(annotation)
    return (
        Annotated[annotation, BeforeValidator(_whole)] if int in types and float not in types else annotation
    )


def _member_types(annotation: Any) -> set[Any]:
    """The types that it allows, without their constraints."""
    if get_origin(annotation) is Annotated:
        return _member_types(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return set().union(*map(_member_types, get_args(annotation)))
    return {annotation}


def is_union(annotation: Any) -> bool:
    """Whether it allows several types; one type or None does not count."""
    members = [member for member in get_args(annotation) if member is not NoneType]
    return get_origin(annotation) in (Union, UnionType) and len(members) > 1


def describe_type(annotation: Any) -> str:
    """The type in words: `int | None` -> `an integer or null`."""
    words = {int: "an integer", float: "a number", bool: "true or false", str: "text", NoneType: "null"}
    if annotation in words:
        return words[annotation]
    origin = get_origin(annotation)
    if origin is Annotated:
        kind, *limits = get_args(annotation)
        least = next((ge for limit in limits if (ge := getattr(limit, "ge", None)) is not None), None)
        return describe_type(kind) + (f" >= {least}" if least is not None else "")
    if origin in (Union, UnionType):
        return " or ".join(map(describe_type, get_args(annotation)))
    if origin is Literal:
        return " or ".join(map(format_value, get_args(annotation)))
    if isinstance(origin, type) and issubclass(origin, list | tuple):
        return "a list"
    return "a mapping" if origin is not None else "another value"
