"""Whether a quota of checkpoints is too small is foretold, with sizes measured before."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcsweep.cli.headlines import headlines
from hpcsweep.core.events import Outcome, RunFinished, SweepStarted, TrialCreated
from hpcsweep.core.run_events import CheckpointSizes
from hpcsweep.core.units import format_size
from hpcsweep.session.quota_forecast import QuotaForecast, forecast_quota
from hpcsweep.session.session import Session
from hpcsweep.spec import SweepSpec, load_spec
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import Layout
from tests.simulation.specs import write_spec

GIB = 1 << 30
KEEP = "store.checkpoint_quota 3G: at least {} checkpoints at a time"


def spec_of(folder: Path, *overrides: str) -> SweepSpec:
    return load_spec(write_spec(folder), ["scheduler.max_resource=81", "cluster.name=local", *overrides])


def write_sweep(folder: Path, *, kept: int) -> Path:
    """A folder of a sweep whose only run kept so much in 2 files."""
    journal = Journal.open(Layout(folder))
    sizes = CheckpointSizes(kept, 2, kept, 2)
    run = RunFinished(0, 0, Outcome.COMPLETED, 0.5, 1, checkpoints=sizes, seconds=9.0)
    identity = {"objective": {"metric": "loss", "mode": "min"}}
    journal.commit([SweepStarted("cafe01", "s", 1.0, identity), TrialCreated(0, {"x": 0.5}, 0, 1), run])
    journal.release()
    return folder


@pytest.mark.parametrize(
    ("overrides", "keep", "each"),
    [
        ((), "28 trials keep", "110M"),
        (("repeats=2",), "55 trials keep", "55.9M"),
        (("scheduler={name: fifo, max_resource: 3}", "budget.trials=9"), "1 trial keeps", "3G"),
        (("scheduler={name: asha, max_resource: 9}", "budget.trials=9"), "1 trial keeps", "3G"),
        (("scheduler={name: pbt, population: 8, interval: 2, max_resource: 8}",), "8 trials keep", "384M"),
    ],
)
def test_a_quota_says_what_is_left_for_each_trial_that_must_keep_checkpoints(
    tmp_path: Path, overrides: tuple[str, ...], keep: str, each: str
) -> None:
    spec = spec_of(tmp_path, "store.checkpoint_quota=3G", *overrides)
    found = forecast_quota(spec, Layout(tmp_path / "new"), None)
    assert found == QuotaForecast(f"{KEEP.format(keep)}, each {each} at most")


def test_without_a_quota_nothing_is_foretold(tmp_path: Path) -> None:
    assert forecast_quota(spec_of(tmp_path), Layout(tmp_path / "new"), None) is None


def test_sizes_that_were_measured_tell_whether_a_quota_is_enough(tmp_path: Path) -> None:
    root = write_sweep(tmp_path / "r", kept=GIB // 2)
    spec = spec_of(tmp_path, "store={checkpoint_quota: 3G, checkpoint_files: 100}")
    amounts = f"512M in 2 files each (measured in {root}), 14G in 56 files together"
    text = f"store.checkpoint_quota 3G in 100 files: at least 28 trials keep checkpoints at a time, {amounts}"
    too_small = QuotaForecast(f"{text}: raise it, or the sweep will pause", too_small=True)
    session = Session(spec, root)
    assert session.quota_forecast == too_small
    assert f"note: {too_small.text}" in headlines(session, "s", starts_tasks=False, detach=False)
    enough = forecast_quota(spec_of(tmp_path, "store.checkpoint_quota=14G"), Layout(root), None)
    assert enough is not None
    assert not enough.too_small
    files = forecast_quota(spec_of(tmp_path, "store.checkpoint_files=55"), Layout(root), None)
    assert files is not None
    assert files.text.endswith(
        "2 files each (measured in " + f"{root}), 56 files together: raise it, or the sweep will pause"
    )


def test_an_earlier_sweep_that_the_sweep_starts_from_tells_sizes_as_well(tmp_path: Path) -> None:
    earlier = write_sweep(tmp_path / "earlier", kept=GIB)
    spec = spec_of(tmp_path, "store.checkpoint_quota=3G", f"warm_start=[{earlier}]")
    found = forecast_quota(spec, Layout(tmp_path / "new"), None)
    assert found is not None
    assert (found.too_small, f"1G each (measured in {earlier}), 28G together" in found.text) == (True, True)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0B"), (812, "812B"), (1000, "1000B"), (3 << 30, "3G"), (3000 << 20, "2.93G"), (500 << 30, "500G")],
)
def test_sizes_are_shown_in_the_units_in_which_they_are_given(count: int, text: str) -> None:
    assert format_size(count) == text
