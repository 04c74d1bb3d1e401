"""What the cluster said last where it does not do what the driver asks, kept in the journal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

from hpcsweep.core.events import AnyEvent, ClusterSaid
from hpcsweep.core.protocols import Clock
from hpcsweep.core.state import SweepState, without_numbers

#: Words that change all the time are written down at most so often.
EVERY_S: Final = 60.0
#: So much of them is kept.
LENGTH: Final = 500

Asked = Literal["poll", "find", "submit", "limits", "change"]


class ClusterMessages:
    """Notes what the cluster says, once for each change; `status` and `explain` read it there."""

    def __init__(
        self, state: SweepState, *, clock: Clock, commit: Callable[[Sequence[AnyEvent]], None]
    ) -> None:
        self._state = state
        self._clock = clock
        self._commit = commit

    def failed(self, asked: Asked, words: str, *, batch: str = "", refused: bool = False) -> None:
        """It did not do what was asked, and said this."""
        now = self._clock.time()
        words = words.strip()[:LENGTH] or "without a word"
        before = self._state.said.get(asked)
        if before is not None and not refused and before.batch == batch:
            same = without_numbers(before.words) == without_numbers(words)
            if same or 0 <= now - before.at < EVERY_S:
                return
        self._commit([ClusterSaid(now, asked, words, batch, refused)])

    def answered(self, asked: Asked) -> None:
        """It does what is asked again."""
        if asked in self._state.said:
            self._commit([ClusterSaid(self._clock.time(), asked, "")])
