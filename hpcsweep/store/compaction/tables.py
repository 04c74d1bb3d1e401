"""`compacted/tables.json`: tables of a sweep that has ended, and where its journal ended then.

Whoever finds that the journal still ends there need not replay it. The tables lie beside, under names
that no other tables ever have.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from hpcsweep.core.events import RunId
from hpcsweep.errors import NewerFormatError
from hpcsweep.store.files import read_bytes, write_atomic
from hpcsweep.store.journal.segments import Position, ends_at
from hpcsweep.store.layout import Layout
from hpcsweep.store.versions import decode, version_field

_NAME = re.compile(r"(?:trials|runs)-\d+-\d+\.parquet\Z")
_TEMPORARY = re.compile(r"\.(?:trials|runs|tables)\b.*\.tmp\Z")


class Tables(msgspec.Struct, frozen=True):
    """What the tables were made of.

    Attributes:
        at: Where the journal ended, and the checksum of the line that ended there.
        name: Of the sweep; `identity` as well.
        best: Its best configuration, as `best` prints it.
        parts: Those that hold its reports.
        raw: Runs whose reports are in none of them.
        simulated: Whether nothing was trained.
    """

    at: Position
    checksum: str
    name: str
    identity: dict[str, Any]
    best: dict[str, Any] | None
    parts: tuple[str, ...]
    raw: tuple[RunId, ...]
    version: int = version_field()
    simulated: bool = False

    def path(self, layout: Layout, table: str) -> Path:
        """Where a table is: `trials` or `runs`."""
        return layout.compacted / f"{table}-{self.at.segment:06d}-{self.at.offset}.parquet"


_decoder = msgspec.json.Decoder(Tables)


def write_tables(layout: Layout, tables: Tables) -> None:
    """Have these tables, which are there already, count from now on; others are removed."""
    _remove(layout, _TEMPORARY)  # of who was killed; first, for once the tables count nobody looks again
    write_atomic(layout.tables, msgspec.json.encode(tables))
    _remove(layout, _NAME, keep={tables.path(layout, table).name for table in ("trials", "runs")})


def _remove(layout: Layout, pattern: re.Pattern[str], *, keep: Collection[str] = ()) -> None:
    for name in os.listdir(layout.compacted):
        if pattern.match(name) and name not in keep:
            (layout.compacted / name).unlink(missing_ok=True)


def read_tables(layout: Layout) -> Tables | None:
    """The tables, if the journal still ends where it did; None if not, or if none can be read."""
    try:
        tables = decode(read_bytes(layout.tables), _decoder, layout.tables)
    except (OSError, msgspec.MsgspecError, NewerFormatError):  # the journal has it all
        return None
    return tables if ends_at(layout, tables.at, checksum=tables.checksum) else None
