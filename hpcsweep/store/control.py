"""Requests from other commands: one file each, taken up by the driver's next tick."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import msgspec

from hpcsweep.errors import FolderError
from hpcsweep.store.files import make_dirs, read_bytes, write_atomic
from hpcsweep.store.layout import Layout


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """What somebody asks of the sweep.

    Attributes:
        verb: `stop`, `enqueue` or `retry`.
        arguments: `config` to be enqueued; `trial` to be retried, all that failed if not given.
    """

    verb: str
    at: float
    user: str
    arguments: dict[str, Any] = {}


def put_request(layout: Layout, request: Request) -> Path:
    """Leave a request, durable; a sweep that runs or is launched again takes it up.

    Raises:
        FolderError: The folder cannot be written.
    """
    name = f"{time.time_ns():019d}-{secrets.token_hex(4)}.json"
    try:
        make_dirs(layout.control)
        write_atomic(layout.control / name, msgspec.json.encode(request))
    except OSError as error:
        raise FolderError(f"{layout.control}: cannot be written: {error.strerror}") from error
    return layout.control / name


def new_requests(layout: Layout, seen: Container[str]) -> Iterator[tuple[str, Request]]:
    """Requests by name, oldest first, without those in `seen`; one readdir.

    Raises:
        FolderError: A file there is no request.
    """
    try:
        names = sorted(os.listdir(layout.control))
    except FileNotFoundError:
        return
    for name in names:
        if name.endswith(".json") and name[0] != "." and name not in seen:
            path = layout.control / name
            try:
                yield name, msgspec.json.decode(read_bytes(path), type=Request)
            except FileNotFoundError:  # taken up by a newer driver
                continue
            except msgspec.MsgspecError as error:
                raise FolderError(f"{path}: is no request ({error}): remove it") from error


def drop_request(layout: Layout, name: str) -> None:
    """Remove a request that the journal has taken up."""
    with contextlib.suppress(FileNotFoundError):
        (layout.control / name).unlink()
