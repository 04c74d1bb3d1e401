"""Has all processes ("ranks") of a training leave at the same step.

Where one leaves and another trains on, that one waits for ever in the next exchange of gradients. So rank 0
decides, and always for later: it writes the last step down before it begins that step. No other rank can end
the step without it, so all of them find the file when they have ended it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from hpcsweep.store.files import retry_once


class StopAgreement:
    """When the ranks of a run leave.

    Args:
        path: Of the file that rank 0 alone writes; it is there before the ranks begin. What it says is read
            by opening it, for which a client of NFS asks the server.
        rank: Of this process.
        told: Whether the run was told to stop; asked by rank 0 alone.
    """

    def __init__(self, path: Path, *, rank: int, told: Callable[[], bool]) -> None:
        self._path = path
        self._rank = rank
        self._told = told
        self._calls = 0
        self._agreed: dict[str, int] = {}

    def leaves_before(self, step: int) -> bool:
        """Whether all ranks leave before this step; all of them ask before each."""
        last = self._decided("step", step)
        return last is not None and step > last

    def leaves_now(self) -> bool:
        """Whether all ranks leave at this call, the one of this number; all of them call it equally often."""
        self._calls += 1
        last = self._decided("call", self._calls)
        return last is not None and self._calls > last

    def _decided(self, kind: str, now: int) -> int | None:
        """The last number at which they stay; None as long as that is open."""
        if kind in self._agreed:
            return self._agreed[kind]
        if self._rank == 0:
            if self._told():
                retry_once(lambda: self._write(f"{kind} {now}\n"))
                self._agreed[kind] = now
        else:
            self._agreed |= self._read()
        return self._agreed.get(kind)

    def _write(self, line: str) -> None:
        with open(self._path, "a", encoding="ascii") as file:
            file.write(line)

    def _read(self) -> dict[str, int]:
        found: dict[str, int] = {}
        with contextlib.suppress(OSError):
            for line in self._path.read_text(encoding="ascii").splitlines(keepends=True):
                kind, _, number = line.partition(" ")
                if line.endswith("\n") and number.strip().isdecimal():
                    found.setdefault(kind, int(number))
        return found
