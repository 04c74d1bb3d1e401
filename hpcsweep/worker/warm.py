"""Forks the processes of runs from one that has imported the training function: `worker.warm_process`."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from hpcsweep.worker.command import RUN_VARIABLE, TaskContext, function_arguments, shared_environment
from hpcsweep.worker.entrypoint import WARM
from hpcsweep.worker.process import Child, adopting

#: What the worker is told once runs can be forked; anything else is why they cannot.
READY: Final = b"+"
#: The worker tells a fork to train.
GO: Final = b"go"
#: How long its import may take; after that runs have fresh processes.
IMPORT_S: Final = 300.0
#: How long it may take to fork.
_FORK_S: Final = 20.0
#: How often in a row it may end without having forked.
_MOST_FAILURES: Final = 3
#: Longer than the name of any run's file in the task's folder.
_MARK_ROOM: Final = 120


class Request(msgspec.Struct, frozen=True):
    """A run to fork; with it come descriptors for its output and for a connection to the worker.

    Attributes:
        environ: The variables that differ from run to run.
        ending: Where it writes how the function failed.
    """

    environ: dict[str, str]
    ending: str


class WarmProcess:
    """A process that has imported the training function, for the runs of one lane after another.

    It is started at once, and again when it has ended or the code has changed.

    Attributes:
        why_not: Why runs cannot be forked from it; empty as long as they can.
    """

    def __init__(self, context: TaskContext, devices: Sequence[str] | None, *, name: str) -> None:
        self.why_not = ""
        #: When its import will have taken too long, on the monotonic clock; None if it has ended.
        self._deadline: float | None = None
        self._context = context
        self._devices = devices
        self._folder = context.scratch / name
        self._failures = 0
        self._child: Child | None = None
        self._begin()

    @property
    def importing(self) -> bool:
        """Whether it is not known yet if runs can be forked."""
        return self._deadline is not None

    @property
    def descriptor(self) -> int:
        """Readable when the import has ended."""
        return self._channel.fileno()

    @property
    def left_s(self) -> float:
        """Seconds until its import will have taken too long."""
        return 0.0 if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)

    def poll(self) -> None:
        """Look whether the import has ended, or takes too long."""
        if self._deadline is None:
            return
        try:
            answer = self._channel.recv(4096, socket.MSG_DONTWAIT)
        except BlockingIOError:
            if self.left_s:
                return
            answer = f"its import takes longer than {IMPORT_S:g} s".encode()
        except OSError:
            answer = b""
        self._deadline = None
        if answer != READY:
            self.close()
            self.why_not = answer.decode() or "it ended during its import"

    def fork(self, variables: Mapping[str, str], *, ending: Path, output: int) -> Child | None:
        """The process of a run, forked now; None if that failed: it is begun anew, unless `why_not`.

        Args:
            variables: Those of its environment that are its own.
            ending: See `worker.entrypoint`.
            output: Descriptor for standard output and standard error.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        answer = ""
        with ours, adopting():
            ours.settimeout(_FORK_S)
            try:
                with theirs:
                    message = msgspec.json.encode(Request(dict(variables), str(ending)))
                    socket.send_fds(self._channel, [message], [output, theirs.fileno()])
                answer = ours.recv(4096).decode()
                if answer.isdecimal():
                    ours.send(GO)
            except OSError:
                answer = ""
        if answer.isdecimal():
            self._failures = 0
            return AdoptedChild(int(answer), mark=f"{RUN_VARIABLE}={variables[RUN_VARIABLE]}".encode())
        if not answer:
            self._failures += 1
        self.close()
        if self._failures < _MOST_FAILURES:
            self._begin()
        else:
            self.why_not = "it ended again and again"
        return None

    def close(self) -> None:
        """End it; runs that it has forked go on."""
        self._channel.close()
        if self._child is not None:
            self._child.kill_all()
            self._child = None

    def _begin(self) -> None:
        context, program = self._context, self._context.header.program
        environ = shared_environment(
            context.environ,
            program,
            devices=self._devices,
            python=sys.executable,
            modules=context.modules,
        )
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        output = os.open(self._folder, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with theirs:
                self._child = Child(
                    function_arguments(program, WARM, python=sys.executable),
                    env={
                        **environ,
                        RUN_VARIABLE: str(self._folder).ljust(len(str(self._folder)) + _MARK_ROOM, "+"),
                    },
                    mark=RUN_VARIABLE,
                    cwd=program.workdir,
                    output=output,
                    stdin=theirs.fileno(),
                )
            self._deadline = time.monotonic() + IMPORT_S
        except (OSError, ValueError) as error:
            self.why_not = f"it cannot be started: {error}"
        finally:
            os.close(output)


class AdoptedChild(Child):
    """A child of this process that another one has forked; `mark` is as it stands in its environment."""

    def __init__(self, pid: int, *, mark: bytes) -> None:
        self.pid = pid
        self._mark = mark

    def _reap(self) -> int:
        return self._wait()


class FutureChild(Child):
    """A child that is not there yet: nothing reaches it, and if it is killed it never is."""

    def __init__(self) -> None:
        self.pid = 0

    @property
    def exited(self) -> bool:
        return False

    @property
    def exit_signal(self) -> int | None:
        return None

    @property
    def running(self) -> list[int]:
        return []

    @property
    def processes(self) -> list[int]:
        return []

    def forward_signal(self, signum: signal.Signals) -> None: ...

    def terminate(self) -> None: ...

    def kill_all(self) -> int:
        return -signal.SIGKILL
