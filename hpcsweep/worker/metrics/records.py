"""Binary logs that loggers append to: TensorBoard's event files and W&B's `.wandb` files.

Both hold protocol buffers, of which a few fields are read here: neither package is needed. Formats:
TFRecord (tensorflow/core/lib/io/record_writer.h) with Event (tensorflow/core/util/event.proto); after a
header of 7 bytes LevelDB's log (doc/log_format.md) with Record (wandb/proto/wandb_internal.proto). Checksums
are not checked.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hpcsweep.store.files import open_regular
from hpcsweep.worker.metrics.rows import Row, to_float

#: Records that are longer hold no scalars: images, texts, graphs.
_LONGEST: Final = 1 << 20
#: No record is longer: what says so is no such file.
_ABSURD: Final = 1 << 32
_BLOCK: Final = 1 << 15
_WANDB_HEADER: Final = 7
_NOT_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

#: Wire types of protocol buffers.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
#: TensorFlow's types of numbers: how `tensor_content` holds one, and the field with its values.
_DTYPES: Final = {1: ("<f", 5), 2: ("<d", 6), 3: ("<i", 7), 9: ("<q", 10), 19: ("<e", 13)}


class _Log:
    """A file of records that only grows."""

    anew = False

    def __init__(self, path: Path) -> None:
        self.names: dict[str, None] = {}
        self._path = path
        self._offset = 0
        self._inode: int | None = None

    def begin(self) -> None:
        """Pass over what is there."""
        for _ in self._records():
            pass

    def _records(self) -> Iterator[bytes]:
        """Whole records that were added; one that is not whole yet waits."""
        try:
            fd = open_regular(self._path)
        except FileNotFoundError:
            return
        try:
            about = os.fstat(fd)
            if about.st_ino != self._inode or about.st_size < self._offset:
                self._inode, self._offset = about.st_ino, 0
            yield from self._whole(fd, about.st_size)
        finally:
            os.close(fd)

    def _whole(self, fd: int, size: int) -> Iterator[bytes]:
        raise NotImplementedError


class TensorBoardSource(_Log):
    """Scalars of an event file, with simple values or as tensors; those of one step are one row.

    `tag` is the step of rows, such as `epoch`, if that is not the step of the events.
    """

    def __init__(self, path: Path, *, tag: str) -> None:
        super().__init__(path)
        self._tag = tag
        self._step: int | None = None
        self._row: dict[str, float] = {}
        self._tagged: dict[str, float] = {}

    def poll(self, *, last: bool, whole: bool) -> Iterator[Row]:
        """New rows; see `Source`. A row waits until nothing is added to it any more, and for its tag."""
        added = False
        for record in self._records():
            try:
                step, found = _event(record)
            except (ValueError, struct.error):  # the records after a damaged one are whole
                continue
            if not found:
                continue
            added = True
            self.names |= dict.fromkeys(found)
            if step != self._step or found.keys() & self._row.keys():
                yield from self._take()
            if step != self._step:
                self._tagged = {}
            self._step = step
            self._row |= found
            if self._tag in found:
                self._tagged = {self._tag: found[self._tag]}
        waits = self._tag and self._tag not in {**self._row, **self._tagged}
        if last or not (added or waits):
            yield from self._take()

    def _take(self) -> Iterator[Row]:
        row, self._row = self._row, {}
        if row and self._step is not None:
            yield Row({"step": float(self._step), **self._tagged, **row})

    def _whole(self, fd: int, size: int) -> Iterator[bytes]:
        while self._offset + 16 <= size:
            (length,) = struct.unpack("<Q", os.pread(fd, 8, self._offset))
            if length > _ABSURD:
                raise ValueError("is no event file, or damaged")
            end = self._offset + 16 + length
            if end > size:
                return
            data = os.pread(fd, length, self._offset + 12) if length <= _LONGEST else b""
            self._offset = end
            yield data


class WandbSource(_Log):
    """The history in a `.wandb` file, as it is written offline."""

    def poll(self, *, last: bool, whole: bool) -> Iterator[Row]:
        """New rows; see `Source`."""
        for record in self._records():
            try:
                found = [_history(history) for history in _messages(record, 2)]
            except (ValueError, struct.error, RecursionError):  # the records after a damaged one are whole
                continue
            for fields in found:
                self.names |= dict.fromkeys(fields)
                yield Row(fields)

    def _whole(self, fd: int, size: int) -> Iterator[bytes]:
        if self._offset == 0:
            if size < _WANDB_HEADER:
                return
            if os.pread(fd, 4, 0) != b":W&B":
                raise ValueError("is no .wandb file, or damaged")
            self._offset = _WANDB_HEADER
        at, parts, length = self._offset, b"", 0
        while True:
            if _BLOCK - at % _BLOCK < 7:  # too little is left of a block for a record
                at += _BLOCK - at % _BLOCK
            if at + 7 > size:
                return
            _, part, kind = struct.unpack("<IHB", os.pread(fd, 7, at))
            if kind not in (1, 2, 3, 4) or at % _BLOCK + 7 + part > _BLOCK:
                raise ValueError(f"is damaged at byte {at}")
            if at + 7 + part > size:
                return
            if kind in (1, 2):
                parts, length = b"", 0
            length += part
            if length <= _LONGEST:
                parts += os.pread(fd, part, at + 7)
            at += 7 + part
            if kind in (1, 4):
                self._offset = at
                yield parts if length <= _LONGEST else b""


# --------------------------------------------------------------------------- protocol buffers


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and value of each field: an int, or bytes.

    Raises:
        ValueError: It is no message.
    """
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, wire, value
            continue
        if wire == _BYTES:
            length, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError("is damaged: a record is no message")
        if at + length > len(data):
            raise ValueError("is damaged: a record ends early")
        yield number, wire, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, at
    raise ValueError("is damaged: a number in a record does not end")


def _messages(data: bytes, number: int) -> Iterator[bytes]:
    """The values of a field of messages, texts or bytes."""
    return (value for found, wire, value in _fields(data) if found == number and wire == _BYTES)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _event(data: bytes) -> tuple[int, dict[str, float]]:
    """Step and scalars of an Event."""
    step, found = 0, {}
    for number, wire, value in _fields(data):
        if (number, wire) == (2, _VARINT):
            step = _signed(value)
        elif (number, wire) == (5, _BYTES):
            for summary in _messages(value, 1):
                tag, scalar = _summary_value(summary)
                if scalar is not None:
                    found[tag] = scalar
    return step, found


def _summary_value(data: bytes) -> tuple[str, float | None]:
    tag, scalar = "", None
    for number, wire, value in _fields(data):
        if (number, wire) == (1, _BYTES):
            tag = value.decode(errors="replace")
        elif (number, wire) == (2, _FIXED32):
            (scalar,) = struct.unpack("<f", value)
        elif (number, wire) == (8, _BYTES):
            scalar = _tensor(value)
    return tag, scalar


def _tensor(data: bytes) -> float | None:
    """The number that a tensor without dimensions holds; None for any other tensor."""
    fields = list(_fields(data))
    dtype = next((value for number, wire, value in fields if (number, wire) == (1, _VARINT)), 0)
    shape = b"".join(value for number, wire, value in fields if (number, wire) == (2, _BYTES))
    if dtype not in _DTYPES or any(_messages(shape, 2)):
        return None
    code, own = _DTYPES[dtype]
    size = struct.calcsize(code)
    for number, wire, value in fields:
        packed = number == own and code in ("<f", "<d")
        if (number == 4 or packed) and wire == _BYTES and len(value) == size:
            return float(struct.unpack(code, value)[0])
        if number == own and wire in (_FIXED32, _FIXED64):
            return float(struct.unpack(code, value)[0])
        if number == own and wire in (_VARINT, _BYTES):
            whole = value if wire == _VARINT else _varint(value, 0)[0]
            if code == "<e":
                return float(struct.unpack("<e", struct.pack("<H", whole & 0xFFFF))[0])
            return float(_signed(whole))
    return 0.0  # a zero is not written


def _history(data: bytes) -> dict[str, float]:
    """Names and numbers of a HistoryRecord."""
    items = (_item(item) for item in _messages(data, 1))
    return {name: number for name, number in items if number is not None}


def _item(data: bytes) -> tuple[str, float | None]:
    """Name and number of a HistoryItem; None if it is no number."""
    keys: list[str] = []
    scalar: float | None = None
    for number, wire, value in _fields(data):
        if number in (1, 2) and wire == _BYTES:
            keys.append(value.decode(errors="replace"))
        elif (number, wire) == (5, _VARINT):
            scalar = float((value >> 1) ^ -(value & 1))
        elif (number, wire) == (6, _FIXED64):
            (scalar,) = struct.unpack("<d", value)
        elif (number, wire) == (16, _BYTES):
            found = json.loads(value)
            if isinstance(found, int | float) and not isinstance(found, bool):
                scalar = to_float(found)
            else:
                scalar = _NOT_FINITE.get(str(found))
    return ".".join(keys), scalar
