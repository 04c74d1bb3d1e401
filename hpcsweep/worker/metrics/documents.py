"""JSON documents that a program writes as a whole: results, histories, `trainer_state.json`."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hpcsweep.store.files import open_regular
from hpcsweep.worker.metrics.rows import Fields, KnownRows, Row, flatten, scalars, to_float

#: Larger documents are not what a run should write again and again.
_MOST_BYTES: Final = 1 << 28
_REDUCED: Final = re.compile(r"(mean|min|max|last)\((.+)\)")
_REDUCERS: Final[Mapping[str, Callable[[Sequence[float]], float]]] = {
    "mean": lambda values: math.fsum(values) / len(values),
    "min": min,
    "max": max,
    "last": lambda values: values[-1],
}


class JsonSource:
    """A JSON document.

    A list of objects has a row for each. So has an object of lists, as Keras has its history. The numbers of
    an object are one row if it has a step; without one they are the result of the whole run, which is read
    at its end.

    Args:
        path: Of the document.
        step: Name of the step; empty for none.
        wanted: Names in the document; `mean(NAME)` is the mean of a list of numbers.
        known: Shared by documents that hold the same rows.
    """

    def __init__(
        self, path: Path, *, step: str, wanted: Collection[str], known: KnownRows | None = None
    ) -> None:
        self.names: dict[str, None] = {}
        self._path = path
        self._step = step
        self._reduced = {name: match for name in wanted if (match := _REDUCED.fullmatch(name))}
        self._known = known or KnownRows()
        self._state: tuple[int, int, int] | None = None
        self._result: Fields = {}

    def begin(self) -> None:
        """Pass over the rows that are there."""
        for fields in self._read() or ():
            self._known.begin(fields)
        self._known.started()
        self._result = {}

    @property
    def anew(self) -> bool:
        """See `Source`."""
        return self._known.anew

    def poll(self, *, last: bool, whole: bool) -> Iterator[Row]:
        """New rows; see `Source`."""
        for fields in self._read() or ():
            if row := self._known.judge(fields):
                yield row
        if last and whole and self._result:
            yield Row(self._result, result=True)

    def _read(self) -> list[Fields] | None:
        """The rows, if the document has changed."""
        try:
            fd = open_regular(self._path)
        except FileNotFoundError:
            return None
        with open(fd, "rb") as file:
            about = os.fstat(fd)
            state = (about.st_ino, about.st_size, about.st_mtime_ns)
            if state == self._state:
                return None
            if about.st_size > _MOST_BYTES:
                raise ValueError(f"has {about.st_size} bytes, more than {_MOST_BYTES}")
            data = file.read()
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            # Perhaps it is being written: it is read again, whether its time changes or not.
            self._state = None
            if not data.strip():
                return None
            raise ValueError(f"is no JSON document: {error}") from error
        self._state = state
        self._known.rewind()
        return list(self._rows(document))

    def _rows(self, document: Any) -> Iterator[Fields]:
        if isinstance(document, list):
            for item in document:
                if isinstance(item, dict):
                    flat = flatten(item)
                    self.names |= dict.fromkeys(flat)
                    yield scalars(flat)
        elif isinstance(document, dict):
            yield from self._object(flatten(document))

    def _object(self, flat: dict[str, Any]) -> Iterator[Fields]:
        self.names |= dict.fromkeys(flat)
        lists = {name: item for name, item in flat.items() if isinstance(item, list) and item}
        single = scalars(flat)
        for name, match in self._reduced.items():
            numbers = [to_float(item) for item in lists.get(match[2], ()) if _is_number(item)]
            if numbers:
                single[name] = _REDUCERS[match[1]](numbers)
        reduced = {match[2] for match in self._reduced.values()}
        columns = {
            name: item for name, item in lists.items() if name not in reduced and all(map(_is_number, item))
        }
        for index in range(max(map(len, columns.values()), default=0)):
            yield {name: to_float(item[index]) for name, item in columns.items() if index < len(item)}
        if self._step and self._step in single:
            yield single
        else:
            self._result = single


class TrainerStateSource(JsonSource):
    """The `trainer_state.json` of Hugging Face's Trainer: the rows of its `log_history`."""

    def _rows(self, document: Any) -> Iterator[Fields]:
        history = document.get("log_history") if isinstance(document, dict) else None
        if not isinstance(history, list):
            raise ValueError("has no log_history: is it a trainer_state.json?")
        yield from super()._rows(history)


def _is_number(item: object) -> bool:
    return isinstance(item, int | float) and not isinstance(item, bool)
