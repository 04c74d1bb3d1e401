"""What is known before the first trial: results of earlier sweeps, and enqueued configurations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hpcsweep.core.events import ConfigsEnqueued, SweepStarted, WarmStartLoaded
from hpcsweep.errors import SpecError
from hpcsweep.schedulers.synchronous import Hyperband
from hpcsweep.session.preparation import initial_events
from hpcsweep.session.warm_start import load_results
from hpcsweep.session.warm_start.earlier import EXPECTED
from hpcsweep.spec import SweepSpec, load_spec
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import Layout
from tests.doubles import FolderCluster
from tests.driver.sweeps import STARTED, drive

SPEC = """
train: {command: "true"}
objective: {metric: loss}
space:
  x: {type: float, low: 0.0, high: 1.0}
searcher: random
budget: {trials: 3}
"""


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A Hyperband sweep of 17 trials with one parameter x in [0, 1]; one configuration fails."""

    def objective(config: dict[str, Any], resource: int) -> float | None:
        return None if config["x"] > 0.9 else config["x"] + 1 / resource

    root = tmp_path / "earlier"
    drive(root, FolderCluster(tmp_path / "c", objective=objective), scheduler=Hyperband(max_resource=9))
    return root


def spec(tmp_path: Path, text: str = SPEC) -> SweepSpec:
    path = tmp_path / "new.yaml"
    path.write_text(text)
    return load_spec(path, [])


def test_every_rung_and_failure_of_a_trial_is_an_observation(tmp_path: Path, earlier: Path) -> None:
    known = load_results(spec(tmp_path), earlier, key="warm_start[0]")
    assert known.source == str(earlier)
    assert (len(known.results), known.skipped) == (17, {})
    for config, observations in known.results:
        for resource, value in observations:
            assert value == (None if config["x"] > 0.9 else config["x"] + 1 / resource)
    rungs = [tuple(resource for resource, _ in observations) for _, observations in known.results]
    assert rungs.count((1, 3, 9)) == 1
    assert {config["x"] > 0.9 for config, _ in known.results} == {True, False}


def test_configurations_outside_the_space_are_skipped_and_counted(tmp_path: Path, earlier: Path) -> None:
    narrow = SPEC.replace("high: 1.0", "high: 0.5")
    known = load_results(spec(tmp_path, narrow), earlier, key="warm_start[0]")
    assert all(config["x"] <= 0.5 for config, _ in known.results)
    assert known.skipped == {"x: must be between 0.0 and 0.5": 17 - len(known.results)}
    assert 0 < len(known.results) < 17


def test_configuration_fits_a_space_with_a_new_constant_but_not_with_a_new_parameter(
    tmp_path: Path, earlier: Path
) -> None:
    constant = SPEC.replace("searcher:", "  layers: 3\nsearcher:")
    known = load_results(spec(tmp_path, constant), earlier, key="warm_start[0]")
    assert all(config["layers"] == 3 for config, _ in known.results)
    other = SPEC.replace("searcher:", "  layers: [3, 4]\nsearcher:")
    known = load_results(spec(tmp_path, other), earlier, key="warm_start[0]")
    assert (known.results, known.skipped) == ((), {"layers: missing": 17})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("metric: val", "warm_start[0]: {earlier} measured 'loss', this sweep measures 'val'"),
        ("", f"warm_start[0]: expected {EXPECTED}, got {{nowhere}}"),
    ],
)
def test_folder_that_cannot_be_a_warm_start_is_refused(
    tmp_path: Path, earlier: Path, change: str, problem: str
) -> None:
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    text = SPEC.replace("metric: loss", change) if change else SPEC
    expected = re.escape(problem.format(earlier=earlier, nowhere=nowhere))
    with pytest.raises(SpecError, match=f"^{expected}$"):
        load_results(spec(tmp_path, text), earlier if change else nowhere, key="warm_start[0]")


def test_initial_events_are_earlier_results_then_enqueued_configurations(
    tmp_path: Path, earlier: Path
) -> None:
    text = SPEC + f"warm_start: {earlier.name}\nenqueue: [{{x: 0.25}}, {{}}]\n"
    loaded = spec(tmp_path, text)
    known, enqueued = initial_events(loaded)
    assert isinstance(known, WarmStartLoaded)
    assert isinstance(enqueued, ConfigsEnqueued)
    assert enqueued.configs[0] == {"x": 0.25}
    assert loaded.space.check(enqueued.configs[1]) == []
    assert initial_events(loaded) == [known, enqueued]


def test_warm_start_from_repeats_uses_their_means(tmp_path: Path) -> None:
    started = SweepStarted("cafe01", "s", 1_000_000.0, STARTED.identity | {"repeats": 2})
    root = tmp_path / "earlier"
    drive(root, FolderCluster(tmp_path / "c"), scheduler=Hyperband(max_resource=3), first=(started,))
    known = load_results(spec(tmp_path), root, key="warm_start[0]")
    assert len(known.results) == 3 + 2


def test_unfinished_runs_are_skipped(tmp_path: Path) -> None:
    root = tmp_path / "earlier"
    journal = Journal.open(Layout(root))
    journal.acquire()
    journal.commit([STARTED])
    journal.release()
    known = load_results(spec(tmp_path), root, key="warm_start[0]")
    assert (known.results, known.skipped) == ((), {})
