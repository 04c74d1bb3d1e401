"""Collects problems of a spec: file, key path, what was expected and what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from hpcsweep.core.text import format_value, suggest_name, truncate
from hpcsweep.errors import SpecError
from hpcsweep.options import describe_type, is_union

Model = TypeVar("Model", bound=BaseModel)

#: Problems reported at a time.
MAX_PROBLEMS: Final = 30


class Problems:
    """Collects problems, so that all are reported at once.

    Args:
        source: The spec file as given.
        overrides: Key path -> the `--set` text that set it; its problems name that instead of the file.
    """

    def __init__(self, source: str, overrides: Mapping[str, str]) -> None:
        self._source = source
        self._overrides = overrides
        self._lines: dict[str, None] = {}

    def add(self, path: str, problem: str) -> None:
        """Add a problem at the key `path`, or with the whole spec if it is empty.

        Raises:
            SpecError: There are MAX_PROBLEMS of them.
        """
        source = self._source
        within = [key for key in self._overrides if path == key or path.startswith((f"{key}.", f"{key}["))]
        if within:
            source = f"--set {truncate(self._overrides[max(within, key=len)])}"
        self._lines[": ".join(filter(None, (source, path, problem)))] = None
        if len(self._lines) >= MAX_PROBLEMS:
            raise SpecError(
                *self._lines, f"{self._source}: and perhaps more; these are the first {MAX_PROBLEMS}"
            )

    @property
    def count(self) -> int:
        return len(self._lines)

    def raise_if_any(self) -> None:
        """Raise all problems as one error, if there are any.

        Raises:
            SpecError: There are problems.
        """
        if self._lines:
            raise SpecError(*self._lines)

    def validated(
        self, model: type[Model], data: Any, *, path: str, also_known: Sequence[str] = ()
    ) -> Model | None:
        """`data` as the model, or None after adding its problems.

        Unknown keys are reported and dropped, so that the rest is checked too. `also_known` are keys of
        the section that are read elsewhere; messages about unknown keys list them.
        """
        try:
            return model.model_validate(data)
        except ValidationError as error:
            errors = error.errors(include_url=False)
        for found in errors:
            keys, problem = _describe_error(found, model, [*also_known, *model.model_fields])
            self.add(join_path(path, keys), problem)
        if any(found["type"] != "extra_forbidden" for found in errors):
            return None
        return model.model_validate({key: data[key] for key in data if key in model.model_fields})


def join_path(path: str, keys: Sequence[int | str]) -> str:
    """`a`, `("b", 0)` -> `a.b[0]`."""
    for key in keys:
        path += f"[{key}]" if isinstance(key, int) else f".{key}" if path else str(key)
    return path


def _describe_error(
    error: ErrorDetails, model: type[BaseModel], known: Sequence[str]
) -> tuple[Sequence[int | str], str]:
    """The key path within the section, and the problem."""
    keys = error["loc"]
    field = model.model_fields.get(str(keys[0])) if keys else None
    if field is not None and is_union(field.annotation):
        # Pydantic reports each member of the union; one line is clearer.
        return keys[:1], f"must be {describe_type(field.annotation)}, got {format_value(error['input'])}"
    return keys, _problem(error, field, known)


def _problem(error: ErrorDetails, field: FieldInfo | None, known: Sequence[str]) -> str:
    found, context = format_value(error["input"]), error.get("ctx", {})
    match error["type"]:
        case "missing" if field is not None:
            return f"missing; expected {_lower_first(field.description)}" if field.description else "missing"
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
            return f"{_lower_first(error['msg'])}, got {found}"


def _lower_first(text: str) -> str:
    return (text[:1].lower() + text[1:]).rstrip(".")
