"""Random fault schedules, 400 or with `--exhaustive` 4,000, each with all that always holds.

A schedule follows from its seed alone. To run some again, or others:

    FAULT_SEEDS=177 python -m pytest tests/simulation/test_faults.py
    FAULT_SEEDS=1000-6000 python -m pytest tests/simulation/test_faults.py
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from hpcsweep.core.events import AnyEvent, SweepStarted
from hpcsweep.driver import compaction
from hpcsweep.session.session import Session
from tests.effort import by_effort
from tests.simulation.fault_run import FaultRun, Oracle
from tests.simulation.invariants import ALWAYS, decisions_are_those_of_a_quiet_site
from tests.simulation.schedules import schedule_of

CHUNKS = 20
#: One in so many schedules is run twice, and once without its faults.
EACH = 5


def seeds() -> range:
    first, _, last = os.environ.get("FAULT_SEEDS", by_effort("0-100", "0-4000", ci="0-400")).partition("-")
    return range(int(first), int(last) if last else int(first) + 1)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_whatever_fails_the_invariants_hold(tmp_path: Path, chunk: int) -> None:
    for seed in seeds()[chunk::CHUNKS]:
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            check(seed, folder)
        except BaseException as error:
            error.add_note(f"FAULT_SEEDS={seed}: {schedule_of(seed)}")
            raise
        shutil.rmtree(folder)


def check(seed: int, folder: Path) -> None:
    """One schedule."""
    fault_run = fault_run_of(seed, folder / "once")
    for holds in ALWAYS:
        holds(fault_run)
    if seed % EACH == 0:
        again = fault_run_of(seed, folder / "again")
        assert list(plain(again.events)) == list(plain(fault_run.events)), "the same seed gave something else"
        (folder / "quiet").mkdir()
        decisions_are_those_of_a_quiet_site(fault_run, folder / "quiet")


def fault_run_of(seed: int, folder: Path) -> FaultRun:
    folder.mkdir()
    schedule = schedule_of(seed)
    with pytest.MonkeyPatch.context() as patch:
        if schedule.compact_at is not None:
            often = {"compact_at": schedule.compact_at}
            config = Session._driver_config
            patch.setattr(
                Session,
                "_driver_config",
                lambda self, started: msgspec.structs.replace(config(self, started), **often),
            )
            patch.setattr(compaction, "MERGE_ABOVE", 2)
        return FaultRun(schedule, folder, Oracle(patch), patch)


def plain(events: list[AnyEvent]) -> Iterator[str]:
    """The events without the random name of the sweep and its folder."""
    started = next(event for event in events if isinstance(event, SweepStarted))
    for event in events:
        yield re.sub(rf'(?<=[-"]){started.sweep}(?=[-"])', "cafe01", msgspec.json.encode(event).decode())


#: Two in which no task was free to ask for the trial that the budget did not allow, so that the sweep went on
#: without work; and one in which runs that were given ahead exceeded a hard budget.
ONCE_FAILED = (7860, 9321, 7668)


@pytest.mark.parametrize("seed", ONCE_FAILED)
def test_a_schedule_that_once_failed_holds(tmp_path: Path, seed: int) -> None:
    check(seed, tmp_path)
