"""The signals that a task gets."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import deque
from types import FrameType

#: SIGALRM is the local cluster's SIGUSR2: the time is nearly over.
STOP_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGTERM, signal.SIGINT)


class Signals:
    """Records signals to this process and wakes up whoever waits on `wakeup`; before that they kill it."""

    def __init__(self) -> None:
        self._received: deque[signal.Signals] = deque()
        self.first: signal.Signals | None = None
        self.wakeup, write = os.pipe()
        os.set_blocking(self.wakeup, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for signum in STOP_SIGNALS:
            signal.signal(signum, self._note)
        signal.signal(signal.SIGCHLD, self._ignore)

    def take(self) -> list[signal.Signals]:
        """Signals since the last call, as training code gets them."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.wakeup, 4096):
                pass
        taken = []
        while self._received:
            taken.append(self._received.popleft())
        return taken

    def _note(self, signum: int, frame: FrameType | None) -> None:
        early = signum in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)
        forwarded = signal.SIGUSR2 if early else signal.SIGTERM
        self.first = self.first or forwarded
        self._received.append(forwarded)

    def _ignore(self, signum: int, frame: FrameType | None) -> None:
        """A handler must exist for SIGCHLD to wake us up."""


def ignore_signals() -> None:
    """Let no signal kill this process once Python removes its handlers at exit: its work is done."""
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
