"""How the sweep stands, what it found and how to run that again."""

from __future__ import annotations

import time
from typing import Any

from hpcsweep.core.events import SweepOutcome, SweepStarted
from hpcsweep.core.quoting import shell_quote
from hpcsweep.errors import SpecError
from hpcsweep.html.format import count, duration, hours_text, number, share
from hpcsweep.html.sections import Block, KeyValues, Section, Text
from hpcsweep.views.results import SIMULATION, Results


def summary(results: Results) -> Section:
    """The section that every page has, also that of a sweep that has not begun."""
    state = results.folder.state
    if state.started is None:
        return Section("summary", "Summary", [Text("This sweep has not begun: its journal is empty.")])
    return Section(
        "summary",
        "Summary",
        [*_warnings(results), KeyValues(_facts(results, state.started)), *_best(results)],
    )


def _warnings(results: Results) -> list[Block]:
    ended = results.folder.state.ended
    found: list[Block] = []
    if clocks := results.folder.clocks:
        off = ", ".join(
            f"{node or 'a node'} ({duration(abs(seconds))} {'ahead' if seconds > 0 else 'behind'})"
            for node, seconds in clocks.items()
        )
        found.append(Text(f"Clocks that differ from the driver's, by at least: {off}.", "warning"))
    if ended is None:
        refusal = results.folder.refusal()
        return [*found, Text(refusal, "warning")] if refusal else found
    failed = ended.outcome in (SweepOutcome.FAILED, SweepOutcome.PAUSED)
    return [*found, Text(ended.reason, "warning")] if failed else found


def _facts(results: Results, started: SweepStarted) -> list[tuple[str, str]]:
    identity = results.identity
    rows = [("State", results.folder.sweep_state), *_value(results)]
    rows += [("Trials", _trials(results)), ("Runs", _runs(results.folder.run_counts())), _cost(results)]
    rows.append(("Wall time", duration(_end(results, started) - started.at)))
    if results.simulated:
        rows.insert(1, ("Simulated", SIMULATION))
    else:
        rows.append(("Began", time.strftime("%Y-%m-%d %H:%M", time.localtime(started.at))))
    rows.append(("Objective", f"{results.metric}, the {'smallest' if results.minimise else 'largest'}"))
    picked = f", which picked {started.resolved_searcher}" if started.resolved_searcher else ""
    rows.append(("Searcher", _named(identity.get("searcher", {})) + picked))
    rows.append(("Scheduler", _named(identity.get("scheduler", {}))))
    return rows


def _value(results: Results) -> list[tuple[str, str]]:
    best = results.best
    if best is None:
        yet = " yet" if results.folder.state.ended is None else ""
        return [(f"Best {results.metric}", f"no value{yet}")]
    repeats = f", mean of {best['repeats']}" if "repeats" in best else ""
    found = f"trial {best['trial']} at {best['resource']}{repeats}"
    return [(f"Best {results.metric}", number(best["value"])), ("Found by", found)]


def _best(results: Results) -> list[Block]:
    if results.best is None:
        return []
    config = results.best["config"].items()
    folder = shell_quote(str(results.folder.layout.root))
    return [
        Text("The best configuration:"),
        KeyValues([(name, number(v) if isinstance(v, float) else str(v)) for name, v in config]),
        Text("To train it again:"),
        Text(f"hpcsweep best {folder} --rerun", "code"),
    ]


def _named(chosen: Any) -> str:
    """`hyperband (max_resource 81, eta 3)`."""
    if not isinstance(chosen, dict):
        return str(chosen)
    settings = ", ".join(f"{name} {value}" for name, value in chosen.items() if name != "name")
    return str(chosen.get("name", "")) + (f" ({settings})" if settings else "")


def _trials(results: Results) -> str:
    state = results.folder.state
    limit = _budget(results).get("trials")
    again = f", {count(state.repeats, 'repeat')} of each configuration" if state.repeats > 1 else ""
    of = ""
    if isinstance(limit, int) and limit > state.configurations:
        # The budget counts neither repeats nor clones.
        plain = state.configurations == len(state.trials)
        of = f" of {limit:,}" if plain else f", {state.configurations:,} of {limit:,} configurations"
    return f"{len(state.trials):,}{of}{again}"


def _runs(counts: dict[str, int]) -> str:
    told = (f"{counts[name]:,} {name}" for name in counts if counts[name])
    return ", ".join(told) or "none yet"


def _cost(results: Results) -> tuple[str, str]:
    """GPU-hours against their budget, or run-hours where no GPU is used."""
    state = results.folder.state
    if not state.spent_gpu_s and not state.gpus:
        return "Run-hours", hours_text(state.spent_s)
    limit = _budget(results).get("gpu_hours")
    if not isinstance(limit, int | float):
        return "GPU-hours", hours_text(state.spent_gpu_s)
    return (
        "GPU-hours",
        f"{hours_text(state.spent_gpu_s)} of {limit:g} ({share(state.spent_gpu_s / 3600, limit)})",
    )


def _budget(results: Results) -> dict[str, Any]:
    """Empty where the sweep has none, or its file cannot be read: the journal is enough for a page."""
    try:
        budget = results.spec.get("budget")
    except SpecError:
        return {}
    return budget if isinstance(budget, dict) else {}


def _end(results: Results, started: SweepStarted) -> float:
    """When the sweep ended; while it goes on, the newest moment that its folder knows of."""
    state = results.folder.state
    if state.ended is not None:
        return state.ended.at
    known = [getattr(event, "at", 0.0) for event in results.folder.reading.events]
    ends = (results.attempts["started"] + results.attempts["seconds"]).dropna()
    return float(max([started.at, *known, *ends]))
