"""One browser for all tests of pages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.html.browser import Browser

#: `required` turns a missing Chromium into a failure, `off` skips without looking.
SWITCH = "HPCSWEEP_TEST_BROWSER"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that opens pages `browser`."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def _browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    from tests.html.browser import missing, started

    switch = os.environ.get(SWITCH, "")
    if switch == "off":
        pytest.skip(f"{SWITCH}=off")
    lack = missing()
    if lack is not None and switch == "required":
        pytest.fail(f"{SWITCH}=required, but {lack}", pytrace=False)
    if lack is not None:
        pytest.skip(lack)
    with started(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture
def browser(_browser: Browser) -> Iterator[Browser]:
    """The browser; afterwards it is empty: open pages take time from whatever runs after them."""
    yield _browser
    _browser.driver.get("about:blank")
