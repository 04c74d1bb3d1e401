"""How many runs there is room for under `store.checkpoint_quota`, and what gives way to more. Pure.

A run under way counts with all that it may hold: what its trial keeps, and one more checkpoint that is being
written. One that was interrupted counts with what it will keep. So whatever was begun can be ended:

- Runs of trials that go on come before new ones, as they free what others hold; while one of them has no
  room, no new trial takes any.
- Where nothing is under way, a run may begin as soon as there is room for what it keeps in the end: what is
  being written may then be beyond the quota.
- Where that is not enough either, the sweep pauses and says so. Only where any trial may be promoted at any
  time, so that none is ever dropped, the least promising of them give way: they are stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from hpcsweep.core.checkpoint_usage import NOTHING, DiskAmount
from hpcsweep.core.events import AnyEvent, CheckpointQuotaReached, PauseRequested, RunId, TrialStopped
from hpcsweep.core.models import RunStatus
from hpcsweep.core.state import SweepState
from hpcsweep.core.text import plural
from hpcsweep.core.units import format_size
from hpcsweep.driver.config import DriverConfig

#: While nothing was measured, no more runs are under way.
FIRST_RUNS: Final = 4
#: Room is made for so many runs at a time.
ROOM_FOR: Final = 64


class _Claim(NamedTuple):
    """What a run is to be given: `more` until it ends, of which `kept` stays."""

    run: RunId
    goes_on: bool
    more: DiskAmount
    kept: DiskAmount


class CheckpointQuota:
    """Decides which runs may begin. Without a quota all may.

    `admit` says it for those that wait; the attributes are about its last call.

    Args:
        state: Of the sweep.
        settings: With the quota.
        clones: Whether trials start from checkpoints of others: then one more of each trial is kept.

    Attributes:
        total: What is held, or will be by the runs under way and those that were admitted.
        shortfall: What has to be removed for those that wait; see `events`.
    """

    def __init__(self, state: SweepState, *, settings: DriverConfig, clones: bool) -> None:
        self._state = state
        self._usage = state.checkpoints
        self._most_bytes, self._most_files = settings.checkpoint_bytes, settings.checkpoint_files
        self._gives_way = settings.least_promising_give_way
        self._keep = settings.program.keep_checkpoints + clones
        self.total = NOTHING
        self.shortfall = NOTHING
        self._idle = NOTHING  # held by trials that no run of is under way
        self._busy = 0
        self._admitted = 0
        self._refused: list[_Claim] = []

    @property
    def limited(self) -> bool:
        """Whether there is a quota at all."""
        return self._most_bytes is not None or self._most_files is not None

    def _fits(self, amount: DiskAmount) -> bool:
        return (self._most_bytes is None or amount.bytes <= self._most_bytes) and (
            self._most_files is None or amount.files <= self._most_files
        )

    # ------------------------------------------------------------------ who may begin

    def admit(self, runs: Sequence[RunId]) -> list[RunId]:
        """Those of the waiting runs that there is room for, in their order; trials may be new."""
        if not self.limited:
            return list(runs)
        self._add_up()
        claims = [self._claim(run) for run in runs]
        admitted: set[RunId] = set()
        self._refused = []
        for goes_on in (True, False):
            for claim in claims:
                if claim.goes_on is goes_on:
                    if (goes_on or not self._refused) and self._has_room(claim):
                        admitted.add(claim.run)
                        self._admitted += 1
                        self.total = self.total.plus(claim.more)
                    else:
                        self._refused.append(claim)
        return [run for run in runs if run in admitted]

    def _has_room(self, claim: _Claim) -> bool:
        alone = not self._busy and not self._admitted
        if not self._usage.known:
            return self._busy + self._admitted < FIRST_RUNS
        if self._fits(self.total.plus(claim.more)):
            return True
        frees = claim.goes_on and claim.kept == NOTHING
        return alone and (frees or self._fits(self.total.plus(claim.kept)))

    @property
    def refuses(self) -> bool:
        """Whether a run waits that has no room."""
        return bool(self._refused)

    @property
    def room(self) -> int | None:
        """How many new trials may be started beside those that `admit` let through; None: any number."""
        if not self.limited:
            return None
        if self._refused:
            return 0
        if not self._usage.known:
            return max(0, FIRST_RUNS - self._busy - self._admitted)
        claim = self._claim(RunId(len(self._state.trials), 0))
        counts = [
            (most - total) // each
            for most, total, each in (
                (self._most_bytes, self.total.bytes, claim.more.bytes),
                (self._most_files, self.total.files, claim.more.files),
            )
            if most is not None and each
        ]
        fitting = max(0, min(counts)) if counts else None
        return int(self._has_room(claim)) if fitting == 0 else fitting

    def _add_up(self) -> None:
        """Count what is held and what runs under way will hold."""
        self._busy = self._admitted = 0
        self.total = self._idle = self._usage.held
        for batch in self._state.live.values():
            for run in batch.unfinished:
                self._busy += 1
                self._idle = self._idle.minus(self._usage.held_by(run.trial))
                self.total = self.total.plus(self._claim(run).more)
        for run in self._state.waiting:
            if self._was_begun(run):
                self.total = self.total.plus(self._kept_beyond(run.trial))

    def _claim(self, run: RunId) -> _Claim:
        kept = self._kept_beyond(run.trial)
        more = kept.plus(self._newest(run.trial))
        if self._was_begun(run) and run in self._state.waiting:  # counted by `_add_up`
            return _Claim(run, True, more.minus(kept), NOTHING)
        known = run.trial < len(self._state.trials)
        goes_on = run.rung > 0 or (known and self._state.trials[run.trial].parent is not None)
        return _Claim(run, goes_on, more, kept)

    def _was_begun(self, run: RunId) -> bool:
        """Whether an attempt at the run was made before."""
        if run.trial >= len(self._state.trials):
            return False
        runs = self._state.trials[run.trial].runs
        return run.rung < len(runs) and runs[run.rung].submissions > 0

    def _kept_beyond(self, trial: int) -> DiskAmount:
        """What the trial will keep beyond what it holds now."""
        held = self._usage.held_by(trial)
        kept = held.or_more(self._newest(trial).times(self._keep))
        if held == NOTHING:
            kept = kept.or_more(self._usage.expected_kept)
        return kept.minus(held)

    def _newest(self, trial: int) -> DiskAmount:
        """What its next checkpoint will take: as much as its last one, or as its parent's, or as others'."""
        found = self._usage.newest_of(trial)
        if found is None and trial < len(self._state.trials):
            parent = self._state.trials[trial].parent
            found = None if parent is None else self._usage.newest_of(parent)
        return self._usage.expected_newest if found is None else found

    # ------------------------------------------------------------------ what follows from it

    def events(self, *, free: int, kept_back: int, removes: Callable[[], bool], now: float) -> list[AnyEvent]:
        """That the quota holds runs back, or does not any more; and what gives way where nothing else does.

        Args:
            free: Runs that could begin now.
            kept_back: New trials that would start beside those that wait.
            removes: Whether checkpoints are being removed that nothing can need.
            now: Unix time.
        """
        if not self.limited:
            return []
        kept_back = min(kept_back, max(0, free - self._admitted))
        lacking = min(free - self._admitted, len(self._refused) + kept_back)
        if lacking <= 0:
            self.shortfall = NOTHING
            return [CheckpointQuotaReached(now)] if self._state.quota_reached is not None else []
        new = self._claim(RunId(len(self._state.trials), 0))
        claims = [*self._refused, *[new] * min(kept_back, ROOM_FOR)][: min(lacking, ROOM_FOR)]
        self.shortfall = self._beyond(claims) if self._usage.known else NOTHING
        found: list[AnyEvent] = []
        if (said := self._state.quota_reached) is None or (
            self._usage.known and not (said.bytes or said.files)
        ):
            held = self._usage.held if self._usage.known else NOTHING
            found.append(CheckpointQuotaReached(now, self._message(len(self._refused) + kept_back), *held))
        if self.shortfall == NOTHING or removes():
            return found
        stalled = not (self._busy or self._admitted or self.room)
        if self._gives_way and (trials := self._least_promising(self._may_give_way(claims, stalled=stalled))):
            reason = f"{self._name}: its checkpoint gave way to those of new trials"
            found += [TrialStopped(trial, reason) for trial in trials]
        elif stalled:
            found.append(PauseRequested(now, self._stall(claims[0])))
        return found

    def _beyond(self, claims: Sequence[_Claim]) -> DiskAmount:
        """By how much these are too much."""
        wanted = self.total
        for claim in claims:
            wanted = wanted.plus(claim.more)
        return DiskAmount(
            0 if self._most_bytes is None else max(0, wanted.bytes - self._most_bytes),
            0 if self._most_files is None else max(0, wanted.files - self._most_files),
        )

    def _may_give_way(self, claims: Sequence[_Claim], *, stalled: bool) -> DiskAmount:
        """How much of what may still be promoted: half of the quota is for that, unless nothing can go on."""
        spare = DiskAmount(
            0 if self._most_bytes is None else max(0, self._idle.bytes - self._most_bytes // 2),
            0 if self._most_files is None else max(0, self._idle.files - self._most_files // 2),
        )
        amount = DiskAmount(*map(min, spare, self.shortfall))
        return self._beyond(claims[:1]) if stalled and amount == NOTHING else amount

    def enough(self, trials: Sequence[int], amount: DiskAmount | None = None) -> list[int]:
        """The first of these trials that hold so much (None: the shortfall); all if they do not."""
        amount = self.shortfall if amount is None else amount
        freed, found = NOTHING, []
        for trial in trials:
            if freed.bytes >= amount.bytes and freed.files >= amount.files:
                break
            found.append(trial)
            freed = freed.plus(self._usage.held_by(trial))
        return found

    def _least_promising(self, amount: DiskAmount) -> list[int]:
        """Trials that wait for a promotion and hold so much; the worst of the lowest resource first."""
        state, best = self._state, self._state.best
        found: list[tuple[int, tuple[float, int, int], int]] = []
        for trial in [*self._usage.sizes, *self._usage.unmeasured]:
            first = trial - state.trials[trial].repeat
            repeats = state.trials[first : first + state.repeats]
            key = state.value_key(first)
            if (
                trial in state.dropped
                or key is None
                or (best is not None and first == best.trial)
                or any(each.stopped or each.runs[-1].status is not RunStatus.COMPLETED for each in repeats)
            ):
                continue
            found.append((-state.trials[trial].runs[-1].resource, key, first))
        ranked = dict.fromkeys(first for _, _, first in sorted(found, reverse=True))
        trials = [trial for first in ranked for trial in range(first, first + state.repeats)]
        chosen = {trial - state.trials[trial].repeat for trial in self.enough(trials, amount)}
        return [trial for trial in trials if trial - state.trials[trial].repeat in chosen]

    # ------------------------------------------------------------------ in words

    @property
    def _name(self) -> str:
        return "store.checkpoint_quota" if self._most_bytes is not None else "store.checkpoint_files"

    def _text(self, amount: DiskAmount) -> str:
        """In the figures that are limited."""
        parts = []
        if self._most_bytes is not None:
            parts.append(format_size(amount.bytes))
        if self._most_files is not None:
            parts.append(plural(amount.files, "file"))
        return " in ".join(parts)

    @property
    def _limits(self) -> str:
        parts = []
        if self._most_bytes is not None:
            parts.append(f"store.checkpoint_quota of {format_size(self._most_bytes)}")
        if self._most_files is not None:
            parts.append(f"store.checkpoint_files of {self._most_files:,}")
        return " and ".join(parts)

    @property
    def _held(self) -> str:
        holders = sum(any(sizes) for sizes in self._usage.sizes.values())
        return f"{self._text(self._usage.held)} held by {plural(holders, 'trial')}"

    def _message(self, waiting: int) -> str:
        if not self._usage.known:
            first = f"nothing is known of the size of checkpoints yet: {FIRST_RUNS} runs begin"
            return f"{self._limits}: {first}, {waiting:,} wait"
        expected = self.total.minus(self._usage.held)
        more = (
            f"{self._text(expected)} more expected of {plural(self._busy + self._admitted, 'run')} under way"
        )
        waits = f"{plural(waiting, 'run')} {'wait' if waiting > 1 else 'waits'} for room"
        return f"{self._limits}: {self._held}, {more}; {waits}"

    def _stall(self, claim: _Claim) -> str:
        """Why nothing can go on."""
        what = f"a run of trial {claim.run.trial}" if claim.goes_on else "a new trial"
        return (
            f"{self._limits}: {self._held}, all of which may still be needed, and {what} would keep "
            f"{self._text(claim.kept)} more and need {self._text(claim.more)} while it runs; raise it"
        )
