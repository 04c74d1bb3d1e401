"""`serve` in a real browser: from the list to a report and back, at any width, in both themes."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from hpcsweep.server.http import SweepServer
from tests.cli.test_list import ENDED, write
from tests.html.browser import Browser
from tests.html.test_trials_browser import _VIOLATIONS, LATER
from tests.server.serving import EVENTS, serving
from tests.waiting import wait_until

#: Or, where it is paused, the opposite.
_PAUSE = "document.getElementById('live').click()"
_CONNECT = """
const link = document.createElement("link");
link.rel = "preconnect";
link.href = location.origin;
document.head.append(link);
"""
#: Half a minute passes in a fraction of a second.
_IMPATIENT = """
const within = AbortSignal.timeout;
AbortSignal.timeout = (ms) => within.call(AbortSignal, ms / 100);
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SweepServer]:
    """Two sweeps, one of them under way, and a broken one."""
    folder = tmp_path_factory.mktemp("served")
    write(folder / "one", EVENTS, age_s=60)
    write(folder / "with a long name" / ("long" * 20), [*EVENTS, ENDED], age_s=3600)
    write(folder / "broken", EVENTS, age_s=60)
    next(iter((folder / "broken" / "journal").iterdir())).write_text("nonsense\nnonsense\n")
    with serving(folder, every=600.0) as server:
        yield server


@pytest.mark.parametrize(("size", "dark"), [("desktop", False), ("phone", True)])
def test_a_browser_goes_from_the_list_to_a_report_and_back(
    browser: Browser, server: SweepServer, size: str, dark: bool
) -> None:
    browser.open(server.url, size=size, dark=dark)
    here = f"http://127.0.0.1:{server.server_port}"
    assert browser.run("return location.href") == here + server.home
    assert browser.run("return document.documentElement.dataset.theme") == ("dark" if dark else "light")
    assert browser.run("return document.cookie") == ""
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or not found.submodule_search_locations:
        pytest.skip("axe-core is missing: pip install axe-playwright-python")
    browser.run((Path(found.submodule_search_locations[0]) / "axe.min.js").read_text())
    assert browser.driver.execute_async_script(_VIOLATIONS) == []
    assert browser.run("return document.documentElement.scrollWidth - innerWidth") <= 0
    browser.all("#sweep-filter")[0].send_keys("stopped LR")
    assert [row.is_displayed() for row in browser.all(".sweeps tbody tr")] == [False, True]
    browser.run(f"window.old = true; {LATER}")
    browser.until("return !window.old && document.readyState === 'complete'")  # it has loaded itself again
    assert browser.text("#sweep-count") == "1 of 2 sweeps"
    browser.run(_PAUSE)
    browser.driver.refresh()
    assert browser.run("return document.getElementById('live').ariaPressed") == "false"
    browser.run(_PAUSE)
    browser.all("#sweep-filter")[0].send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.BACKSPACE)
    assert browser.text("#sweep-count") == ""
    browser.all(".sweeps a")[0].click()
    assert browser.until("return document.querySelector('h1')?.textContent === 'lr' && location.pathname")
    assert browser.run("return location.href") == f"{here}{server.home}report/0/one"
    browser.draw_all()
    browser.all(".home a")[0].click()
    browser.until("return document.querySelector('.sweeps')")
    assert browser.errors() == []
    browser.until("return document.readyState === 'complete'")
    assert {url.partition("?")[0] for url in browser.requests()} == {
        here + server.home,
        f"{here}{server.home}report/0/one",
    }


def test_a_page_whose_server_has_ended_stays_and_says_so(browser: Browser, tmp_path: Path) -> None:
    write(tmp_path / "one", EVENTS, age_s=60)
    with serving(tmp_path, every=600.0) as server:
        browser.open(server.url)
        browser.until("return document.readyState === 'complete' && document.querySelector('.sweeps')")
        # Browsers keep a connection for what they may ask next, on slow machines without being told.
        browser.run(_CONNECT)
        wait_until(lambda: server.connections)
    browser.run(LATER)
    browser.until("return document.getElementById('live')?.textContent === 'No answer'")
    assert browser.text(".sweeps a") == "lr"


def test_a_page_whose_questions_are_taken_but_not_answered_says_so(browser: Browser, tmp_path: Path) -> None:
    """As by a tunnel whose other end is gone."""
    write(tmp_path / "one", EVENTS, age_s=60)
    with serving(tmp_path, every=600.0) as server:
        browser.open(server.url)
        browser.until("return document.readyState === 'complete' && document.querySelector('.sweeps')")
        port = server.server_port
    with socket.create_server(("127.0.0.1", port)):
        browser.run(_IMPATIENT + LATER)
        browser.until("return document.getElementById('live')?.textContent === 'No answer'")
    assert browser.text(".sweeps a") == "lr"
