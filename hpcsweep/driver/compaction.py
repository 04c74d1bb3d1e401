"""Compaction: what has ended goes from many small files into parts, a bit at a time, between ticks.

See `store.compaction` for what a part is and why no kill loses anything. The driver decides what
goes into one and commits it; another process does the work.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import select
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from hpcsweep.core.checkpoint_usage import NOTHING
from hpcsweep.core.events import CheckpointsDropped, CheckpointsRemoved, FilesCompacted, RunFinished, RunId
from hpcsweep.core.models import SIMULATED
from hpcsweep.core.retention import Retention
from hpcsweep.core.state import SweepState
from hpcsweep.driver.checkpoint_quota import CheckpointQuota
from hpcsweep.driver.config import SweepContext
from hpcsweep.driver.effects import Committer, Compact, Compactor, Step
from hpcsweep.store.compaction import (
    CleanUpPart,
    CompactableRun,
    CompactionResult,
    CompactionTask,
    RemoveCheckpoints,
    WritePart,
    WriteTables,
    pending_cleanup,
    read_tables,
)
from hpcsweep.store.compaction.tracker import CompactionState
from hpcsweep.store.layout import Layout

#: So many parts of reports are left alone; more are merged into one.
MERGE_ABOVE: Final = 16
#: A driver that stays only for one tick leaves checkpoints of fewer trials to others.
REMOVE_AT: Final = 8
#: Trials whose checkpoints are removed at a time.
REMOVE_MOST: Final = 100
#: Heartbeat interval while the driver waits for the compactor.
_BEAT_S: Final = 1.0
_log = logging.getLogger(__name__)


class CompactionManager:
    """Decides what is compacted next, one task at a time: about `at` raw files, at the end all. Pure.

    Without `retention` all checkpoints stay.
    """

    def __init__(
        self,
        state: SweepState,
        compaction_state: CompactionState,
        retention: Retention | None,
        quota: CheckpointQuota,
        *,
        layout: Layout,
        at: int,
    ) -> None:
        self._state = state
        self._compaction_state = compaction_state
        self._retention = retention
        self._quota = quota
        self._layout = layout
        self._at = at
        self._numbers = itertools.count(1)
        #: Parts whose raw files are still to be removed; None before this session has looked.
        self._to_clear: list[str] | None = None
        #: Ready runs that were left out of the last part.
        self._late: set[RunId] = set()
        #: Trials whose checkpoints could not be removed in this session.
        self._stuck: set[int] = set()
        self._tables_written = False
        self._failed = False

    @property
    def needs_parts(self) -> bool:
        """Whether `next` needs the list of parts that are not cleared; once a session."""
        return self._to_clear is None

    def next(
        self, *, segment: int, remove_at: int = 1, pending: Iterable[str] = (), has_tables: bool = False
    ) -> Step:
        """What is due now: at most one `Compact`.

        `remove_at` is the number of trials with useless checkpoints from which on these are removed.
        `pending` parts still have raw files beside them; read where `needs_parts`.
        """
        if self._failed:
            return Step()
        if self._to_clear is None:
            self._to_clear = [part for part in pending if part in self._compaction_state.recorded]
        if self._to_clear:
            return Step(effects=(Compact(CleanUpPart(self._to_clear.pop(0))),))
        ended = self._state.ended is not None
        ready = self._compaction_state.files - len(self._late)
        if not ended and ready >= self._at:  # seldom: removals, which may be due at every step, can wait
            return self._write_part(segment, merge=len(self._compaction_state.parts) >= MERGE_ABOVE)
        removal = self._remove_checkpoints(1 if ended else remove_at)
        if removal.effects:
            return removal
        if ended and (ready >= 1 or len(self._compaction_state.parts) > 1):
            return self._write_part(segment, merge=True)
        if ended and not self._tables_written:
            self._tables_written = True
            return Step() if has_tables else Step(effects=(Compact(WriteTables()),))
        return Step()

    def completed(self, task: CompactionTask, result: CompactionResult) -> Step:
        """What follows from a task that was executed."""
        if result.error:  # nothing depends on it: the files stay as they are
            self._failed = True
            _log.warning("%s: finished parts are not compacted: %s", self._layout.root, result.error)
        elif isinstance(task, WritePart):
            self._late = {run.run for run in task.runs}.difference(result.runs)
            if result.runs or task.batches or task.replaces:
                self._to_clear = [*(self._to_clear or ()), task.part]
                return Step((FilesCompacted(task.part, result.runs, task.batches, task.replaces),))
        elif isinstance(task, RemoveCheckpoints):
            left = set(task.trials).difference(result.trials)
            if left:
                self._stuck |= left
                _log.warning(
                    "%s: checkpoints of %d trials cannot be removed: %s",
                    self._layout.trials,
                    len(left),
                    ", ".join(map(str, sorted(left)[:10])),
                )
            if result.trials:
                removed = CheckpointsRemoved(
                    result.trials, result.had, files=result.files, bytes=result.bytes
                )
                return Step((removed,))
        return Step()

    def _remove_checkpoints(self, least: int) -> Step:
        """First what an earlier session dropped and may not have removed, then what is dropped now.

        It is in the journal first: the next driver knows that these checkpoints may be gone, or half gone.
        """
        due = [trial for trial in self._state.dropping if trial not in self._stuck]
        if due:
            return Step(effects=(Compact(RemoveCheckpoints(tuple(due[:REMOVE_MOST]))),))
        trials = self._to_drop(1 if self._state.quota_reached else least)
        if not trials:
            return Step()
        return Step((CheckpointsDropped(trials),), (Compact(RemoveCheckpoints(trials)),))

    def _to_drop(self, least: int) -> tuple[int, ...]:
        """Trials whose checkpoints nothing can need, if they are so many; for the quota also spare ones."""
        if self._retention is None:
            return ()
        if len(self._retention.removable) >= least:
            return tuple(itertools.islice(self._retention.removable, REMOVE_MOST))
        if self._quota.shortfall == NOTHING:
            return ()
        return tuple(self._quota.enough(self._retention.spare())[:REMOVE_MOST])

    @property
    def removes(self) -> bool:
        """Whether checkpoints are being removed, or will be at once."""
        if self._failed or self._retention is None:
            return False
        due = any(trial not in self._stuck for trial in self._state.dropping)
        return due or bool(self._retention.removable) or bool(self._retention.spare())

    def forget(self) -> Step:
        """In a simulation nothing is on the disk: what nothing can need is gone at once."""
        if not self._quota.limited or not (trials := self._to_drop(1)):
            return Step()
        held = self._state.checkpoints
        had = tuple(trial for trial in trials if any(held.held_by(trial)))
        size = sum(held.held_by(trial).bytes for trial in trials)
        files = sum(held.held_by(trial).files for trial in trials)
        return Step((CheckpointsDropped(trials), CheckpointsRemoved(trials, had, files, size)))

    def _write_part(self, segment: int, *, merge: bool) -> Step:
        """All that is ready."""
        files = self._compaction_state
        part = WritePart(
            f"{segment:06d}-{next(self._numbers)}",
            tuple(_candidate(files.ready[run]) for run in sorted(files.ready)),
            tuple(files.batches),
            tuple(files.parts) if merge else (),
            tuple(files.recorded),
        )
        return Step(effects=(Compact(part),))


def _candidate(ending: RunFinished) -> CompactableRun:
    valued_at = None
    if ending.value is not None and ending.started is not None:
        valued_at = ending.started + ending.seconds
    return CompactableRun(ending.trial, ending.rung, ending.attempt, ending.restart, valued_at)


@dataclass
class Compaction:
    """Has the compactor do what the manager decides; without one nothing is compacted."""

    sweep: SweepContext
    manager: CompactionManager
    compactor: Compactor | None
    committer: Committer
    #: What the compactor is at work on.
    task: CompactionTask | None = None

    def step(self, *, wait_s: float = 0.0, remove_at: int = 1) -> bool:
        """Take in what the compactor has done, and have it begin with what is due; whether it is at work."""
        if self.sweep.settings.cluster == SIMULATED:
            self.committer.do(self.manager.forget())
        if self.compactor is None:
            return False
        if self.task is not None:
            result = self.compactor.answer(wait_s)
            if result is None:
                return True
            task, self.task = self.task, None
            if result.error:
                self.compactor.close()
            self.committer.do(self.manager.completed(task, result))
        step = self.manager.next(
            segment=self.sweep.journal.number,
            remove_at=remove_at,
            pending=pending_cleanup(self.sweep.layout) if self.manager.needs_parts else (),
            has_tables=self.sweep.state.ended is not None and read_tables(self.sweep.layout) is not None,
        )
        self.committer.do(step)
        self.task = next((effect.task for effect in step.effects if isinstance(effect, Compact)), None)
        return self.task is not None

    def makes_room(self) -> bool:
        """Step if runs wait until there is room for their checkpoints; whether others gave way."""
        before = self.committer.commits
        if self.sweep.state.quota_reached is not None:
            self.step()
        return self.committer.commits > before

    def finish(self) -> bool:
        """Step until nothing is due any more; whether runs waited for what was removed."""
        waits, held = self.sweep.state.quota_reached is not None, self.sweep.state.checkpoints.held
        while self.step(wait_s=_BEAT_S, remove_at=REMOVE_AT):
            self.sweep.journal.heartbeat()
        if self.compactor is not None:
            self.compactor.close()
        return waits and self.sweep.state.checkpoints.held != held


class SubprocessCompactor:
    """A process that lives while there are tasks; see `hpcsweep.store.compaction.worker`."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = command
        self._environment = environment
        self._child: subprocess.Popen[bytes] | None = None
        self._read = b""
        self._problem = ""

    def begin(self, task: CompactionTask) -> None:
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
            self._child.stdin.write(msgspec.json.encode(task) + b"\n")
            self._child.stdin.flush()
        except OSError as error:
            self._problem = f"{type(error).__name__}: {error}"

    def answer(self, wait_s: float) -> CompactionResult | None:
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
        if self._child is None:
            return
        child, self._child, self._read = self._child, None, b""
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGKILL)
        with contextlib.suppress(OSError):  # it did not read the last task
            child.communicate()
