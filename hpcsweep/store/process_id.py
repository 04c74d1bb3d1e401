"""Identifies the process that drives a sweep, and tells whether it is alive."""

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path

import msgspec

#: A driver on another machine that gave no sign of life for so long is taken for dead. That may
#: be wrong without harm: it finds itself superseded before its next write or submission.
SILENT_S = 90.0


class ProcessId(msgspec.Struct, frozen=True):
    """A process, told apart from all others, later ones with the same number included.

    Attributes:
        place: Boot and process namespace, where the pid means something.
        start_time: Start time of the process in clock ticks since boot.
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
        """Whether it still runs; certain on its own machine, by its last sign of life elsewhere.

        Args:
            silent_s: Seconds since its last sign of life.
        """
        if self.place == _place():
            return start_time(self.pid) == self.start_time
        # A sign from the future is none: a clock was ahead when it was given.
        return abs(silent_s) < SILENT_S

    @property
    def is_here(self) -> bool:
        """Whether its process is one of this machine and this namespace."""
        return self.place == _place()

    def __str__(self) -> str:
        return f"process {self.pid} of {self.user} on {self.host}"


def start_time(pid: int) -> int | None:
    """Start time of the process in clock ticks since boot; None if it is gone or a zombie."""
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
