"""Every key of a sweep file with its type, default and description, read from the JSON schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from hpcsweep.core.units import LONGEST_S
from hpcsweep.spec import json_schema

_TYPES = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "true or false",
    "array": "list",
    "object": "mapping",
    "null": "null",
}
_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


class SpecKey(NamedTuple):
    """One key of a sweep file.

    Attributes:
        path: Such as `train.workdir`; a parameter's name is `space.NAME`.
        variant: The name or type that has this key, such as `hyperband`; empty for a key of all.
        type: The accepted values in words.
        default: As in YAML; empty for a required key.
        description: One or two sentences.
    """

    path: str
    variant: str
    type: str
    default: str
    description: str


def spec_keys() -> list[SpecKey]:
    """All keys, in the order of the sections; those of installed packages included."""
    return list(dict.fromkeys(_keys(json_schema(), "", "")))


def _keys(schema: Mapping[str, Any], path: str, variant: str) -> Iterator[SpecKey]:
    required = schema.get("required", ())
    for key, value in schema.get("properties", {}).items():
        key_path = f"{path}.{key}" if path else key
        if "const" not in value:
            default = "" if key in required else json.dumps(value.get("default"))
            yield SpecKey(key_path, variant, _type(value), default, value.get("description", ""))
        for form in _forms(value):
            yield from _keys(form, key_path, variant or _variant(form))
    if isinstance(values := schema.get("additionalProperties"), Mapping):
        for form in _forms(values):
            yield from _keys(form, f"{path}.NAME", variant or _variant(form))


def _forms(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The mappings that a value may be."""
    for form in schema.get("anyOf", ()):
        yield from _forms(form)
    if "properties" in schema or "additionalProperties" in schema:
        yield schema


def _variant(form: Mapping[str, Any]) -> str:
    """The name or type that a form is for; empty if for all."""
    for key in ("name", "type"):
        value = form.get("properties", {}).get(key, {})
        if names := value.get("enum", [value["const"]] if "const" in value else []):
            return ", ".join(names)
    return ""


def _type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_type, schema["anyOf"])))
    if "enum" in schema or "const" in schema:
        return " or ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    kinds = schema.get("type", [])
    words = [_TYPES[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds)]
    bounds = [
        f"{sign} {schema[bound]:g}"
        for bound, sign in _BOUNDS.items()
        if bound in schema and abs(schema[bound]) < LONGEST_S
    ]
    return " ".join(filter(None, [" or ".join(words) or "any value", " and ".join(bounds)]))
