"""Calling Slurm's programs and reading what they print. Every call has a time limit and no shell."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from hpcsweep.errors import ClusterUnavailable

#: How long squeue, scontrol and scancel may take: a client can hang while a daemon is down.
QUERY_S: Final = 60.0

#: Between the fields of squeue and sacct: a character that is in no name and no reason.
SEPARATOR: Final = "\x1f"
SQUEUE_FORMAT: Final = SEPARATOR.join(["%F", "%K", "%A", "%T", "%N", "%r", "%j"])
SACCT_FORMAT: Final = "JobID,State,NodeList,JobName"

#: Variables that filter or reshape what these programs show: a user's SQUEUE_PARTITION would make
#: running jobs look gone.
_FOREIGN: Final = ("SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_")
#: Of a job's own variables sbatch must see none: a task that submits would hand its restart
#: count, its memory and its CPU binding on to the jobs it submits.
_JOB: Final = "SLURM_"
_KEPT: Final = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT"})


class Answer(msgspec.Struct, frozen=True):
    """What a program said; `code` is None if it did not end within its time, negative if killed."""

    code: int | None
    out: str
    err: str

    @property
    def words(self) -> str:
        """Its complaint, or what else it said."""
        return self.err.strip() or self.out.strip() or f"exit status {self.code}, without a word"


def environment(*, drop: Container[str] = ()) -> dict[str, str]:
    """Our environment, less what would change the programs' meaning or language."""
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(_FOREIGN)
        and (not key.startswith(_JOB) or key in _KEPT)
        and key not in drop
        and not key.startswith("LC_")
    } | {"LC_ALL": "C"}


def call(
    argv: Sequence[str], *, timeout_s: float, cwd: Path | None = None, drop: Container[str] = ()
) -> Answer:
    """Run a program to its end or its time limit; whatever it left behind is ended then too.

    Runs in a session of its own: Ctrl-C at the terminal ends us, not a submission on its way.

    Raises:
        OSError: It could not be started, so it did nothing.
    """
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd or "/",
        env=environment(drop=drop),
        start_new_session=True,
    ) as process:
        code: int | None
        try:
            out, err = process.communicate(timeout=timeout_s)
            code = process.returncode
        except BaseException as error:
            # A site's wrapper may have left a child that holds the pipes: end the whole group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            out, err, code = b"", b"", None
    return Answer(code, out.decode(errors="replace"), err.decode(errors="replace"))


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
    """

    array: str
    task: int
    job: int
    state: str
    node: str
    reason: str
    name: str

    @property
    def never_accepted(self) -> bool:
        """Whether this is only what the controller remembers of an array that it refused."""
        return self.state == "FAILED" and self.reason == "BadConstraints" and not self.node


def squeue_rows(text: str) -> Iterator[Row]:
    """The array tasks in the output of squeue with `SQUEUE_FORMAT`; other lines are passed over."""
    for line in text.split("\n"):
        fields = line.split(SEPARATOR, 6)
        if len(fields) == 7 and fields[1].isdecimal() and fields[2].isdecimal():
            array, task, job, state, node, reason, name = fields
            yield Row(array, int(task), int(job), state, node, "" if reason == "None" else reason, name)


def sacct_rows(text: str) -> Iterator[Row]:
    """The array tasks in the output of sacct with `SACCT_FORMAT`; pending ranges are passed over."""
    for line in text.split("\n"):
        fields = line.split(SEPARATOR, 3)
        match = re.fullmatch(r"(\d+)_(\d+)", fields[0])
        if len(fields) == 4 and match:
            node = "" if fields[2] == "None assigned" else fields[2]
            yield Row(match[1], int(match[2]), 0, fields[1], node, "", fields[3])


_ID: Final = re.compile(r"^(\d+)(?:;\S*)?\s*$", re.MULTILINE)


def submitted_id(out: str) -> str | None:
    """The job id in what `sbatch --parsable` printed, banners of the site's around it or not."""
    found = _ID.findall(out)
    return found[-1] if found else None


#: Whoever says this may not know whether the controller took the job.
_OPEN: Final = re.compile(
    r"timed out|unable to contact|communication|connect|zero bytes|unexpected message|transmi"
    r"|authentication|munge|protocol",
    re.IGNORECASE,
)
_REFUSAL: Final = re.compile(r"batch job submission failed|sbatch: (error|fatal)|invalid|unrecognized", re.I)


def surely_refused(answer: Answer) -> bool:
    """Whether a failed sbatch proves by its words that nothing was submitted."""
    if answer.code is None or answer.code <= 0:
        return False
    words = f"{answer.err}\n{answer.out}"
    return bool(_REFUSAL.search(words)) and not _OPEN.search(words)


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
