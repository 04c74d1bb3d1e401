"""The table of trials, the panel of one, and what is chosen in one figure and shown in all: in a browser."""

from __future__ import annotations

import base64
import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from hpcsweep.html.page import page, render
from hpcsweep.html.sections import Figure, Section, TrialTable
from hpcsweep.html.trials import trials
from hpcsweep.views.results import load
from tests.html.browser import Browser
from tests.html.hand_made_sweeps import ENDED, Ran, report, sweep
from tests.html.trade_offs import trade_off

#: So many trials, x of each its number; the larger, the worse. Every tenth fails.
COUNT = 30
MANY = 10_000
SPACE: dict[str, Any] = {
    "x": {"type": "float", "low": 0.0, "high": 30.0},
    "kind": {"type": "choice", "values": ["it's", "plain"]},
}
_TABLE = "return performance.getEntriesByName('hpcsweep-table').length"
_ROWS = (
    "return [...document.querySelectorAll('#trials tr[data-trial]')].map((row) => Number(row.dataset.trial))"
)
_PANEL = (
    "return !document.getElementById('trial').hidden && document.getElementById('trial-title').textContent"
)
_SCROLL = """
document.querySelector('#progress-since-start').scrollIntoView({ block: 'center', behavior: 'instant' });
"""
_VIOLATIONS = """
axe.run().then(({ violations }) => arguments[0](
  violations.map(({ id, nodes }) => [id, nodes.map((node) => node.html.slice(0, 200))])
));
"""
_COUNT = "return document.getElementById('trial-count').textContent"
#: By the page's clock it is hours later: it loads itself again now, and not in the middle of a slow test.
LATER = "const now = Date.now; Date.now = () => now() + 1e7;"


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with all that figures share: values, curves, failures."""
    folder = tmp_path_factory.mktemp("linked")
    runs = [Ran(trial, 3, None if trial % 10 == 9 else 1.0 + trial, 1.0 + trial) for trial in range(COUNT)]
    runs += [Ran(trial, 9, 0.5 + trial, 40.0 + trial) for trial in range(3)]
    configs = {trial: {"x": float(trial), "kind": "it's" if trial % 2 else "plain"} for trial in range(COUNT)}
    results = sweep(folder / "results", runs, ENDED, configs=configs, space=SPACE)
    for trial in range(COUNT):
        report(results, trial, 0, {step: {"loss": 1.0 + trial + 1 / step} for step in (1, 2, 3)})
    target = folder / "report.html"
    target.write_text(page(load(folder / "results")))
    return target


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of ten thousand trials."""
    numbers = np.arange(MANY)
    columns = [
        {"name": "trial", "kind": "number", "values": numbers},
        {"name": "loss", "kind": "number", "values": numbers / MANY},
        {"name": "lr", "kind": "number", "values": None},
    ]
    empty: dict[str, Any] = {"trial": []}
    data = {
        "folder": "results/s",
        "repeats": 1,
        "columns": columns,
        "configs": [{"lr": 1.0 / (1 + trial)} for trial in range(MANY)],
        "story": [[] for _ in range(MANY)],
        "messages": {},
        "attempts": empty,
        "curves": [],
        "logs": {},
    }
    target = tmp_path_factory.mktemp("many") / "report.html"
    target.write_text(
        render("many", [Section("trials", "Trials", [TrialTable(data, MANY, "caption", ["lr<0.01"])])])
    )
    return target


def opened(browser: Browser, file: Path, **options: Any) -> None:
    browser.open(file, **options)
    browser.until(_TABLE)


def filtered(browser: Browser, text: str) -> str:
    """How many rows are left of which."""
    (field,) = browser.all("#trial-filter")
    field.clear()
    field.send_keys(text)
    return str(browser.run(_COUNT))


def test_of_ten_thousand_rows_those_in_sight_are_made_and_the_last_is_reached_by_a_key(
    browser: Browser, many: Path
) -> None:
    opened(browser, many)
    first = browser.run(_ROWS)
    assert first == list(range(len(first)))
    assert len(first) < 60
    browser.run("document.querySelector('#trials table').focus()")
    browser.press(Keys.END)
    assert browser.run(_ROWS)[-1] == MANY - 1
    active = "return document.activeElement.getAttribute('aria-activedescendant')"
    assert browser.run(active) == f"trial-row-{MANY - 1}"
    assert browser.run("return document.querySelector('#trials table').ariaRowCount") == str(MANY + 1)
    browser.press(Keys.ARROW_UP, Keys.ENTER)
    assert browser.until(_PANEL) == f"Trial {MANY - 2}"
    assert "Close" in browser.run("return document.activeElement.textContent")
    browser.press(Keys.ESCAPE)
    assert browser.run(_PANEL) is False
    assert browser.run("return document.activeElement.tagName") == "TABLE"
    assert browser.errors() == []


def test_on_paper_are_the_first_rows_and_how_many_more_there_are(browser: Browser, many: Path) -> None:
    opened(browser, many)
    browser.run("document.querySelector('.rows').scrollTop = 90000")
    browser.until("return document.querySelector('#trials tr[data-trial]').dataset.trial > 2000")
    browser.run(
        """
        addEventListener("beforeprint", () => {
          window.printed = [...document.querySelectorAll("#trials tbody tr")].map((row) => row.textContent);
        });
        """
    )
    pdf = base64.b64decode(browser.driver.execute_cdp_cmd("Page.printToPDF", {})["data"])
    printed = browser.run("return window.printed")
    assert (printed[0], printed[29], printed[30:]) == ("001", "290.00290.0333333", ["and 9,970 more"])
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 1
    browser.until("return document.querySelector('#trials tr[data-trial]').dataset.trial > 2000")
    assert browser.errors() == []


def test_rows_are_filtered_by_words_and_by_ranges(browser: Browser, linked: Path) -> None:
    opened(browser, linked)
    assert filtered(browser, "x<12 x>=10") == "2 of 30 trials"
    assert browser.run(_ROWS) == [10, 11]
    assert filtered(browser, "kind=plain loss > 20 crashed") == "0 of 30 trials"
    assert filtered(browser, "crashed") == "3 of 30 trials"
    assert filtered(browser, '"at step"=9 it\'s') == "1 of 30 trials"
    assert filtered(browser, " ") == "30 trials"


def test_a_click_on_a_name_orders_rows_with_those_without_a_value_last(
    browser: Browser, linked: Path
) -> None:
    opened(browser, linked)
    best = browser.run(_ROWS)
    assert best[:4] == [0, 1, 2, 3]
    loss = "document.querySelectorAll('#trials th button')[1].click()"
    sort = "return document.querySelectorAll('#trials th')[1].ariaSort"
    browser.run(loss)
    assert browser.run(sort) == "ascending"
    browser.run(loss)
    assert (browser.run(sort), browser.run(_ROWS)[:3]) == ("descending", [28, 27, 26])
    browser.run("document.querySelector('#trials .rows').scrollTop = 1e6")
    assert browser.until("return document.querySelector('#trial-row-29')") is not None
    browser.run(loss)
    assert (browser.run(sort), browser.run(_ROWS)[:4]) == ("none", best[:4])


def test_a_click_on_a_row_opens_its_trial_and_marks_it_in_every_figure(
    browser: Browser, linked: Path
) -> None:
    opened(browser, linked)
    browser.run("document.querySelector('#trial-row-1').click()")
    assert browser.run(_PANEL) == "Trial 1"
    text = browser.text("#trial")
    for told in ("it's", "place 2 of 27, promoted", "rung 1, completed", "loss over steps"):
        assert told in text
    assert browser.run("return location.hash") == "#trial=1"
    browser.draw_all()
    marked = browser.run(
        """
        const plots = [...document.querySelectorAll("section .plot")].filter(({ data }) => data);
        return plots.map((plot) => [
          plot.closest("figure").id,
          plot.data.some(({ hoverinfo, marker, line, y }) => hoverinfo === "skip"
            && y.some((value) => value !== null)
            && (marker?.symbol === "circle-open" || marker?.line?.width === 2 || line?.width === 3)),
          plot.data[0].type === "parcoords" && plot.data[0].line.color.filter((each) => each > 0).length,
        ]).filter(([id]) => /progress|curves|rungs-values|slices|parallel|contour|timeline/.test(id));
        """
    )
    assert len(marked) >= 6
    assert [found for found in marked if not (found[1] or found[2] == 1)] == []
    # The page opens with the trial that its address names, and closing forgets it.
    browser.driver.refresh()
    assert browser.until(_PANEL) == "Trial 1"
    browser.press(Keys.ESCAPE)
    assert browser.run("return location.hash") == "#trials"
    assert browser.errors() == []


def test_a_click_on_a_point_opens_its_trial_and_tooltips_have_the_configuration(
    browser: Browser, linked: Path
) -> None:
    opened(browser, linked)
    browser.draw_all()
    browser.run(_SCROLL)
    x, y, trial = browser.run(
        """
        const plot = document.querySelector("#progress-since-start .plot");
        const { xaxis, yaxis } = plot._fullLayout;
        const trace = plot.data[0], at = trace.customdata.findIndex(([trial]) => trial === 20);
        const box = plot.getBoundingClientRect(), to = (axis, value) => axis._offset + axis.c2p(value);
        return [box.x + to(xaxis, trace.x[at]), box.y + to(yaxis, trace.y[at]), trace.customdata[at][0]];
        """
    )
    pointer = ActionChains(browser.driver, duration=20)
    mouse: Any = pointer.w3c_actions.pointer_action
    mouse.move_to_location(round(x), round(y))
    pointer.perform()
    told = browser.until("return document.querySelector('#progress-since-start .hoverlayer')?.textContent")
    assert "trial 20 at step 3" in told
    assert "x 20" in told
    assert "kind plain" in told
    ActionChains(browser.driver, duration=20).click().perform()
    assert browser.until(_PANEL) == f"Trial {trial}"
    browser.press(Keys.ESCAPE)
    # So are the bars of the timeline, in their whole length.
    browser.run("document.getElementById('timeline').scrollIntoView({ block: 'start', behavior: 'instant' })")
    x, y, trial = browser.run(
        """
        const plot = document.querySelector("#timeline .plot"), { xaxis, yaxis } = plot._fullLayout;
        const { base, customdata, x, y } = plot.data.find(({ name }) => name === "completed");
        const at = x.indexOf(Math.max(...x)), box = plot.getBoundingClientRect();
        return [
          box.x + xaxis._offset + xaxis.c2p(base[at] + 0.9 * x[at]),
          box.y + yaxis._offset + yaxis.c2p(y[at]), customdata[at][0],
        ];
        """
    )
    pointer = ActionChains(browser.driver, duration=20)
    mouse = pointer.w3c_actions.pointer_action
    mouse.move_to_location(round(x), round(y))
    pointer.perform()
    told = browser.until("return document.querySelector('#timeline .hoverlayer')?.textContent")
    assert f"trial {trial} rung 0, to resource 3: completed, 60 s on unknown node" in told
    assert f"x {trial}" in told
    ActionChains(browser.driver, duration=20).click().perform()
    assert browser.until(_PANEL) == f"Trial {trial}"
    assert browser.errors() == []


def test_points_that_are_picked_in_a_figure_are_chosen_in_all_and_in_the_table(
    browser: Browser, linked: Path
) -> None:
    opened(browser, linked)
    browser.draw_all()
    browser.run(_SCROLL)
    browser.run("document.querySelector('#progress-since-start .brush').click()")
    browser.until(
        "return document.querySelector('#progress-since-start .plot')._fullLayout.dragmode === 'select'"
    )
    (drag,) = browser.all("#progress-since-start .nsewdrag")
    width, height = drag.size["width"], drag.size["height"]
    pointer = ActionChains(browser.driver, duration=50).move_to_element_with_offset(
        drag, -width // 2 + 4, -height // 2 + 4
    )
    pointer.click_and_hold().move_by_offset(width // 2, height - 8).release().perform()
    told = browser.until(f"{_COUNT}.includes(' of ') && document.getElementById('trial-count').textContent")
    kept = set(browser.run(_ROWS))
    assert 3 < len(kept) < COUNT
    assert told == f"{len(kept)} of 30 trials"
    browser.draw_all()
    dimmed = browser.run(
        """
        const { data } = document.querySelector("#slices-one .plot"), [trace] = data;
        return [trace.selectedpoints.map((at) => trace.customdata[at][0]), trace.unselected.marker.opacity];
        """
    )
    assert set(dimmed[0]) <= kept
    assert (len(dimmed[0]) > 3, dimmed[1]) == (True, 0.08)
    browser.run("document.getElementById('trial-clear').click()")
    assert browser.run(_COUNT) == "30 trials"
    assert browser.errors() == []


def test_the_curve_of_a_trial_is_of_the_objective_that_was_chosen_last(
    browser: Browser, tmp_path: Path
) -> None:
    found = trade_off(tmp_path / "r")
    for trial in (0, 1):
        values = {step: {"error": step / 10, "speed": 60.0 + step} for step in (1, 2)}
        report(found, trial, 0, values)
    section = trials(load(tmp_path / "r"))
    assert section is not None
    target = tmp_path / "report.html"
    target.write_text(render("two", [section, Section("one", "One", [Figure("one", [], {}, "c", "w")])]))
    opened(browser, target)

    def curve(trial: int) -> Any:
        browser.run("window.hpcsweep.show({ trial: arguments[0] })", trial)
        return browser.until(
            "const curve = document.querySelector('#trial .curve');"
            "return curve?.data && [curve.ariaLabel, curve.data[0].y]"
        )

    assert curve(0) == ["error of trial 0 over its steps", [0.1, 0.2]]
    browser.all("#trial select")[0].send_keys(Keys.ARROW_DOWN)
    assert curve(0) == ["speed of trial 0 over its steps", [61, 62]]
    assert curve(1) == ["speed of trial 1 over its steps", [61, 62]]
    assert browser.errors() == []


def test_commands_are_copied_and_quoted_for_a_shell(browser: Browser, linked: Path) -> None:
    opened(browser, linked)
    browser.run("document.querySelector('#trial-row-1').click()")
    commands = [found.text for found in browser.all("#trial .command code")]
    folder = linked.parent / "results"
    assert commands == [
        f"hpcsweep best {folder} --rerun --trial 1",
        f"hpcsweep enqueue {folder} x=1 'kind=it'\\''s'",
        f"hpcsweep logs {folder} 1",
        f"hpcsweep explain {folder} 1",
    ]
    browser.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    browser.all("#trial .command button")[1].send_keys(Keys.ENTER)
    assert browser.until("return window.copied") == commands[1]
    assert browser.all("#trial .command button")[1].text == "Copied"


@pytest.mark.parametrize(("size", "dark"), [("desktop", False), ("desktop", True), ("phone", True)])
def test_axe_finds_nothing(browser: Browser, linked: Path, size: str, dark: bool) -> None:
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or not found.submodule_search_locations:
        pytest.skip("axe-core is missing: pip install axe-playwright-python")
    opened(browser, linked, size=size, dark=dark)
    browser.draw_all()
    browser.run("document.querySelector('#trial-row-1').click()")
    browser.run((Path(found.submodule_search_locations[0]) / "axe.min.js").read_text())
    violations = browser.driver.execute_async_script(_VIOLATIONS)
    assert violations == []
    assert browser.run("return document.documentElement.scrollWidth - innerWidth") <= 0


def test_a_page_that_loads_itself_again_stays_as_it_was(
    browser: Browser, linked: Path, tmp_path: Path
) -> None:
    results = load(linked.parent / "results")
    state = results.folder.state
    state.ended = None  # it runs still
    target = tmp_path / "report.html"
    target.write_text(page(results, at=0.0, every=600.0))
    opened(browser, target)
    browser.run(
        """
        const field = document.getElementById("trial-filter");
        field.value = "plain";
        field.dispatchEvent(new Event("input", { bubbles: true }));
        document.querySelectorAll("#trials th button")[1].click();
        document.querySelector("#trial-row-2").click();
        const menu = document.querySelector("#slices select");
        menu.selectedIndex = 1;
        menu.dispatchEvent(new Event("change"));
        scrollTo({ top: 300, behavior: "instant" });
        window.old = true;
        """
        + LATER
    )
    browser.until("return !window.old && performance.getEntriesByName('hpcsweep-table').length")
    assert browser.until(_PANEL) == "Trial 2"
    assert browser.run(_COUNT) == "15 of 30 trials"
    assert browser.run("return document.querySelectorAll('#trials th')[1].ariaSort") == "ascending"
    assert browser.run("return scrollY") == 300
    assert browser.run("return document.querySelector('#slices select').selectedIndex") == 1
    versions = "return [...document.querySelectorAll('#slices .version')].map(({ hidden }) => hidden)"
    assert browser.run(versions) == [True, False]
    browser.run("document.getElementById('live').click(); window.old = true; sessionStorage.clear()")
    assert browser.run("return document.getElementById('live').ariaPressed") == "false"
    assert browser.errors() == []
