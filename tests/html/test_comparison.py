"""Several sweeps beside one another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.testing import CliRunner

from hpcsweep.cli import app
from hpcsweep.core.events import (
    AnyEvent,
    Outcome,
    RunFinished,
    SweepEnded,
    SweepOutcome,
    SweepResumed,
    SweepStarted,
    TrialCreated,
)
from hpcsweep.errors import FolderError, SpecError
from hpcsweep.html.comparison import comparison_page, sections, verdict
from hpcsweep.html.sections import Figure, Table, Text
from hpcsweep.views.comparison import Comparison, Estimate, Pair, compare
from tests.exports.exported import simulated
from tests.views.folders import identity, planned, written

if TYPE_CHECKING:
    from tests.html.browser import Browser

HOUR = 3600.0


def sweep(
    folder: Path,
    values: Sequence[float | None],
    *,
    seed: int = 0,
    searcher: str = "random",
    gpus: int = 2,
    repeats: int = 1,
    more: Sequence[AnyEvent] = (),
    **objective: Any,
) -> Path:
    """Trials of an hour each, one after the other; None is a failure."""
    about = identity()
    about["objective"] |= objective
    about["searcher"] = {"name": searcher, "seed": seed}
    about["repeats"] = repeats
    events: list[AnyEvent] = [SweepStarted(folder.name, "lr", 0.0, about)]
    events += [
        TrialCreated(trial, {"lr": 0.1, "optimizer": "<b>"}, 0, 10, repeat=trial % repeats)
        for trial in range(len(values))
    ]
    events += planned("a", *((trial, 0) for trial in range(len(values))), at=0.0)
    for trial, value in enumerate(values):
        outcome = Outcome.FAILED if value is None else Outcome.COMPLETED
        events.append(
            RunFinished(
                trial,
                0,
                outcome,
                value,
                10,
                batch="a",
                task=trial,
                seconds=HOUR,
                gpu_seconds=HOUR * gpus,
                started=HOUR * trial,
            )
        )
    written(folder, [*events, *more])
    return folder


def estimates(found: Comparison, label: str) -> list[Estimate | None]:
    return next([*group.values] for group in found.groups if group.label == label)


def test_the_best_so_far_is_compared_at_shares_of_the_smallest_cost(tmp_path: Path) -> None:
    short = sweep(tmp_path / "short", [4.0, 3.0, None, 1.0])
    long = sweep(tmp_path / "long", [8.0, 2.0, 9.0, 2.0, 0.5, 0.1], searcher="tpe")
    found = compare([short, long])
    assert (found.unit, found.budgets) == ("GPU-hours", (1.0, 2.0, 4.0, 8.0))
    single = [
        None,
        Estimate(4.0, 4.0, None, None),
        Estimate(3.0, 3.0, None, None),
        Estimate(1.0, 1.0, None, None),
    ]
    assert estimates(found, "random/fifo") == single
    assert [value and value.mean for value in estimates(found, "tpe/fifo")] == [None, 8.0, 2.0, 2.0]
    assert found.pairs == (Pair("random/fifo", "tpe/fifo", -1.0, None, None, ("random/fifo", "tpe/fifo")),)
    assert verdict(found.pairs[0], minimise=True).startswith("one seed each: no interval")


def test_each_sweep_has_its_best_cost_and_time(tmp_path: Path) -> None:
    found = compare([sweep(tmp_path / "a", [4.0, 3.0], seed=7), sweep(tmp_path / "b", [None])])
    one, other = found.sweeps
    assert one.best == {"trial": 1, "value": 3.0, "resource": 10, "config": {"lr": 0.1, "optimizer": "<b>"}}
    assert (one.searcher, one.scheduler, one.seed, one.state) == ("random", "fifo", 7, "running")
    assert (one.trials, one.cost, one.time) == (2, 4.0, 2.0)
    assert one.curve.time.tolist() == [1.0, 2.0]
    assert one.curve.cost.tolist() == [2.0, 4.0]
    assert one.curve.value.tolist() == [4.0, 3.0]
    assert (other.best, other.cost, len(other.curve.value)) == (None, 2.0, 0)


def test_time_does_not_pass_between_an_end_and_a_resumption(tmp_path: Path) -> None:
    pause: list[AnyEvent] = [SweepEnded(2 * HOUR, SweepOutcome.STOPPED, "asked"), SweepResumed(100 * HOUR)]
    end = SweepEnded(101 * HOUR, SweepOutcome.FINISHED, "done")
    found = compare([sweep(tmp_path / "a", [4.0], more=[*pause, end]), sweep(tmp_path / "b", [1.0])])
    assert found.sweeps[0].time == pytest.approx(3.0)
    assert found.sweeps[0].state == "finished"


def test_sweeps_that_differ_in_the_seed_alone_are_repeats(tmp_path: Path) -> None:
    finals = {"random": [1.0, 1.2, 1.4], "tpe": [0.5, 0.7, 0.6]}
    folders = [
        sweep(tmp_path / f"{name}{seed}", [5.0, value], seed=seed, searcher=name)
        for name, values in finals.items()
        for seed, value in enumerate(values)
    ]
    found = compare(folders)
    assert [(group.label, len(group.sweeps)) for group in found.groups] == [
        ("random/fifo", 3),
        ("tpe/fifo", 3),
    ]
    last = estimates(found, "random/fifo")[-1]
    # Mean 1.2, deviation 0.2, t of 2 degrees of freedom 4.3027.
    assert last == pytest.approx(
        Estimate(1.2, 1.2, 1.2 - 4.3027 * 0.2 / 3**0.5, 1.2 + 4.3027 * 0.2 / 3**0.5), abs=1e-4
    )
    (pair,) = found.pairs
    assert (pair.first, pair.second) == ("tpe/fifo", "random/fifo")
    assert pair.difference == pytest.approx(-0.6)
    # Welch: 2.9412 degrees of freedom, t 3.2198; deviations 0.1 and 0.2.
    margin = 3.2198 * (0.01 / 3 + 0.04 / 3) ** 0.5
    assert (pair.low, pair.high) == pytest.approx((-0.6 - margin, -0.6 + margin), abs=1e-3)
    assert pair.better(minimise=True) == "tpe/fifo"
    assert pair.better(minimise=False) == "random/fifo"
    assert verdict(pair, minimise=True) == "tpe/fifo is better"


def test_a_difference_within_the_spread_of_the_repeats_is_undecided(tmp_path: Path) -> None:
    finals = {"random": [1.0, 2.0], "tpe": [0.9, 1.9]}
    folders = [
        sweep(tmp_path / f"{name}{seed}", [value], seed=seed, searcher=name)
        for name, values in finals.items()
        for seed, value in enumerate(values)
    ]
    (pair,) = compare(folders).pairs
    assert verdict(pair, minimise=True) == "undecided: the interval contains 0"


def test_many_groups_are_each_compared_with_the_best_alone(tmp_path: Path) -> None:
    folders = [sweep(tmp_path / name, [at + 1.0], searcher=name) for at, name in enumerate("fbcdea")]
    pairs = compare(folders).pairs
    assert [(pair.first, pair.second) for pair in pairs] == [("f/fifo", f"{name}/fifo") for name in "bcdea"]
    assert len(compare(folders[:5]).pairs) == 10


def test_the_interval_of_few_repeats_holds_the_true_mean_as_often_as_it_says() -> None:
    from hpcsweep.views.comparison import _estimate

    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(1000):
        found = _estimate(rng.normal(size=3))
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 0 <= found.high
    assert 930 <= inside <= 970


def test_repeats_within_a_sweep_give_its_best_a_standard_error(tmp_path: Path) -> None:
    repeated = sweep(tmp_path / "a", [4.0, 6.0, 1.0, 2.0], repeats=2)
    found = compare([repeated, sweep(tmp_path / "b", [3.0])])
    one, other = found.sweeps
    assert one.best is not None
    assert (one.best["value"], one.error, other.error) == (1.5, 0.5, None)
    table = sections(found)[0].blocks[0]
    assert isinstance(table, Table)
    assert dict(zip(table.columns, table.rows[0], strict=True))["± standard error"] == 0.5


def test_sweeps_without_gpus_are_compared_by_the_hours_of_their_runs(tmp_path: Path) -> None:
    found = compare([sweep(tmp_path / "a", [4.0]), sweep(tmp_path / "b", [3.0], gpus=0)])
    assert (found.unit, [one.cost for one in found.sweeps]) == ("run-hours", [1.0, 1.0])


def test_the_larger_value_is_the_better_one_where_it_is_maximised(tmp_path: Path) -> None:
    a = sweep(tmp_path / "a", [0.1, 0.5], mode="max")
    b = sweep(tmp_path / "b", [0.9, 0.2], mode="max", searcher="tpe")
    found = compare([a, b])
    assert [one.curve.value.tolist() for one in found.sweeps] == [[0.1, 0.5], [0.9]]
    table = sections(found)[0].blocks[0]
    assert isinstance(table, Table)
    assert table.marked == {1}


def test_notes_say_what_makes_sweeps_less_comparable(tmp_path: Path) -> None:
    a, b = sweep(tmp_path / "a", [0.1]), sweep(tmp_path / "b", [0.1])
    c = sweep(tmp_path / "c", [0.1], at="best")
    assert [note.split(":")[0] for note in compare([a, b, c]).notes] == [
        "Not all take the value at the same step",
        "Some repeats have the same seed",
    ]


def test_a_note_says_that_sweeps_were_simulated(tmp_path: Path) -> None:
    a, b = sweep(tmp_path / "a", [0.1]), simulated(tmp_path)
    assert f"Simulated, with nothing trained: {b}." in compare([a, b]).notes


def test_errors_name_the_folder_and_what_to_do(tmp_path: Path) -> None:
    a, b = sweep(tmp_path / "a", [0.1]), sweep(tmp_path / "b", [0.1], mode="max")
    c = sweep(tmp_path / "c", [0.1], metric="error")
    with pytest.raises(SpecError, match="at least two results folders to compare, got 1"):
        compare([a])
    with pytest.raises(SpecError, match=rf"{a}/\.\./a: is given twice"):
        compare([a, a / ".." / "a"])
    with pytest.raises(SpecError, match=rf"leave out .* got loss \(min\) in {a}, loss \(max\) in {b}$"):
        compare([a, b])
    with pytest.raises(SpecError, match=rf"loss \(min\) in {a}, error \(min\) in {c}"):
        compare([a, c])
    with pytest.raises(FolderError, match="is not a results folder"):
        compare([a, tmp_path])


def test_a_copy_of_a_folder_is_no_repeat(tmp_path: Path) -> None:
    a = sweep(tmp_path / "a", [0.1])
    copy = a.rename(tmp_path / "b")
    a = sweep(tmp_path / "a", [0.1])
    with pytest.raises(SpecError, match=rf"{copy}: is a copy of {a}, the same sweep"):
        compare([a, copy])


def test_the_page_has_a_line_for_a_sweep_and_a_band_for_repeats(tmp_path: Path) -> None:
    folders = [sweep(tmp_path / f"r{seed}", [5.0, 1.0 + seed], seed=seed) for seed in range(3)]
    found = compare([*folders, sweep(tmp_path / "t", [4.0, 2.0], searcher="tpe")])
    figure = sections(found)[1].blocks[0]
    assert isinstance(figure, Figure)
    low, high, median, line = figure.traces
    assert (median["name"], median["y"][0], median["y"][-1]) == ("random/fifo", 5.0, 2.0)
    assert (low["y"][-1], high["y"][-1]) == (1.5, 2.5)
    assert (line["name"], [*line["x"]], [*line["y"]]) == ("tpe/fifo", [2.0, 4.0, 4.0], [4.0, 2.0, 2.0])
    html = comparison_page(found)
    assert "4 sweeps compared by loss" in html
    assert "optimizer = &lt;b&gt;" in html
    assert "optimizer = <b>" not in html


def test_the_page_draws_in_a_browser(tmp_path: Path, browser: Browser) -> None:
    folders = [sweep(tmp_path / f"r{seed}", [50.0, 1.0 + seed], seed=seed) for seed in range(3)]
    page = tmp_path / "page.html"
    page.write_text(comparison_page(compare(folders)), encoding="utf-8")
    browser.open(page, size="phone", dark=True)
    browser.draw_all()
    assert browser.errors() == []
    assert len(browser.all(".js-plotly-plot")) == 2


def test_sweeps_that_have_nothing_yet_are_still_shown(tmp_path: Path) -> None:
    found = compare([sweep(tmp_path / "a", []), sweep(tmp_path / "b", [None])])
    assert (found.budgets, found.pairs) == ((), ())
    told = [block.text for section in sections(found) for block in section.blocks if isinstance(block, Text)]
    assert told[-2:] == [
        "No sweep has a value yet.",
        "One of the sweeps has cost nothing so far: there is no equal cost to compare at.",
    ]


# ---------------------------------------------------------------------- the verb


def test_the_verb_prints_tables_and_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        sweep(Path(f"r{seed}"), [5.0, 1.0 + seed], seed=seed)
    sweep(Path("tpe"), [4.0, 2.0], searcher="tpe")
    done = CliRunner().invoke(app, ["compare", "r0", "r1", "tpe"])
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "             folder  searcher  scheduler  seed    state  trials  best loss  at  GPU-hours  hours",
        "random/fifo      r0    random       fifo     0  running       2          1  10          4      2",
        "random/fifo      r1    random       fifo     1  running       2          2  10          4      2",
        "tpe/fifo        tpe       tpe       fifo     0  running       2          2  10          4      2",
        "",
        "r0: trial 1: lr=0.1 optimizer=<b>",
        "r1: trial 1: lr=0.1 optimizer=<b>",
        "tpe: trial 1: lr=0.1 optimizer=<b>",
        "",
        "best loss so far at equal GPU-hours",
        "             repeats       0.5         1      2          4",
        "random/fifo        2  none yet  none yet  5 ± 0  1.5 ± 6.4",
        "tpe/fifo           1  none yet  none yet      4          2",
        "random/fifo against tpe/fifo: -0.5: one seed of tpe/fifo: no interval; run more seeds",
        "repeats differ only in the seed: their mean, with its 95% interval",
        "page: compared.html",
    ]
    assert "3 sweeps compared by loss" in Path("compared.html").read_text(encoding="utf-8")


def test_the_verb_gives_json_and_no_page_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [str(sweep(Path(name), [5.0, 1.0], searcher=name)) for name in ("random", "tpe")]
    found = json.loads(CliRunner().invoke(app, ["compare", *folders, "--json"]).output)
    assert found["page"] is None
    assert not Path("compared.html").exists()
    assert found["budgets"] == [0.5, 1.0, 2.0, 4.0]
    assert found["sweeps"][0]["values"] == [[1.0, 2.0, 5.0], [2.0, 4.0, 1.0]]
    assert [group["name"] for group in found["groups"]] == ["random/fifo", "tpe/fifo"]
    assert found["pairs"][0]["better"] is None
    done = CliRunner().invoke(app, ["compare", *folders, "--json", "--output", "deep/page.html"])
    assert json.loads(done.output)["page"] == "deep/page.html"
    assert Path("deep/page.html").is_file()


def test_the_verb_s_exit_code_tells_wrong_requests_and_sweeps_without_a_value(tmp_path: Path) -> None:
    a, b = sweep(tmp_path / "a", [None]), sweep(tmp_path / "b", [None], seed=1)
    page = str(tmp_path / "page.html")
    assert CliRunner().invoke(app, ["compare", str(a), str(b), "--output", page]).exit_code == 1
    alone = CliRunner().invoke(app, ["compare", str(a)])
    assert (alone.exit_code, alone.stderr) == (
        2,
        "hpcsweep: DIR: give at least two results folders to compare, got 1\n",
    )
    nowhere = CliRunner().invoke(app, ["compare", str(a), str(b), "--output", f"{page}/x.html"])
    assert nowhere.exit_code == 2
    assert "--output FILE puts it elsewhere" in nowhere.stderr
