"""Subprocess that executes compaction tasks; the driver does not wait for it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from hpcsweep.store.compaction.parts import CompactionResult, CompactionTask


class Compactor(Protocol):
    """Executes one compaction task at a time."""

    def begin(self, order: CompactionTask) -> None:
        """Begin with a task; the one before is done."""

    def answer(self, wait_s: float) -> CompactionResult | None:
        """Result of the task; None if there is none after `wait_s` seconds."""

    def close(self) -> None:
        """Stop at once. Safe to call twice; a later task starts it again."""


class SubprocessCompactor:
    """A process that lives while there are tasks.

    Args:
        command: Starts it; see `hpcsweep.store.compaction.worker`.
        environment: Its variables.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = command
        self._environment = environment
        self._child: subprocess.Popen[bytes] | None = None
        self._read = b""
        self._problem = ""

    def begin(self, order: CompactionTask) -> None:
        """Start the process if necessary, and send it the task."""
        self._problem = ""
        try:
            if self._child is None:
                # In a session of its own: Ctrl-C is for the driver.
                self._child = subprocess.Popen(
                    self._command,
                    env=self._environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            assert self._child.stdin is not None
            self._child.stdin.write(msgspec.json.encode(order) + b"\n")
            self._child.stdin.flush()
        except OSError as error:
            self._problem = f"{type(error).__name__}: {error}"

    def answer(self, wait_s: float) -> CompactionResult | None:
        """What the process has written, or that it has ended."""
        if self._child is None or self._problem:
            return CompactionResult(error=self._problem or "no task was given")
        assert self._child.stdout is not None
        fd = self._child.stdout.fileno()
        while b"\n" not in self._read:
            if not select.select([fd], [], [], wait_s)[0]:
                return None
            data = os.read(fd, 1 << 16)
            if not data:
                return CompactionResult(error=f"the process ended with code {self._child.wait()}")
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        return msgspec.json.decode(line, type=CompactionResult)

    def close(self) -> None:
        """End the process."""
        if self._child is None:
            return
        child, self._child, self._read = self._child, None, b""
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGKILL)
        with contextlib.suppress(OSError):  # it did not read the last task
            child.communicate()
