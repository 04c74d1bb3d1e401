"""What the objects of a spec have in common: what was given, and how it is written in YAML.

The classes themselves are in `api.objects`, made from the models that validate sweep files.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, ClassVar


class Part:
    """A piece of a spec. Frozen; equal to another one that was given the same."""

    def given(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as they were given."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)  # type: ignore[arg-type]  # each class of this is one
            if not _same(getattr(self, field.name), field.default)
        }

    def plain(self) -> dict[str, Any]:
        """As written in YAML, without what is the default anyway."""
        return plain(self.given())  # type: ignore[no-any-return]

    def _set(self, **fields: Any) -> None:
        """Set the fields of a frozen object while it is made."""
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        arguments = (f"{name}={python(value)}" for name, value in self.given().items())
        return f"hs.{type(self).__name__}({', '.join(arguments)})"


def _same(value: object, default: object) -> bool:
    """Whether a value is the default; True is not 1."""
    return type(value) is type(default) and value == default


class Section(Part):
    """A section of a spec."""


class Parameter(Part):
    """A parameter of the space.

    Attributes:
        type: Its type in YAML.
    """

    type: ClassVar[str]

    def plain(self) -> dict[str, Any]:
        return {"type": self.type, **super().plain()}


class Listed(Parameter):
    """A parameter with listed values, which are its arguments."""

    def __repr__(self) -> str:
        given = self.given()
        values = given.pop("values")
        # One list alone would be taken for the list of values.
        shown = [python(values)] if len(values) == 1 else list(map(python, values))
        named = [f"{name}={python(value)}" for name, value in given.items()]
        return f"hs.{type(self).__name__}({', '.join([*shown, *named])})"


def listed(values: tuple[object, ...]) -> tuple[Any, ...]:
    """The values of `Choice(1, 2)` and of `Choice([1, 2])`."""
    alone = values[0] if len(values) == 1 else None
    return tuple(alone) if isinstance(alone, list | tuple) else values


class Named(Part):
    """What a spec names, with its options.

    Attributes:
        name: Its name in YAML.
    """

    name: ClassVar[str]

    def plain(self) -> dict[str, Any]:
        options = super().plain()
        return {"name": self.name, **options, **options.pop("arguments", {})}

    def __repr__(self) -> str:
        given = self.given()
        given |= given.pop("arguments", {})
        arguments = (f"{name}={python(value)}" for name, value in given.items())
        return f"hs.{type(self).__name__}({', '.join(arguments)})"


class Searcher(Named):
    """Proposes configurations."""


class Scheduler(Named):
    """Decides which trials start, go on and stop."""


class StoppingRule(Named):
    """Stops running trials early."""


class AnyCluster(Part):
    """Where a sweep runs, and how much of it it may use."""


class NamedCluster(AnyCluster):
    """One kind of cluster.

    Attributes:
        name: Its name in YAML.
    """

    name: ClassVar[str]

    def plain(self) -> dict[str, Any]:
        return {"name": self.name, **super().plain()}


def plain(value: Any) -> Any:
    """The value as YAML has it: objects as mappings, tuples as lists, paths as texts, NumPy's as Python's."""
    match value:
        case Part():
            return value.plain()
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            return {key: plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case os.PathLike():
            return os.fspath(value)
        case _ if callable(getattr(value, "item", None)) and getattr(value, "shape", None) == ():
            return value.item()
        case _:
            return value


def python(value: Any) -> str:
    """The value as Python source, for `repr`."""
    match value:
        case Part():
            return repr(value)
        case Mapping():
            return "{" + ", ".join(f"{key!r}: {python(item)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(python, value)) + "]"
        case float() if value != value or value in (float("inf"), float("-inf")):
            return f'float("{value}")'
        case _:
            return repr(value)
