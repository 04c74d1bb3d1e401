"""The warm process: imports the training function once, and each run's process is a fork of it.

A fork must be what a fresh process would be after the import. So the import is watched, and what forks would
share, lose or see wrongly refuses them: threads, child processes, open files, shared memory, temporary
files, a GPU in use, and a look at the variables of a run, which is not known yet. Threads that their library
ends before a fork are no hindrance: OpenBLAS, the threads of NumPy and SciPy, does so and starts them anew
where they are needed. Unseeded random numbers differ from fork to fork as from process to process.

`worker.warm` is the other side.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pickle
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from hpcsweep.bootstrap import PACKAGE
from hpcsweep.store.files import write_all
from hpcsweep.trial import current_trial
from hpcsweep.worker.command import RUN_VARIABLE
from hpcsweep.worker.process import adopting, die_with_parent
from hpcsweep.worker.training_function import load_trainer, search_snapshot
from hpcsweep.worker.warm import GO, READY, Request

#: Longest request.
_REQUEST_BYTES: Final = 1 << 20
#: How long a first fork may take that does nothing.
_FORK_S: Final = 10.0
#: Threads that their library cares for in a fork: jemalloc works without its own there.
_HARMLESS: Final = frozenset({"jemalloc_bg_thd"})
#: Seeds that code chooses are smaller; those that torch takes by itself have 53 random bits.
_CHOSEN_SEED: Final = 1 << 32
#: Signals that are kept for a fork until its stop flag listens.
_HELD: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)
_libc = ctypes.CDLL(None)


def become_run(function: str, *copied: str) -> tuple[Callable[[Any], object], Path]:
    """Serve the worker, which is on standard input; returns in the process of each run.

    Gives the training function and the run's ENDING (see `worker.entrypoint`).
    """
    worker = os.getppid()
    channel = _channel()
    mark = _Mark()
    trainer: Callable[[Any], object] | None = None
    with _Watch() as watch:
        try:
            search_snapshot(*copied)
            trainer = load_trainer(function)
        except BaseException as error:
            watch.note(f"fails ({type(error).__name__})")
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    _libc.fflush(None)
    sources = _sources()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    reason = watch.hindrance or mark.hindrance or _thread_hindrance()
    # What was imported stays: a fork that collects garbage, as it does at its end, does not go through it,
    # which would copy its memory and take longer than many a run.
    gc.collect()
    gc.freeze()
    channel.send(reason.encode() if reason else READY)
    if reason or trainer is None:
        os._exit(0)
    printed = os.fstat(1).st_size
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, _REQUEST_BYTES, 2)
        if not message:
            os._exit(0)
        output, reply = descriptors
        changed = [path for path, modified in sources.items() if _modified(path) != modified]
        if changed:
            with socket.socket(fileno=reply) as answer:
                answer.send(f"{changed[0]} has changed".encode())
            os._exit(0)
        if _is_run():
            break
        os.close(output)
        os.close(reply)
    channel.close()
    request = msgspec.json.decode(message, type=Request)
    _join(worker, reply, mark, request.environ[RUN_VARIABLE])
    text = os.pread(1, printed, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    write_all(1, text)  # what the import has printed
    os.environ.update(request.environ)
    sys.argv[2] = request.ending
    watch.set_random_numbers()
    current_trial()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return trainer, Path(request.ending)


def _channel() -> socket.socket:
    """The connection to the worker, which comes as standard input; that is /dev/null from now on."""
    channel = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return channel


def _is_run() -> bool:
    """Fork twice; True in the grandchild, once its parent, which is in between, has ended."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return False
    between = os.getpid()
    try:
        grandchild = os.fork()
    except OSError:
        os._exit(1)
    if grandchild:
        os._exit(0)
    while os.getppid() == between:
        time.sleep(0.0005)
    return True


def _join(worker: int, reply: int, mark: _Mark, run: str) -> None:
    """Become what a child of the worker is, and wait until it agrees; else end."""
    os.setsid()
    die_with_parent()
    if os.getppid() != worker:
        os._exit(1)
    mark.write(run)
    try:
        with socket.socket(fileno=reply) as answer:
            answer.send(str(os.getpid()).encode())
            agreed = answer.recv(len(GO)) == GO
    except OSError:
        agreed = False
    if not agreed:
        os._exit(1)


class _Mark:
    """RUN_VARIABLE in this process's initial environment, where the worker looks for what belongs to a run.

    The kernel shows that environment as it stands in the memory of the process: a fork can write the name of
    its run over that of the warm process, and what it forks in turn has it too.
    """

    def __init__(self) -> None:
        name = os.fsencode(RUN_VARIABLE)
        # Training code must not see it, but what it starts has it: no `os.unsetenv`.
        text = name + b"=" + os.environ._data.pop(name)  # type: ignore[attr-defined]
        self._size = len(text)
        begin = int(Path("/proc/self/stat").read_text(errors="replace").rpartition(")")[2].split()[47])
        offset = _environ().find(text)
        self._address = begin + offset if begin and offset >= 0 else 0

    @property
    def hindrance(self) -> str:
        """Why it cannot be written; empty if it can."""
        if not self._address:
            return "this system does not show where the environment is"
        return _forked(self._check, "a fork does not get its mark")

    def write(self, run: str) -> None:
        """Mark this process; what it had of the warm process ends here."""
        text = os.fsencode(f"{RUN_VARIABLE}={run}")
        if len(text) > self._size:
            os._exit(1)
        ctypes.memmove(self._address, text.ljust(self._size, b"\0"), self._size)

    def _check(self) -> bool:
        self.write("check")
        return f"{RUN_VARIABLE}=check".encode() in _environ().split(b"\0")


def _environ() -> bytes:
    return Path("/proc/self/environ").read_bytes()


def _forked(check: Callable[[], bool], problem: str) -> str:
    """The problem, unless a fork of this process comes to its end and passes the check."""
    child = os.fork()
    if not child:
        os._exit(0 if check() else 1)
    deadline = time.monotonic() + _FORK_S
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return problem if status else ""
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "a fork of it hangs"


def _thread_hindrance() -> str:
    """Threads that are left although this process has forked before."""
    names = [thread.name for thread in threading.enumerate()[1:]]
    for thread in os.listdir("/proc/self/task"):
        if int(thread) != os.getpid():
            names.append(Path(f"/proc/self/task/{thread}/comm").read_text(errors="replace").strip())
    left = [name for name in names if name not in _HARMLESS]
    return f"its import leaves a thread behind ({left[0]})" if left else ""


class _Watch:
    """Watches an import, and finds what of it forbids to fork runs: `hindrance`, empty if nothing does."""

    def __init__(self) -> None:
        self.hindrance = ""
        self._files = _open_files()
        self._shared = _shared_memory()
        self._seeded = False
        self._random: tuple[Any, ...] | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> _Watch:
        self._stack.enter_context(adopting())  # of daemons as well
        self._stack.enter_context(_watched_environ(self.note))
        for name in ("mkdtemp", "mkstemp"):
            self._on_call(tempfile, name, lambda *_: self.note("makes a temporary file"))
        for name in ("seed", "setstate"):
            self._on_call(random, name, self._note_seed)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()
        if self._seeded:
            self._random = random.getstate()
        for path in _open_files() - self._files:
            self.note("uses a GPU" if path.startswith("/dev/nvidia") else f"keeps {path} open")
        if _shared_memory() - self._shared:
            self.note("sets up shared memory")
        if _uses_cuda():
            self.note("uses a GPU")
        if _draws_from_numpy():
            self.note("uses random numbers of NumPy that have no seed")
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            self.note("leaves a process behind")

    def set_random_numbers(self) -> None:
        """In a fork: numbers that the import has seeded are as it left them, others are seeded anew."""
        if self._random is not None:  # Python itself seeds them in each fork
            random.setstate(self._random)
        if _numpy_generator() is not None:
            sys.modules["numpy.random"].seed()
        generator = getattr(sys.modules.get("torch"), "default_generator", None)
        if generator is not None and generator.initial_seed() >= _CHOSEN_SEED:
            generator.seed()  # that of CUDA begins with the same seed in each process

    def note(self, what: str) -> None:
        """Something that forbids it; what came first is told."""
        self.hindrance = self.hindrance or f"its import {what}"

    def _note_seed(self, *seed: object) -> None:
        self._seeded = seed[:1] not in ((), (None,))

    def _on_call(self, module: Any, name: str, note: Callable[..., None]) -> None:
        function = getattr(module, name)

        def noted(*args: Any, **kwargs: Any) -> Any:
            note(*args, *kwargs.values())
            return function(*args, **kwargs)

        setattr(module, name, noted)
        self._stack.callback(setattr, module, name, function)


@contextlib.contextmanager
def _watched_environ(note: Callable[[str], None]) -> Iterator[None]:
    """Note who looks for variables of a run in `os.environ`, or copies all of it."""
    known = frozenset(os.environ)

    class Watched(os._Environ[str]):
        def __getitem__(self, key: str) -> str:
            if key not in known and key.startswith("HPCSWEEP_"):
                note(f"reads {key}")
            return super().__getitem__(key)

        def keys(self) -> Any:  # what copies it asks for them
            caller = sys._getframe(1)
            while caller.f_back is not None and caller.f_code.co_filename in ("<frozen os>", os.__file__):
                caller = caller.f_back
            if not _is_installed(caller.f_code.co_filename):  # packages look for variables of their own
                note("copies os.environ")
            return super().keys()

    environ: Any = os.environ
    before = environ.__class__
    environ.__class__ = Watched
    try:
        yield
    finally:
        environ.__class__ = before


def _numpy_generator() -> Any:
    """What makes the global random numbers of NumPy, if nothing but NumPy has seeded it."""
    numpy_random = sys.modules.get("numpy.random")
    generator = numpy_random and numpy_random.mtrand._rand._bit_generator
    return None if generator is None or generator._seed_seq is None else generator


def _draws_from_numpy() -> bool:
    generator = _numpy_generator()
    if generator is None:
        return False
    return pickle.dumps(generator.state) != pickle.dumps(type(generator)(generator._seed_seq).state)


def _open_files() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return found


def _shared_memory() -> set[str]:
    """Mappings that forks would share and can write to."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        return {line for line in file if line.split()[1].endswith("s") and "w" in line.split()[1]}


def _uses_cuda() -> bool:
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    return cuda is not None and bool(cuda.is_initialized())


def _sources() -> dict[str, int | None]:
    """When the files of imported modules were modified, but for those of Python and of installed packages."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return {file: _modified(file) for file in files if isinstance(file, str) and not _is_installed(file)}


def _is_installed(file: str) -> bool:
    """Whether it is of Python, of an installed package or of this one."""
    folders = (f"{os.path.dirname(os.__file__)}/", f"{PACKAGE}/")
    return file.startswith(folders) or not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


def _modified(path: str) -> int | None:
    """In nanoseconds; None if it is gone."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return None
