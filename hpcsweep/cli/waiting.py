"""A sweep that its own jobs drive is held for moments only: a command waits for its turn."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hpcsweep.core.protocols import Clock
from hpcsweep.core.state import SweepState
from hpcsweep.errors import HeldError
from hpcsweep.store.journal.writer import Journal
from hpcsweep.store.layout import Layout

PATIENCE_S: Final = 20.0


@contextlib.contextmanager
def turn(folder: Path, state: SweepState | None, clock: Clock) -> Iterator[Journal | None]:
    """The journal of a detached sweep that goes on, held until the block ends; None for any other sweep.

    Raises:
        HeldError: Another driver is still at work on it after a while.
    """
    if state is None or state.detached is None or state.ended is not None:
        yield None
        return
    journal = _acquired(Layout(folder.resolve()), clock)
    try:
        yield journal
    finally:
        journal.release()


def _acquired(layout: Layout, clock: Clock) -> Journal:
    deadline = clock.time() + PATIENCE_S
    while True:
        try:
            journal = Journal.open(layout)
            journal.acquire()
            return journal
        except HeldError:
            if clock.time() > deadline:
                raise
        clock.sleep(random.uniform(0.2, 0.6))
