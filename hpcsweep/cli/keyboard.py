"""Keys of a terminal, its changes of size, and its state: given back whenever the program leaves it.

Between `__enter__` and `__exit__` keys come at once and unseen. Ctrl-C, Ctrl-Z and the signals that end a
program do what they always do, after the terminal is as it was.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import signal
import socket
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final, TextIO

#: After an escape character, the rest of a key's sequence comes within so many seconds.
ESCAPE_S: Final = 0.1
_SEQUENCE: Final = re.compile(rb"\x1b(?:\[[0-9;?]*[A-Za-z~]|O[A-Za-z])")
_BEGUN: Final = re.compile(rb"\x1b(?:\[[0-9;?]*|O)?")
_NAMES: Final = {
    b"A": "up",
    b"B": "down",
    b"C": "right",
    b"D": "left",
    b"H": "home",
    b"F": "end",
    b"1~": "home",
    b"4~": "end",
    b"7~": "home",
    b"8~": "end",
    b"5~": "page up",
    b"6~": "page down",
}
_CHARACTERS: Final = {"\r": "enter", "\n": "enter", "\x7f": "back", "\b": "back", " ": "page down"}
#: Signals that end the program: it exits as they would end it, but tidily.
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def parse_keys(data: bytes, *, complete: bool) -> tuple[list[str], bytes]:
    """The keys in what a terminal sent, and the beginning of a sequence whose rest has not come yet.

    Args:
        data: As it was sent.
        complete: Nothing more comes: an escape character at the end is the key of that name.
    """
    keys: list[str] = []
    at = 0
    while at < len(data):
        if (sequence := _SEQUENCE.match(data, at)) is not None:
            final = re.sub(rb"^1?;[0-9]+", b"", sequence[0][2:])  # with Shift or Ctrl it is the same key
            if final in _NAMES:
                keys.append(_NAMES[final])
            at = sequence.end()
            continue
        if (begun := _BEGUN.match(data, at)) is not None:
            if begun.end() == len(data) and not complete:
                return keys, data[at:]
            keys.append("escape")
            at = begun.end() if begun.end() == len(data) else at + 1
            continue
        character = chr(data[at])
        if character in _CHARACTERS or character.isprintable():
            keys.append(_CHARACTERS.get(character, character))
        at += 1
    return keys, b""


class Keyboard:
    """Keys from a terminal, none where standard input is none or belongs to another job.

    Args:
        stdin: Standard input.
        leave: Gives the screen back, before the program stops.
        enter: Takes it again when it goes on.
    """

    def __init__(self, stdin: TextIO, *, leave: Callable[[], None], enter: Callable[[], None]) -> None:
        self._leave = leave
        self._enter = enter
        self._fd = stdin.fileno() if _is_terminal(stdin) else None
        self._before: list[Any] | None = None
        self._begun = b""
        self._guarded = self._stop_due = False
        self._handlers: dict[int, Any] = {}
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)

    @property
    def present(self) -> bool:
        """Whether keys come."""
        return self._before is not None

    def __enter__(self) -> Keyboard:
        if threading.current_thread() is threading.main_thread():
            handled = dict.fromkeys(_ENDING, _exit) | {signal.SIGTSTP: self._on_stop}
            handled |= {signal.SIGCONT: self._on_continue, signal.SIGWINCH: lambda *_: None}
            self._handlers = {number: signal.signal(number, handler) for number, handler in handled.items()}
            self._wakeup = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()
        if self._handlers:
            signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._woken.close()
        self._waker.close()

    def wait(self, seconds: float) -> list[str]:
        """The keys that come within that time. Returns at once when there are some, or when a signal came."""
        ready = self._ready(seconds)
        if self._woken in ready:
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096)
        if self._fd not in ready:
            return []
        keys, self._begun = parse_keys(self._begun + self._read(), complete=False)
        until = time.monotonic() + ESCAPE_S
        while self._begun and (left := until - time.monotonic()) > 0:
            if self._fd in self._ready(left):
                more, self._begun = parse_keys(self._begun + self._read(), complete=False)
                keys += more
        more, self._begun = parse_keys(self._begun, complete=True)
        return keys + more

    def wake(self) -> None:
        """Have `wait` return; from any thread."""
        with contextlib.suppress(OSError):  # nobody waits any more
            self._waker.send(b"\0")

    @contextlib.contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Until the block ends, Ctrl-Z waits: what is written to the terminal is not torn apart."""
        self._guarded = True
        try:
            yield
        finally:
            self._guarded = False
        if self._stop_due:
            self._stop()

    def _ready(self, seconds: float) -> list[Any]:
        files: list[Any] = [self._woken] if self._before is None else [self._woken, self._fd]
        return select.select(files, [], [], max(0.0, seconds))[0]

    def _read(self) -> bytes:
        """What is there; nobody types any more where the terminal is gone."""
        data = b""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                data = os.read(self._fd, 1024)
        if not data:
            self._before = None
        return data

    def _take(self) -> None:
        """Have keys come at once and unseen."""
        if self._fd is None or self._before is not None or not _in_foreground(self._fd):
            return
        with contextlib.suppress(termios.error):
            before = termios.tcgetattr(self._fd)
            _retried(lambda fd: tty.setcbreak(fd, termios.TCSADRAIN), self._fd)
            self._before = before

    def _give_back(self) -> None:
        before, self._before = self._before, None
        if self._fd is not None and before is not None:
            with contextlib.suppress(termios.error):
                _retried(lambda fd: termios.tcsetattr(fd, termios.TCSADRAIN, before), self._fd)

    def _on_stop(self, _: int, __: FrameType | None) -> None:
        self._stop_due = True
        if not self._guarded:
            self._stop()

    def _stop(self) -> None:
        """Give the terminal back, stop as by Ctrl-Z, and take it again."""
        self._stop_due = False
        self._leave()
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)  # here it stops, until `fg`
        signal.signal(signal.SIGTSTP, self._on_stop)
        self._take()
        self._enter()

    def _on_continue(self, _: int, __: FrameType | None) -> None:
        """It was stopped by another signal, and the shell has set the terminal as it likes."""
        if self._before is None:
            self._take()
        elif self._fd is not None and _in_foreground(self._fd):
            with contextlib.suppress(termios.error):
                tty.setcbreak(self._fd, termios.TCSADRAIN)


def _exit(number: int, _: FrameType | None) -> None:
    """Exit as the signal would, by way of all that has to be restored."""
    raise SystemExit(128 + number)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return os.isatty(stream.fileno())
    except (OSError, ValueError):
        return False


def _in_foreground(fd: int) -> bool:
    """Whether the program may read the terminal without being stopped."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:  # no terminal that starts jobs
        return True


def _retried(call: Callable[[int], object], fd: int) -> None:
    """A call that a signal may interrupt."""
    while True:
        try:
            call(fd)
        except termios.error as error:
            if error.args[0] != errno.EINTR:
                raise
        else:
            return
