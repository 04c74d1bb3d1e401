"""Identifies the process that drives a sweep, and tells whether it is alive."""

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path

import msgspec

#: A driver on another machine without a heartbeat for this long is taken for dead. If that is
#: wrong, no harm is done: it finds itself superseded before its next write or submission.
SILENT_S = 90.0


class ProcessId(msgspec.Struct, frozen=True):
    """A process, distinct from all others, later ones with the same pid included.

    Attributes:
        place: Boot and process namespace, in which the pid is unique.
        start_time: In clock ticks since boot.
    """

    host: str
    user: str
    pid: int
    place: str
    start_time: int = msgspec.field(name="born")

    @classmethod
    def me(cls) -> ProcessId:
        """This process."""
        pid = os.getpid()
        return cls(socket.gethostname(), _user(), pid, _place(), start_time(pid) or 0)

    def alive(self, silent_s: float) -> bool:
        """Whether it runs: certain on its own machine, elsewhere by seconds since its last heartbeat."""
        if self.place == _place():
            return start_time(self.pid) == self.start_time
        # A sign from the future is none: a clock was ahead when it was given.
        return abs(silent_s) < SILENT_S

    @property
    def is_here(self) -> bool:
        """Whether the process is one of this machine and namespace."""
        return self.place == _place()

    def __str__(self) -> str:
        return f"process {self.pid} of {self.user} on {self.host}"


def start_time(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return socket.gethostname()
