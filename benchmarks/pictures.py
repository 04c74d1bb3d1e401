"""Make the documentation's pictures: `python -m benchmarks.pictures`. Needs Chromium and a few minutes.

The report is that of `sweeps/digits_hyperband.yaml`, trained here; `status --watch` is drawn while it runs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from rich.console import Console

import hpcsweep
from hpcsweep.cli.dashboard import Dashboard
from hpcsweep.cli.progress import plan_of
from hpcsweep.cli.watch import LiveQueue
from hpcsweep.core.models import RunStatus
from hpcsweep.spec import load_spec
from hpcsweep.views.snapshot import StatusPoller

REPO = Path(__file__).parents[1]
PICTURES = Path(hpcsweep.__file__).parent / "docs" / "pictures"
SPEC = REPO / "sweeps" / "digits_hyperband.yaml"
#: Columns and lines of the terminal.
COLUMNS, LINES = 100, 26
#: The status is drawn when so many runs have ended.
ENDED = 40
#: Pixels.
WINDOW = (1280, 1500)
#: Chromium may take so long.
CHROMIUM_S = 60


def main() -> None:
    """Train, draw, and write both pictures."""
    with tempfile.TemporaryDirectory(prefix="hpcsweep-pictures-") as folder:
        results = Path(folder) / "digits-hyperband"
        argv = [sys.executable, "-m", "hpcsweep", "launch", str(SPEC), "--results", str(results)]
        driver = subprocess.Popen([*argv, "--cluster", "local", "--quiet"])
        try:
            status(results, driver)
            driver.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                driver.send_signal(signal.SIGINT)
        report(results)


def status(results: Path, driver: subprocess.Popen[bytes]) -> None:
    """Draw what `status --watch` shows, as an SVG."""
    while not (results / "journal").is_dir() or not any((results / "journal").iterdir()):
        _pause(driver)
    poller = StatusPoller(results, LiveQueue())
    while (view := poller.poll(now=time.time(), shown=LINES)).progress.state.counts[
        RunStatus.COMPLETED
    ] < ENDED:
        _pause(driver)
    if view.driver is not None:  # whoever makes the pictures
        view = view._replace(driver=msgspec.structs.replace(view.driver, user="you", host="login1"))
    with Path(os.devnull).open("w") as nowhere:
        console = Console(
            record=True,
            file=nowhere,
            force_terminal=True,
            color_system="truecolor",
            width=COLUMNS,
            height=LINES,
        )
        console.print(Dashboard(view, plan_of(load_spec(results / "sweep.yaml"))))
    PICTURES.mkdir(parents=True, exist_ok=True)
    console.save_svg(str(PICTURES / "status.svg"), title="hpcsweep status --watch")


def _pause(driver: subprocess.Popen[bytes]) -> None:
    if driver.poll() is not None:
        raise SystemExit("the sweep ended before it could be drawn")
    time.sleep(0.5)


def report(results: Path) -> None:
    """Write the report and take a picture of its upper part."""
    page = results / "report.html"
    subprocess.run([sys.executable, "-m", "hpcsweep", "report", str(results)], check=True)
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace(str(results), "results/digits-hyperband"), encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="hpcsweep-chromium-") as profile:
        subprocess.run(
            [
                "chromium",
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--disable-background-networking",
                f"--window-size={WINDOW[0]},{WINDOW[1]}",
                "--virtual-time-budget=8000",
                f"--user-data-dir={profile}",
                f"--screenshot={PICTURES / 'report.png'}",
                page.as_uri(),
            ],
            check=True,
            timeout=CHROMIUM_S,
            stderr=subprocess.DEVNULL,
        )


if __name__ == "__main__":
    main()
