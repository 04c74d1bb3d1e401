"""How large the report is, and how soon a browser shows it: `python -m benchmarks.page`.

Simulated sweeps of `sweeps/simulated.yaml`, opened in headless Chromium. Times are milliseconds since the
page was asked for, the least of several turns: what other processes took is not the page's.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from hpcsweep.html.page import page
from hpcsweep.simulation.curves import load_curve
from hpcsweep.simulation.simulate import simulate
from hpcsweep.spec import load_spec
from hpcsweep.views.results import load
from tests.html.browser import Browser, started

SWEEPS: Final = Path(__file__).parents[1] / "sweeps"
#: To be reached for 2,000 trials: bytes, and milliseconds to the first figure.
MOST_BYTES: Final = 2_000_000
MOST_FIRST_MS: Final = 1000
PROMISED: Final = 2000
_FIRST: Final = "return performance.getEntriesByName('hpcsweep-drawn')[0]?.startTime"
#: Of pages that do not tell, as soon as a figure is seen there.
_SEEN: Final = "return document.querySelector('.plot .main-svg') && performance.now()"


class Timing(NamedTuple):
    """Of one page."""

    trials: int
    size: int  # bytes
    made_s: float
    first_ms: float
    all_ms: float


def sweep(folder: Path, trials: int) -> Path:
    """A simulated sweep of so many trials, with failures and preemptions."""
    settings = [f"scheduler.iterations={trials // 143 + 1}", f"budget.trials={trials}"]
    settings += ["cluster.max_gpus=1024", "cluster.poll=300", "cluster.reuse=false"]
    spec = load_spec(SWEEPS / "simulated.yaml", settings)
    simulate(spec, load_curve(f"{SWEEPS / 'curves.py'}:curve"), folder=folder)
    return folder


def measure(browser: Browser, file: Path, *, turns: int) -> tuple[float, float]:
    """Milliseconds to the first figure, and until all are drawn that are told to be."""
    firsts, alls = [], []
    for _ in range(turns):
        browser.open(file)
        marked = browser.run("return !!document.getElementById('plotly')")
        firsts.append(float(browser.until(_FIRST if marked else _SEEN)))
        browser.draw_all()
        alls.append(float(browser.run("return performance.now()")))
    return min(firsts), min(alls)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each size."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[100, PROMISED, 10_000])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--pages", type=Path, nargs="*", help="measure these files instead")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name, started(Path(name) / "profile") as browser:
        for file in options.pages or ():
            first, everything = measure(browser, file.resolve(), turns=options.turns)
            print(f"{file}: {file.stat().st_size:,} bytes, first {first:,.0f} ms, all {everything:,.0f} ms")
        for trials in () if options.pages else options.trials:
            results = load(sweep(Path(name) / str(trials), trials))
            file, begun = Path(name) / f"{trials}.html", time.perf_counter()
            file.write_text(page(results), encoding="utf-8")
            made = time.perf_counter() - begun
            timing = Timing(trials, file.stat().st_size, made, *measure(browser, file, turns=options.turns))
            print(
                f"{timing.trials:,} trials: {timing.size:,} bytes made in {timing.made_s:.1f} s, "
                f"first figure {timing.first_ms:,.0f} ms, all {timing.all_ms:,.0f} ms{_verdict(timing)}",
                flush=True,
            )
    return 0


def _verdict(timing: Timing) -> str:
    if timing.trials != PROMISED:
        return ""
    missed = [
        f"more than {most:,} {unit}"
        for value, most, unit in (
            (timing.size, MOST_BYTES, "bytes"),
            (timing.first_ms, MOST_FIRST_MS, "ms to the first figure"),
        )
        if value > most
    ]
    return f": {' and '.join(missed)}" if missed else ": as promised"


if __name__ == "__main__":
    raise SystemExit(main())
