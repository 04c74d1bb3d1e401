"""Problems of a spec in the user's words: file, key path, what was expected, what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from hpcsweep.core.domains import format_value, truncate
from hpcsweep.core.space import suggest_name
from hpcsweep.errors import SpecError
from hpcsweep.options import describe_type, is_union

Model = TypeVar("Model", bound=BaseModel)

#: Nobody reads more problems at a time, and each may take a while to find.
MOST: Final = 30


class Problems:
    """Collects problems, so that all are told at once.

    Args:
        source: The spec file as the user named it.
        overrides: Key path -> the `--set` that gave it; its problems name it in place of the file.
    """

    def __init__(self, source: str, overrides: Mapping[str, str]) -> None:
        self._source = source
        self._overrides = overrides
        self._lines: dict[str, None] = {}

    def add(self, path: str, problem: str) -> None:
        """Take note of a problem with what is at `path`, or with the whole spec for an empty path.

        Raises:
            SpecError: It is the last one that is told.
        """
        source = self._source
        within = [key for key in self._overrides if path == key or path.startswith((f"{key}.", f"{key}["))]
        if within:
            source = f"--set {truncate(self._overrides[max(within, key=len)])}"
        self._lines[": ".join(filter(None, (source, path, problem)))] = None
        if len(self._lines) >= MOST:
            raise SpecError(*self._lines, f"{self._source}: and perhaps more; these are the first {MOST}")

    @property
    def count(self) -> int:
        return len(self._lines)

    def raise_if_any(self) -> None:
        """Raise them all as one.

        Raises:
            SpecError: There are any.
        """
        if self._lines:
            raise SpecError(*self._lines)

    def validated(
        self, model: type[Model], data: Any, *, path: str, also_known: Sequence[str] = ()
    ) -> Model | None:
        """`data` as the model, or None after taking note of what is wrong with it.

        Unknown keys are noted and passed over, so that what depends on the rest is checked too.
        `also_known` are keys that are read elsewhere, to be named where a key is unknown.
        """
        try:
            return model.model_validate(data)
        except ValidationError as error:
            errors = error.errors(include_url=False)
        for found in errors:
            keys, problem = _in_our_words(found, model, [*also_known, *model.model_fields])
            self.add(joined(path, keys), problem)
        if any(found["type"] != "extra_forbidden" for found in errors):
            return None
        return model.model_validate({key: data[key] for key in data if key in model.model_fields})


def joined(path: str, keys: Sequence[int | str]) -> str:
    """`a`, `("b", 0)` -> `a.b[0]`."""
    for key in keys:
        path += f"[{key}]" if isinstance(key, int) else f".{key}" if path else str(key)
    return path


def _in_our_words(
    error: ErrorDetails, model: type[BaseModel], known: Sequence[str]
) -> tuple[Sequence[int | str], str]:
    """Where in the section it is, and what is wrong there."""
    keys = error["loc"]
    field = model.model_fields.get(str(keys[0])) if keys else None
    if field is not None and is_union(field.annotation):
        # Pydantic tells why each member of the union fails; one line says it better.
        return keys[:1], f"must be {describe_type(field.annotation)}, got {format_value(error['input'])}"
    return keys, _problem(error, field, known)


def _problem(error: ErrorDetails, field: FieldInfo | None, known: Sequence[str]) -> str:
    found, context = format_value(error["input"]), error.get("ctx", {})
    match error["type"]:
        case "missing" if field is not None:
            return f"missing; expected {_lowered(field.description)}" if field.description else "missing"
        case "extra_forbidden":
            return suggest_name(str(error["loc"][-1]), known, kind="key")
        case "value_error":
            return str(context["error"])
        case "int_type" | "int_from_float":
            return f"must be an integer, got {found}"
        case "float_type" | "finite_number":
            return f"must be a finite number, got {found}"
        case "string_type":
            quote = "; quote it" if isinstance(error["input"], int | float) else ""
            return f"must be text, got {found}{quote}"
        case "string_too_short":
            return f"must not be empty, got {found}"
        case "bool_type":
            return f"must be true or false, got {found}"
        case "greater_than_equal":
            return f"must be >= {context['ge']:g}, got {found}"
        case "greater_than":
            return f"must be > {context['gt']:g}, got {found}"
        case "less_than_equal":
            most = context["le"]
            return f"must be at most {most if isinstance(most, int) else format(most, 'g')}, got {found}"
        case "literal_error":
            return f"must be {context['expected']}, got {found}"
        case "model_type" | "dict_type" | "mapping_type" | "model_attributes_type":
            return f"must be a mapping, got {found}"
        case "tuple_type" | "list_type":
            return f"must be a list, got {found}"
        case _:
            return f"{_lowered(error['msg'])}, got {found}"


def _lowered(text: str) -> str:
    return (text[:1].lower() + text[1:]).rstrip(".")
