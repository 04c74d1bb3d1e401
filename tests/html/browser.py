"""A headless Chromium for tests of pages, from Debian's packages chromium and chromium-driver."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.waiting import PATIENCE_S

CHROMIUM: Final = "/usr/bin/chromium"
DRIVER: Final = "/usr/bin/chromedriver"
#: Desktop and phone, in CSS pixels.
SIZES: Final[Mapping[str, tuple[int, int]]] = {"desktop": (1280, 900), "phone": (360, 740)}
_QUIET: Final = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_DRAW_ALL: Final = (
    "const done = arguments[0]; hpcsweepDrawAll().then(() => done(null), (e) => done(String(e)));"
)


def missing() -> str | None:
    """What there is none of; None if the browser can be started."""
    lacking = [path for path in (CHROMIUM, DRIVER) if shutil.which(path) is None]
    return f"there is no {' and no '.join(lacking)}" if lacking else None


class Browser:
    """One browser; `open` gives it a page as a fresh visitor sees it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, page: Path | str, *, size: str = "desktop", dark: bool = False) -> None:
        """Load the page (a file, or an address) in a window of that size, on a system with that theme."""
        self.driver.get("about:blank")
        self._discard_logs()
        width, height = SIZES[size]
        window = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get(page if isinstance(page, str) else page.as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        """What the body of a function returns in the page."""
        return self.driver.execute_script(script, *arguments)

    def press(self, *keys: str) -> None:
        """One key after the other, where the focus is."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def until(self, script: str, *arguments: Any) -> Any:
        """What the body of a function returns, as soon as that is true."""
        return WebDriverWait(self.driver, PATIENCE_S, 0.05).until(lambda _: self.run(script, *arguments))

    def save_to(self, folder: Path) -> None:
        """Where downloads go from now on."""
        where = {"behavior": "allow", "downloadPath": str(folder)}
        self.driver.execute_cdp_cmd("Browser.setDownloadBehavior", where)

    def draw_all(self) -> None:
        """Have every figure drawn, those far below as well."""
        assert self.driver.execute_async_script(_DRAW_ALL) is None

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """All text of the first such element, shown or not."""
        return str(self.run("return document.querySelector(arguments[0]).textContent", selector))

    def errors(self) -> list[str]:
        """What the console has as an error since the page was opened."""
        return [entry["message"] for entry in self._log("browser") if entry["level"] == "SEVERE"]

    def requests(self) -> list[str]:
        """Everything that was asked for since then; addresses with their content in them are no request."""
        messages = (json.loads(entry["message"])["message"] for entry in self._log("performance"))
        asked = (
            m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"
        )
        return [url for url in asked if not url.startswith(("data:", "blob:", "about:"))]

    def _discard_logs(self) -> None:
        for kind in ("browser", "performance"):
            self._log(kind)

    def _log(self, kind: str) -> list[dict[str, Any]]:
        """What has come since the last time; selenium's own function has no types."""
        driver: Any = self.driver
        entries: list[dict[str, Any]] = driver.get_log(kind)
        return entries


@contextmanager
def started(profile: Path) -> Iterator[Browser]:
    """A browser with a fresh profile, for as long as it is needed."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*_QUIET, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.set_script_timeout(180)
        yield Browser(driver)
    finally:
        driver.quit()
