"""What sources of metrics have in common: rows, and which of them are new to this attempt."""

from __future__ import annotations

import math
import re
import zlib
from array import array
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, Protocol

#: Names and numbers of one step; text where a number could not be read.
Fields = Mapping[str, float | str]

#: Rows of a file that are remembered: 8 bytes each.
_MOST_ROWS: Final = 4_000_000
_OLD: Final = 1 << 32
#: What is no value at all: R and databases have a word for it.
_ABSENT: Final = frozenset({"", "na", "n/a", "null", "none", "-", "missing"})
_DECIMAL_COMMA: Final = re.compile(r"[-+]?\d+,\d+(?:[eE][-+]?\d+)?")


class Row(NamedTuple):
    """One row of a file.

    Attributes:
        old: It stood there already when the attempt began, and was written again since.
        result: It is of no step: the result of the whole run.
    """

    fields: Fields
    old: bool = False
    result: bool = False


class Source(Protocol):
    """One file that is followed, or one folder that is read as one.

    Attributes:
        names: What there is in it, whether it was read or not.
    """

    names: dict[str, None]

    @property
    def anew(self) -> bool:
        """Whether what stood there before the attempt was thrown away by it."""
        ...

    def begin(self) -> None:
        """Pass over what is there before the attempt."""

    def poll(self, *, last: bool, whole: bool) -> Iterator[Row]:
        """New rows.

        `last`: nothing more will come. `whole`: the program ended by itself, so that a last line without
        its end and a document without a step are what it meant to write.

        Raises:
            OSError: It cannot be read now.
            ValueError: It is damaged.
        """
        ...


class KnownRows:
    """Says which rows of a file are new, also where it is written again as a whole."""

    def __init__(self) -> None:
        self._rows = array("Q")
        self._next = 0
        self._before = 0
        self._rewound = False
        self._anew = False

    def rewind(self) -> None:
        """The next row is the first one again."""
        self._anew = self.anew
        self._rewound = self._before > 0
        self._next = 0

    def started(self) -> None:
        """All rows that stand there before the attempt are known."""
        self._before, self._rewound = len(self._rows), False

    @property
    def anew(self) -> bool:
        """Whether the file was seen with fewer rows than it had before the attempt."""
        return self._anew or (self._rewound and self._next < self._before)

    def begin(self, fields: Fields) -> None:
        """A row that stands there before the attempt."""
        self._put(_checksum(fields) | _OLD)

    def judge(self, fields: Fields) -> Row | None:
        """The row if it is new, or old and written again; None if it was seen in this attempt."""
        now = _checksum(fields)
        before = self._rows[self._next] if self._next < len(self._rows) else None
        self._put(now)
        if before == now:
            return None
        return Row(fields, old=before == now | _OLD)

    def _put(self, checksum: int) -> None:
        if self._next < len(self._rows):
            self._rows[self._next] = checksum
        elif self._next < _MOST_ROWS:
            self._rows.append(checksum)
        self._next += 1


def _checksum(fields: Fields) -> int:
    return zlib.crc32(repr(sorted(fields.items())).encode(errors="surrogatepass"))


def is_absent(text: str) -> bool:
    """Whether a cell says that there is no value."""
    return text.strip().lower() in _ABSENT


def with_point(text: str) -> str:
    """A number with a decimal comma, as files with semicolons have it, with a point."""
    return text.replace(",", ".") if _DECIMAL_COMMA.fullmatch(text.strip()) else text


def flatten(value: Any, prefix: str = "", *, depth: int = 20) -> dict[str, Any]:
    """The numbers, texts and lists of a JSON object by name; names within each other joined by dots."""
    found: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict):
            if depth:
                found |= flatten(item, f"{name}.", depth=depth - 1)
        elif item is not None:
            found[name] = item
    return found


def scalars(flat: Mapping[str, Any]) -> dict[str, float | str]:
    """The numbers and texts among the values of a flat mapping."""
    return {
        name: item if isinstance(item, str) else to_float(item)
        for name, item in flat.items()
        if isinstance(item, str | int | float) and not isinstance(item, bool)
    }


def to_float(number: float) -> float:
    """The number; one that is too large is infinite."""
    try:
        return float(number)
    except OverflowError:
        return math.copysign(math.inf, number)
