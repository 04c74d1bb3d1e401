"""What a run uses: the memory that its processes hold, and seconds for each unit of the resource.

Memory is sampled at a pace that costs less than a hundredth of one core. Pages that processes share, as
the forked workers of a data loader do, count once: `Pss` of `/proc/PID/smaps_rollup`, see proc_pid_smaps(5).
It is read only where it can matter, for the kernel goes through all pages for it.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from hpcsweep.store.run_files import NewReports

#: Seconds from the start to the first sample, and at most between two.
_FIRST_S: Final = 0.25
_LONGEST_S: Final = 5.0
#: The same where the worker watches a limit.
_WATCHING_S: Final = 1.0
#: Each pause is longer than the one before by this factor.
_GROWTH: Final = 1.5
#: A pause lasts at least so many times as long as a sample takes.
_IDLE_SHARE: Final = 100.0
_KIB_IN_MIB: Final = 1024


class Held(NamedTuple):
    """Memory that processes hold at a time, in KiB.

    Attributes:
        all: With pages of files, which the kernel can take away.
        firm: Without these: what no limit can do without.
        peak: The most that a single one of them has held so far.
    """

    all: int
    firm: int
    peak: int


def family(pid: int) -> list[int]:
    """Running processes of this process's group, and all that descend from one of them.

    The ranks that `torchrun` starts have groups of their own.
    """
    parents: dict[int, int] = {}
    members: set[int] = set()
    for name in os.listdir("/proc"):
        if name.isdecimal() and (fields := _stat(int(name))) is not None:
            parents[int(name)] = int(fields[1])
            if int(fields[2]) == pid:
                members.add(int(name))
    found = []
    for process in parents:
        ancestor = process
        while ancestor in parents and ancestor not in members and ancestor != pid:
            ancestor = parents[ancestor]
        if ancestor in members or ancestor == pid:
            found.append(process)
    return found


def _stat(pid: int) -> list[str] | None:
    """State, parent, group and so on of a running process; None for a zombie or none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields


def measure(pids: Iterable[int], *, above: float = 0) -> Held:
    """What these processes hold together; those that have ended hold nothing.

    What several of them share counts once if they hold more than `above` KiB by a plain sum; else the plain
    sum is as good. Where the kernel does not tell what is shared, the largest process stands for all.
    """
    status = {pid: values for pid in pids if (values := _numbers(f"/proc/{pid}/status")) is not None}
    sizes = {pid: values.get("VmRSS", 0) for pid, values in status.items()}
    firm = {pid: values.get("RssAnon", 0) + values.get("RssShmem", 0) for pid, values in status.items()}
    peak = max((values.get("VmHWM", 0) for values in status.values()), default=0)
    if len(status) < 2 or sum(sizes.values()) <= above:
        return Held(sum(sizes.values()), sum(firm.values()), peak)
    shares = [_numbers(f"/proc/{pid}/smaps_rollup") for pid in status]
    known = [each for each in shares if each is not None]
    if not any("Pss" in each for each in known):
        return Held(max(sizes.values()), max(firm.values()), peak)
    shared = sum(each.get("Pss", 0) for each in known)
    firm_shared = sum(
        each["Pss_Anon"] + each.get("Pss_Shmem", 0) if "Pss_Anon" in each else each.get("Pss", 0)
        for each in known
    )
    return Held(
        max(shared, max(sizes.values())),
        max(min(firm_shared, sum(firm.values())), max(firm.values())),
        peak,
    )


def _numbers(path: str) -> Mapping[str, int] | None:
    """The figures in KiB of a file with lines like `VmRSS:  1234 kB`; None if it cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB" and words[0].isdecimal():
            found[name] = int(words[0])
    return found


class MemoryMeter:
    """Measures what processes of a run hold on this node.

    Args:
        members: Gives the processes.
        limit_mib: What they may hold; None: that is not watched.

    Attributes:
        wake_at: When `sample` is due, on the monotonic clock.
    """

    def __init__(self, members: Callable[[], Iterable[int]], *, limit_mib: int | None = None) -> None:
        self._members = members
        self._limit_kib = None if limit_mib is None else limit_mib * _KIB_IN_MIB
        self._longest_s = _LONGEST_S if limit_mib is None else _WATCHING_S
        self._peak_kib = 0
        self._pause_s = _FIRST_S
        self.wake_at = time.monotonic() + _FIRST_S

    def sample(self) -> int | None:
        """Measure if due; what the processes hold in MiB if that is more than the limit, else None."""
        began = time.monotonic()
        if began < self.wake_at:
            return None
        limit = float("inf") if self._limit_kib is None else self._limit_kib
        held = measure(self._members(), above=min(self._peak_kib, limit))
        self._peak_kib = max(self._peak_kib, held.all, held.peak)
        now = time.monotonic()
        self._pause_s = min(self._pause_s * _GROWTH, self._longest_s)
        self.wake_at = now + max(self._pause_s, _IDLE_SHARE * (now - began))
        return _mib(held.firm) if held.firm > limit else None

    def peak_mib(self, *, at_least_kib: int = 0) -> int:
        """The most that was seen, in MiB; 0 where nothing is known."""
        return _mib(max(self._peak_kib, at_least_kib))


class UsageMeter(MemoryMeter):
    """Measures one process of a run and what it starts, and how fast it reports.

    Args:
        pid: Leader of its group.
        metrics: Where the run reports.
        limit_mib: What its processes may hold; None: that is not watched.
        members: Gives its processes on this node, where they are not its descendants: srun's have others.
    """

    def __init__(
        self,
        pid: int,
        metrics: Path,
        *,
        limit_mib: int | None = None,
        members: Callable[[], Iterable[int]] | None = None,
    ) -> None:
        super().__init__(members or functools.partial(family, pid), limit_mib=limit_mib)
        self._metrics = metrics
        self._reports: NewReports | None = NewReports(metrics)
        #: The step of its first reports, and when they were written.
        self._first: tuple[int, float] | None = None

    def sample(self) -> int | None:
        """As of memory; the reports are looked at when that is due."""
        if time.monotonic() >= self.wake_at:
            self._look_at_reports()
        return super().sample()

    def _look_at_reports(self) -> None:
        """Note when the first steps were reported."""
        if self._reports is None:
            return
        try:
            written = os.stat(self._metrics).st_mtime
        except OSError:
            return
        reports = self._reports.read()
        if reports:
            self._first = reports[-1].step, written
            self._reports = None

    def unit_seconds(self, last: int) -> float:
        """Seconds for each step between the first and the last report; 0 where unknown.

        Of runs that are over within a moment, and of those that report once.
        """
        if self._first is None or last <= self._first[0]:
            return 0.0
        try:
            written = os.stat(self._metrics).st_mtime
        except OSError:
            return 0.0
        return round(max(0.0, written - self._first[1]) / (last - self._first[0]), 4)


def _mib(kib: int) -> int:
    return -(-kib // _KIB_IN_MIB)
