"""`simulate`: makespan, cost and best value of a sweep, in virtual time."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import typer

from hpcsweep.cli.terminal import NO_VALUE, errors_exit, json_text, prefix_errors, print_table, raw, sanitize
from hpcsweep.core.text import plural
from hpcsweep.core.units import format_duration
from hpcsweep.errors import SpecError
from hpcsweep.session.preparation import validate
from hpcsweep.simulation import (
    Comparison,
    Curve,
    RecordedCurves,
    SimulationResult,
    Variant,
    compare,
    compare_results,
    load_curve,
    make_variants,
    simulate,
    synthetic_curves,
)
from hpcsweep.simulation.comparison import write_plot
from hpcsweep.spec import SweepSpec, load_spec
from hpcsweep.store.files import is_stdout
from hpcsweep.views.format import config_text, number
from hpcsweep.views.fronts import values_text

#: Fractions of the makespan at which the best value is printed.
SHOWN_AT = (0.1, 0.25, 0.5, 0.75, 1.0)


class SimulateOptions(NamedTuple):
    """The options of the command.

    Attributes:
        objective: The learning curve as `FILE.py:NAME`; `curves` is a results folder in its place.
        comparisons: `KEY=A,B` each.
        seed: The first one, None for the searcher's.
        results: Where to keep the results folder of a single simulation.
        output: Where to plot to.
    """

    overrides: Sequence[str]
    objective: str | None
    curves: Path | None
    comparisons: Sequence[str]
    seed: int | None
    repeat: int
    results: Path | None
    output: Path | None


def run(spec_path: Path, options: SimulateOptions, *, json: bool) -> None:
    """Simulate the sweep, or variants of it, and print what it took."""
    with errors_exit():
        if options.objective is not None and options.curves is not None:
            raise SpecError("--curves: give either it or --objective")
        if json and options.output is not None and is_stdout(options.output):
            raise SpecError("--output: standard output gets the JSON; give a file for the plot")
        if options.results is not None and (options.comparisons or options.repeat > 1):
            raise SpecError("--results: holds a single sweep: not with --compare or --repeat")
        chosen = _make_variants(spec_path, options)
        with prefix_errors(spec_path):
            for variant in chosen:
                validate(variant.spec)
        spec = chosen[0].spec
        curve = _curve(options)
        with prefix_errors(spec_path):
            comparison = _compare(chosen, curve, options, quiet=json)
        output = options.output
        if options.comparisons and output is None:
            output = Path(f"{spec.name}-compared.html")
        if output is not None:
            write_plot(comparison, output)
        if json:
            typer.echo(_json(comparison, output))
        elif output is None or not is_stdout(output):
            _print(comparison, spec, options)
            if output is not None:
                typer.echo(f"plot: {output}")
        if all(row.value is None for row in comparison.rows):
            raise typer.Exit(NO_VALUE)


def _make_variants(spec_path: Path, options: SimulateOptions) -> list[Variant]:
    if options.comparisons:
        return make_variants(spec_path, options.overrides, options.comparisons)
    spec = load_spec(spec_path, options.overrides)
    return [Variant(spec.name, spec)]


def _curve(options: SimulateOptions) -> Callable[[SweepSpec], Curve]:
    """Makes the curve for a spec; files are loaded at once."""
    if options.objective is not None:
        loaded = load_curve(options.objective)
        return lambda spec: loaded
    curves = options.curves
    if curves is not None:
        return lambda spec: RecordedCurves(curves, spec.space)
    return lambda spec: synthetic_curves(spec.space, spec.objectives)


def _compare(
    chosen: Sequence[Variant], curve: Callable[[SweepSpec], Curve], options: SimulateOptions, *, quiet: bool
) -> Comparison:
    first = chosen[0].spec
    seed = first.searcher.seed if options.seed is None else options.seed
    if options.results is not None:
        result = simulate(first, curve(first), seed=seed, folder=options.results)
        return compare_results(first, {chosen[0].name: [result]})
    show = sys.stderr.isatty() and not quiet

    def progress(name: str, seed: int) -> None:
        if show:
            _show_on_one_line(f"{sanitize(name)}, seed {seed}")

    try:
        return compare(chosen, curve, range(seed, seed + options.repeat), progress=progress)
    finally:
        if show:
            _show_on_one_line("")


def _show_on_one_line(text: str) -> None:
    """Overwrite the last line of the terminal."""
    terminal = raw(sys.stderr)
    terminal.write(f"\r\x1b[K{text}")
    terminal.flush()


# --------------------------------------------------------------------------- what is printed


def _print(comparison: Comparison, spec: SweepSpec, options: SimulateOptions) -> None:
    runs = comparison.rows[0].runs
    seeds = f"seed {runs[0].seed}" if len(runs) == 1 else f"seeds {runs[0].seed} to {runs[-1].seed}"
    typer.echo(f"{spec.name}: {_objective(options)}; {seeds}; {runs[0].places} {_places(runs[0])}")
    if options.comparisons:
        _print_table(comparison)
    elif len(runs) > 1:
        _print_medians(runs, comparison.title)
    else:
        _print_one(runs[0], comparison.title)
    if comparison.reference:
        typer.echo(f"the hypervolume is that up to {values_text(comparison.reference)}")


def _objective(options: SimulateOptions) -> str:
    if options.objective is not None:
        return f"objective {options.objective}"
    if options.curves is not None:
        return f"curves of {options.curves}"
    return "a built-in curve, so look at times alone (else give --objective or --curves)"


def _places(run: SimulationResult) -> str:
    return f"places of {run.gpus} GPU{'s' * (run.gpus > 1)}" if run.gpus else "CPU slots"


def _print_one(run: SimulationResult, title: str) -> None:
    typer.echo(f"{run.ending}: {run.reason}")
    for name, text in _figures(run):
        typer.echo(f"  {name:<17} {text}")
    typer.echo(
        f"  {'idle share':<17} {run.idle:.1%}; {run.idle_filled:.1%} until the last trial started "
        f"({_time(run.filled_s)}), {run.idle_started:.1%} until the last run started ({_time(run.started_s)})"
    )
    if run.best is None:
        typer.echo("  no run gave a value")
        return
    best = run.best
    typer.echo(f"  {title}")
    for share in SHOWN_AT:
        value = run.value_at(share * run.makespan_s)
        shown = "none yet" if value is None else number(value)
        typer.echo(f"    {_time(share * run.makespan_s):>13}  {shown}")
    knee = f"knee of the front, {values_text(best['values'])}: " if len(best.get("values", ())) > 1 else ""
    typer.echo(f"  {knee}trial {best['trial']} at {best['resource']}: {config_text(best['config'])}")


def _figures(run: SimulationResult) -> list[tuple[str, str]]:
    interruptions = ", ".join(f"{count} {why}" for why, count in run.interruptions.items())
    bounds = f"no packing is quicker than {_time(run.bound_s)}, the longest trial takes {_time(run.chain_s)}"
    return [
        ("makespan", f"{_time(run.makespan_s)}; {bounds}"),
        (_hours(run), f"{run.hours:.4g}"),
        ("trials", f"{run.trials}; {plural(run.runs, 'run')}, {run.failures} failed"),
        ("interruptions", interruptions or "none"),
    ]


def _print_medians(runs: Sequence[SimulationResult], title: str) -> None:
    values = [run.value for run in runs if run.value is not None]
    typer.echo(f"  {'median (smallest to largest) of ' + str(len(runs))}")
    for name, numbers, shown in (
        ("makespan", [run.makespan_s for run in runs], _time),
        ("shortest possible", [run.bound_s for run in runs], _time),
        (_hours(runs[0]), [run.hours for run in runs], "{:.4g}".format),
        ("idle share", [run.idle for run in runs], "{:.1%}".format),
        ("trials", [run.trials for run in runs], "{:g}".format),
        ("runs", [run.runs for run in runs], "{:g}".format),
        ("failed runs", [run.failures for run in runs], "{:g}".format),
        (title, values, number),
    ):
        if numbers:
            middle = shown(statistics.median(numbers))
            typer.echo(f"  {name:<17} {middle} ({shown(min(numbers))} to {shown(max(numbers))})")


def _print_table(comparison: Comparison) -> None:
    head = (
        "",
        comparison.title,
        "time to target",
        "makespan",
        _hours(comparison.rows[0].runs[0]),
        "idle",
    )
    rows = [
        (
            row.name,
            "none" if row.value is None else number(row.value),
            "none" if row.target_s is None else _time(row.target_s),
            _time(row.makespan_s),
            f"{row.hours:.4g}",
            f"{row.idle:.1%}",
        )
        for row in comparison.rows
    ]
    print_table([head, *rows])
    count = len(comparison.rows[0].runs)
    each = f"medians of {count} seeds; " if count > 1 else ""
    typer.echo(f"{each}the target of a seed is the worst final value of all variants")


def _hours(run: SimulationResult) -> str:
    return "GPU-hours" if run.gpus else "slot-hours"


def _time(seconds: float) -> str:
    return format_duration(round(seconds))


def _json(comparison: Comparison, plot: Path | None) -> str:
    rows: list[dict[str, Any]] = []
    for row in comparison.rows:
        medians = {field: getattr(row, field) for field in row.__struct_fields__ if field != "runs"}
        rows.append(medians | {"simulations": [run.plain() for run in row.runs]})
    document = {
        "metric": comparison.metric,
        "mode": "min" if comparison.minimise else "max",
        **({"reference": comparison.reference} if comparison.reference else {}),
        "variants": rows,
        "plot": None if plot is None else str(plot),
    }
    return json_text(document)
