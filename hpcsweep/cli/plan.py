"""`plan`: what a sweep would do and cost. Submits nothing, writes nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import typer

from hpcsweep.cli.plan_pools import first_is_capped, print_pool_scripts, print_pools
from hpcsweep.cli.plan_shapes import print_scripts, print_shapes
from hpcsweep.cli.plan_time import StatedPace, wall_time
from hpcsweep.cli.progress import plan_of, remaining_work
from hpcsweep.cli.terminal import errors_exit, hide, prefix_errors
from hpcsweep.core.cluster_protocol import Batch
from hpcsweep.core.priors import describe_prior
from hpcsweep.core.protocols import BracketPlan, SchedulerPlan, fewest
from hpcsweep.core.state import SweepState
from hpcsweep.core.text import plural, secret_values
from hpcsweep.driver import DriverConfig
from hpcsweep.driver.lifecycle import GpuBudget
from hpcsweep.errors import SpecError
from hpcsweep.schedulers.synchronous import PIECE
from hpcsweep.session.algorithms import make_scheduler
from hpcsweep.session.program import example_command
from hpcsweep.session.session import Session
from hpcsweep.session.target import Target, check_inherited
from hpcsweep.session.warm_start import describe_warm_start
from hpcsweep.spec import SweepSpec, json_schema, load_spec
from hpcsweep.spec.resources import rungs_of
from hpcsweep.views.format import duration
from hpcsweep.views.progress import SweepProgress

#: Rungs of a ladder that are shown at each end.
ENDS_SHOWN: Final = 10


class PrintedPlan(NamedTuple):
    """What `print_plan` found out.

    Attributes:
        scheduler: The scheduler's part.
        wall_s: Seconds from the first run to the last; None while unknown.
    """

    scheduler: SchedulerPlan
    wall_s: float | None


def plan(
    spec_path: Path | None,
    *,
    cluster: str | None,
    overrides: Sequence[str],
    schema: bool,
    pace: StatedPace | None = None,
) -> None:
    """Print brackets, rungs, arrays, cost, time and the sbatch script; or the JSON schema."""
    with errors_exit():
        if schema:
            typer.echo(msgspec.json.format(msgspec.json.encode(json_schema()), indent=2).decode())
            return
        if spec_path is None:
            raise SpecError("plan: expected a sweep file, or --schema")
        spec = load_spec(spec_path, overrides)
        hide(secret_values(spec.cluster.environment))
        session = Session(spec, Path("results") / spec.name, cluster=cluster)
        print_plan(session, spec_path, pace=pace)


def print_plan(session: Session, source: Path | str, *, pace: StatedPace | None = None) -> PrintedPlan:
    """Print what the sweep would do and cost, and how long it would take.

    Args:
        session: Of the sweep.
        source: What problems of the spec begin with.
        pace: What runs take; else what is known from elsewhere.

    Raises:
        HpcsweepError: It cannot run; a problem of the spec begins with `source`.
    """
    spec = session.spec
    with prefix_errors(source):
        session.validate()
        check_inherited(spec, os.environ)
        session.check_target()
        session.check_training_code()
    target = session.target
    typer.echo(f"{spec.name}: on {target.why}")
    held = target.allocation()
    if held.why:
        typer.echo(f"note: {target.allocation_note(held)}")
    ticks = target.tick_note()
    if ticks:
        typer.echo(f"note: with --detach, {ticks}")
    name, reason = session.searcher
    typer.echo(f"searcher: {name}" + (f", chosen by auto: {reason}" if reason else ""))
    for parameter in spec.space.parameters:
        if parameter.prior is not None:
            typer.echo(f"prior: {parameter.name} {describe_prior(parameter.prior, parameter.domain)}")
    for line in describe_warm_start(session.warm_start):
        typer.echo(line)
    for line in session.warnings:
        typer.echo(f"note: {line}")
    if spec.train.command is not None:
        typer.echo(f"command of a run, for example: {example_command(spec, session.layout.root)}")
    if spec.train.launcher != "none":
        typer.echo(_processes(spec))
    found = make_scheduler(spec).plan(spec.budget.trials)
    largest = _brackets(spec, target, found, held_gpus=held.gpus)
    places, gpus = _places(spec, target, held_gpus=held.gpus), -(-held.gpus // target.shape.lanes)
    time = wall_time(session, pace, places=places, gpus=gpus)
    typer.echo(time.text)
    printed = PrintedPlan(found, time.seconds)
    for line in session.run_resources(None).changes:
        typer.echo(line)
    if (quota := session.quota_forecast) is not None:
        typer.echo(f"note: {quota.text}" if quota.too_small else quota.text)
    print_pools(session)
    if target.kinds:
        print_scripts(session, print_shapes(spec, target, rungs_of(make_scheduler(spec), found)))
        print_pool_scripts(session, target.within_limits(target.shapes[0]))
        return printed
    if target.reuse:
        _tasks(spec, target, found, held_gpus=held.gpus)
    with prefix_errors(source):
        _reservation(spec, target, held_gpus=held.gpus)
    _script(session, runs=largest)
    print_pool_scripts(session, target.submitted_shape)
    return printed


def _places(spec: SweepSpec, target: Target, *, held_gpus: int) -> int | None:
    """How many runs there may be at a time; None where nothing limits them."""
    tasks = fewest(_most_tasks(spec, target, held_gpus=held_gpus), target.cluster.slots)
    gpus = spec.largest_run.total_gpus
    by_gpus = spec.cluster.max_gpus // gpus if target.kinds and spec.cluster.max_gpus and gpus else None
    return fewest(None if tasks is None else max(1, tasks) * target.shape.lanes, by_gpus)


def _brackets(spec: SweepSpec, target: Target, found: SchedulerPlan, *, held_gpus: int) -> int:
    """Print what the scheduler would do; the runs of the largest array."""
    size, repeats = spec.space.size, spec.repeats
    typer.echo("")
    typer.echo(f"search space: {'infinite' if size is None else plural(size, 'configuration')}")
    for index, bracket in enumerate(found.brackets):
        if found.estimated:
            bracket = BracketPlan(bracket.resources, tuple(size * repeats for size in bracket.sizes))
        about = "about, " if found.estimated else ""
        label = f"({about}trials x resource)" if bracket.sizes else "(resource)"
        typer.echo(f"bracket {index} {label}: {_format_bracket(bracket)}")
        if found.max_runs is not None:
            typer.echo(
                f"about {plural(bracket.runs, 'run')}, {found.max_runs * repeats} at most: "
                "who is promoted stays so when better ones come"
            )
    for note in found.notes:
        typer.echo(note)
    if found.estimated or not found.brackets:
        trials = None if found.starts is None else found.starts * repeats
        typer.echo(f"trials: {'until the budget ends' if trials is None else trials}")
        return 1
    _total(spec, target, found, held_gpus=held_gpus)
    return min(PIECE, max(max(bracket.sizes) for bracket in found.brackets)) * repeats


def _total(spec: SweepSpec, target: Target, found: SchedulerPlan, *, held_gpus: int) -> None:
    """Print trials, runs, resource and cost of brackets whose sizes are known."""
    each = "each time: " if found.iterations is None else ""
    times = (found.iterations or 1) * spec.repeats
    trials = sum(bracket.sizes[0] for bracket in found.brackets) * times
    runs = sum(bracket.runs for bracket in found.brackets) * times
    units = sum(bracket.units for bracket in found.brackets) * times
    scratch = sum(bracket.units_from_scratch for bracket in found.brackets) * times
    if found.population:
        # Each member that fails is replaced by a clone, a new trial with runs of its own.
        typer.echo(
            f"{plural(trials, 'member')}, {plural(runs, 'run')}, and one more for each that fails; "
            "clones are new trials"
        )
    else:
        typer.echo(f"{each}{plural(trials, 'trial')}, {plural(runs, 'run')} at most")
    typer.echo(f"{each}{_trained(spec, units, scratch)}")
    if found.iterations is None:
        typer.echo("again and again until the budget ends")
    most_trials = spec.budget.trials
    if most_trials is not None and (found.iterations is None or most_trials < trials):
        typer.echo(f"budget.trials ends it after {plural(most_trials, 'trial')}")
    shape = target.shape
    if target.kinds:
        return
    if spec.largest_run.time_s is not None:
        gpus = max(spec.largest_run.total_gpus, -(-held_gpus // shape.lanes))
        hours = runs * (gpus or 1) * spec.largest_run.time_s / 3600
        unit = "GPU-hours" if gpus else "run-hours"
        typer.echo(f"{each}{hours:g} {unit} if every run takes its whole time limit, once")
    most = _most_tasks(spec, target, held_gpus=held_gpus)
    if most is not None and not target.reuse:
        typer.echo(f"at most {plural(most, 'task')} at a time")


def _processes(spec: SweepSpec) -> str:
    """How many processes a run has, and what starts them."""
    launcher, nodes = spec.train.launcher, spec.resources.nodes
    counts = {spec.train.processes or max(1, run.needs.gpus) for run in spec.needs}
    each = " to ".join(str(count) for count in sorted({min(counts), max(counts)}))
    where = f"{each} on each of {nodes} nodes" if nodes > 1 else each
    return f"processes of a run: {where}, started by {launcher}"


def _trained(spec: SweepSpec, units: int, scratch: int) -> str:
    """What the rungs train, as far as it is known whether the training code goes on from checkpoints."""
    if units == scratch:
        return f"{plural(units, 'unit')} of resource trained"
    if not spec.resumes:
        return (
            f"{plural(scratch, 'unit')} of resource trained: each rung from scratch, as the command has no "
            f"{{resume_from}} ({units:,} from checkpoints)"
        )
    return (
        f"{plural(units, 'unit')} of resource trained if each rung goes on from checkpoints "
        f"({scratch:,} without them)"
    )


def _most_tasks(spec: SweepSpec, target: Target, *, held_gpus: int) -> int | None:
    """How many tasks the spec allows at a time; None where it sets no limit."""
    max_gpus = spec.cluster.max_gpus
    return fewest(target.max_tasks, max_gpus // held_gpus if max_gpus is not None and held_gpus else None)


def _tasks(spec: SweepSpec, target: Target, found: SchedulerPlan, *, held_gpus: int) -> None:
    """Print how many tasks keep their GPUs, for how long, and what waits in the queue do to the sweep."""
    shape, run_s = target.submitted_shape, spec.largest_run.time_s
    busy = None if found.starts is None else -(-found.starts * spec.repeats // shape.lanes)
    tasks = fewest(_most_tasks(spec, target, held_gpus=held_gpus), target.cluster.slots, busy)
    many = "" if tasks is None else f"at most {plural(tasks, 'task')} at a time; "
    limit = f", for {duration(shape.time_s)} at most" if shape.time_s is not None else ""
    typer.echo(f"{many}each does run after run{limit}, and leaves after {spec.cluster.idle} s without one")
    work = remaining_work(plan_of(spec), SweepProgress())
    if tasks is None or work is None:
        return
    runs, lanes = work.runs, tasks * shape.lanes
    rungs = max(len(bracket.resources) for bracket in found.brackets)
    row = f", {rungs} in a row up to the last rung" if rungs > 1 else ""
    then = f", then about {-(-runs // lanes):,} runs one after another" if runs > lanes else ""
    typer.echo(f"queue waits: one for each task{then} (with cluster.reuse: false one for each run{row})")
    if shape.time_s is not None and run_s is not None:
        needed = -(-runs // (shape.time_s // run_s * shape.lanes))
        if needed > tasks:
            taken = f"{plural(runs, 'run')} take {plural(needed, 'task')}"
            typer.echo(f"if every run takes its whole time limit, {taken}: those that end are replaced")


def _format_bracket(bracket: BracketPlan) -> str:
    """`9x1 > 3x3 > 1x9`, or the resources alone; of a long one its ends."""
    rungs = [str(resource) for resource in bracket.resources]
    if bracket.sizes:
        rungs = [f"{n}x{resource}" for n, resource in zip(bracket.sizes, rungs, strict=True)]
    if len(rungs) > 2 * ENDS_SHOWN:
        left_out = f".. {len(rungs) - 2 * ENDS_SHOWN} more .."
        rungs = [*rungs[:ENDS_SHOWN], left_out, *rungs[-ENDS_SHOWN:]]
    return " > ".join(rungs)


def _reservation(spec: SweepSpec, target: Target, *, held_gpus: int) -> None:
    """Print what `budget.gpu_hours` allows to be submitted at a time."""
    hours, shape = spec.budget.gpu_hours, target.shape
    if hours is None:
        return
    if not held_gpus:
        typer.echo(f"budget.gpu_hours {hours:g}: nothing is spent of it, as no run has a GPU")
        return
    settings = DriverConfig(
        spec.name,
        target.name,
        spec.program(),
        shape,
        spec.searcher.seed,
        max_gpu_s=hours * 3600,
        idle_s=spec.cluster.idle if target.reuse else None,
        run=spec.largest_run,
    )
    default_time_s = None if shape.time_s else target.cluster.limits().time_s
    start_up_s = target.cluster.start_up_s
    budget = GpuBudget(settings, default_time_s=default_time_s, start_up_s=start_up_s)
    budget.task_gpus = held_gpus
    if target.reuse:
        first = budget.reused_tasks_left(SweepState(), reserved_gpu_s=lambda _: 0.0, coming=0)
        assert first is not None  # there is a budget
        each = f"each at most {duration(budget.idle_s)} without a run and {duration(budget.run_s)} with each"
        typer.echo(f"budget.gpu_hours {hours:g}: {plural(first, 'task')} at first, {each}")
        return
    tasks = budget.tasks_left(SweepState(), open_tasks=lambda _: 0, unbooked_gpu_s=lambda _: 0.0)
    assert tasks is not None  # there is a budget
    each = f"{plural(held_gpus, 'GPU')} for {duration(budget.time_s)}"
    typer.echo(
        f"budget.gpu_hours {hours:g}: at most {plural(tasks, 'task')} in the queue at a time, {each} each"
    )


def _script(session: Session, *, runs: int) -> None:
    """The script of a batch as it would be sent, on a cluster that has scripts."""
    spec, target = session.spec, session.target
    tasks = -(-runs // target.shape.lanes)
    if target.reuse:
        tasks = min(tasks, target.max_tasks or tasks)
    name = f"{spec.name}-SWEEP-1-1"
    folder = session.layout.batch(name).root
    throttle = min(tasks, target.max_tasks or tasks)
    batch = Batch(name, folder, tasks, throttle, target.submitted_shape, requeue=not first_is_capped(session))
    script = target.cluster.script(batch)
    if script is not None:
        typer.echo("")
        typer.echo(script)
