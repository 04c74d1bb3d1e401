"""JSON values of parameters and specs: equality, what cannot be written, and how messages show them. Pure."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import Any, Final

MAX_SHOWN: Final = 200


#: Lists and mappings within each other, in a value of a parameter and in a whole spec.
MAX_NESTING: Final = 50


#: What a JSON reader anywhere takes as an integer: 64 bits.
_INT_RANGE: Final = (-(2**63), 2**64 - 1)


def json_key(value: Any) -> Hashable:
    """A key that is equal for equal JSON values: 1 is 1.0, but True is not 1."""
    match value:
        case bool():
            return ("bool", value)
        case list() | tuple():
            return ("list", *(json_key(item) for item in value))
        case dict():
            return ("dict", frozenset((key, json_key(item)) for key, item in value.items()))
        case _:
            return value  # type: ignore[no-any-return]


def json_problem(value: Any, *, depth: int = 0) -> str | None:
    """Why the value cannot be written as JSON and read back the same, None if it can."""
    if depth > MAX_NESTING:
        return f"must be nested at most {MAX_NESTING} deep"
    match value:
        case None | bool():
            return None
        case int():
            low, high = _INT_RANGE
            if low <= value <= high:
                return None
            return f"must be an integer of 64 bits, got {format_value(value)}; quote it if it is text"
        case str():
            return text_problem(value)
        case float():
            return None if math.isfinite(value) else f"must be finite (JSON has no {value}), got {value}"
        case list() | tuple():
            return next(filter(None, (json_problem(item, depth=depth + 1) for item in value)), None)
        case dict():
            if not all(isinstance(key, str) for key in value):
                return f"must have text keys only, got {format_value(value)}"
            parts = (part for pair in value.items() for part in pair)
            return next(filter(None, (json_problem(part, depth=depth + 1) for part in parts)), None)
        case _:
            return f"must be a number, text, true, false, null, list or mapping, got {format_value(value)}"


def text_problem(text: str) -> str | None:
    """Why the text cannot be written to a file as UTF-8, None if it can."""
    if text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text):
        return None
    words = "half of a surrogate pair, which UTF-8 cannot hold"
    return f"must be Unicode text, got {format_value(text)} with {words}; write the character itself"


def format_value(value: Any) -> str:
    """The value as a message shows it: `true`, `null` and lists as in YAML, texts quoted, long ones cut.

    It costs the same however large the value is.
    """
    return truncate(_as_yaml(value, room=MAX_SHOWN + 1))


def truncate(text: str) -> str:
    """The text, or its beginning where it is long."""
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 4]} ..."


def _as_yaml(value: Any, *, room: int) -> str:
    """The text, or the first `room` characters of it and perhaps some more."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() if value.bit_length() > 4 * MAX_SHOWN:
            return f"an integer of about {int(value.bit_length() * math.log10(2)) + 1} digits"
        case str():
            return repr(value[:room])
        case list() | tuple():
            return f"[{_joined((('', item) for item in value), room=room)}]"
        case dict():
            return f"{{{_joined(((f'{_key(key)}: ', item) for key, item in value.items()), room=room)}}}"
        case _:
            return repr(value)


def _key(key: Any) -> str:
    return str(key)[:MAX_SHOWN]


def _joined(items: Iterable[tuple[str, Any]], *, room: int) -> str:
    texts: list[str] = []
    for before, item in items:
        if room <= 0:
            break
        texts.append(before + _as_yaml(item, room=room))
        room -= len(texts[-1]) + 2
    return ", ".join(texts)
