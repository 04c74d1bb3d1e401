"""Running a cluster's programs: each call has a time limit and no shell."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

import msgspec

from hpcsweep.errors import ClusterUnavailable

#: When a program is called slow, and what then is done, with its name and that time: see `launch`.
SLOW_S: Final = 5.0
on_slow: Callable[[str, float], None] | None = None
#: How often a program is looked at that is to be ended when it says something.
LOOK_S: Final = 0.1


class ProcessResult(msgspec.Struct, frozen=True):
    """What a program said.

    Attributes:
        code: Its exit status; negative if killed, None if it did not end within its time.
        stopped_s: Where it was ended for what it said: so long before that, at most, it had said so.
    """

    code: int | None
    out: str
    err: str
    stopped_s: float | None = None

    @property
    def message(self) -> str:
        """Its complaint, or what else it said."""
        return self.err.strip() or self.out.strip() or f"exit status {self.code}, without a word"


def run_process(
    argv: Sequence[str],
    *,
    timeout_s: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    until: re.Pattern[str] | None = None,
) -> ProcessResult:
    """Run a program to its end or its time limit; whatever it left behind is ended then too.

    Runs in a session of its own: Ctrl-C at the terminal ends us, not a submission on its way.
    It is also ended as soon as it has said `until` on stderr.

    Raises:
        OSError: It could not be started, so it did nothing.
    """
    with contextlib.ExitStack() as stack:
        given: IO[bytes] | int = subprocess.DEVNULL
        if stdin:
            given = stack.enter_context(tempfile.TemporaryFile())
            given.write(stdin.encode())
            given.seek(0)
        process = stack.enter_context(
            subprocess.Popen(
                argv,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd or "/",
                env=env,
                start_new_session=True,
            )
        )
        try:
            return _collect(process, timeout_s=timeout_s, until=until)
        except BaseException:
            _end(process)
            raise


def _collect(
    process: subprocess.Popen[bytes], *, timeout_s: float, until: re.Pattern[str] | None
) -> ProcessResult:
    """Read what it says until it ends, has said `until`, or its time is over."""
    assert process.stdout is not None
    assert process.stderr is not None
    output = {process.stdout: bytearray(), process.stderr: bytearray()}
    silent_at = time.monotonic()  # all that it had said by then has been read
    deadline = silent_at + timeout_s
    slow = silent_at + SLOW_S
    stopped = False
    with selectors.DefaultSelector() as selector:
        for stream in output:
            selector.register(stream, selectors.EVENT_READ, output[stream])
        while selector.get_map() and not stopped and (now := time.monotonic()) < deadline:
            if now >= slow:
                slow = deadline
                if on_slow is not None:
                    on_slow(_name_of(process), SLOW_S)
            if not _read(selector, LOOK_S if until else min(deadline, max(slow, now + LOOK_S)) - now):
                silent_at = now
            stopped = until is not None and bool(until.search(_text(output[process.stderr])))
        code: int | None = None
        if not stopped and not selector.get_map():
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(max(0.0, deadline - time.monotonic()))
        if code is None:
            _end(process)
            while _read(selector, 0.0):
                pass
        if stopped:
            code = process.wait()
    age_s = time.monotonic() - silent_at if stopped else None
    return ProcessResult(code, _text(output[process.stdout]), _text(output[process.stderr]), age_s)


def _name_of(process: subprocess.Popen[bytes]) -> str:
    """`scontrol show config`: the program and its first words."""
    words = [str(word) for word in process.args] if isinstance(process.args, Sequence) else []
    plain = itertools.takewhile(lambda word: not word.startswith("-"), words[1:3])
    return " ".join([os.path.basename(words[0]), *plain]) if words else ""


def _read(selector: selectors.BaseSelector, wait_s: float) -> bool:
    """Read what is there, or comes within so long; False if nothing."""
    ready = selector.select(wait_s)
    for key, _ in ready:
        data = os.read(key.fd, 1 << 16)
        key.data.extend(data)
        if not data:
            selector.unregister(key.fileobj)
    return bool(ready)


def _end(process: subprocess.Popen[bytes]) -> None:
    # A site's wrapper may have left a child that holds the pipes: end the whole group.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _text(data: bytearray) -> str:
    return data.decode(errors="replace")


def run(argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> ProcessResult:
    """The program's answer, whatever its exit status.

    Raises:
        ClusterUnavailable: It could not be run or did not answer in time.
    """
    try:
        answer = run_process(argv, timeout_s=timeout_s, env=env)
    except FileNotFoundError as error:
        raise ClusterUnavailable(f"{argv[0]} is not on the PATH") from error
    except OSError as error:
        raise ClusterUnavailable(f"{argv[0]}: cannot be run: {error.strerror}") from error
    if answer.code is None:
        raise ClusterUnavailable(f"{argv[0]}: no answer within {timeout_s:g} s")
    return answer


def check_output(argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> str:
    """What the program printed.

    Raises:
        ClusterUnavailable: It could not be run, failed, or did not answer in time.
    """
    answer = run(argv, timeout_s=timeout_s, env=env)
    if answer.code != 0:
        raise ClusterUnavailable(f"{argv[0]}: {answer.message}")
    return answer.out
