"""A run's process: a child in a session of its own, of which nothing survives, and its log."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from hpcsweep.store.excerpts import excerpt
from hpcsweep.store.files import OURS, make_dirs, open_append, write_all
from hpcsweep.worker.signals import STOP_SIGNALS

#: The excerpt is taken from this many last bytes.
_TAIL = 64 * 1024
#: How much of the end of an output beyond the limit is kept.
_END = 1 << 20
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)
#: How long to wait for killed processes; one that sleeps in a dead filesystem never goes.
_VANISH_S = 5.0


class RunLog:
    """Appends one run's output to the log of its task: at most `limit` bytes, the beginning and the end."""

    def __init__(self, path: Path, *, limit: int | None = None) -> None:
        make_dirs(path.parent)
        self.path = path
        self.fd = open_append(path, flags=os.O_RDWR)
        self.begin()
        self._end_size = _END if limit is None else min(_END, limit // 2)
        self._room = None if limit is None else limit - self._end_size
        self._end = bytearray()
        self._left_out = 0

    def note(self, text: str) -> None:
        """Write one line of our own."""
        size = os.fstat(self.fd).st_size
        newline = b"" if size == 0 or os.pread(self.fd, 1, size - 1) == b"\n" else b"\n"
        write_all(self.fd, newline + f"{OURS} {text}\n".encode(errors="replace"))

    def write(self, data: bytes) -> None:
        """Write output of the process, as far as the limit allows; a full disk is ignored."""
        kept = data if self._room is None else data[: self._room]
        rest = data[len(kept) :]
        if self._room is not None:
            self._room -= len(kept)
        with contextlib.suppress(OSError):
            write_all(self.fd, kept)
            if rest and not self._end and not self._left_out:
                self.note(
                    "train.log_limit is reached: of what follows only the end is kept, and written at its end"
                )
        self._end += rest
        if len(self._end) > 2 * self._end_size:
            self._shorten_end()

    def finish(self) -> None:
        """After the process has ended: write the end of an output beyond the limit."""
        if not self._end:
            return
        self._shorten_end()
        if self._left_out:  # begin with a whole line
            line = self._end.find(b"\n") + 1
            self._left_out += line
            del self._end[:line]
        with contextlib.suppress(OSError):
            if self._left_out:
                self.note(f"train.log_limit: {self._left_out} bytes are left out here")
            write_all(self.fd, bytes(self._end))
        self._end.clear()

    def _shorten_end(self) -> None:
        beyond = max(0, len(self._end) - self._end_size)
        self._left_out += beyond
        del self._end[:beyond]

    def begin(self) -> None:
        """What was written so far is of an earlier start."""
        self._begin = os.fstat(self.fd).st_size

    def tail(self) -> str:
        """The end of what was written since."""
        size = os.fstat(self.fd).st_size
        begin = max(self._begin, size - _TAIL)
        return os.pread(self.fd, size - begin, begin).decode(errors="replace")

    def excerpt(self) -> str:
        """The last informative lines of this run."""
        return excerpt(self.tail())

    def close(self) -> None:
        os.close(self.fd)


class Child:
    """A process, its group, and everything it started.

    Args:
        argv: What to run.
        env: Its environment.
        mark: Name of a variable in `env` whose value no other process has: it finds what left the
            process group (a daemon that called setsid).
        cwd: Where it runs.
        output: Descriptor for standard output and standard error.
        stdin: Descriptor for standard input.

    Raises:
        OSError: It cannot be started.
        ValueError: An argument or a variable holds a null byte.
    """

    #: Memory that it held at most, in KiB, or one of its own that it waited for; 0 until `kill_all`.
    max_rss_kib = 0

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        mark: str,
        cwd: str,
        output: int,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        worker = os.getpid()

        def die_with_worker() -> None:
            # A worker that is killed must not leave training behind that nobody watches.
            die_with_parent()
            if os.getppid() != worker:
                os._exit(1)

        self._mark = f"{mark}={env[mark]}".encode()
        # The worker has one thread only, so running Python between fork and exec is safe here.
        self._process = subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=stdin,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=die_with_worker,
        )
        self.pid = self._process.pid

    @property
    def exited(self) -> bool:
        """Whether the child itself has ended. It stays a zombie, which keeps its pid, until `kill_all`."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    @property
    def exit_signal(self) -> int | None:
        """The signal that ended it, else None. Not to be asked after `kill_all`."""
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None or ended.si_code not in (os.CLD_KILLED, os.CLD_DUMPED):
            return None
        return ended.si_status

    @property
    def processes(self) -> list[int]:
        """Running processes of the group, and those that have left it."""
        return [pid for pid in _processes() if self._is_ours(pid)]

    @property
    def running(self) -> list[int]:
        """Running processes of the group."""
        return [pid for pid in _processes() if _group_of(pid) == self.pid]

    def catches(self, signum: signal.Signals) -> bool:
        """Whether the child itself handles the signal."""
        return _catches(self.pid, signum)

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
        """Kill everything that is left; the child's exit code, negative for the signal that ended it."""
        self._send_group(signal.SIGKILL)
        deadline = time.monotonic() + _VANISH_S
        while True:
            strays = self.processes
            if not strays or time.monotonic() > deadline:
                break
            for pid in strays:
                _send(pid, signal.SIGKILL)
            time.sleep(0.01)
        return self._reap()

    def _reap(self) -> int:
        self._process.returncode = returncode = self._wait()
        return returncode

    def _wait(self) -> int:
        """The exit code, once it has ended."""
        _, status, usage = os.wait4(self.pid, 0)
        self.max_rss_kib = usage.ru_maxrss
        return os.waitstatus_to_exitcode(status)

    def _send_group(self, signum: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signum)

    def _is_ours(self, pid: int) -> bool:
        if pid == os.getpid():
            return False
        return _group_of(pid) == self.pid or _is_marked(pid, self._mark)


def die_with_parent() -> None:
    """Have the kernel kill this process as soon as its parent has ended."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """Meanwhile processes whose parent ends become children of this one, their next ancestor that adopts."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 0)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def marked(mark: str) -> list[int]:
    """Processes of this node that were started with this variable, as `NAME=value`, this one included."""
    return [pid for pid in _processes() if _is_marked(pid, mark.encode())]


def _is_marked(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


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
    files: list[Path] = []
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    for line in lines:
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0":
            files.insert(0, root / "sys/fs/cgroup" / path.lstrip("/") / "memory.events")
        elif "memory" in controllers.split(","):
            files.append(root / "sys/fs/cgroup/memory" / path.lstrip("/") / "memory.oom_control")
    return files


def fork(work: Callable[[], int]) -> int:
    """Do it in a forked process, which ends with this one; its process id. This process has one thread."""
    parent = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for signum in STOP_SIGNALS:  # what is sent to a whole task is for its worker
                signal.signal(signum, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            die_with_parent()
            if os.getppid() == parent:
                os.nice(5)
                code = work()
        finally:
            os._exit(code)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
