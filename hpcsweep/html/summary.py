"""Sections: the state of the sweep with its best configuration, and where the results come from."""

from __future__ import annotations

from typing import Any

from hpcsweep.core.events import SweepOutcome, SweepStarted
from hpcsweep.core.objectives import Objective
from hpcsweep.core.suggestions import added_parameters
from hpcsweep.core.text import plural, shell_join, shell_quote
from hpcsweep.html.sections import Block, KeyValues, Points, Section, Table, Text
from hpcsweep.views.folder import SIMULATION, changes, code_line
from hpcsweep.views.format import (
    clock_text,
    duration,
    hours_text,
    mean_text,
    number,
    pool_cost_text,
    runs_text,
    share,
    timestamp,
    value_text,
)
from hpcsweep.views.front_history import front_history, point_text
from hpcsweep.views.fronts import bound_text, values_text
from hpcsweep.views.progress import uses_gpus
from hpcsweep.views.results import Results
from hpcsweep.views.verdict import verdict


def summary(results: Results) -> Section:
    """The section that every page has, even before the sweep has started."""
    state = results.folder.state
    if state.started is None:
        return Section("summary", "Summary", [Text("This sweep has not started: its journal is empty.")])
    return Section(
        "summary",
        "Summary",
        [*_warnings(results), *_verdict(results), KeyValues(_facts(results, state.started)), *_best(results)],
    )


def _warnings(results: Results) -> list[Block]:
    folder = results.folder
    warnings: list[Block] = []
    if skews := folder.clock_skews:
        skewed = "; ".join(clock_text(node, seconds) for node, seconds in skews.items())
        warnings.append(Text(f"Clocks differ: {skewed}.", "warning"))
    ended = folder.state.ended
    reason = folder.progress.refusal
    if ended is not None:
        reason = ended.reason if ended.outcome in (SweepOutcome.FAILED, SweepOutcome.PAUSED) else None
    return [*warnings, Text(reason, "warning")] if reason else warnings


def _verdict(results: Results) -> list[Block]:
    """What the results come to, above all else."""
    said = verdict(results.folder.progress, results.space)
    return [
        Points([each.text for each in said], frozenset(at for at, each in enumerate(said) if each.advice))
    ]


def _facts(results: Results, started: SweepStarted) -> list[tuple[str, str]]:
    progress, identity = results.folder.progress, results.identity
    rows = [("State", progress.status), *_value(results)]
    rows += [("Trials", _trials(results)), ("Runs", runs_text(results.folder.run_counts())), _cost(results)]
    if pools := _pools(results):
        rows.append(("GPU-hours by pool", pools))
    ended = progress.state.ended
    rows.append(("Wall time", duration((progress.now if ended is None else ended.at) - started.at)))
    if results.simulated:
        rows.insert(1, ("Simulated", SIMULATION.replace("`", "")))
    else:
        rows.append(("Began", timestamp(started.at)))
    rows.append(("Objective", ", ".join(map(_objective, results.objectives))))
    resolved = f", which chose {started.resolved_searcher}" if started.resolved_searcher else ""
    if added := added_parameters(started):
        rows.append(("Space", f"runs suggested {', '.join(added)} first"))
    rows.append(("Searcher", _with_options(identity.get("searcher", {})) + resolved))
    rows.append(("Scheduler", _with_options(identity.get("scheduler", {}))))
    return rows


def _value(results: Results) -> list[tuple[str, str]]:
    best = results.best
    if best is None:
        yet = " yet" if results.folder.state.ended is None else ""
        return [(f"Best {results.metric}", f"no value{yet}")]
    found_by = f"trial {best['trial']} at step {best['resource']}{mean_text(best)}"
    if results.objectives.has_front:
        return _front(results, best, found_by)
    return [(f"Best {results.metric}", number(best["value"])), ("Found by", found_by)]


def _objective(objective: Objective) -> str:
    """`maximise speed, at least 50`."""
    bound = bound_text(objective)
    return f"{objective.mode}imise {objective.metric}" + (f" ({bound})" if bound else "")


def _front(results: Results, best: dict[str, Any], found_by: str) -> list[tuple[str, str]]:
    """With several objectives the size of the front, its knee and its hypervolume."""
    state = results.folder.state
    what = "Nearest to the bounds" if best.get("infeasible") else "Knee of the front"
    rows = [(what, values_text(best["values"])), ("Found by", found_by)]
    if not best.get("infeasible"):
        rows.insert(0, ("Front", f"{len(state.front):,} of {plural(state.configurations, 'configuration')}"))
    history = front_history(results.folder.progress)
    return [*rows, *([("Hypervolume", f"{number(history.value)} {point_text(history)}")] if history else [])]


def _best(results: Results) -> list[Block]:
    if results.best is None:
        return []
    config = results.best["config"].items()
    folder = shell_quote(str(results.folder.layout.root))
    return [
        Text("The configuration of the knee:" if results.objectives.has_front else "The best configuration:"),
        KeyValues([(name, value_text(value)) for name, value in config]),
        Text("To train it again:"),
        Text(f"hpcsweep best {folder} --rerun", "code"),
    ]


def _with_options(chosen: Any) -> str:
    """`hyperband (max_resource 81, eta 3)`."""
    if not isinstance(chosen, dict):
        return str(chosen)
    settings = ", ".join(f"{name} {value_text(value)}" for name, value in chosen.items() if name != "name")
    return str(chosen.get("name", "")) + (f" ({settings})" if settings else "")


def _trials(results: Results) -> str:
    state = results.folder.state
    limit = results.folder.budget.get("trials")
    again = f", {plural(state.repeats, 'repeat')} of each configuration" if state.repeats > 1 else ""
    of = ""
    if isinstance(limit, int) and limit > state.configurations:
        # The budget counts neither repeats nor clones.
        plain = state.configurations == len(state.trials)
        of = f" of {limit:,}" if plain else f", {state.configurations:,} of {limit:,} configurations"
    return f"{len(state.trials):,}{of}{again}"


def _pools(results: Results) -> str:
    """GPU-hours of each pool of the cluster against its cap; empty where it has none."""
    return ", ".join(f"{pool_cost_text(pool)} in {pool['name']}" for pool in results.folder.pools)


def _cost(results: Results) -> tuple[str, str]:
    """GPU-hours against their budget, or run-hours where no GPU is used."""
    state = results.folder.state
    if not uses_gpus(state):
        return "Run-hours", hours_text(state.spent_s)
    limit = results.folder.budget.get("gpu_hours")
    spent = hours_text(state.spent_gpu_s)
    if not isinstance(limit, int | float):
        return "GPU-hours", spent
    return "GPU-hours", f"{spent} of {limit:g} ({share(state.spent_gpu_s / 3600, limit)})"


#: So many differences are listed at the top.
MOST_LISTED = 12


def provenance(results: Results) -> Section | None:
    """The first launch, and how later ones differ from it; None where nothing is recorded."""
    records = results.provenance
    if not records:
        return None
    first = records[0]
    code = first["code"]
    rows = [
        ("Launched", f"{timestamp(first['at'])} by {first['user']} on {first['host']} in {first['cwd']}"),
        ("Code", code_line(first)),
        ("Folder", code["folder"]),
        ("Repository", code.get("remote", "")),
        ("Copied from", first.get("copied", "")),
        ("Uncommitted changes", f"provenance/{first['diff']}" if "diff" in first else ""),
        ("Python", f"{first['python']['version']}, {first['python']['executable']}"),
        ("Trials run by", first["python"].get("trials", "")),
        ("hpcsweep", first["hpcsweep"]),
        ("Packages", f"{len(first['packages'])}, see provenance/ in the results folder"),
        ("Spec", f"SHA-256 {first['spec_sha256']}"),
    ]
    blocks: list[Block] = []
    differences = list(dict.fromkeys(line for record in records for line in changes(first, record)))
    if differences:
        more = "; and more, see below" if len(differences) > MOST_LISTED else ""
        text = (
            "Later launches differ from the first: values of earlier and later runs may not be "
            f"comparable: {'; '.join(differences[:MOST_LISTED])}{more}."
        )
        blocks.append(Text(text, "warning"))
    blocks += [KeyValues([row for row in rows if row[1]]), Text(shell_join(first["argv"]), "code")]
    if len(records) > 1:
        columns = ["Launched", "By", "Code", "Differs from the first in"]
        launches = [
            [timestamp(r["at"]), f"{r['user']} on {r['host']}", code_line(r), "; ".join(changes(first, r))]
            for r in records
        ]
        caption = "Launches that differ from the one before in command line, spec, code or packages."
        blocks.append(Table(columns, launches, caption))
    return Section("provenance", "Provenance", blocks)
