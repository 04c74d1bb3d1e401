"""Tables and JSON lines that a program appends to: CSV files, Lightning's among them, and `.jsonl`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hpcsweep.worker.metrics.appended import LONGEST, AppendedFile, Lines
from hpcsweep.worker.metrics.numbers import parse_number
from hpcsweep.worker.metrics.rows import Fields, KnownRows, Row, flatten, is_absent, scalars, with_point

#: Of what separates cells, the first one in the header; else white space does.
_DELIMITERS: Final = (",", "\t", ";", "|")
#: Size of a file whose rows are remembered from before the program starts; larger ones are passed over.
_MOST_BEFORE: Final = 1 << 23


class _Growing:
    """A file of rows, each in lines of its own, that grows or is written again as a whole."""

    def __init__(self, path: Path) -> None:
        self.names: dict[str, None] = {}
        self._file = AppendedFile(path)
        self._known = KnownRows()
        self._reset()

    def _reset(self) -> None:
        self._lines = Lines()
        self._known.rewind()

    def _rows(self, line: bytes) -> Iterator[Fields]:
        """The row that ends with this line, if one does."""
        raise NotImplementedError

    def begin(self) -> None:
        """Pass over what is there; a line without its end is not there yet."""
        first = self._file.pass_over(larger=_MOST_BEFORE)
        if first is not None:
            for _ in self._rows(first):
                pass
            return
        for fields in self._fields():
            self._known.begin(fields)
        self._known.started()

    @property
    def anew(self) -> bool:
        """See `Source`."""
        return self._known.anew

    def poll(self, *, last: bool, whole: bool) -> Iterator[Row]:
        """New rows; see `Source`."""
        for fields in self._fields():
            if row := self._known.judge(fields):
                yield row
        if last and whole:
            for fields in self._rows(self._lines.finish()):
                if row := self._known.judge(fields):
                    yield row

    def _fields(self) -> Iterator[Fields]:
        for piece in self._file.pieces():
            if piece is None:
                self._reset()
                continue
            for line in self._lines.feed(piece):
                yield from self._rows(line)


class CsvSource(_Growing):
    """A CSV file. Its first row names the columns; if that is all numbers, they are `1`, `2`, ...

    Cells are separated by what the first row has of comma, tab, semicolon and bar, else by white space. A
    row of names alone, in a file that a later run appends to, names the columns anew.
    """

    def _reset(self) -> None:
        super()._reset()
        self._columns: list[str] | None = None
        self._delimiter = ","
        self._record = ""

    def _rows(self, line: bytes) -> Iterator[Fields]:
        text = line.decode(errors="replace").rstrip("\r")
        record = f"{self._record}\n{text}" if self._record else text
        if '"' in record and record.count('"') % 2 and len(record) < LONGEST:  # a line end within quotes
            self._record = record
            return
        self._record = ""
        if not record.strip():
            return
        if self._columns is None:
            record = record.lstrip("\ufeff")
            record = record.lstrip("# ") if record.startswith("#") else record
            self._delimiter = next((each for each in _DELIMITERS if each in record), " ")
        elif record.startswith("#"):
            return
        cells = self._cells(record)
        if not cells:
            return
        numbers = [self._number(cell) for cell in cells]
        if self._columns is None:
            numbered = None not in numbers
            self._columns = [str(n + 1) for n in range(len(cells))] if numbered else cells
            self.names |= dict.fromkeys(self._columns)
            if not numbered:
                return
        elif self._is_header(cells, numbers):
            self._columns = cells
            self.names |= dict.fromkeys(cells)
            return
        yield {
            name: cell if number is None else number
            for name, cell, number in zip(self._columns, cells, numbers, strict=False)
            if number is not None or not is_absent(cell)
        }

    def _is_header(self, cells: list[str], numbers: list[float | None]) -> bool:
        """Whether the row names the columns again: no numbers, and some of the same names."""
        assert self._columns is not None
        return (
            len(cells) == len(self._columns)
            and not any(
                number is not None or is_absent(cell) for number, cell in zip(numbers, cells, strict=True)
            )
            and not set(cells).isdisjoint(self._columns)
        )

    def _cells(self, record: str) -> list[str]:
        if self._delimiter == " ":
            return [cell.strip('"') for cell in record.split()]
        if '"' not in record:
            return [cell.strip() for cell in record.split(self._delimiter)]
        try:
            row = next(csv.reader([record], delimiter=self._delimiter, skipinitialspace=True))
        except csv.Error:  # a cell that is too long
            return []
        return [cell.strip() for cell in row]

    def _number(self, cell: str) -> float | None:
        try:
            return float(cell)
        except ValueError:
            return parse_number(with_point(cell) if self._delimiter == ";" else cell) if cell else None


class JsonLinesSource(_Growing):
    """A file with a JSON object in each line; what is no object is passed over."""

    def _rows(self, line: bytes) -> Iterator[Fields]:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            return
        if isinstance(found, dict):
            fields = scalars(flatten(found))
            self.names |= dict.fromkeys(fields)
            yield fields
