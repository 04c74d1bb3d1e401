"""Pages in a real browser: every figure drawn, no error, no request, at any width, in both themes."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from typer.testing import CliRunner

from hpcsweep.cli import app
from hpcsweep.core.events import SweepStarted, TrialCreated
from hpcsweep.html.page import page, render
from hpcsweep.html.plotting import value_axis
from hpcsweep.html.sections import Alternatives, Block, Figure, Section, Text
from hpcsweep.simulation.curves import load_curve
from hpcsweep.simulation.simulate import simulate
from hpcsweep.spec import load_spec
from hpcsweep.views.results import load
from tests.html.browser import Browser
from tests.html.trade_offs import ran, trade_off
from tests.views.folders import ENDED, failed, finished, identity, planned, written
from tests.waiting import wait_until

SWEEPS = Path(__file__).parents[2] / "sweeps"
#: Runs if anything reads it as HTML or as a script.
EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'><b>bold</b> &amp;"
#: Without those of versions that are not chosen.
_FIGURES = "figure:not([hidden] *)"
_DRAWN = """
return [...document.querySelectorAll(".plot")].filter((plot) => !plot.closest("[hidden]")).map((plot) => [
  plot.closest("figure").id,
  plot.dataset.drawn,
  plot.querySelectorAll(".main-svg").length > 0 && plot._fullData.some((trace) => trace.visible === true),
  JSON.stringify([plot.data, plot.layout]).includes('{"@":'),
]);
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a sweep that trained, by the commands that a user gives."""
    results = tmp_path_factory.mktemp("digits") / "results"
    settings = ("budget.trials=2", "scheduler.max_resource=3", "cluster.name=local")
    launch = ["launch", str(SWEEPS / "digits_random.yaml"), "--results", str(results), "--quiet"]
    for argv in ([*launch, *(f"--set={one}" for one in settings)], ["report", str(results)]):
        done = CliRunner().invoke(app, argv)
        assert done.exit_code == 0, done.output
    return results / "report.html"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of 2,000 simulated trials of Hyperband, with preemptions and failures."""
    folder = tmp_path_factory.mktemp("large")
    # Few long ticks: how well the site is used does not matter here.
    settings = ["scheduler.iterations=14", "budget.trials=2000", "cluster.max_gpus=1024"]
    settings += ["cluster.poll=300", "cluster.reuse=false"]
    spec = load_spec(SWEEPS / "simulated.yaml", settings)
    simulate(spec, load_curve(f"{SWEEPS / 'curves.py'}:curve"), folder=folder / "results")
    results = load(folder / "results")
    assert len(results.trials) == 2000
    target = folder / "report.html"
    target.write_text(page(results))
    return target


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two figures: one with a menu of each kind, and a wide one."""
    traces = [{"type": "scatter", "name": name, "x": [1, 2], "y": [1, 90]} for name in ("first", "second")]
    second = {"visible": [False, True], "marker.color": "@good"}
    cut = {"xaxis.range": [0, 1], "xaxis.title.text": EVIL}
    menus: dict[str, list[tuple[str, str, list[Any]]]] = {
        "Line": [("both", "restyle", [{"visible": True}]), (EVIL, "restyle", [second])],
        "Scale": [(scale, "relayout", [{"yaxis.type": scale}]) for scale in ("linear", "log")],
        "Part": [("all", "update", [{}, {}]), ("some", "update", [{"opacity": [0.5, 0.25]}, cut])],
    }
    layout = {
        "xaxis": {"title": {"text": "x"}},
        "yaxis": {"title": {"text": "y"}},
        "updatemenus": [
            {
                "name": name,
                "active": 0,
                "buttons": [{"label": label, "method": how, "args": args} for label, how, args in options],
            }
            for name, options in menus.items()
        ],
    }
    figures = [
        Figure("chosen", traces, layout, "caption", "words"),
        Figure("wide", traces, {}, "caption", "words", height=200, width=700),
    ]
    target = tmp_path_factory.mktemp("small") / "report.html"
    target.write_text(render("small", [Section("one", "One", figures)]))
    return target


def assert_all_is_well(browser: Browser, opened: Path, *, theme: str) -> None:
    """Everything can be drawn, and nothing complained, reached out or ran off to the side."""
    browser.draw_all()
    drawn = browser.run(_DRAWN)
    # Something of each is in sight, and no colour was left a name.
    assert drawn == [[found.get_attribute("id"), theme, True, False] for found in browser.all(_FIGURES)]
    assert len(drawn) > 4
    assert browser.run("return document.documentElement.scrollWidth - innerWidth") <= 0
    assert browser.requests() == [opened.as_uri()]
    assert browser.errors() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_the_report_of_a_sweep_that_trained_is_drawn_without_an_error_or_a_request(
    browser: Browser, digits: Path, size: str, dark: bool
) -> None:
    browser.open(digits, size=size, dark=dark)
    assert_all_is_well(browser, digits, theme="dark" if dark else "light")
    assert browser.text("h1") == "digits-random"


@pytest.mark.parametrize(("size", "dark"), [("desktop", False), ("phone", True)])
def test_the_report_of_2000_trials_is_drawn_without_an_error_or_a_request(
    browser: Browser, large: Path, size: str, dark: bool
) -> None:
    browser.open(large, size=size, dark=dark)
    assert_all_is_well(browser, large, theme="dark" if dark else "light")


def test_only_figures_in_sight_are_drawn_until_somebody_scrolls(browser: Browser, large: Path) -> None:
    browser.open(large)
    browser.until("return performance.getEntriesByName('hpcsweep-drawn').length")
    drawn = [plot.get_attribute("data-drawn") for plot in browser.all(".plot")]
    assert drawn[0] == "light"
    assert drawn[-1] is None


def test_the_keyboard_reaches_the_content_the_toggle_and_every_section(
    browser: Browser, digits: Path
) -> None:
    browser.open(digits)

    def focused() -> str:
        return str(browser.run("return document.activeElement.outerHTML.slice(0, 80)"))

    browser.press(Keys.TAB)
    assert focused() == '<a class="skip" href="#main">Skip to the content</a>'
    assert browser.run("return document.activeElement.getBoundingClientRect().top") >= 0
    browser.press(Keys.TAB)
    assert focused().startswith('<button type="button" id="dark" aria-pressed="false"')
    assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.press(Keys.SPACE)
    assert browser.all("button")[0].get_attribute("aria-pressed") == "true"
    browser.press(Keys.TAB)
    assert focused().startswith("<nav")
    sections = [found.get_attribute("id") for found in browser.all("section")]
    for section in sections:
        browser.press(Keys.TAB)
        assert focused().startswith(f'<a href="#{section}"')
    browser.press(Keys.ENTER)
    assert browser.run("return location.hash") == f"#{sections[-1]}"


def test_the_toggle_changes_the_theme_of_the_page_and_of_its_figures_and_is_remembered(
    browser: Browser, digits: Path
) -> None:
    def theme() -> tuple[str | None, str]:
        ground = browser.run("return getComputedStyle(document.body).backgroundColor")
        return browser.all("button")[0].get_attribute("aria-pressed"), ground

    light, dark = ("false", "rgb(255, 255, 255)"), ("true", "rgb(20, 23, 27)")
    browser.open(digits)
    browser.run("localStorage.clear()")
    browser.open(digits)
    assert theme() == light
    browser.draw_all()
    browser.all("button")[0].click()
    assert theme() == dark
    browser.draw_all()
    papers = browser.run(
        "return [...document.querySelectorAll('.plot')].map(p => p._fullLayout.paper_bgcolor)"
    )
    assert {paper.replace(" ", "") for paper in papers} == {"rgba(20,23,27,1)"}
    browser.open(digits)  # the system still asks for the light one
    assert theme() == dark
    browser.all("button")[0].click()
    assert theme() == light
    assert browser.errors() == []
    browser.run("localStorage.clear()")


def seen(browser: Browser) -> dict[str, Any]:
    """What the figure with the menus shows."""
    found: dict[str, Any] = browser.run(
        """
        const { _fullData, _fullLayout } = document.querySelector("#chosen .plot");
        const { xaxis, yaxis, paper_bgcolor } = _fullLayout;
        const drawn = _fullData.filter((trace) => trace.visible);
        return {
          visible: _fullData.map((trace) => trace.visible), colours: drawn.map((trace) => trace.marker.color),
          opacity: drawn.map((trace) => trace.opacity), scale: yaxis.type,
          title: xaxis.title.text, range: xaxis.range, paper: paper_bgcolor,
        };
        """
    )
    return found


def toggle(browser: Browser) -> None:
    """The other theme, and every figure in it."""
    browser.run("document.getElementById('dark').click()")
    browser.draw_all()


def test_menus_are_chosen_from_by_keyboard_and_the_choice_outlives_a_change_of_theme(
    browser: Browser, small: Path
) -> None:
    browser.open(small, dark=True)
    browser.draw_all()
    begun = seen(browser)
    browser.press(*[Keys.TAB] * 4)  # over the link to the content, the toggle, the sections
    for name in ("Line", "Scale", "Part"):
        browser.press(Keys.TAB)
        assert browser.run("return document.activeElement.labels[0].firstChild.data.trim()") == name
        assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
        browser.press(Keys.ARROW_DOWN)
    chosen = seen(browser)
    dark, light = "rgba(20,23,27,1)", "rgba(255,255,255,1)"
    escaped = EVIL.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    expected = {"visible": [False, True], "colours": ["rgba(45,190,148,1)"], "opacity": [0.25], "paper": dark}
    assert chosen == expected | {"scale": "log", "title": escaped, "range": [0, 1]}
    assert browser.text("option:not(:first-child)") == EVIL
    toggle(browser)
    assert seen(browser) == chosen | {"colours": ["rgba(0,135,95,1)"], "paper": light}
    toggle(browser)
    assert seen(browser) == chosen
    for menu in browser.all("select"):
        menu.send_keys(Keys.ARROW_UP)
    assert seen(browser) == begun
    assert browser.errors() == []
    browser.run("localStorage.clear()")


def test_all_is_drawn_where_a_figure_is_being_drawn_already(browser: Browser, small: Path) -> None:
    browser.open(small)
    browser.draw_all()
    waited = """
        const done = arguments[0], plot = document.querySelector("#chosen .plot"), react = Plotly.react;
        Plotly.react = (...all) => new Promise((later) => setTimeout(later, 300)).then(() => react(...all));
        Plotly.purge(plot);
        delete plot.dataset.drawn;
        hpcsweepDrawAll();
        hpcsweepDrawAll().then(() => done(Boolean(plot._fullLayout)));
    """
    assert browser.driver.execute_async_script(waited)
    assert browser.errors() == []


def test_what_was_zoomed_stays_so_in_the_other_theme(browser: Browser, small: Path) -> None:
    browser.open(small)
    browser.draw_all()
    begun = seen(browser)["range"]
    (drag,) = browser.all("#chosen .nsewdrag")
    pointer = ActionChains(browser.driver, duration=20).move_to_element(drag)
    pointer.click_and_hold().move_by_offset(100, 0).release().perform()
    low, high = browser.until(
        "const [low, high] = document.querySelector('#chosen .plot')._fullLayout.xaxis.range;"
        "return low !== arguments[0] && [low, high]",
        begun[0],
    )
    assert high - low < (begun[1] - begun[0]) / 5
    toggle(browser)
    assert seen(browser)["range"] == [low, high]
    browser.run("localStorage.clear()")


def test_a_parameter_is_chosen_by_keyboard_in_the_report_of_a_sweep(browser: Browser, digits: Path) -> None:
    browser.open(digits, dark=True)
    browser.draw_all()
    menu = browser.all("#slices-one select")[0]
    parameters = menu.text.split()
    listed = " (one column for each value)"
    for parameter in parameters[1:]:
        menu.send_keys(Keys.ARROW_DOWN)
        plot = "document.querySelector('#slices-one .plot')"
        assert browser.run(f"return {plot}._fullLayout.xaxis.title.text").removesuffix(listed) == parameter
        drawn = browser.run(f"return {plot}._fullData.filter((trace) => trace.visible)[0].name")
        assert drawn == parameter
    assert len(parameters) >= 6
    assert browser.errors() == []


def test_a_version_is_drawn_when_it_is_chosen_and_keeps_what_is_chosen_in_its_figure(
    browser: Browser, tmp_path: Path
) -> None:
    """Of loss there are two resources, of latency one."""

    def version(id_: str) -> list[Block]:
        trace = {"type": "scatter", "x": [1, 2], "y": [1, 20], "name": id_}
        axis = value_axis("y", np.array([1.0, 20.0]), minimise=True)
        layout = {"yaxis": {"type": "linear"}, "updatemenus": axis.menus}
        return [Text(f"words of {id_}"), Figure(id_, [trace], layout, "caption", "words")]

    keys: list[tuple[str, ...]] = [("loss", "9"), ("loss", "3"), ("latency", "9")]
    versions = {key: version("-".join(key)) for key in keys}
    block = Alternatives("one-by", ["Objective", "Resource"], versions, ("loss", "9"))
    target = tmp_path / "report.html"
    target.write_text(render("versions", [Section("one", "One", [block])]))
    browser.open(target)
    browser.draw_all()

    def shown() -> list[Any]:
        return list(
            browser.run(
                """
                const menus = [...document.querySelectorAll(".alternatives > .menus select")];
                const drawn = [...document.querySelectorAll(".plot")].filter((plot) => plot.offsetParent);
                const seen = ({ data, layout }) => [data?.[0].name, layout?.yaxis.type];
                return [...menus.map(({ value }) => value), ...drawn.map(seen)];
                """
            )
        )

    objective, resource = browser.all(".alternatives > .menus select")
    assert shown() == ["loss", "9", ["loss-9", "linear"]]
    assert not browser.run("return document.querySelector('#loss-3 .plot').dataset.drawn")
    browser.all("#loss-9 select")[0].send_keys(Keys.ARROW_DOWN)
    resource.send_keys(Keys.ARROW_DOWN)
    browser.draw_all()
    assert shown() == ["loss", "3", ["loss-3", "log"]]
    assert [text.text for text in browser.all("section p.plain")] == ["", "words of loss-3", ""]
    objective.send_keys(Keys.ARROW_DOWN)
    browser.draw_all()
    assert shown() == ["latency", "9", ["latency-9", "log"]]
    assert browser.errors() == []


def test_a_wide_figure_is_scrolled_in_its_box_by_keyboard_and_the_page_stays(
    browser: Browser, small: Path
) -> None:
    browser.open(small, size="phone")
    browser.draw_all()
    assert browser.run("return document.querySelector('#wide .plot')._fullLayout.width") == 700
    browser.run("document.querySelector('#chosen .save [value=svg]').focus()")
    browser.press(Keys.TAB, Keys.ARROW_RIGHT)
    assert browser.run("return document.activeElement.className") == "frame"
    browser.until("return document.activeElement.scrollLeft")
    assert browser.run("return [scrollX, document.documentElement.scrollWidth]") == [0, 360]


def test_a_figure_is_saved_as_png_and_svg(browser: Browser, small: Path, tmp_path: Path) -> None:
    browser.save_to(tmp_path)
    browser.open(small)
    browser.draw_all()
    for button in browser.all("#chosen .save button"):
        button.send_keys(Keys.ENTER)
    png, svg = (tmp_path / f"small chosen.{kind}" for kind in ("png", "svg"))
    wait_until(lambda: all(file.exists() and file.stat().st_size for file in (png, svg)))
    width = browser.run("return document.querySelector('#chosen .plot')._fullLayout.width")
    header = png.read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    assert struct.unpack(">II", header[16:]) == (2 * width, 2 * 420)
    assert svg.read_text().startswith('<svg class="main-svg" xmlns="http://www.w3.org/2000/svg"')
    assert f'width="{width}" height="420"' in svg.read_text()
    assert browser.errors() == []


def test_a_print_is_light_and_fits_its_sheet_and_leaves_the_page_as_it_was(
    browser: Browser, digits: Path
) -> None:
    browser.open(digits, dark=True)
    browser.run(
        "addEventListener('beforeprint', () => { window.printed = "
        "[...document.querySelectorAll('figure:not([hidden] *) .plot')]"
        ".map((p) => [p.dataset.drawn, p._fullLayout.width]); })"
    )
    browser.driver.execute_cdp_cmd("Page.printToPDF", {})
    assert browser.run("return window.printed") == [["light", 680]] * len(browser.all(_FIGURES))
    browser.draw_all()
    assert {tuple(found[1:]) for found in browser.run(_DRAWN)} == {("dark", True, False)}
    assert browser.run("return document.querySelector('.plot')._fullLayout.width") > 1000
    assert browser.errors() == []


def test_the_front_of_several_objectives_is_drawn_and_opens_its_trials_on_a_phone(
    browser: Browser, tmp_path: Path
) -> None:
    runs = [ran(trial, 0.1 + trial / 30, 40.0 + trial * 17 % 30) for trial in range(30)]
    target = tmp_path / "report.html"
    target.write_text(page(trade_off(tmp_path / "results", runs)))
    browser.open(target, size="phone", dark=True)
    assert_all_is_well(browser, target, theme="dark")
    names = browser.run(
        "return document.querySelector('#front-pairs .plot').data.map(({ name }) => name).filter(Boolean)"
    )
    assert {"front", "beyond a bound", "knee"} <= set(names)
    menu = browser.all("#importance > .alternatives > .menus select")[0]
    menu.send_keys(Keys.ARROW_DOWN)
    browser.draw_all()
    drawn = "#importance .version:not([hidden]) .plot"
    assert browser.run(f"return document.querySelector('{drawn}').dataset.drawn") == "dark"
    heads = [button.text for button in browser.all("#trials th button")]
    assert heads[1:4] == ["front", "error", "speed"]
    browser.run("document.querySelector('#trial-row-0').click()")
    title = browser.until("return document.getElementById('trial-title')?.textContent")
    assert title == "Trial 0"
    assert browser.run("return document.documentElement.scrollWidth - innerWidth") <= 0
    assert browser.errors() == []


def test_html_in_configurations_logs_and_names_is_shown_and_not_run(browser: Browser, tmp_path: Path) -> None:
    space = {
        "x": {"type": "float", "low": 0.0, "high": 1.0},
        "kind": {"type": "choice", "values": [EVIL, "plain"]},
    }
    trials = [TrialCreated(trial, {"x": trial / 20, "kind": EVIL}, 0, 10) for trial in range(12)]
    runs = [(trial, 0) for trial in range(12)]
    ends = [finished(trial, node=EVIL) for trial in range(10)]
    ends += [failed(trial, EVIL, node=EVIL) for trial in (10, 11)]
    started = SweepStarted("cafe01", EVIL, 50.0, identity(metric=EVIL, space=space))
    results = written(tmp_path / "results", [started, *trials, *planned("a", *runs), *ends, ENDED])
    target = tmp_path / "report.html"
    target.write_text(page(results))
    browser.open(target)
    assert_all_is_well(browser, target, theme="light")
    assert browser.run("return window.hacked ?? null") is None
    assert browser.text("h1") == EVIL
    assert EVIL in [found.text for found in browser.all("#summary dd")]
    assert EVIL in [found.text for found in browser.all("#failures td")]
    nodes = browser.run("return document.querySelector('#failures-by-node .ytick text').textContent")
    assert nodes.replace("\xa0", " ") == EVIL
