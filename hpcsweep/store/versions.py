"""Format versions of the files in a results folder.

Each file has a `version`; one without it (hpcsweep 0.1) is version 1. Raise a version when a field changes
its meaning; new fields get defaults, so that older files stay readable.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from hpcsweep.errors import NewerFormatError

T = TypeVar("T")


class _Versioned(msgspec.Struct):
    version: int = 1


_decoder = msgspec.json.Decoder(_Versioned)


def version_field(version: int = 1) -> Any:
    """A struct's `version`: always written, even where defaults are omitted."""
    return msgspec.field(default_factory=lambda: version)


def decode(data: bytes, decoder: msgspec.json.Decoder[T], path: Path | str, *, newest: int = 1) -> T:
    """Decode a file that has a version; `path` is for messages, `newest` the newest readable version.

    Raises:
        NewerFormatError: It has a newer version, whether or not it fits the struct.
        msgspec.MsgspecError: It is damaged.
    """
    check_version(_decoder.decode(data).version, path, newest=newest)
    return decoder.decode(data)


def check_version(version: int, path: Path | str, *, newest: int = 1) -> None:
    """Raise NewerFormatError for a version above `newest`."""
    if version > newest:
        raise NewerFormatError(
            f"{path}: written by a newer hpcsweep (format version {version}, this one reads up to {newest}): "
            "upgrade hpcsweep here"
        )
