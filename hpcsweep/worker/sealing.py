"""Keeps what a program leaves in a folder as checkpoints of its trial, while it trains.

By a program's own word its files are complete when it reports a step. They are copied then, by a process of
its own, as they were at that moment; a copy that the program disturbs is thrown away. One that saves just
after it has reported always does that: its files are copied once they have rested, and that copy counts from
its next report on.
Whatever is killed, what was kept stays: `store.checkpoints` makes each checkpoint complete or absent.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

import msgspec

from hpcsweep.errors import CheckpointError, NewerFormatError
from hpcsweep.store import checkpoints
from hpcsweep.store.checkpoints import Checkpoint
from hpcsweep.store.file_states import COPIED, Changed, Listing, Source, being_written, copy, try_copy
from hpcsweep.store.files import make_dirs
from hpcsweep.store.layout import TrialLayout
from hpcsweep.worker.process import fork

#: Copies and looks take at most about this part of the time.
_SHARE: Final = 0.1
#: Seconds between the begin of two copies at least, and between looks at files that may come to rest.
_PAUSE_S: Final = 1.0
_LONGEST_LOOK_S: Final = 300.0
#: How many times as long as a look at the files took there is none for further reports.
_LOOKS: Final = 3.0
#: Files that are not older than this when it first reports are not from its begin.
_START_UP_S: Final = 1.0
#: The same where its report was seen late.
_LATE_S: Final = 15.0


class _Copy(msgspec.Struct):
    """A copy of the files that is made, or was made and is no checkpoint yet.

    Attributes:
        step: It is of this one by the program's own word; None: it was not told that it is complete.
        since: The last step that was reported before it was begun; None without one.
    """

    listing: Listing
    folder: Path
    step: int | None
    since: int | None
    pid: int = 0
    begun: float = 0.0
    errors: int = -1  # descriptor of what the copying process says of its failure


class Sealer:
    """Of one attempt. Call `reported` after each report, `advance` at `wake_at`, and `finish` at the end.

    Args:
        trial: Where checkpoints go.
        source: What the program keeps.
        owner: Names the attempt, so that two never write into one folder.
        start: Step that the attempt goes on from; no checkpoint up to it is made anew.
        resource: The last step.
        keep: How many checkpoints stay; `steps` as for `checkpoints.prune`.
        processes: The processes that may be writing.
        note: Writes a line into the run's log.
        watch: Whether it looks at the files from the beginning, as its reports are to come.
    """

    def __init__(
        self,
        trial: TrialLayout,
        source: Source,
        *,
        owner: str,
        start: int,
        resource: int,
        keep: int,
        steps: Collection[int],
        processes: Callable[[], Collection[int]],
        note: Callable[[str], None],
        watch: bool,
    ) -> None:
        self._trial = trial
        self._source = source
        self._owner = owner
        self._start = start
        self._resource = resource
        self._keep = keep
        self._steps = steps
        self._processes = processes
        self._note = note
        self._failures: set[str] = set()
        self._number = 0
        self._before = self._listing()  # what an earlier run left is no work of this one
        self._last: tuple[int, Listing] | None = None  # the last report, and the files at that moment
        self._sealed: tuple[Checkpoint, Listing] | None = None
        self._making: _Copy | None = None
        self._resting: _Copy | None = None  # complete, and not told to be so
        self._wanted = False  # the files at the last report are to be kept
        self._not_before = 0.0
        self._look_s = _PAUSE_S
        self._looked: Listing | None = None
        self._step: int | None = None  # the last one that was reported
        self._seen: Listing | None = None
        self._watch = watch
        self._begun = time.time()
        self._has_files = False
        self._late = False
        self._taken = 0
        self._next_look = 0.0
        #: When `advance` is to be called at the latest, on the monotonic clock; None: not at all.
        self.wake_at: float | None = time.monotonic() + _PAUSE_S if watch else None

    @property
    def step(self) -> int | None:
        """Step of the newest checkpoint that it made; None if it made none."""
        return self._sealed[0].step if self._sealed else None

    def rested(self, step: int) -> None:
        """What it keeps has come to rest after it reported its last step, and is complete."""
        self._next_look = 0.0
        self.reported(step)

    def reported(self, step: int, *, late: bool = False) -> None:
        """The program has reported a step: what it keeps now is complete.

        With `late` the report is seconds old: the files may have changed since. They are copied once they
        have rested, and only as they are now.
        """
        with self._telling():
            self._take_in(step, late=late)

    def advance(self) -> None:
        """Go on with what is being made, and begin what is due."""
        with self._telling():
            self._go_on()

    def finish(self, *, step: int, completed: bool, ended_well: bool) -> None:
        """The program has ended, and all its processes: keep what is complete.

        Args:
            step: How far it came.
            completed: It has its value.
            ended_well: It ended by itself with success: what it left is complete.
        """
        with self._telling():
            self._end(step, completed=completed, ended_well=ended_well)

    def _listing(self) -> Listing:
        """The files there are; none where they cannot be seen."""
        try:
            return self._source.listing()
        except OSError as error:
            self._tell(f"what it keeps cannot be seen: {error}")
            return {}

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """An error of ours costs a checkpoint, and not the run."""
        try:
            yield
        except OSError as error:
            self._tell(f"what it keeps could not be copied: {error}")

    def _take_in(self, step: int, *, late: bool) -> None:
        now = time.monotonic()
        if step > self._resource or now < self._next_look:
            return
        listing = self._listing()
        self._next_look = now + _LOOKS * (time.monotonic() - now)
        self._step = step
        if self._last is None or self._last[1] != listing:
            self._last = step, listing
        if listing and not self._has_files:
            self._has_files = True
            if self._is_from_start_up(listing, late=late):
                self._before = listing
        step = self._last[0]  # a step that left the files as they were adds nothing to them
        self._look_s, self._looked = _PAUSE_S, None
        self.wake_at = now + _PAUSE_S
        making, resting = self._making, self._resting
        self._wanted = False
        self._late = late
        if not listing or self._is_sealed(listing):
            return
        if making is not None and making.listing == listing:
            making.step = step if making.step is None else making.step
        elif resting is not None and resting.listing == listing:
            resting.step = step
            self._commit_resting()
        elif late:
            self._looked = listing
        else:
            self._wanted = True
            self._go_on()

    def _is_from_start_up(self, listing: Listing, *, late: bool) -> bool:
        """Whether the first files look like settings: written nearer to its begin than to this report."""
        newest = max(state.mtime_ns for state in listing.values()) / 1e9
        return time.time() - newest > max(_LATE_S if late else _START_UP_S, newest - self._begun)

    def _go_on(self) -> None:
        now = time.monotonic()
        self._reap()
        if self._making is not None:
            self.wake_at = now + _PAUSE_S  # its end wakes us, too
        elif self._wanted and now < self._not_before:
            self.wake_at = self._not_before
        elif self._wanted and self._last is not None:
            self._wanted = False
            step, listing = self._last
            self._begin(listing, step=step)
        elif self.wake_at is not None and now >= max(self.wake_at, self._not_before):
            self._look(now)

    def _look(self, now: float) -> None:
        """Whether the files have changed since the last report and come to rest."""
        listing = self._listing()
        spent = time.monotonic() - now
        known = self._resting.listing if self._resting is not None else None
        changed = bool(listing) and not self._is_sealed(listing) and listing != known
        if changed and listing == self._looked:
            self._begin(listing, step=None)
            return
        self._looked = listing
        self._look_s = _PAUSE_S if changed else min(2 * self._look_s, _LONGEST_LOOK_S)
        self.wake_at = now + max(self._look_s, spent / _SHARE)

    def _end(self, step: int, *, completed: bool, ended_well: bool) -> None:
        self._reap(kill=True)
        self.wake_at = None
        listing = self._listing()
        at_report = self._last is not None and self._last[1] == listing
        if (
            listing
            and ended_well
            and (step or self._watch)
            and not self._is_sealed(listing, step=step if completed else None)
        ):
            self._take_over(listing, step)
        elif listing and at_report and self._last is not None and not self._is_sealed(listing):
            self._take_over(listing, self._last[0])
        elif self._resting is not None and self._step is None and self._start == 0 and self._taken > 1:
            # It reports nothing on its way: how far it is only it knows. What it left first may be settings.
            self._resting.step = 0
            self._commit_resting()
        self._discard(self._resting)

    def close(self) -> None:
        """Leave no process behind."""
        self._reap(kill=True)
        self._discard(self._resting)

    @property
    def rests(self) -> bool:
        """Whether nothing of it is being written, and nothing has changed since this was last asked."""
        listing, before = self._listing(), self._seen
        self._seen = listing
        return listing == before and not being_written(listing, self._processes())

    # ------------------------------------------------------------------ copies

    def _is_sealed(self, listing: Listing, *, step: int | None = None) -> bool:
        """Whether there is a checkpoint of these files, if `step` is given of that one."""
        if listing == self._before:
            return True
        if self._sealed is None or self._sealed[1] != listing:
            return False
        return step is None or self._sealed[0].step == step

    def _begin(self, listing: Listing, *, step: int | None) -> None:
        """Copy the files in a process of its own."""
        self._number += 1
        folder = self._trial.checkpoints / f".seal-{self._owner}.{os.getpid()}.{self._number}"
        make_dirs(self._trial.checkpoints)
        errors, write_end = os.pipe()
        os.set_blocking(errors, False)
        making = _Copy(listing, folder, step, self._step, begun=time.monotonic(), errors=errors)
        known, source = self._sealed, self._source

        def work() -> int:
            return try_copy(
                source,
                listing,
                folder,
                writers=self._processes(),
                errors=write_end,
                known=known[1] if known else None,
                known_in=known[0].path if known else None,
            )

        try:
            making.pid = fork(work)
        except OSError:
            os.close(errors)
            raise
        finally:
            os.close(write_end)
        self._making = making
        self.wake_at = making.begun + _PAUSE_S

    def _reap(self, *, kill: bool = False) -> None:
        """Take the end of the copying process in, if it has ended."""
        making = self._making
        if making is None:
            return
        if kill:
            with contextlib.suppress(ProcessLookupError):
                os.kill(making.pid, signal.SIGKILL)
        pid, status = os.waitpid(making.pid, 0 if kill else os.WNOHANG)
        if not pid:
            return
        self._making = None
        now = time.monotonic()
        took, taken = now - making.begun, os.waitstatus_to_exitcode(status) == COPIED
        self._not_before = now + max(_PAUSE_S - took if taken else 0.0, took / _SHARE)
        self.wake_at = self._not_before
        said = b""
        with contextlib.suppress(OSError):
            said = os.read(making.errors, 1000)
        os.close(making.errors)
        if not taken:
            self._discard(making)
            if said:
                self._tell(f"what it keeps could not be copied: {said.decode(errors='replace')}")
            elif making.step is not None and self._resting is not None:
                # It is saving anew: what had rested before was what it had when it reported.
                self._resting.step = self._resting.since
                self._commit_resting()
            return
        self._taken += 1
        if self._late and making.step is None and self._last is not None and self._last[1] == making.listing:
            making.step = self._last[0]
        self._discard(self._resting)
        self._resting = making
        if making.step is not None:
            self._commit_resting()

    def _commit_resting(self) -> None:
        """Make the copy a checkpoint."""
        resting, self._resting = self._resting, None
        assert resting is not None
        if resting.step is None or not self._is_new(resting.step):
            self._discard(resting)
            return
        self._commit(resting.folder, resting.listing, resting.step)

    def _take_over(self, listing: Listing, step: int) -> None:
        """Make what the program left the checkpoint of `step`; our own folder is moved, others are copied."""
        folder = self._source.base
        if not self._is_new(step):
            return
        if folder.parent != self._trial.checkpoints:
            folder = self._trial.checkpoints / f".seal-{self._owner}.{os.getpid()}.end"
            make_dirs(self._trial.checkpoints)
            try:
                copy(self._source, listing, folder)
            except (OSError, Changed) as error:
                self._tell(f"the checkpoint of step {step} could not be kept: {error}")
                checkpoints.remove(folder)
                return
        self._commit(folder, listing, step)

    def _is_new(self, step: int) -> bool:
        """Whether a checkpoint of that step may be made: training code may have made a later one."""
        if step < self._start or (step == self._start and self._start > 0):
            return False
        with contextlib.suppress(OSError, NewerFormatError):
            newest = checkpoints.newest(self._trial, at_most=self._resource)
            if newest is not None and newest.step >= step:
                return newest.step == step and step in (self.step, 0)
        return True

    def _commit(self, folder: Path, listing: Listing, step: int) -> None:
        try:
            checkpoint = checkpoints.commit(self._trial, step, folder)
            checkpoints.prune(self._trial, keep=self._keep, steps=self._steps)
        except (OSError, CheckpointError, NewerFormatError) as error:
            self._tell(f"the checkpoint of step {step} could not be kept: {error}")
            checkpoints.remove(folder)
            return
        self._sealed = checkpoint, listing

    def _discard(self, made: _Copy | None) -> None:
        if made is not None:
            checkpoints.remove(made.folder)
        if made is self._resting:
            self._resting = None

    def _tell(self, text: str) -> None:
        if text not in self._failures:
            self._failures.add(text)
            self._note(text)
