"""A child process in its own session, of which nothing survives; and the kernel's count of OOM kills."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)

#: How long to wait for killed processes; one that sleeps in a dead filesystem never goes.
_VANISH_S = 5.0


class Child:
    """A process, its group, and everything it started.

    Args:
        argv: What to run.
        env: Its environment.
        mark: Name of a variable in `env` whose value no other process has: it finds what left the
            process group (a daemon that called setsid).
        cwd: Where it runs.
        output: Descriptor for standard output and standard error.

    Raises:
        OSError: It cannot be started.
        ValueError: An argument or a variable holds a null byte.
    """

    def __init__(
        self, argv: Sequence[str], *, env: Mapping[str, str], mark: str, cwd: str, output: int
    ) -> None:
        worker = os.getpid()

        def die_with_worker() -> None:
            # A worker that is killed must not leave training behind that nobody watches.
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != worker:
                os._exit(1)

        self._mark = f"{mark}={env[mark]}".encode()
        # The worker has one thread only, so running Python between fork and exec is safe here.
        self._process = subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=die_with_worker,
        )
        self.pid = self._process.pid

    @property
    def exited(self) -> bool:
        """Whether the child itself has ended. It stays a zombie until `kill_all`, so its pid stays taken."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    @property
    def exit_signal(self) -> int | None:
        """The signal that ended it, else None. Not to be asked after `kill_all`."""
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None or ended.si_code not in (os.CLD_KILLED, os.CLD_DUMPED):
            return None
        return ended.si_status

    @property
    def running(self) -> list[int]:
        """Running processes of the group."""
        return [pid for pid in _processes() if _group_of(pid) == self.pid]

    def forward_signal(self, signum: signal.Signals) -> None:
        """Forward a signal to the processes that can use it.

        A child that catches it gets it alone: it is in charge of its children. Else SIGTERM goes to the
        whole group, and any other signal, whose default is death, only to processes of the group that catch
        it.
        """
        if _catches(self.pid, signum):
            _send(self.pid, signum)
        elif signum == signal.SIGTERM:
            self._send_group(signum)
        else:
            for pid in self.running:
                if _catches(pid, signum):
                    _send(pid, signum)

    def terminate(self) -> None:
        self._send_group(signal.SIGTERM)

    def kill_all(self) -> int:
        """Kill everything that is left; the child's exit code, negative for the signal that ended it.

        Until this returns the child is not reaped, so its pid cannot belong to another process.
        """
        self._send_group(signal.SIGKILL)
        deadline = time.monotonic() + _VANISH_S
        while True:
            strays = [pid for pid in _processes() if self._is_ours(pid)]
            if not strays or time.monotonic() > deadline:
                break
            for pid in strays:
                _send(pid, signal.SIGKILL)
            time.sleep(0.01)
        return self._process.wait()

    def _send_group(self, signum: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signum)

    def _is_ours(self, pid: int) -> bool:
        if pid == os.getpid():
            return False
        if _group_of(pid) == self.pid:
            return True
        try:
            return self._mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _group_of(pid: int) -> int | None:
    """The process group of a running process; None for a zombie or none."""
    try:
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[2])


def _catches(pid: int, signum: signal.Signals) -> bool:
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (signum - 1) & 1)
    except OSError:
        pass
    return False


def _send(pid: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)


def oom_kills(root: Path = Path("/")) -> int | None:
    """How many processes of this process's cgroup were OOM-killed so far; None if unknown."""
    for path in _counters(root):
        try:
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                name, _, number = line.partition(" ")
                if name == "oom_kill":
                    return int(number)
        except (OSError, ValueError):
            continue
    return None


def _counters(root: Path) -> list[Path]:
    """Files that may hold the counter: of cgroup v2, then of v1."""
    found: list[Path] = []
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    for line in lines:
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0":
            found.insert(0, root / "sys/fs/cgroup" / path.lstrip("/") / "memory.events")
        elif "memory" in controllers.split(","):
            found.append(root / "sys/fs/cgroup/memory" / path.lstrip("/") / "memory.oom_control")
    return found
