"""Requests from other commands: one file each, handled by the driver's next tick."""

from __future__ import annotations

import os
import re
import secrets
import stat
import time
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from hpcsweep.errors import FolderError, NewerFormatError
from hpcsweep.store.files import make_dirs, read_bytes, write_atomic
from hpcsweep.store.layout import SMALL_BYTES, Layout, Skipped, decode, regular_files, version_field
from hpcsweep.store.process_id import ProcessId

#: Any name with this ending: requests may be written by hand.
_NAME: Final = re.compile(r"[^.].*\.json", re.DOTALL)


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request to the driver.

    Attributes:
        verb: `stop`, `stop_trial`, `enqueue` or `retry`.
        arguments: `config` to enqueue; `trial` to stop or retry, all failed ones if missing.
    """

    verb: str
    at: float
    user: str
    arguments: dict[str, Any] = {}
    version: int = version_field()


_decoder = msgspec.json.Decoder(Request)


def send_request(layout: Layout, verb: str, **arguments: Any) -> None:
    """Write a request of this user, now; see `write_request`."""
    me = ProcessId.me()
    write_request(layout, Request(verb, time.time(), f"{me.user}@{me.host}", arguments))


def write_request(layout: Layout, request: Request) -> Path:
    """Write a request, durable; a running or later launched driver handles it.

    The owner of the results folder can read and remove it, whatever the umask is.

    Raises:
        FolderError: The folder cannot be written, or its owner could not read the request.
    """
    path = layout.control / f"{time.time_ns():019d}-{secrets.token_hex(4)}.json"
    try:
        _make_folder(layout)
        write_atomic(path, msgspec.json.encode(request))
        if os.stat(layout.root).st_uid != os.geteuid():
            _let_read(path)
    except OSError as error:
        raise FolderError(f"{layout.control}: cannot be written: {error.strerror}") from error
    return path


def _make_folder(layout: Layout) -> None:
    """Make `control/`, open to whoever may use the results folder."""
    if layout.control.is_dir():
        return
    make_dirs(layout.control)
    around = os.stat(layout.root)
    if around.st_uid != os.geteuid():
        # Its owner need not be in our group: then it is the permissions for others that count.
        mode = stat.S_IMODE(os.stat(layout.control).st_mode)
        os.chmod(layout.control, mode | stat.S_IMODE(around.st_mode) & 0o077)


def _let_read(path: Path) -> None:
    """Let others read the request; FolderError if the folder does not let them in."""
    os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) | 0o044)
    mode = os.stat(path.parent).st_mode
    if not mode & 0o011:
        path.unlink()
        raise FolderError(
            f"{path.parent}: lets nobody but its owner in, so that the owner of the sweep could not read the "
            f"request; make it readable (chmod g+rwx, o+rx) or have the owner of {path.parent} do it"
        )


def new_requests(
    layout: Layout, seen: Container[str], skipped: Skipped | None = None
) -> Iterator[tuple[str, Request]]:
    """Requests by file name, oldest first, without those in `seen`; others go to `skipped`; one readdir."""
    skipped = Skipped() if skipped is None else skipped
    for name in sorted(name for name, _ in regular_files(layout.control, _NAME, skipped, besides=seen)):
        path = layout.control / name
        try:
            request = decode(read_bytes(path, at_most=SMALL_BYTES), _decoder, path)
        except FileNotFoundError:  # taken up by a newer driver
            continue
        except (OSError, msgspec.MsgspecError, NewerFormatError) as error:
            skipped.note(path, error)
            continue
        yield name, request


def remove_request(layout: Layout, name: str, skipped: Skipped | None = None) -> None:
    """Remove a request that the journal has taken up; one that cannot be removed is noted in `skipped`."""
    path = layout.control / name
    try:
        path.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        if skipped is not None:
            skipped.note(path, f"is taken up and cannot be removed: {error.strerror}")
