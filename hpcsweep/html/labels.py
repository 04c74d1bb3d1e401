"""What stands at axes and in lists: values of configurations, trial numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from hpcsweep.core.domains import format_value
from hpcsweep.html.format import number

#: So many names of a list are told.
_NAMED: Final = 10
#: A label longer than that is cut in the middle: either end may tell it from others.
_LONGEST: Final = 32


def some(names: Sequence[object]) -> str:
    """`3, 1, 8`; of a long list the first ones: `3, 1, 8 and 12 more`."""
    told = ", ".join(str(name) for name in names[:_NAMED])
    return f"{told} and {len(names) - _NAMED:,} more" if len(names) > _NAMED else told


def label(value: Any) -> str:
    """A value of a configuration: text as it is, numbers short, the rest as in YAML."""
    match value:
        case str():
            text = value
        case int() | float() if not isinstance(value, bool):
            text = number(value)
        case _:
            text = format_value(value)
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[: half - 1]} … {text[2 - half :]}"
