"""The command line: one function for each verb.

What a verb needs is imported when it runs, so that `--help` stays fast on a slow filesystem.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpcsweep.cli.arguments import ClusterName, Folder, Json, Sets, Spec, Trial, print_version
from hpcsweep.cli.completion import complete_folders, complete_trials
from hpcsweep.cli.examples import epilog
from hpcsweep.cli.terminal import SanitizedGroup
from hpcsweep.exports import EXPORTS

app = typer.Typer(
    cls=SanitizedGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Hyperparameter sweeps on Slurm clusters, and on this machine.",
)


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Hyperparameter sweeps on Slurm clusters, and on this machine."""


@app.command()
def init(
    script: Annotated[
        Path | None,
        typer.Argument(metavar="SCRIPT", help="A training script; without it, the one of this folder."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Default: sweep.yaml beside the script; - prints it."
        ),
    ] = None,
) -> None:
    """Write a sweep file for a training script that exists. Reads the script, never runs it."""
    from hpcsweep.cli.init import init as run

    run(script, output=output)


@app.command(name="try")
def try_(
    spec: Spec,
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=VALUE ...",
            help="Parameter values; missing ones are the middle of their range.",
            show_default=False,
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option("--cluster", metavar="NAME", help="Where to run it, such as slurm; default: here."),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option("--time", metavar="TIME", help="End each of the two runs after this time, such as 1m."),
    ] = None,
    set_: Sets = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the results folder.")] = False,
) -> None:
    """Run one configuration for a step, resume it once, and say what to change in the sweep file."""
    from hpcsweep.cli.try_ import try_ as run

    run(spec, values or [], cluster=cluster, time=time, overrides=set_ or [], keep=keep)


@app.command()
def launch(
    spec: Spec,
    results: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The results folder; default: results/<name>.")
    ] = None,
    cluster: ClusterName = None,
    set_: Sets = None,
    once: Annotated[bool, typer.Option("--once", help="Run one tick, then exit; for cron.")] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Submit, then exit: from here on the jobs drive the sweep.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the outcome.")] = False,
) -> None:
    """Start or resume a sweep. Ctrl-C leaves its jobs running; launch again to resume."""
    from hpcsweep.cli.launch import launch as run

    if once and detach:
        raise typer.BadParameter("--detach and --once exclude each other: jobs or cron drive the sweep")
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
    seconds_per_step: Annotated[
        float | None,
        typer.Option(
            "--seconds-per-step",
            metavar="SECONDS",
            min=0.0,
            help="What a step of training takes, for the wall time; else known from earlier runs or limits.",
        ),
    ] = None,
    startup: Annotated[
        float,
        typer.Option(
            "--startup",
            metavar="SECONDS",
            min=0.0,
            help="With --seconds-per-step: what each run takes beside its steps.",
        ),
    ] = 0.0,
) -> None:
    """Show what a sweep would do: brackets, rungs, arrays, cost, time, sbatch script. Submits nothing."""
    from hpcsweep.cli.plan import plan as run
    from hpcsweep.cli.plan_time import StatedPace

    if startup and seconds_per_step is None:
        raise typer.BadParameter("--startup: needs --seconds-per-step")
    pace = None if seconds_per_step is None else StatedPace(seconds_per_step, startup)
    run(spec, cluster=cluster, overrides=set_ or [], schema=schema, pace=pace)


@app.command(name="list")
def list_(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Where to look for results folders.",
            show_default=False,
        ),
    ] = Path("."),
    json: Json = False,
) -> None:
    """List all sweeps below a folder: state, share done, best value, cost, last change."""
    from hpcsweep.cli.list_ import list_ as run

    run(folder, json=json)


@app.command()
def status(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR ...", help="Results folders.", autocompletion=complete_folders),
    ],
    json: Json = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Keep refreshing until the sweep has ended; ? shows keys.")
    ] = False,
    every: Annotated[
        float, typer.Option(min=0.5, metavar="SECONDS", help="Refresh interval of --watch.")
    ] = 5,
) -> None:
    """Show rungs, running and pending runs, the best value, the cost and the failures."""
    if watch:
        from hpcsweep.cli.watch import watch as run_watch

        if json:
            raise typer.BadParameter("--json and --watch exclude each other")
        if len(folders) > 1:
            raise typer.BadParameter("--watch takes one folder; hpcsweep list shows all sweeps below one")
        run_watch(folders[0], every=every)
        return
    from hpcsweep.cli.status import statuses as run

    run(folders, json=json)


@app.command()
def trials(
    folder: Folder,
    n: Annotated[int | None, typer.Option("-n", min=1, metavar="N", help="Show so many trials.")] = 10,
    all_: Annotated[bool, typer.Option("--all", help="Show all trials.")] = False,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Order by a parameter, metric or column, the largest first with `-` before it. "
            "Default: best first.",
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(metavar="EXPRESSION", help="Only trials for which this holds, such as `lr < 0.01`."),
    ] = None,
    json: Json = False,
) -> None:
    """List trials, best first: value, metrics, resource, status, cost and configuration."""
    from hpcsweep.cli.trials import trials as run

    run(folder, n=None if all_ else n, sort=sort, where=where, json=json)


@app.command()
def best(
    folder: Folder,
    json: Json = False,
    n: Annotated[
        int | None, typer.Option("-n", min=1, metavar="N", help="List so many of the best configurations.")
    ] = None,
    rerun: Annotated[
        bool, typer.Option("--rerun", help="Print the command that trains it again from scratch.")
    ] = False,
    start: Annotated[bool, typer.Option("--start", help="With --rerun: run that command now.")] = False,
    trial: Annotated[
        int | None, typer.Option(metavar="N", help="With --rerun: this trial instead of the best.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="With --rerun: the output folder; default: rerun-<sweep>-<trial>."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC=WEIGHT,...",
            help="With several objectives: the one of the front that is best by these, such as err=2,size=1.",
        ),
    ] = None,
) -> None:
    """Print the best trial, with several objectives the front, or how to train it again."""
    if weights is not None and (n is not None or trial is not None):
        other = "-n" if n is not None else "--trial"
        raise typer.BadParameter(f"{other} and --weights exclude each other")
    if rerun:
        from hpcsweep.cli.status import rerun as run_rerun

        if json or n is not None:
            other = "--json" if json else "-n"
            raise typer.BadParameter(f"{other} and --rerun exclude each other")
        run_rerun(folder, trial=trial, output=output, start=start, weights=weights)
        return
    if start or trial is not None or output is not None:
        raise typer.BadParameter("--start, --trial and --output need --rerun")
    if n is not None:
        from hpcsweep.cli.trials import best as run_list

        run_list(folder, n=n, json=json)
        return
    from hpcsweep.cli.status import best as run

    run(folder, json=json, weights=weights)


@app.command()
def explain(
    folder: Folder,
    trial: Trial,
    json: Json = False,
) -> None:
    """Explain why a trial was started, promoted or dropped, and at which rung against which trials."""
    from hpcsweep.cli.trial import explain as run

    run(folder, trial, json=json)


@app.command()
def logs(
    folder: Folder,
    trial: Trial,
    rung: Annotated[int | None, typer.Option(min=0, metavar="N", help="Only this rung.")] = None,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", min=1, metavar="N", help="Only the last N lines of each.")
    ] = None,
    rank: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Of this process, with train.launcher.", show_default=False),
    ] = 0,
) -> None:
    """Print the logs of a trial's attempts."""
    from hpcsweep.cli.trial import logs as run

    run(folder, trial, rung=rung, tail=tail, rank=rank)


@app.command()
def stop(
    folder: Folder,
    trial: Annotated[
        int | None,
        typer.Argument(
            metavar="TRIAL",
            help="Only this trial; default: the whole sweep.",
            autocompletion=complete_trials,
        ),
    ] = None,
) -> None:
    """Stop a sweep and cancel its jobs (launch again to resume), or stop one trial."""
    from hpcsweep.cli.requests import stop as run

    run(folder, trial)


@app.command()
def enqueue(
    folder: Folder,
    values: Annotated[
        list[str],
        typer.Argument(metavar="NAME=VALUE ...", help="Parameter values; missing ones are sampled."),
    ],
) -> None:
    """Try a configuration next, before any that the searcher proposes."""
    from hpcsweep.cli.requests import enqueue as run

    run(folder, values)


@app.command()
def retry(
    folder: Folder,
    trial: Annotated[
        int | None,
        typer.Argument(
            metavar="TRIAL", help="Its number; default: all failed trials.", autocompletion=complete_trials
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY.PATH=VALUE",
            help="Change resources, cluster, budget, retries or store from now on; may be repeated.",
        ),
    ] = None,
) -> None:
    """Retry failed runs; resume a paused sweep."""
    from hpcsweep.cli.requests import retry as run

    run(folder, trial, set_ or [])


@app.command()
def clean(
    folder: Folder,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Remove them; without it, only show what would be removed.")
    ] = False,
    best: Annotated[
        bool,
        typer.Option("--best", help="Of finished trials keep only the best one's checkpoint."),
    ] = False,
    json: Json = False,
) -> None:
    """Remove checkpoints that no trial can need any more; shows first what would be removed."""
    from hpcsweep.cli.clean import clean as run

    run(folder, yes=yes, best=best, json=json)


@app.command()
def simulate(
    spec: Spec,
    more: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=A,B", help="More values to compare, after --compare.", show_default=False
        ),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(metavar="FILE.py:NAME", help="The learning curve: a function (config, step) -> value."),
    ] = None,
    curves: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Use curves recorded in an earlier results folder.")
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=A,B",
            help="Compare these values of a key, such as scheduler=hyperband,asha searcher=random,tpe.",
        ),
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, metavar="N", help="Simulate N seeds.")] = 1,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="SEED", help="The first seed; default: searcher.seed.")
    ] = None,
    set_: Sets = None,
    results: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep the results folder here.")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Plot the best value over time to this file.")
    ] = None,
    json: Json = False,
) -> None:
    """Simulate a sweep in virtual time: makespan, GPU-hours and best value to expect."""
    from hpcsweep.cli.simulate import SimulateOptions, run

    if more and not compare:
        raise typer.BadParameter(f"{more[0]}: must come after --compare; --set overrides a value")
    comparisons = [*(compare or []), *(more or [])]
    options = SimulateOptions(set_ or [], objective, curves, comparisons, seed, repeat, results, output)
    run(spec, options, json=json)


@app.command()
def doctor(
    spec: Annotated[
        Path | None,
        typer.Argument(metavar="SPEC", help="The sweep file (YAML); checks the site for this sweep."),
    ] = None,
    results: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The results folder; default: results/<name>.")
    ] = None,
    set_: Sets = None,
    canary: Annotated[
        bool | None, typer.Option("--canary/--no-canary", help="Submit one small test job; default: ask.")
    ] = None,
    wait: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="How long the test job may wait in the queue.")
    ] = 120,
    json: Json = False,
) -> None:
    """Check this site: Slurm, its limits and partitions, the filesystem, and what a compute node sees."""
    from hpcsweep.cli.doctor import doctor as run

    run(spec, results=results, overrides=set_ or [], probe=canary, wait_s=wait, json=json)


@app.command()
def export(
    folder: Folder,
    format_: Annotated[
        str, typer.Option("--format", help=f"csv, json, parquet, {' or '.join(EXPORTS)}.")
    ] = "csv",
    table: Annotated[
        str | None, typer.Option(help="trials (the default), runs, metrics, attempts or all.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A file; a folder for --table all and for tensorboard. "
            f"Default: standard output; {'; '.join(f'DIR/{each.target}' for each in EXPORTS.values())}.",
        ),
    ] = None,
) -> None:
    """Export tables of the sweep, or all of it for TensorBoard or optuna-dashboard."""
    from hpcsweep.cli.export import export as run

    run(folder, format_=format_, name=table, output=output)


@app.command()
def report(
    folder: Folder,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="The output file; default: DIR/report.html.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=min|max", help="Direction of another metric; may be repeated."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Write it again and again until the sweep has ended.")
    ] = False,
    every: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="Time between two writes of --watch.")
    ] = 60.0,
) -> None:
    """Write a self-contained HTML report of the sweep."""
    from hpcsweep.cli.report import report as run

    run(folder, output=output, metrics=metric or [], every=every if watch else None)


@app.command()
def compare(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR DIR ...", help="Results folders.", autocompletion=complete_folders),
    ],
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="The output file; default: compared.html."),
    ] = None,
    json: Json = False,
) -> None:
    """Compare sweeps: best values, also at equal cost, with confidence intervals over repeats."""
    from hpcsweep.cli.report import compare as run

    run(folders, output=output, json=json)


@app.command()
def serve(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FOLDER ...", help="Where to look for results folders.", show_default="."),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="Default: a free one.", show_default=False)
    ] = 0,
    every: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="How often open pages load themselves again.")
    ] = 60.0,
) -> None:
    """Show all sweeps below folders in a browser, with their reports; for you alone, read only."""
    from hpcsweep.cli.serve import serve as run

    run(folders or [Path(".")], port=port, every=every)


for _command in app.registered_commands:
    assert _command.callback is not None
    _command.epilog = epilog(_command.name or _command.callback.__name__)
