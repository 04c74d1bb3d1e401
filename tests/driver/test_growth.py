"""Sweeps whose space grows by what their runs suggest."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hpcsweep.core.events import ParametersSuggested, TrialCreated
from hpcsweep.core.protocols import Scheduler, Searcher
from hpcsweep.core.space import Choice, Float, Parameter, Space
from hpcsweep.core.state import SweepState
from hpcsweep.core.suggestions import added_parameters
from hpcsweep.driver import Growth
from hpcsweep.schedulers.asha import ASHA
from hpcsweep.schedulers.fifo import Fifo
from hpcsweep.schedulers.pbt import PBT
from hpcsweep.schedulers.synchronous import Hyperband
from hpcsweep.searchers.evolution import CMAES
from hpcsweep.searchers.random import Random
from hpcsweep.searchers.tpe import TPE
from hpcsweep.store.batch import ManifestRun, Result
from hpcsweep.store.layout import Layout
from hpcsweep.store.run_files import Suggestions
from tests.doubles import FolderCluster
from tests.driver.sweeps import STARTED, drive, events, make_driver, of_kind

FINITE = Space((Parameter("x", Choice((0.25, 0.5))),))
SPACE = Space((Parameter("x", Float(0.0, 1.0)),))
FIRST = (msgspec.structs.replace(STARTED, identity=STARTED.identity | {"space": {"x": {"type": "float"}}}),)
DEPTH = {"type": "int", "low": 1, "high": 9, "log": False}


class Defining(FolderCluster):
    """Runs an objective that suggests a depth where `x` is large, drawn by the trial's number."""

    def result(self, run: ManifestRun, task: int, gpus: int) -> Result:
        result = super().result(run, task, gpus)
        deep, has = run.config["x"] > 0.4, "depth" in run.config
        told = None
        if deep and not has:
            told = Suggestions({"depth": DEPTH}, {"depth": run.trial % 9 + 1})
        elif has and not deep:
            told = Suggestions(unused=("depth",))
        return msgspec.structs.replace(result, suggestions=told)


def growth(new_searcher: Callable[[], Searcher]) -> Growth:
    return Growth(new_searcher, lambda added: json.dumps(dict(added)), 0o644)


SEARCHERS: dict[str, Callable[[], Searcher]] = {
    "random": Random,
    "tpe": functools.partial(TPE, startup=4),
    "cmaes": CMAES,
}


def to_the_end(
    root: Path,
    searcher: Callable[[], Searcher],
    *,
    scheduler: Callable[[], Scheduler],
    restarts: bool,
    **others: Any,
) -> SweepState:
    options: dict[str, Any] = {
        "first": FIRST,
        "space": SPACE,
        "max_trials": 24,
        "growth": growth(searcher),
    } | others
    cluster = Defining(root.parent / f"{root.name}-controller", per_poll=3)
    while True:
        first = () if (root / "journal").exists() else FIRST
        driver, journal = make_driver(
            root, cluster, searcher=searcher(), scheduler=scheduler(), **options | {"first": first}
        )
        try:
            if restarts:
                driver.tick()
            else:
                driver.run()
        finally:
            journal.release()
        if driver.state.ended is not None:
            return driver.state


@pytest.mark.parametrize("searcher", SEARCHERS)
@pytest.mark.parametrize("scheduler", [functools.partial(Fifo, max_resource=1, trials=24), Hyperband])
def test_what_a_run_suggests_is_searched_from_then_on_whatever_is_restarted(
    tmp_path: Path, searcher: str, scheduler: Any
) -> None:
    make = functools.partial(scheduler, max_resource=9) if scheduler is Hyperband else scheduler
    states = [
        to_the_end(tmp_path / name, SEARCHERS[searcher], scheduler=make, restarts=restarts)
        for name, restarts in (("quiet", False), ("restarted", True))
    ]
    configs = [[trial.config for trial in state.trials] for state in states]
    assert configs[0] == configs[1]
    assert {tuple(config) for config in configs[0]} == {("x",), ("x", "depth")}
    assert all(("depth" in config) == (config["x"] > 0.4) for config in configs[0])
    created = [event.config for event in of_kind(tmp_path / "quiet", TrialCreated)]
    grown = next(index for index, config in enumerate(created) if "depth" in config)
    assert all("depth" in config for config in created[grown:]), "where it is unused a run tells so"
    assert len({config["depth"] for config in created[grown:]}) > 3
    for name, state in zip(("quiet", "restarted"), states, strict=True):
        added = {"depth": DEPTH | {"added": True}}
        assert added_parameters(state.started) == added
        assert json.loads(Layout(tmp_path / name).spec.read_bytes()) == added
        replayed = SweepState.replay(events(tmp_path / name))
        assert [trial.config for trial in replayed.trials] == configs[0]


@pytest.mark.parametrize(
    "scheduler",
    [
        functools.partial(Fifo, max_resource=1),
        functools.partial(ASHA, max_resource=9),
        functools.partial(Hyperband, max_resource=9),
        functools.partial(PBT, population=6, max_resource=4, interval=1, space=FINITE, seed=1),
    ],
)
def test_a_space_that_was_exhausted_before_it_grew_is_searched_on(tmp_path: Path, scheduler: Any) -> None:
    states = [
        to_the_end(tmp_path / name, Random, scheduler=scheduler, restarts=restarts, space=FINITE)
        for name, restarts in (("quiet", False), ("restarted", True))
    ]
    configs = [[trial.config for trial in state.trials] for state in states]
    assert configs[0] == configs[1]
    started = [event for event in of_kind(tmp_path / "quiet", TrialCreated) if event.parent is None]
    created = [event.config for event in started]
    assert sorted(config["x"] for config in created[:2]) == [0.25, 0.5]
    assert {tuple(config) for config in created[2:]} == {("x", "depth")}
    assert any(event.more_trials for event in of_kind(tmp_path / "quiet", ParametersSuggested))


def test_a_sweep_that_only_its_space_ends_stays_at_its_end(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "space": FINITE,
        "max_trials": None,
        "growth": growth(Random)._replace(ends=False),
    }
    state = to_the_end(
        tmp_path / "s", Random, scheduler=functools.partial(Fifo, max_resource=1), restarts=False, **options
    )
    assert len(state.trials) == 2
    assert added_parameters(state.started) == {"depth": DEPTH | {"added": True}}
    assert state.ended is not None
    assert state.ended.reason == "the search space is exhausted after 2 configurations"


def test_all_repeats_of_a_configuration_have_what_one_suggested(tmp_path: Path) -> None:
    (first,) = FIRST
    first = msgspec.structs.replace(first, identity=first.identity | {"repeats": 2})
    state = drive(
        tmp_path / "s",
        Defining(tmp_path / "controller"),
        first=(first,),
        space=SPACE,
        scheduler=Fifo(max_resource=1, trials=4),
        growth=growth(Random),
    ).state
    configs = [trial.config for trial in state.trials]
    assert configs[::2] == configs[1::2]
    assert any("depth" in config for config in configs)


def test_a_clone_has_what_its_parent_suggested(tmp_path: Path) -> None:
    state = drive(
        tmp_path / "s",
        Defining(tmp_path / "controller"),
        first=FIRST,
        space=SPACE,
        scheduler=PBT(population=6, max_resource=4, interval=1, space=SPACE, seed=1),
        growth=growth(Random),
    ).state
    clones = [trial for trial in state.trials if trial.parent is not None]
    assert clones
    created = {event.trial: event.config for event in of_kind(tmp_path / "s", TrialCreated)}
    for clone in clones:
        assert clone.parent is not None
        parent = state.trials[clone.parent].config
        assert created[clone.trial].get("depth") == parent.get("depth")


def test_what_a_searcher_cannot_search_stays_out_of_the_space(tmp_path: Path) -> None:
    cluster = Defining(tmp_path / "controller")
    state = drive(
        tmp_path / "s", cluster, first=FIRST, space=SPACE, scheduler=Fifo(max_resource=1, trials=6)
    ).state
    assert of_kind(tmp_path / "s", ParametersSuggested) == []
    assert {tuple(trial.config) for trial in state.trials} == {("x",)}
