"""Hand-over of runs to tasks that keep their GPUs: plain files, one writer for each.

The worker writes `tasks/T.R.start.json` when start R of task T begins and `tasks/T.R.left.json` when it
takes no more runs. The driver writes `assignments/T.R.N.json`, the N-th run of that start, and
`assignments/T.R.leave` where the start should take no more. It removes an assignment once the end of its
run is in the journal.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Container, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from hpcsweep.errors import NewerFormatError
from hpcsweep.store.batch import ManifestRun
from hpcsweep.store.files import make_dirs, read_bytes, write_atomic
from hpcsweep.store.layout import SMALL_BYTES, BatchLayout, Skipped, decode, regular_files, version_field


class StartId(NamedTuple):
    """One start of a task; `restart` counts the cluster's earlier starts of it."""

    task: int
    restart: int


class TaskStart(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task has begun and takes runs.

    Attributes:
        at: Unix time.
        ends: When its time limit ends, by the clock of its node; None where nothing limits it.
    """

    job: str = ""
    node: str = ""
    at: float = 0.0
    ends: float | None = None
    version: int = version_field()


class TaskDeparture(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task takes no more runs.

    Attributes:
        taken: How many assignments it has taken; it begins none of the later ones.
        at: Unix time.
        failed: It could not take any, and says why.
    """

    taken: int
    reason: str = ""
    at: float = 0.0
    failed: bool = False
    version: int = version_field()


class Assignment(msgspec.Struct, frozen=True, omit_defaults=True):
    """One run for a task.

    Attributes:
        time_s: Time limit of the run; None: that of its task alone.
    """

    run: ManifestRun
    time_s: int | None = None
    version: int = version_field()


_encoder: Final = msgspec.json.Encoder()
_assignment_decoder: Final = msgspec.json.Decoder(Assignment)
_decoders: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    "start": msgspec.json.Decoder(TaskStart),
    "left": msgspec.json.Decoder(TaskDeparture),
}
_MESSAGE_NAME: Final = re.compile(r"([0-9]+)\.([0-9]+)\.(start|left)\.json")
_ASSIGNMENT_NAME: Final = re.compile(r"([0-9]+)\.([0-9]+)\.(?:([0-9]+)\.json|(leave(?:-now)?))")


def announce(
    batch: BatchLayout, start: StartId, message: TaskStart | TaskDeparture, *, durable: bool = True
) -> None:
    """Tell the driver that a task takes runs, or no more; a simulation need not survive a power cut."""
    kind = "start" if isinstance(message, TaskStart) else "left"
    path, data = batch.tasks / f"{start.task}.{start.restart}.{kind}.json", _encoder.encode(message)
    make_dirs(batch.tasks)
    if durable:
        write_atomic(path, data)
    else:
        path.write_bytes(data)


def new_announcements(
    batch: BatchLayout, seen: Container[str], skipped: Skipped | None = None
) -> Iterator[tuple[str, StartId, TaskStart | TaskDeparture]]:
    """Announcements by file name, without those in `seen`; one readdir.

    A file that cannot be read (yet) is noted in `skipped`.
    """
    skipped = Skipped() if skipped is None else skipped
    for name, match in regular_files(batch.tasks, _MESSAGE_NAME, skipped, besides=seen):
        path = batch.tasks / name
        try:
            message = decode(read_bytes(path, at_most=SMALL_BYTES), _decoders[match[3]], path)
        except (OSError, msgspec.MsgspecError, NewerFormatError) as error:
            skipped.note(path, error)
            continue
        yield name, StartId(int(match[1]), int(match[2])), message


def write_assignment(batch: BatchLayout, start: StartId, number: int, assignment: Assignment) -> None:
    """Hand the `number`-th run to a start of a task; idempotent. An earlier stop of the run is over."""
    make_dirs(batch.assignments)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(batch.stop(assignment.run.trial, assignment.run.rung))
    write_atomic(batch.assignment(*start, number), _encoder.encode(assignment))


def remove_hand_over(batch: BatchLayout, start: StartId, number: int) -> None:
    """Remove an assignment, and the result of its run, which is in the journal; idempotent."""
    for path in (batch.assignment(*start, number), batch.result(*start, number)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def request_leave(batch: BatchLayout, start: StartId, *, at_once: bool = False) -> None:
    """Have a start take no more runs, and with `at_once` interrupt those that it is at; idempotent."""
    make_dirs(batch.assignments)
    how = "leave-now" if at_once else "leave"
    write_atomic(batch.assignments / f"{start.task}.{start.restart}.{how}", b"")


class Inbox(NamedTuple):
    """What the driver has written for one start of a task.

    Attributes:
        numbers: Of the assignments that are there.
        leave: It should take no more.
        at_once: And interrupt what it is at.
    """

    numbers: frozenset[int]
    leave: bool
    at_once: bool = False


def list_inbox(batch: BatchLayout, start: StartId) -> Inbox:
    """What there is for this start; one readdir, which has NFS look again for new files."""
    numbers, leaves = set(), set()
    try:
        names = os.listdir(batch.assignments)
    except FileNotFoundError:
        names = []
    for match in map(_ASSIGNMENT_NAME.fullmatch, names):
        if match is None or (int(match[1]), int(match[2])) != start:
            continue
        if match[3] is None:
            leaves.add(match[4])
        else:
            numbers.add(int(match[3]))
    return Inbox(frozenset(numbers), bool(leaves), "leave-now" in leaves)


def read_assignment(batch: BatchLayout, start: StartId, number: int) -> Assignment:
    """One assignment.

    Raises:
        OSError: It cannot be read (yet).
        NewerFormatError: A newer hpcsweep wrote it.
        msgspec.MsgspecError: It is damaged.
    """
    path = batch.assignment(*start, number)
    return decode(read_bytes(path, at_most=SMALL_BYTES), _assignment_decoder, path)
