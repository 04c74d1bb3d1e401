"""What `plan` says of a sweep is true of the sweep, and a simulated one is told from a real one."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import hpcsweep
from hpcsweep.cli import app
from hpcsweep.cli.progress import estimate_end, plan_of
from hpcsweep.core.events import AnyEvent, Config, RunFinished, TickSubmitted
from hpcsweep.schedulers.rungs import max_asha_runs
from hpcsweep.session.makespan import makespan
from hpcsweep.simulation import simulate
from hpcsweep.spec import SweepSpec
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from hpcsweep.views.progress import SweepProgress
from tests.simulation.specs import curve_of, falling, spec_of, write_spec

SIMULATED = "cluster.simulated."
FIFO = "scheduler={name: fifo, max_resource: 9}"
TROUBLED = ("cluster.simulated.failures=0.2", "cluster.simulated.preemptions=3", "retries.training=1")
CLAIMS = {
    "fifo": ["scheduler={name: fifo, max_resource: 3}", "budget.trials=7"],
    "fifo through a finite space": ["scheduler=fifo", "space.x=[0.1, 0.2, 0.3]", "enqueue=[{x: 0.2}]"],
    "halving": ["scheduler={name: halving, max_resource: 10, eta: 2, rounds: 2}"],
    "halving within a budget": ["scheduler={name: halving, max_resource: 8, eta: 2}", "budget.trials=5"],
    "hyperband": ["scheduler={name: hyperband, max_resource: 9}"],
    "asha": ["scheduler={name: asha, max_resource: 9}", "budget.trials=9"],
    "asha of many": ["scheduler={name: asha, max_resource: 8, eta: 2}", "budget.trials=30"],
}


def told(folder: Path, *overrides: str) -> str:
    sets = [word for text in ("train.check=false", *overrides) for word in ("--set", text)]
    result: Result = CliRunner().invoke(app, ["plan", str(write_spec(folder)), "--cluster", "local", *sets])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("trouble", [(), TROUBLED], ids=["quiet", "troubled"])
@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize("name", CLAIMS)
def test_no_sweep_has_more_runs_than_plan_says(
    tmp_path: Path, name: str, repeats: int, trouble: tuple[str, ...]
) -> None:
    overrides = [*CLAIMS[name], f"repeats={repeats}", "resources.gpus=0", "cluster.max_gpus=null"]
    text = told(tmp_path, *overrides)
    claimed = re.search(r"(\d+) trials, (\d+) runs at most|about \d+ runs, (\d+) at most", text)
    assert claimed is not None, text
    most = int(claimed[2] or claimed[3])
    spec = spec_of(tmp_path, *overrides, *trouble)
    found = [simulate(spec, better_and_better, seed=seed) for seed in range(3)]
    assert max(one.runs for one in found) <= most
    if claimed[1]:
        assert max(one.trials for one in found) <= int(claimed[1])
    if not trouble and name in ("hyperband", "halving"):
        assert [one.runs for one in found] == [most] * 3


@pytest.mark.parametrize(
    ("overrides", "within"),
    [
        (["scheduler={name: hyperband, max_resource: 27}"], 0.03),
        (["scheduler={name: halving, max_resource: 9}", "repeats=2"], 0.03),
        (["scheduler={name: fifo, max_resource: 3}", "space.x=[0.1, 0.2, 0.3, 0.4, 0.5]"], 0.03),
        (
            [
                "scheduler={name: fifo, max_resource: 3}",
                "budget.trials=7",
                "objective=[{metric: loss}, {metric: x}]",
            ],
            0.03,
        ),
        (["scheduler={name: asha, max_resource: 9}", "budget.trials=20"], 0.15),
        (["scheduler={name: asha, max_resource: 9, stopping: true}", "budget.trials=20"], 0.3),
        (["scheduler={name: pbt, max_resource: 8, population: 6, interval: 2}"], 0.1),
    ],
)
def test_a_sweep_takes_as_long_as_its_scheduler_needs(
    tmp_path: Path, overrides: list[str], within: float
) -> None:
    spec = spec_of(tmp_path, *overrides)
    found = makespan(spec, lambda below, to: 10.0 * (to - below), places=4)
    simulated = simulate(spec, curve_of(spec))
    assert found is not None
    assert found.seconds == pytest.approx(simulated.makespan_s, rel=within)
    assert found.parallel == 4


def test_a_sweep_that_only_a_budget_ends_has_no_makespan(tmp_path: Path) -> None:
    endless = spec_of(tmp_path, "scheduler=fifo", "budget.time=1h")
    assert makespan(endless, lambda below, to: 1.0, places=4) is None


@pytest.mark.parametrize(
    ("shares", "overrides"),
    [
        ((0.5, 0.75, 0.9), ["scheduler={name: hyperband, max_resource: 27}"]),
        # Near the end it hangs on whether one more is promoted.
        ((0.5, 0.75), ["scheduler={name: asha, max_resource: 9}", "budget.trials=40"]),
        ((0.5, 0.75, 0.9), [FIFO, "budget.trials=14"]),
        ((0.5, 0.75, 0.9), ["scheduler={name: pbt, population: 6, interval: 3, max_resource: 15}"]),
        # Tasks that keep their GPUs wait once.
        (
            (0.75, 0.9),
            ["scheduler={name: fifo, max_resource: 9}", "budget.trials=14", f"{SIMULATED}wait=600"],
        ),
    ],
    ids=["hyperband", "asha", "fifo", "pbt", "fifo after a wait"],
)
def test_the_end_is_foretold_from_runs_that_have_ended_and_that_go_on(
    tmp_path: Path, shares: tuple[float, ...], overrides: list[str]
) -> None:
    folder = tmp_path / "results"
    spec = spec_of(tmp_path, "cluster.reuse=true", f"{SIMULATED}startup=30", *overrides)
    simulate(spec, falling, folder=folder)
    events = read_journal(Layout(folder)).events
    for share in shares:
        assert foretold(spec, events, share) == pytest.approx(1, rel=0.3), share


@pytest.mark.parametrize(
    "scheduler",
    [
        "{name: hyperband, max_resource: 27}",
        "{name: fifo, max_resource: 9}",
        "{name: pbt, population: 6, interval: 3, max_resource: 15}",
    ],
)
def test_the_end_is_foretold_where_each_run_is_a_task_that_waits_for_another_to_end(
    tmp_path: Path, scheduler: str
) -> None:
    trials = ["budget.trials=14"] if "fifo" in scheduler else []
    spec = spec_of(
        tmp_path, "cluster.reuse=false", f"{SIMULATED}startup=30", f"scheduler={scheduler}", *trials
    )
    simulate(spec, falling, folder=tmp_path / "results")
    events = read_journal(Layout(tmp_path / "results")).events
    for share in (0.5, 0.75, 0.9):
        assert foretold(spec, events, share) == pytest.approx(1, rel=0.05), share


def foretold(spec: SweepSpec, events: Sequence[AnyEvent], share: float) -> float:
    """The estimated time that is left after such a share of the whole, to what it took."""
    whole = SweepProgress.replay(events)
    now = whole.began + share * (whole.now - whole.began)
    known = itertools.takewhile(lambda event: told_at(event) <= now, events)
    found = estimate_end(plan_of(spec), SweepProgress.replay(known), now=now)
    assert found.seconds is not None
    return found.seconds / (whole.now - now)


def told_at(event: AnyEvent) -> float:
    """Its time, that of a run's end; 0 for events that follow from others."""
    if isinstance(event, TickSubmitted):  # that is when it will tick
        return 0.0
    if isinstance(event, RunFinished) and event.started is not None:
        return event.started + event.seconds
    return float(getattr(event, "at", 0.0))


def better_and_better(config: Config, step: int, seed: int) -> float:
    """For ASHA the worst order there is: each trial is the best so far when it ends."""
    return -float(config["x"]) / step


def test_asha_may_promote_whoever_is_the_best_when_it_ends() -> None:
    assert max_asha_runs(9, rungs=3, eta=3) == [9, 7, 5]
    assert max_asha_runs(2, rungs=3, eta=3) == [2, 0, 0]


def test_plan_of_a_sweep_without_gpus_counts_run_hours(tmp_path: Path) -> None:
    text = told(tmp_path, "resources={gpus: 0, time: 30m}", "cluster.max_gpus=null")
    assert "11 run-hours if every run takes its whole time limit, once\n" in text
    assert "GPU-hours" not in text


def test_plan_tells_of_a_warm_start_that_gives_nothing(tmp_path: Path) -> None:
    earlier = tmp_path / "earlier"
    simulate(spec_of(tmp_path, "space.x.high=9.0", "space.x.low=2.0"), falling, folder=earlier)
    text = told(tmp_path, f"warm_start=[{earlier}]", "resources.gpus=0")
    assert f"warm start: 0 of 17 configurations of {earlier}: nothing to learn from\n" in text
    assert "  17 left out: x: must be between 0.0 and 1.0\n" in text


def test_a_simulated_folder_says_so_everywhere_and_has_no_date(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    simulate(spec_of(tmp_path), falling, folder=folder)
    page = folder / "report.html"

    def said(*argv: str) -> str:
        return CliRunner().invoke(app, argv).stdout

    status = said("status", str(folder))
    assert (
        status.splitlines()[1]
        == "simulated by `hpcsweep simulate`: nothing was trained, and times are virtual"
    )
    assert '"simulated": true' in said("status", str(folder), "--json")
    assert said("best", str(folder)).splitlines()[0].endswith("(simulated: nothing was trained)")
    assert "0 s after the simulation began" in said("explain", str(folder), "0")
    said("report", str(folder), "--output", str(page))
    assert "nothing was trained, and times are virtual" in page.read_text(encoding="utf-8")
    assert "2001-09-09" not in page.read_text(encoding="utf-8")
    results = hpcsweep.load(folder)
    assert results.simulated
    assert repr(results).split(": ")[1].startswith("simulated, ")
