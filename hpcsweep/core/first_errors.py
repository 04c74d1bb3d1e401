"""Whether the first runs of a sweep all end at once with the same error. Pure."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from hpcsweep.core.outcomes import FACTS, Interruption, Outcome

#: An attempt that fails within so many seconds has failed at once.
AT_ONCE_S: Final = 60.0
#: How many different trials have to, where the spec does not say.
FAIL_FAST: Final = 5

#: What differs from run to run in one and the same error: numbers, addresses, paths, long hexadecimal names.
_DIFFERS: Final = re.compile(
    r"(?<![\w/])(?:/[^\s'\",:;()]+)+|\b0x[0-9a-f]+\b|\b[0-9a-f]{8,}\b|[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?",
    re.IGNORECASE,
)


def error_key(message: str) -> str:
    """The same for messages of the same error in different runs.

    Of several lines (see `store.last_words`) the last one counts: the others may show a configuration.
    """
    return _DIFFERS.sub("#", message.rpartition(" | ")[2]).strip()


def failed_at_once(
    *,
    outcome: Outcome | None = None,
    why: Interruption | None = None,
    seconds: float = 0.0,
    valued: bool = False,
) -> bool | None:
    """Whether an attempt shows that training fails at once (True), that it does not, or nothing (None).

    Args:
        outcome: How its run ended for good, if it did.
        why: Else why the attempt was interrupted.
        seconds: How long it took.
        valued: It has a value.
    """
    ending = outcome or why
    if ending is not None and FACTS[ending].broken_training:
        return seconds <= AT_ONCE_S
    return False if valued or seconds > AT_ONCE_S else None


class FirstErrors(msgspec.Struct):
    """The trials that failed at once with the same error, as long as nothing else has happened.

    Attributes:
        trials: Them, in order.
        message: What the last of them said.
        over: A run has ended otherwise: it is not training as a whole that is broken.
    """

    trials: dict[int, None] = msgspec.field(default_factory=dict)
    message: str = ""
    over: bool = False

    def add(self, trial: int, message: str, failed: bool | None) -> None:
        """Take in how an attempt ended; `failed` is what `failed_at_once` says of it."""
        if failed is None or self.over:
            return
        self.over = not failed or (bool(self.trials) and error_key(message) != error_key(self.message))
        if self.over:
            self.trials.clear()
        else:
            self.trials[trial] = None
            self.message = message
