"""Comparisons: the product of variants, what they share, the table's figures, the plot."""

from __future__ import annotations

import base64
import gzip
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from hpcsweep.cli import app
from hpcsweep.errors import FolderError, SpecError
from hpcsweep.html.plotting import quartiles
from hpcsweep.simulation import SimulationResult, compare, compare_results, make_variants
from hpcsweep.simulation.comparison import best_values, write_plot
from hpcsweep.views.progress import ValuesChange
from tests.simulation.specs import falling, spec_of, write_spec


def test_variants_are_the_product_in_their_order(tmp_path: Path) -> None:
    comparisons = ["scheduler=hyperband,halving", "searcher=random,sobol"]
    found = make_variants(write_spec(tmp_path), [], comparisons)
    assert [variant.name for variant in found] == [
        "scheduler=hyperband searcher=random",
        "scheduler=hyperband searcher=sobol",
        "scheduler=halving searcher=random",
        "scheduler=halving searcher=sobol",
    ]
    assert [(v.spec.scheduler.name, v.spec.searcher.name) for v in found] == [
        ("hyperband", "random"),
        ("hyperband", "sobol"),
        ("halving", "random"),
        ("halving", "sobol"),
    ]


def test_another_scheduler_takes_over_what_both_have(tmp_path: Path) -> None:
    overrides = ["scheduler={name: hyperband, min_resource: 2, max_resource: 18, eta: 3, iterations: 2}"]
    found = make_variants(
        write_spec(tmp_path), [*overrides, "budget.trials=9"], ["scheduler=hyperband,halving,asha,fifo"]
    )
    options = [variant.spec.scheduler.options for variant in found]
    assert options[0]["iterations"] == 2
    assert [(o.get("min_resource"), o["max_resource"], o.get("eta")) for o in options] == [
        (2, 18, 3),
        (2, 18, 3),
        (2, 18, 3),
        (None, 18, None),
    ]


def test_any_other_key_can_be_compared_and_the_seed_stays(tmp_path: Path) -> None:
    path = write_spec(tmp_path)
    etas = make_variants(path, ["searcher.seed=7"], ["scheduler.eta=2,3"])
    assert [variant.spec.scheduler.options["eta"] for variant in etas] == [2, 3]
    [other] = make_variants(path, ["searcher={name: random, seed: 7}"], ["searcher=sobol"])
    assert other.spec.searcher.seed == 7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scheduler", "--compare scheduler: must be KEY=VALUE,VALUE,... such as scheduler=hyperband,asha"),
        ("scheduler=", "--compare scheduler=: must be KEY=VALUE,VALUE,..."),
        ("scheduler=hyperband,", "--compare scheduler=hyperband,: must be KEY=VALUE,VALUE,..."),
        (
            "scheduler=hyperbnad",
            "--compare scheduler=hyperbnad: scheduler.name: unknown name 'hyperbnad'; did you mean",
        ),
        (
            "searcher=randon",
            "--compare searcher=randon: --set searcher={name: randon, seed: 0}: searcher.name: ",
        ),
        ("scheduler=asha", "--compare scheduler=asha: "),
    ],
)
def test_a_malformed_comparison_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SpecError) as wrong:
        make_variants(write_spec(tmp_path), [], [text])
    assert words in str(wrong.value)
    if text == "scheduler=asha":  # it never ends by itself
        assert "budget: must have trials, gpu_hours or time" in str(wrong.value)


def simulated(seed: int, values: list[tuple[float, float]], **others: Any) -> SimulationResult:
    figures: dict[str, Any] = {
        "ending": "finished",
        "reason": "",
        "places": 4,
        "gpus": 2,
        "makespan_s": 100.0,
        "bound_s": 80.0,
        "chain_s": 50.0,
        "busy_s": 360.0,
        "filled_s": 10.0,
        "started_s": 20.0,
        "idle": 0.1,
        "idle_filled": 0.0,
        "idle_started": 0.0,
        "trials": 1,
        "runs": 1,
        "failures": 0,
        "interruptions": {},
        "best": None,
    }
    return SimulationResult(seed=seed, values=tuple(values), **(figures | others))


def test_rows_are_medians_and_the_target_is_the_worst_final_value(tmp_path: Path) -> None:
    good = [
        simulated(0, [(10, 0.9), (20, 0.5), (90, 0.1)], makespan_s=100.0, idle=0.1),
        simulated(1, [(10, 0.7), (50, 0.2)], makespan_s=200.0, idle=0.3),
        simulated(2, [(30, 0.3)], makespan_s=300.0, idle=0.8),
    ]
    bad = [simulated(0, [(5, 0.5)]), simulated(1, [(5, 0.8), (8, 0.7)]), simulated(2, [(9, 0.3)])]
    none = [simulated(seed, []) for seed in range(3)]
    found = compare_results(spec_of(tmp_path), {"good": good, "bad": bad, "none": none})
    assert (found.metric, found.minimise) == ("loss", True)
    assert [(row.name, row.value, row.target_s) for row in found.rows] == [
        ("good", 0.2, 20),  # targets 0.5, 0.7, 0.3: reached after 20, 10 and 30 seconds
        ("bad", 0.5, 8),
        ("none", None, None),
    ]
    assert (found.rows[0].makespan_s, found.rows[0].idle, found.rows[0].hours) == (200.0, 0.3, 0.2)
    most = compare_results(spec_of(tmp_path, "objective.mode=max"), {"good": good, "bad": bad})
    assert [row.target_s for row in most.rows] == [10, 5]


FRONT = "[{metric: a, at_most: 8}, {metric: b, mode: max}]"


def front(seed: int, *changes: tuple[float, int, tuple[float, float]]) -> SimulationResult:
    found = tuple(ValuesChange(at, at, trial, values, at, 0.0) for at, trial, values in changes)
    return simulated(seed, [], changes=found)


def test_several_objectives_are_compared_by_hypervolume_up_to_one_point(tmp_path: Path) -> None:
    """The point is the bound of a, and for b a tenth beyond the worst value of all."""
    spec = spec_of(tmp_path, f"objective={FRONT}", "searcher.name=random")
    good = [front(0, (10.0, 0, (6.0, 10.0)), (20.0, 1, (4.0, 5.0)))]
    bad = [front(0, (5.0, 0, (9.0, 20.0)), (30.0, 1, (7.0, 0.0)))]
    found = compare_results(spec, {"good": good, "bad": bad, "none": [front(0)]})
    assert (found.metric, found.title, found.minimise) == ("hypervolume", "hypervolume", False)
    assert found.reference == {"a": 8.0, "b": -1.0}
    assert found.rows[0].runs[0].values == ((10.0, 2 * 11), (20.0, 2 * 11 + 2 * 6))
    assert found.rows[1].runs[0].values == ((5.0, 0.0), (30.0, 1.0))  # the first is beyond the bound
    assert [(row.name, row.value, row.target_s) for row in found.rows] == [
        ("good", 34.0, 10.0),
        ("bad", 1.0, 30.0),
        ("none", None, None),
    ]
    own = FRONT.replace("at_most: 8", "reference: 10").replace("max", "max, reference: 0")
    again = compare_results(spec_of(tmp_path, f"objective={own}"), {"good": good})
    assert (again.reference, again.rows[0].value) == ({"a": 10.0, "b": 0.0}, 4 * 10 + 2 * 5)


def test_simulate_prints_hypervolumes_of_several_objectives(tmp_path: Path) -> None:
    path = write_spec(tmp_path)
    options = [
        "--set",
        "objective=[{metric: a}, {metric: b}]",
        "--set",
        "scheduler={name: fifo, max_resource: 1}",
    ]
    options += ["--set", "budget.trials=6", "--set", "searcher.name=random"]
    done = CliRunner().invoke(app, ["simulate", str(path), *options])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert "  hypervolume" in lines
    assert lines[-1].startswith("the hypervolume is that up to a ")
    assert lines[-2].startswith("  knee of the front, a ")
    output = str(tmp_path / "plot.html")
    compared = ["--compare", "searcher=random,sobol", "--output", output, "--json"]
    done = CliRunner().invoke(app, ["simulate", str(path), *options, *compared])
    found = json.loads(done.output)
    assert (found["metric"], found["mode"], set(found["reference"])) == ("hypervolume", "max", {"a", "b"})
    assert "changes" not in found["variants"][0]["simulations"][0]


def test_quartiles_begin_where_every_seed_has_a_value(tmp_path: Path) -> None:
    runs = [simulated(seed, [(seed * 10.0, float(seed)), (50.0, seed - 10.0)]) for seed in range(5)]
    [row] = compare_results(spec_of(tmp_path), {"one": runs}).rows
    found = quartiles(best_values(row, np.array([0.0, 39.0, 40.0, 49.0, 50.0, 1000.0])))
    assert np.isnan(found[:, :2]).all()
    assert found[:, 2:].T.tolist() == [[1, 2, 3], [1, 2, 3], [-9, -8, -7], [-9, -8, -7]]


def test_the_plot_is_one_self_contained_file(tmp_path: Path) -> None:
    chosen = make_variants(write_spec(tmp_path), [], ["scheduler=hyperband,halving"])
    found = compare(chosen, lambda spec: falling, [0, 1])
    path = tmp_path / "plots" / "compared.html"
    write_plot(found, path)
    text = path.read_text(encoding="utf-8")
    for packed in re.findall(r'<script type="application/gzip">(.*?)</script>', text):
        text += gzip.decompress(base64.b64decode(packed)).decode()
    assert "scheduler=hyperband" in text
    assert "scheduler=halving" in text
    assert "best loss so far (median and quartiles)" in text
    assert "<script src=" not in text
    assert len(text) > 500_000  # with the script that draws
    with pytest.raises(FolderError, match="cannot be written"):
        write_plot(found, path / "below.html")


def test_every_variant_is_simulated_with_the_same_seeds(tmp_path: Path) -> None:
    chosen = make_variants(write_spec(tmp_path), [], ["scheduler=hyperband,halving"])
    told: list[tuple[str, int]] = []
    found = compare(chosen, lambda spec: falling, [3, 4], progress=lambda *what: told.append(what))
    assert told == [(v.name, seed) for v in chosen for seed in (3, 4)]
    assert [[run.seed for run in row.runs] for row in found.rows] == [[3, 4], [3, 4]]
    assert [row.runs[0].trials for row in found.rows] == [17, 9]
    assert all(row.value is not None and math.isfinite(row.value) for row in found.rows)
