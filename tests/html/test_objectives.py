"""What the report shows of the objective that its reader chooses."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hpcsweep.errors import SpecError
from hpcsweep.html.contour import contour
from hpcsweep.html.curves import curves
from hpcsweep.html.importance import importance
from hpcsweep.html.parallel import parallel
from hpcsweep.html.parameters import slices
from hpcsweep.html.rungs import rungs
from hpcsweep.html.sections import Alternatives, Figure, Section, Table
from hpcsweep.html.trials import trials
from hpcsweep.views.explain import explain
from hpcsweep.views.results import Results
from tests.html.hand_made_sweeps import Ran, report
from tests.html.trade_offs import trade_off

ERROR, SPEED = "error", "speed"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The error follows from x, the speed from y; 40 trials at resource 1, of which 24 go on to 3."""
    space = {name: {"type": "float", "low": 0.0, "high": 1.0} for name in ("x", "y", "z")}
    configs = {n: {"x": n / 40, "y": n * 17 % 40 / 40, "z": n * 7 % 40 / 40} for n in range(40)}
    runs = []
    for resource, count in ((1, 40), (3, 24)):
        for trial in range(count):
            x, y, z = configs[trial].values()
            values = (x**2 / resource + z / 20, 60.0 + y + z / 4)
            runs.append(Ran(trial, resource, values[0], 1.0 + trial, values=values))
    scheduler = {"name": "asha", "max_resource": 3, "eta": 3}
    folder = tmp_path_factory.mktemp("objectives")
    found = trade_off(folder, runs, space=space, configs=configs, scheduler=scheduler)
    for run in runs:
        reported = dict(zip((ERROR, SPEED), run.values, strict=True))
        report(found, run.trial, int(run.resource > 1), {run.resource: reported})
    return found


def versions(section: Section | None) -> tuple[Sequence[str], dict[tuple[str, ...], Figure]]:
    """The lists above the section's figure, and the figure by what is chosen in them."""
    assert section is not None
    block = next(each for each in section.blocks if isinstance(each, Alternatives))
    found = {
        key: next(each for each in blocks if isinstance(each, Figure))
        for key, blocks in block.versions.items()
    }
    assert len({figure.id for figure in found.values()}) == len(found)
    assert block.shown[0] == ERROR
    return block.names, found


def test_importance_is_of_an_objective_and_a_resource(results: Results) -> None:
    names, found = versions(importance(results))
    assert names == ["Objective", "Resource"]
    high, low = "3 (24 trials)", "1 (40 trials)"
    assert list(found) == [(ERROR, high), (ERROR, low), (SPEED, high), (SPEED, low)]
    assert found[ERROR, low].summary.startswith("For error: x ")
    assert found[SPEED, low].summary.startswith("For speed: y ")


def test_slices_have_the_most_important_parameter_of_their_objective_first(results: Results) -> None:
    names, found = versions(slices(results))
    assert names == ["Objective", "Resource"]
    for metric, first in ((ERROR, "x"), (SPEED, "y")):
        figure = found[metric, "1 (40 trials)"]
        assert figure.caption.startswith(f"{metric} of each trial at resource 1")
        assert figure.layout["xaxis"]["title"]["text"] == first
    best = found[SPEED, "1 (40 trials)"].traces[1]
    assert best["y"].max() == found[SPEED, "1 (40 trials)"].traces[0]["y"].max(), "the fastest one"


def test_the_contour_is_over_the_parameters_that_matter_to_its_objective(results: Results) -> None:
    section = contour(results)
    names, found = versions(section)
    assert names == ["Objective", "Resource"]
    error, speed = found[ERROR, "1 (40 trials)"], found[SPEED, "1 (40 trials)"]
    assert error.caption.startswith("error at resource 1 over x and z: ")
    assert speed.caption.startswith("speed at resource 1 over y and z: ")
    assert "The ring is the knee of the front, trial " in speed.caption
    assert [trace["reversescale"] for trace in (error.traces[0], speed.traces[0])] == [False, True]
    assert section is not None
    assert section.title == "The two most important parameters together"


def test_curves_are_those_of_the_objective(results: Results) -> None:
    names, found = versions(curves(results))
    assert names == ["Objective"]
    for metric, most in ((ERROR, 2.0), (SPEED, 62.0)):
        figure = found[metric,]
        assert figure.caption.startswith(f"{metric} while training")
        knee = figure.traces[-1]
        assert knee["name"].startswith("knee: trial ")
        assert most - 2 <= knee["y"].max() < most
        assert figure.summary.startswith("The knee of the front, trial ")


def test_rungs_have_the_values_of_the_objective_and_no_cut_off(results: Results) -> None:
    section = rungs(results)
    names, found = versions(section)
    assert names == ["Objective"]
    assert found[SPEED,].caption.startswith("speed at each rung; trials go on by all objectives.")
    assert all(trace["name"] != "cut-off" for figure in found.values() for trace in figure.traces)
    assert section is not None
    table = next(block for block in section.blocks if isinstance(block, Table))
    assert "cut-off" not in table.columns
    error, speed = (table.columns.index(f"best {metric}") for metric in (ERROR, SPEED))
    assert [row[error] for row in table.rows] == [0.0, 0.0]
    assert [row[speed] for row in table.rows] == [61.125, 61.09375]


def test_parallel_coordinates_are_coloured_by_the_objective_and_have_all(results: Results) -> None:
    names, found = versions(parallel(results))
    assert names == ["Objective"]
    for metric, other in ((ERROR, SPEED), (SPEED, ERROR)):
        (trace,) = found[metric,].traces
        assert [axis["label"] for axis in trace["dimensions"]][-2:] == [other, metric]
        assert trace["line"]["colorbar"]["title"]["text"] == f"\n{metric}, best at the right"


def test_the_panel_of_a_trial_has_the_curve_of_each_objective_and_its_place(results: Results) -> None:
    section = trials(results)
    assert section is not None
    data = section.blocks[0].data  # type: ignore[union-attr]
    assert [each["metric"] for each in data["curves"]] == [ERROR, SPEED]
    error, speed = (each["value"].tolist() for each in data["curves"])
    assert len(error) == len(speed) == 64
    assert (max(error) < 2, min(speed) >= 60) == (True, True)
    explained = explain(results.folder.events, results.folder.state, 0).rungs[0].comparison
    assert explained is not None
    row = data["columns"][0]["values"].tolist().index(0)
    place = f"place {explained.place} of 40, promoted"
    assert data["story"][row][0] == f"Rung 0, resource 1: error 0, speed 60, {place}"


def test_figures_in_python_are_of_the_objective_that_is_asked_for(results: Results) -> None:
    plot = results.plot
    for metric in (ERROR, SPEED):
        for method in (plot.slices, plot.curves, plot.rungs):
            assert method(metric).layout.yaxis.title.text == metric
        assert plot.importance(metric, resource=1).layout.meta["summary"].startswith(f"For {metric}: ")
        assert plot.contour("x", "z", metric=metric).layout.meta["caption"].startswith(f"{metric} at ")
        assert plot.parallel(metric).data[0].dimensions[-1].label == metric
    with pytest.raises(SpecError, match=r"plot\.slices: unknown objective 'sped'; did you mean 'speed'"):
        plot.slices("sped")
