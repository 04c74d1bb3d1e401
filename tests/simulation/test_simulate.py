"""Whole sweeps in virtual time, by the real driver."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcsweep.core.events import BatchPlanned, Config, RunsAssigned, TaskBegan, TaskLeft
from hpcsweep.errors import FolderError, SpecError
from hpcsweep.simulation import simulate
from hpcsweep.views.folder import ResultsFolder
from tests.driver.sweeps import TABLE_81
from tests.simulation.specs import falling, spec_of

FIFO = "scheduler={name: fifo, max_resource: 1}"


def test_three_trials_on_two_gpus_are_measured_to_the_second(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, FIFO, "budget.trials=3", "cluster.max_gpus=2", "resources.gpus=1")
    found = simulate(spec, lambda config, step, seed: config["x"])
    # Two begin at once; the driver sees them end after 10 s and hands out the third, which begins
    # at that very poll, and whose end is seen at second 20.
    assert (found.ending, found.reason) == ("finished", "all trials are done")
    assert (found.places, found.gpus, found.trials, found.runs, found.failures) == (2, 1, 3, 3, 0)
    assert found.makespan_s == 20.0
    assert found.busy_s == 30.0
    assert found.hours == 30 / 3600
    assert (found.filled_s, found.started_s) == (10.0, 10.0)
    assert (found.idle, found.idle_filled, found.idle_started) == (0.25, 0.0, 0.0)
    assert (found.chain_s, found.bound_s) == (10.0, 15.0)
    best = min(value for _, value in found.values)
    assert found.values[0][0] == 10.0
    assert found.value == best
    assert found.best is not None
    assert found.best["value"] == found.best["config"]["x"] == best


def test_waiting_counts_as_idle_and_a_task_by_its_gpus(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, FIFO, "budget.trials=2", "resources.gpus=2", "cluster.simulated.wait=30")
    found = simulate(spec, falling)
    assert (found.places, found.gpus, found.makespan_s, found.idle) == (2, 2, 40.0, 0.75)
    assert found.hours == 2 * 2 * 10 / 3600


def test_a_site_is_as_large_as_the_caps_if_it_names_no_nodes(tmp_path: Path) -> None:
    overrides = (FIFO, "budget.trials=64", "cluster.max_gpus=32")
    assert simulate(spec_of(tmp_path, *overrides), falling).places == 32
    assert simulate(spec_of(tmp_path, *overrides, "cluster.simulated.nodes=2"), falling).places == 8
    without = spec_of(tmp_path, FIFO, "budget.trials=4", "cluster.max_gpus=null", "cluster.simulated=null")
    assert simulate(without, falling).places == 8


def test_the_speed_may_depend_on_the_configuration(tmp_path: Path) -> None:
    speed = "cluster.simulated.seconds_per_unit=100 + 50 * x"
    spec = spec_of(tmp_path, FIFO, "budget.trials=1", "enqueue=[{x: 0.5}]", speed)
    assert simulate(spec, falling).busy_s == 125.0
    with pytest.raises(SpecError, match="seconds_per_unit: must be >= 0, got -1 for"):
        simulate(spec_of(tmp_path, FIFO, "budget.trials=1", "enqueue=[{x: 0.5}]", speed + " - 126"), falling)


def test_hyperband_has_its_rungs_and_trains_from_checkpoints(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "scheduler.max_resource=81", "cluster.max_gpus=32")
    found = simulate(spec, falling)
    assert found.trials == sum(rungs[0][0] for rungs in TABLE_81.values())
    assert found.runs == sum(count for rungs in TABLE_81.values() for count, _ in rungs)
    assert found.busy_s == 1581 * 10
    assert found.chain_s == 81 * 10


def test_the_same_seed_gives_the_same_simulation_and_another_one_another(tmp_path: Path) -> None:
    trouble = "{gpus: 4, spread: 4, preemptions: 20, failures: 0.1, node_failures: 2, late_results: 0.1}"
    spec = spec_of(tmp_path, f"cluster.simulated={trouble}")
    found = simulate(spec, falling, seed=5)
    assert found.seed == 5
    assert simulate(spec, falling, seed=5) == found
    assert simulate(spec, falling, seed=6) != found
    assert found.interruptions["preempted"] > 0


def test_runs_of_a_failed_node_are_repeated(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "cluster.simulated={nodes: 4, gpus: 1, node_failures: 30}")
    found = simulate(spec, falling)
    assert found.interruptions["node_fail"] > 0
    assert (found.ending, found.runs, found.failures) == ("finished", 22, 0)


TROUBLE = {
    "lost replies": "{gpus: 4, lost_replies: 0.5}",
    "late results": "{gpus: 4, late_results: 0.5}",
    "preemption without requeue": "{gpus: 4, preemptions: 60, requeue: false}",
    "preemption with requeue and a wait": "{gpus: 4, preemptions: 60, wait: [[0, 1], [1, 60]]}",
    "arrays of two": "{gpus: 4, array_tasks: 2}",
    "three jobs at a time": "{gpus: 4, max_jobs: 3}",
    "three jobs at a time, which nobody tells": "{gpus: 4, max_jobs: 3, tells_max_jobs: false}",
    "a controller that is silent half of the time": "{gpus: 4, outages: 60, outage: 30}",
    "a memory of ten seconds": "{gpus: 4, forgets: 10, lost_replies: 0.3}",
}


@pytest.mark.parametrize("reuse", ["true", "false"])
@pytest.mark.parametrize("site", TROUBLE.values(), ids=list(TROUBLE))
def test_every_sweep_ends_with_all_its_runs(tmp_path: Path, site: str, reuse: str) -> None:
    spec = spec_of(tmp_path, f"cluster.simulated={site}", f"cluster.reuse={reuse}")
    found = simulate(spec, falling)
    assert (found.ending, found.trials, found.runs, found.failures) == ("finished", 17, 22, 0)


SCHEDULERS: dict[str, list[str]] = {
    "asha": ["scheduler={name: asha, max_resource: 9}", "budget.trials=20"],
    "asha that stops": ["scheduler={name: asha, max_resource: 9, stopping: true}", "budget.trials=20"],
    "pbt": ["scheduler={name: pbt, population: 6, interval: 3, max_resource: 9}"],
    "median": ["scheduler={name: fifo, max_resource: 9}", "stop=[median]", "budget.trials=20"],
    "lanes": ["cluster.reuse=true", "cluster.concurrent=2", "cluster.max_gpus=8"],
    "cpus": ["resources.gpus=0", "cluster.max_gpus=null", "cluster.slots=3"],
}


@pytest.mark.parametrize("overrides", SCHEDULERS.values(), ids=list(SCHEDULERS))
def test_every_scheduler_runs_in_virtual_time(tmp_path: Path, overrides: list[str]) -> None:
    found = simulate(spec_of(tmp_path, *overrides), falling)
    assert found.ending == "finished"
    assert found.value is not None
    assert found.value < 0.3


def test_stopping_rules_see_reports_and_save_time(tmp_path: Path) -> None:
    fifo = ["scheduler={name: fifo, max_resource: 27}", "budget.trials=20", "searcher=random"]
    whole = simulate(spec_of(tmp_path, *fifo), falling)
    stopped = simulate(spec_of(tmp_path, *fifo, "stop=[median]"), falling)
    assert whole.busy_s == 20 * 27 * 10
    assert stopped.busy_s < 0.9 * whole.busy_s
    assert stopped.value == whole.value


def test_each_repeat_of_a_configuration_has_a_seed_of_its_own(tmp_path: Path) -> None:
    seeds: set[int] = set()

    def noisy(config: Config, step: int, seed: int) -> float:
        seeds.add(seed)
        return float(config["x"]) + seed % 7

    found = simulate(spec_of(tmp_path, FIFO, "budget.trials=2", "repeats=3"), noisy)
    assert found.trials == len(seeds) == 6
    assert found.best is not None
    assert found.best["repeats"] == 3


def test_a_run_without_a_value_is_a_failure(tmp_path: Path) -> None:
    found = simulate(spec_of(tmp_path, FIFO, "budget.trials=4"), lambda config, step, seed: math.nan)
    assert (found.ending, found.failures, found.best, found.value, found.values) == (
        "failed",
        4,
        None,
        None,
        (),
    )
    assert "metric 'loss' is nan at step 1" in found.reason


def test_a_kept_folder_is_resumed_and_its_time_continues(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    first = simulate(spec_of(tmp_path, FIFO, "budget.trials=3"), falling, folder=folder)
    assert first.trials == 3
    again = simulate(spec_of(tmp_path, FIFO, "budget.trials=5"), falling, folder=folder)
    assert (again.trials, again.busy_s) == (5, 20.0)
    nothing = simulate(spec_of(tmp_path, FIFO, "budget.trials=5"), falling, folder=folder)
    assert (nothing.trials, nothing.busy_s, nothing.makespan_s) == (5, 0.0, 0.0)
    events = ResultsFolder(folder).events
    times = [at for event in events if (at := getattr(event, "at", None)) is not None]
    assert times == sorted(times)
    with pytest.raises(FolderError, match="belongs to another sweep"):
        simulate(spec_of(tmp_path, FIFO, "budget.trials=5"), falling, folder=folder, seed=1)


def killed_after(count: int) -> Callable[[Config, int, int], float]:
    """A curve in which the process dies at the so-many-th value."""
    values = 0

    def curve(config: Config, step: int, seed: int) -> float:
        nonlocal values
        values += 1
        if values > count:
            raise KeyboardInterrupt
        return falling(config, step, seed)

    return curve


@pytest.mark.parametrize("count", [0, 1, 9, 12, 21])
def test_a_killed_simulation_resumes_without_loss(tmp_path: Path, count: int) -> None:
    spec, folder = spec_of(tmp_path, "cluster.simulated.spread=2"), tmp_path / "results"
    with pytest.raises(KeyboardInterrupt):
        simulate(spec, killed_after(count), folder=folder)
    found = simulate(spec, falling, folder=folder)
    whole = simulate(spec, falling)
    assert (found.trials, found.runs, found.failures) == (17, 22, 0)
    assert found.best == whole.best
    # What was under way was not counted, and is trained again; nothing else is.
    assert ResultsFolder(folder).state.spent_s == pytest.approx(whole.busy_s)
    assert found.busy_s <= whole.busy_s


def held_at_most(folder: Path) -> int:
    """How many tasks held GPUs at a time, by what they told."""
    changes = []
    for event in ResultsFolder(folder).events:
        if isinstance(event, TaskBegan):
            changes.append((event.started, 1))
        elif isinstance(event, TaskLeft):
            changes.append((event.left, -1))
    held = itertools.accumulate(change for _, change in sorted(changes))
    return max(held)


def test_the_place_of_a_task_whose_time_is_over_is_taken_without_another_wait_in_the_queue(
    tmp_path: Path,
) -> None:
    overrides = ["scheduler={name: fifo, max_resource: 6}", "budget.trials=64", "cluster.reuse=true"]
    overrides += ["cluster.task_time=10m", "resources.time=5m", "cluster.simulated.wait=10m"]
    folder = tmp_path / "results"
    found = simulate(spec_of(tmp_path, *overrides), falling, folder=folder)
    assert (found.ending, found.runs, found.failures) == ("finished", 64, 0)
    # 64 runs of a minute on 4 GPUs; each task does nine.
    assert 600 + 16 * 60 < found.makespan_s < 600 + 20 * 60
    assert held_at_most(folder) == 4
    planned = [event for event in ResultsFolder(folder).events if isinstance(event, BatchPlanned)]
    assert [(len(batch.tasks), batch.throttle) for batch in planned] == [(16, 4)]


@pytest.mark.parametrize("reuse", ["true", "false"])
def test_a_hard_budget_is_kept_and_with_tasks_that_do_run_after_run_used_although_limits_are_long(
    tmp_path: Path, reuse: str
) -> None:
    cap_s = 0.4 * 3600  # a third of 72 runs of a minute
    overrides = ["scheduler={name: fifo, max_resource: 6}", "budget.trials=72", "resources.time=10m"]
    overrides += ["budget.gpu_hours=0.4", "cluster.idle=10", f"cluster.reuse={reuse}"]
    folder = tmp_path / "results"
    found = simulate(spec_of(tmp_path, *overrides), falling, folder=folder)
    assert found.reason.startswith("budget.gpu_hours 0.4 is used up")
    used_s = ResultsFolder(folder).state.spent_gpu_s
    assert used_s == pytest.approx(found.hours * 3600)
    assert used_s <= cap_s
    if reuse == "true":
        assert used_s > 0.9 * cap_s
        given = [event.time_s for event in ResultsFolder(folder).events if isinstance(event, RunsAssigned)]
        assert given[0] == 0
        assert given[-1] == 90, "a run is expected to take at most one and a half minutes"
