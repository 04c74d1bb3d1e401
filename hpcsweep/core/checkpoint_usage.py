"""What checkpoints take on disk, as workers told of it; a fold over the endings of attempts. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from hpcsweep.core.run_events import CheckpointSizes

#: So many of the newest measurements tell how large the next checkpoints will be.
RECENT: Final = 16


class DiskAmount(NamedTuple):
    """Bytes and number of files."""

    bytes: int = 0
    files: int = 0

    def plus(self, other: DiskAmount) -> DiskAmount:
        return DiskAmount(self.bytes + other.bytes, self.files + other.files)

    def minus(self, other: DiskAmount) -> DiskAmount:
        return DiskAmount(self.bytes - other.bytes, self.files - other.files)

    def times(self, factor: int) -> DiskAmount:
        return DiskAmount(self.bytes * factor, self.files * factor)

    def or_more(self, other: DiskAmount) -> DiskAmount:
        """The larger one of each figure."""
        return DiskAmount(max(self.bytes, other.bytes), max(self.files, other.files))


NOTHING: Final = DiskAmount()


class CheckpointUsage(msgspec.Struct):
    """Who holds how much. An event costs the same however many trials there are.

    A trial holds what its worker measured last. Where an attempt has ended of which nobody measured anything
    (its node failed, or a worker of an earlier version wrote the result), it may hold as much as others do.

    Attributes:
        sizes: Trial -> what was measured last; `measured`: all of it.
        unmeasured: Trials of which the newest attempt was not measured.
        recent: The newest measurements.
    """

    sizes: dict[int, CheckpointSizes] = {}
    unmeasured: dict[int, None] = {}
    measured: DiskAmount = NOTHING
    recent: list[CheckpointSizes] = []

    def note(
        self, trial: int, sizes: CheckpointSizes | None, *, trained: bool, completed: bool = False
    ) -> None:
        """An attempt of the trial has ended, which `trained` for a while, or even came to its end."""
        if sizes is not None:
            self.remove(trial)
            self.sizes[trial] = sizes
            self.measured = self.measured.plus(_kept(sizes))
            if completed or any(sizes):  # what failed before its first checkpoint tells nothing
                self.recent = [*self.recent[1 - RECENT :], sizes]
        elif trained:
            self.unmeasured[trial] = None

    def remove(self, trial: int) -> None:
        """The trial has no checkpoints any more."""
        self.unmeasured.pop(trial, None)
        sizes = self.sizes.pop(trial, None)
        if sizes is not None:
            self.measured = self.measured.minus(_kept(sizes))

    @property
    def known(self) -> bool:
        """Whether anything was ever measured."""
        return bool(self.recent)

    @property
    def expected_kept(self) -> DiskAmount:
        """What a trial is likely to keep: as much as the largest of the newest."""
        return DiskAmount(
            max((sizes.kept_bytes for sizes in self.recent), default=0),
            max((sizes.kept_files for sizes in self.recent), default=0),
        )

    @property
    def expected_newest(self) -> DiskAmount:
        """What one more checkpoint is likely to take."""
        return DiskAmount(
            max((sizes.newest_bytes for sizes in self.recent), default=0),
            max((sizes.newest_files for sizes in self.recent), default=0),
        )

    def held_by(self, trial: int) -> DiskAmount:
        """What this trial holds, as far as is known or likely."""
        sizes = self.sizes.get(trial)
        held = NOTHING if sizes is None else _kept(sizes)
        return held.or_more(self.expected_kept) if trial in self.unmeasured else held

    def newest_of(self, trial: int) -> DiskAmount | None:
        """What the newest checkpoint of this trial takes; None where it has none."""
        sizes = self.sizes.get(trial)
        if sizes is None or not (sizes.newest_bytes or sizes.newest_files):
            return None
        return DiskAmount(sizes.newest_bytes, sizes.newest_files)

    @property
    def held(self) -> DiskAmount:
        """What all trials hold, those included whose checkpoints are being removed."""
        total = self.measured
        for trial in self.unmeasured:
            total = total.plus(self.held_by(trial))
            if trial in self.sizes:
                total = total.minus(_kept(self.sizes[trial]))
        return total


def _kept(sizes: CheckpointSizes) -> DiskAmount:
    return DiskAmount(sizes.kept_bytes, sizes.kept_files)
