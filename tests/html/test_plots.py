"""`Results.plot`: the page's figures as objects of plotly, and why some do not apply."""

from __future__ import annotations

import contextlib
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcsweep import html
from hpcsweep.core.events import SweepStarted
from hpcsweep.errors import FigureError, SpecError
from hpcsweep.html import plots
from hpcsweep.html.curves import curves
from hpcsweep.html.page import SECTIONS
from hpcsweep.html.plots import Plots, figures_of
from hpcsweep.html.rungs import rungs
from hpcsweep.views.results import Results, load
from tests.html.hand_made_sweeps import HALVING, Ran, figure, sweep
from tests.html.trade_offs import journal
from tests.test_compatibility import unpack
from tests.views.folders import identity, written

NAMES = [name for name in vars(Plots) if not name.startswith("_")]
SPACE: dict[str, Any] = {
    "lr": {"type": "float", "low": 0.0, "high": 10.0},
    "width": {"type": "int", "low": 0, "high": 10},
    "kind": {"type": "choice", "values": ["<b>", "plain"]},
}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Ten trials, trained in full at once."""
    runs = [Ran(trial, 9, 0.1 + trial, trial + 1.0) for trial in range(10)]
    configs = {trial: {"lr": float(trial), "width": trial, "kind": "<b>"} for trial in range(10)}
    return sweep(tmp_path, runs, space=SPACE, configs=configs)


def floats(values: Any) -> Any:
    return np.array(values, dtype=float)


def test_a_figure_is_that_of_the_page_in_the_colours_of_the_light_theme(tmp_path: Path) -> None:
    results = sweep(tmp_path, HALVING)
    for method, maker in (("curves", curves), ("rungs", rungs)):
        expected, found = figure(maker(results)), getattr(results.plot, method)()
        for mine, theirs in zip(found.data, expected.traces, strict=True):
            np.testing.assert_allclose(floats(mine.y), floats(theirs["y"]))
        assert found.layout.meta == {"caption": expected.caption, "summary": expected.summary}
        assert found.layout.yaxis.title.text == "loss"
        assert "@" not in found.to_json()
    assert results.plot.curves().data[-1].line.color == "rgba(198,85,0,1)"  # the best
    assert results.plot.progress("cost").layout.xaxis.title.text == "GPU-minutes"


def test_lists_of_the_page_are_buttons_that_say_what_they_choose(results: Results) -> None:
    (menu, *_) = results.plot.slices().layout.updatemenus
    assert [button.label for button in menu.buttons] == [f"Parameter: {name}" for name in SPACE]
    assert menu.buttons[1].args[1]["xaxis.title.text"] == "width"


def test_a_tooltip_has_the_configuration_and_reads_no_html_in_it(results: Results) -> None:
    points = results.plot.slices().data[0]
    assert points.text[0] == "lr 9<br>width 9<br>kind &lt;b&gt;"
    assert points.hovertemplate.endswith("<br>%{text}<extra></extra>")


def test_the_contour_is_of_the_parameters_that_were_asked_for(results: Results) -> None:
    assert results.plot.contour("width", "lr").layout.title.text == "width and lr together"
    assert results.plot.contour(y="lr").layout.title.text == "width and lr together"
    with pytest.raises(SpecError, match="unknown parameter 'widht'; did you mean 'width'"):
        results.plot.contour("widht")
    with pytest.raises(SpecError, match="needs two parameters, got 'lr' twice"):
        results.plot.contour("lr", "lr")
    with pytest.raises(SpecError, match="unknown objective 'los'; did you mean 'loss'"):
        results.plot.importance("los")
    with pytest.raises(SpecError, match="expected 'time' or 'cost', got 'steps'"):
        results.plot.progress("steps")  # type: ignore[arg-type]


def twenty(folder: Path) -> Results:
    """Enough trials at two rungs to tell which parameters matter."""
    runs = [Ran(trial, resource, 1.0 / resource + trial) for resource in (3, 9) for trial in range(20)]
    configs = {trial: {"lr": trial / 2, "width": trial % 10, "kind": "plain"} for trial in range(20)}
    return sweep(folder, runs, space=SPACE, configs=configs)


def test_every_figure_of_the_report_has_a_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever adds a figure to the page adds a method to `Plots`, and a sweep here that shows it."""
    monkeypatch.setattr(plots, "_plotly", lambda figure, title, configurations: figure)
    texts = [
        path.read_text() for path in Path(html.__file__).parent.glob("*.py") if path.stem != "comparison"
    ]
    known = {name for text in texts for name in re.findall(r'\bFigure\(\s*f?"([^"{]+)', text)}
    shown = set()
    for results in (
        twenty(tmp_path / "twenty"),
        written(tmp_path / "several", journal()),
        load(unpack(tmp_path, "0.2/every-event") / "results"),
    ):
        drawn = set()
        for method in (
            *(getattr(results.plot, name) for name in NAMES),
            partial(results.plot.progress, "cost"),
        ):
            with contextlib.suppress(FigureError):
                drawn.add(method().id)
        sections = [section for make in SECTIONS if (section := make(results)) is not None]
        of_the_page = {each.id for section in sections for each in figures_of(section.blocks)}
        assert of_the_page == drawn
        shown |= {name for name in known for id_ in of_the_page if id_.startswith(name)}
    assert shown == known


def test_values_are_compared_at_the_resource_that_was_asked_for(tmp_path: Path) -> None:
    results = twenty(tmp_path)
    for resource in (3, 9):
        found = results.plot.slices(resource=resource), results.plot.contour("lr", "width", resource=resource)
        assert all(f"at resource {resource}" in each.layout.meta["caption"] for each in found)
    with pytest.raises(SpecError, match=r"plot.slices: resource: expected one of: 3, 9; got 5"):
        results.plot.slices(resource=5)


def refusals(results: Results) -> dict[str, str]:
    """Why figures do not apply, by name."""
    found = {}
    for name in NAMES:
        try:
            getattr(results.plot, name)()
        except FigureError as error:
            found[name] = str(error).removeprefix(f"{results.name}: plot.{name}: ")
    return found


def test_what_does_not_apply_says_why(results: Results, tmp_path: Path) -> None:
    assert refusals(results) == {
        "front": "needs several objectives, and loss is the only one",
        "hypervolume": "needs several objectives, and loss is the only one",
        "curves": "no trial has loss at more than one step",
        "rungs": "needs values at two rungs, and not more rungs than can be told apart",
        "pareto": "no metric beside loss was reported with different values",
        "importance": "Too few values: 20 configurations with a value at the same resource are needed, "
        "there are 10 at resource 9.",
        "contour": "too few values tell which parameters matter: name two, contour(x, y)",
        "failures": "no attempt on a known node failed or was interrupted",
    }
    assert set(refusals(written(tmp_path / "several", journal()))) == {
        *("progress", "curves", "rungs", "pareto", "importance", "contour", "failures"),
    }


@pytest.mark.parametrize("events", [[], [SweepStarted("cafe01", "lr", 50.0, identity())]])
def test_a_sweep_without_results_has_no_figure(tmp_path: Path, events: list[Any]) -> None:
    assert set(refusals(written(tmp_path, events))) == set(NAMES)


def test_the_figures_are_listed(results: Results) -> None:
    assert set(NAMES) <= set(dir(results.plot))
    listed = repr(results.plot).splitlines()
    assert listed[0] == "Figures of s:"
    assert len(listed) == len(NAMES) + 1
    assert "  .importance(): How much each parameter matters: functional ANOVA with intervals." in listed
