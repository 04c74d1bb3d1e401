"""The command line: one verb, one function that parses, calls and prints.

What a verb needs is imported when it runs, so that `--help` is quick on a slow filesystem.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpcsweep.cli.sanitize import NeutralGroup

app = typer.Typer(
    cls=NeutralGroup,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Hyperparameter sweeps on Slurm clusters, and on this machine.",
)

Spec = Annotated[Path, typer.Argument(metavar="SPEC", help="The sweep file (YAML).")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The results folder.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a value of the spec; may be repeated."),
]
ClusterName = Annotated[
    str | None, typer.Option("--cluster", metavar="NAME", help="auto, local or slurm; goes before the spec.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def _version(value: bool) -> None:
    if value:
        from hpcsweep import __version__

        typer.echo(f"hpcsweep {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Hyperparameter sweeps on Slurm clusters, and on this machine."""


@app.command()
def launch(
    spec: Spec,
    results: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The results folder; default: results/<name>.")
    ] = None,
    cluster: ClusterName = None,
    set_: Sets = None,
    once: Annotated[bool, typer.Option("--once", help="One tick, then leave; for cron.")] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Submit, then leave: from here on the jobs drive the sweep.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the outcome.")] = False,
) -> None:
    """Start a sweep, or carry it on. Ctrl-C leaves jobs running; launch again to carry on."""
    from hpcsweep.cli.launch import launch as run

    if once and detach:
        raise typer.BadParameter("--detach has the jobs drive the sweep, --once cron: give one of them")
    overrides = set_ or []
    run(spec, results=results, cluster=cluster, overrides=overrides, once=once, detach=detach, quiet=quiet)


@app.command()
def plan(
    spec: Annotated[Path | None, typer.Argument(metavar="SPEC", help="The sweep file (YAML).")] = None,
    cluster: ClusterName = None,
    set_: Sets = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of sweep files, for editors.")
    ] = False,
) -> None:
    """Show what a sweep would do: brackets, rungs, arrays, cost, the sbatch script. Submits nothing."""
    from hpcsweep.cli.plan import plan as run

    run(spec, cluster=cluster, overrides=set_ or [], schema=schema)


@app.command()
def status(
    folder: Folder,
    json: Json = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Stay, and draw it anew until the sweep has ended.")
    ] = False,
    every: Annotated[
        float, typer.Option(min=0.5, metavar="SECONDS", help="With --watch, the time between two looks.")
    ] = 5,
) -> None:
    """Show rungs, what runs and waits, the best so far, the cost and the failures."""
    if watch:
        from hpcsweep.cli.watch import watch as live

        if json:
            raise typer.BadParameter("--json is of one moment and --watch goes on: give one of them")
        live(folder, every=every)
        return
    from hpcsweep.cli.status import status as run

    run(folder, json=json)


@app.command()
def best(
    folder: Folder,
    json: Json = False,
    rerun: Annotated[
        bool, typer.Option("--rerun", help="Print the command that trains it again, from scratch.")
    ] = False,
    start: Annotated[bool, typer.Option("--start", help="With --rerun: train it here and now.")] = False,
    trial: Annotated[
        int | None, typer.Option(metavar="N", help="With --rerun: another trial than the best.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="With --rerun: where to; default: rerun-<sweep>-<trial>."),
    ] = None,
) -> None:
    """Print the best trial's value and configuration, or how to train it again."""
    if rerun:
        from hpcsweep.cli.rerun import rerun as again

        if json:
            raise typer.BadParameter("--json: prints a configuration, --rerun a command: give one of them")
        again(folder, trial=trial, output=output, start=start)
        return
    if start or trial is not None or output is not None:
        raise typer.BadParameter("--start, --trial and --output go with --rerun")
    from hpcsweep.cli.status import best as run

    run(folder, json=json)


@app.command()
def explain(
    folder: Folder,
    trial: Annotated[int, typer.Argument(metavar="TRIAL", help="The trial's number.")],
    json: Json = False,
) -> None:
    """Tell why a trial was started, promoted or dropped, at which rung, and against whom."""
    from hpcsweep.cli.explain import explain as run

    run(folder, trial, json=json)


@app.command()
def logs(
    folder: Folder,
    trial: Annotated[int, typer.Argument(metavar="TRIAL", help="The trial's number.")],
    rung: Annotated[int | None, typer.Option(min=0, metavar="N", help="Only this rung.")] = None,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", min=1, metavar="N", help="Only the last lines of each.")
    ] = None,
) -> None:
    """Print what the attempts of a trial printed."""
    from hpcsweep.cli.logs import logs as run

    run(folder, trial, rung=rung, tail=tail)


@app.command()
def stop(
    folder: Folder,
    trial: Annotated[
        int | None, typer.Argument(metavar="TRIAL", help="Only this trial; default: the whole sweep.")
    ] = None,
) -> None:
    """Ask a sweep to cancel its jobs and end (launch again to carry on), or end one trial of it."""
    from hpcsweep.cli.stop import stop as run

    run(folder, trial)


@app.command()
def enqueue(
    folder: Folder,
    values: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE ...", help="Parameters; missing ones are drawn.")
    ],
) -> None:
    """Try a configuration next, before any that the searcher proposes."""
    from hpcsweep.cli.enqueue import enqueue as run

    run(folder, values)


@app.command()
def retry(
    folder: Folder,
    trial: Annotated[
        int | None, typer.Argument(metavar="TRIAL", help="Its number; default: all that failed.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY.PATH=VALUE",
            help="Change resources, cluster, budget or retries from now on; may be repeated.",
        ),
    ] = None,
) -> None:
    """Try failed runs again; go on with a sweep that is paused."""
    from hpcsweep.cli.retry import retry as run

    run(folder, trial, set_ or [])


@app.command()
def clean(
    folder: Folder,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Remove them; without it nothing is removed.")
    ] = False,
    best: Annotated[
        bool,
        typer.Option("--best", help="Keep those of the best trial alone, of the trials that are done."),
    ] = False,
    json: Json = False,
) -> None:
    """Remove checkpoints of trials that can never go on, and say before what would go."""
    from hpcsweep.cli.clean import clean as run

    run(folder, yes=yes, best=best, json=json)


@app.command()
def simulate(
    spec: Spec,
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=A,B", help="More to compare, after --compare.", show_default=False),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:NAME", help="The learning curve, a function of config and step giving the value."
        ),
    ] = None,
    curves: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Or curves recorded in an earlier results folder.")
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=A,B",
            help="Compare these values of a key, such as scheduler=hyperband,asha searcher=random,tpe.",
        ),
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, metavar="N", help="Simulate with N seeds.")] = 1,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="SEED", help="The first seed; default: searcher.seed.")
    ] = None,
    set_: Sets = None,
    results: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep the results folder here.")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Where to plot the best value over time.")
    ] = None,
    json: Json = False,
) -> None:
    """Run a sweep in virtual time on a simulated cluster: what it would take, and how well it would do."""
    from hpcsweep.cli.simulate import SimulateOptions
    from hpcsweep.cli.simulate import run as simulated

    if more and not compare:
        raise typer.BadParameter(f"{more[0]}: must come after --compare; --set overrides a value")
    comparisons = [*(compare or []), *(more or [])]
    wanted = SimulateOptions(set_ or [], objective, curves, comparisons, seed, repeat, results, output)
    simulated(spec, wanted, json=json)


@app.command()
def doctor(
    spec: Annotated[
        Path | None, typer.Argument(metavar="SPEC", help="The sweep file (YAML), to check the site for it.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The results folder; default: results/<name>.")
    ] = None,
    set_: Sets = None,
    canary: Annotated[
        bool | None, typer.Option("--canary/--no-canary", help="Submit one small job; asked if not given.")
    ] = None,
    wait: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="How long the canary may wait in the queue.")
    ] = 120,
    json: Json = False,
) -> None:
    """Check this site: Slurm, its limits and partitions, the filesystem, and what a compute node sees."""
    from hpcsweep.cli.doctor import doctor as run

    run(spec, results=results, overrides=set_ or [], canary=canary, wait_s=wait, json=json)


@app.command()
def export(
    folder: Folder,
    format_: Annotated[
        str, typer.Option("--format", help="csv, json, parquet, tensorboard or optuna.")
    ] = "csv",
    table: Annotated[
        str | None, typer.Option(help="trials (the default), runs, metrics, attempts or all.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A file; a folder for --table all and for tensorboard. "
            "Default: standard output; DIR/tensorboard; DIR/optuna-journal.log.",
        ),
    ] = None,
) -> None:
    """Write a table of the sweep, or the whole of it for TensorBoard or optuna-dashboard."""
    from hpcsweep.cli.export import export as run

    run(folder, format_=format_, name=table, output=output)


@app.command()
def report(
    folder: Folder,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Where to; default: DIR/report.html.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=min|max", help="Which end of another metric is good; may be repeated."),
    ] = None,
) -> None:
    """Write one HTML file that shows the whole sweep; it needs no network."""
    from hpcsweep.cli.report import report as run

    run(folder, output=output, metrics=metric or [])


@app.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR DIR ...", help="Results folders.")],
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Where to write the page; default: compared.html."),
    ] = None,
    json: Json = False,
) -> None:
    """Compare sweeps: best values, also at equal cost, and how sure that is over repeats."""
    from hpcsweep.cli.compare import compare as run

    run(folders, output=output, json=json)
