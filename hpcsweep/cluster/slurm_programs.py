"""Calling Slurm's programs and reading what they print. Every call has a time limit and no shell."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final, NamedTuple

import msgspec

from hpcsweep.cluster.slurm_environment import environment
from hpcsweep.errors import ClusterUnavailable

#: How long squeue, scontrol and scancel may take: a client can hang while a daemon is down.
QUERY_S: Final = 60.0
#: How often a program is looked at that is to be ended when it says something.
LOOK_S: Final = 0.1

#: Between the fields of squeue and sacct: a character that is in no name and no reason.
SEPARATOR: Final = "\x1f"
SQUEUE_FORMAT: Final = SEPARATOR.join(["%F", "%K", "%A", "%T", "%N", "%M", "%r", "%j"])
SACCT_FORMAT: Final = "JobID,State,NodeList,ElapsedRaw,JobName"


class Answer(msgspec.Struct, frozen=True):
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
    def words(self) -> str:
        """Its complaint, or what else it said."""
        return self.err.strip() or self.out.strip() or f"exit status {self.code}, without a word"


def call(
    argv: Sequence[str],
    *,
    timeout_s: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    until: re.Pattern[str] | None = None,
) -> Answer:
    """Run a program to its end or its time limit; whatever it left behind is ended then too.

    Runs in a session of its own: Ctrl-C at the terminal ends us, not a submission on its way.

    Args:
        argv: The program and its arguments.
        timeout_s: Its time limit.
        cwd: Where it runs.
        env: Its environment; by default the one for programs whose output is read.
        stdin: What it reads.
        until: It is ended at once when it has said this on stderr.

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
                env=environment() if env is None else env,
                start_new_session=True,
            )
        )
        try:
            return _listen(process, timeout_s=timeout_s, until=until)
        except BaseException:
            _end(process)
            raise


def _listen(process: subprocess.Popen[bytes], *, timeout_s: float, until: re.Pattern[str] | None) -> Answer:
    """Read what it says until it ends, has said `until`, or its time is over."""
    assert process.stdout is not None
    assert process.stderr is not None
    said = {process.stdout: bytearray(), process.stderr: bytearray()}
    silent_at = time.monotonic()  # all that it had said by then has been read
    deadline = silent_at + timeout_s
    stopped = False
    with selectors.DefaultSelector() as selector:
        for stream in said:
            selector.register(stream, selectors.EVENT_READ, said[stream])
        while selector.get_map() and not stopped and (now := time.monotonic()) < deadline:
            if not _read(selector, LOOK_S if until else deadline - now):
                silent_at = now
            stopped = until is not None and bool(until.search(_text(said[process.stderr])))
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
    return Answer(code, _text(said[process.stdout]), _text(said[process.stderr]), age_s)


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


def ask(argv: Sequence[str], *, timeout_s: float) -> str:
    """What the program printed.

    Raises:
        ClusterUnavailable: It could not be run, failed, or did not answer in time.
    """
    answer = attempt(argv, timeout_s=timeout_s)
    if answer.code != 0:
        raise ClusterUnavailable(f"{argv[0]}: {answer.words}")
    return answer.out


def attempt(argv: Sequence[str], *, timeout_s: float) -> Answer:
    """The program's answer, whatever its exit status.

    Raises:
        ClusterUnavailable: It could not be run or did not answer in time.
    """
    try:
        answer = call(argv, timeout_s=timeout_s)
    except OSError as error:
        raise ClusterUnavailable(f"{argv[0]}: cannot be run: {error.strerror}") from error
    if answer.code is None:
        raise ClusterUnavailable(f"{argv[0]}: no answer within {timeout_s:g} s")
    return answer


# --------------------------------------------------------------------------- what they print


class Row(NamedTuple):
    """One array task, as squeue or sacct shows it.

    Attributes:
        array: Job id of the array; `job` is the task's own, later ones being newer.
        task: Its index, -1 for a job that is no array.
        seconds: How long it has run since it started last.
    """

    array: str
    task: int
    job: int
    state: str
    node: str
    seconds: float | None
    reason: str
    name: str

    @property
    def never_accepted(self) -> bool:
        """Whether this is only what the controller remembers of an array that it refused."""
        return self.state == "FAILED" and self.reason == "BadConstraints" and not self.node


def squeue_rows(text: str) -> Iterator[Row]:
    """The tasks and jobs in the output of squeue with `SQUEUE_FORMAT`; other lines are passed over."""
    for line in text.split("\n"):
        fields = line.split(SEPARATOR, 7)
        if len(fields) == 8 and fields[2].isdecimal():
            array, task, job, state, node, elapsed, reason, name = fields
            index = int(task) if task.isdecimal() else -1
            words = "" if reason == "None" else reason
            yield Row(array, index, int(job), state, node, seconds_of(elapsed), words, name)


def seconds_of(elapsed: str) -> float | None:
    """`1-02:03:04` as Slurm writes a time that has passed; None for what is none, as `INVALID`."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", elapsed.strip())
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def sacct_rows(text: str) -> Iterator[Row]:
    """The array tasks in the output of sacct with `SACCT_FORMAT`; pending ranges are passed over."""
    for line in text.split("\n"):
        fields = line.split(SEPARATOR, 4)
        match = re.fullmatch(r"(\d+)_(\d+)", fields[0])
        if len(fields) == 5 and match:
            node = "" if fields[2] == "None assigned" else fields[2]
            elapsed = float(fields[3]) if fields[3].isdecimal() else None
            yield Row(match[1], int(match[2]), 0, fields[1], node, elapsed, "", fields[4])


#: What scontrol and scancel say of tasks that have ended; scontrol adds "No error" for the rest.
_ENDED: Final = re.compile(
    r"already finished|already completing|already completed|invalid job id|no error", re.IGNORECASE
)


def only_ended(answer: Answer) -> bool:
    """Whether a failed scontrol or scancel complains of nothing but tasks that have ended."""
    lines = [line for line in f"{answer.err}\n{answer.out}".split("\n") if line.strip()]
    return bool(lines) and all(_ENDED.search(line) for line in lines)


def ranges(numbers: Sequence[int]) -> list[str]:
    """Ascending indices as Slurm writes them: `[0, 1, 2, 7]` -> `["0-2", "7"]`."""
    parts: list[str] = []
    first = last = -2
    for number in [*sorted(set(numbers)), None]:
        if number is not None and number == last + 1:
            last = number
            continue
        if last >= 0:
            parts.append(str(first) if first == last else f"{first}-{last}")
        if number is not None:
            first = last = number
    return parts
