"""What `plan` shows where runs need different resources: how many of each shape, and their scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import typer
from numpy.random import default_rng

from hpcsweep.cli.plan_pools import first_is_capped
from hpcsweep.core.cluster_protocol import Batch, TaskResources
from hpcsweep.core.protocols import SchedulerPlan
from hpcsweep.core.run_resources import RunContext, largest_need
from hpcsweep.core.text import plural
from hpcsweep.core.units import format_memory
from hpcsweep.driver.shapes import array_key
from hpcsweep.errors import SpecError
from hpcsweep.session.session import Session
from hpcsweep.session.target import Target
from hpcsweep.spec import SweepSpec
from hpcsweep.views.format import duration

#: Random configurations by which the shapes are counted.
SAMPLED: Final = 200
#: Of a long ladder so many rungs are shown.
RUNGS_SHOWN: Final = 12


class RungShapes(NamedTuple):
    """The runs of one rung.

    Attributes:
        start: The step that they go on from, up to `resource`.
        runs: None where that is unknown.
        shapes: What is enough for the runs of each array, and the share of runs in it.
        gpu_s: GPU-seconds (or seconds without GPUs) of a run in the mean; None without time limits.
    """

    rung: int
    start: int
    resource: int
    runs: int | None
    shapes: list[tuple[TaskResources, float]]
    gpu_s: float | None


def rung_shapes(spec: SweepSpec, target: Target, found: SchedulerPlan) -> list[RungShapes]:
    """The shapes of each rung, by random configurations."""
    try:
        configs = spec.space.sample(SAMPLED, default_rng(0))
    except SpecError:  # hardly any satisfies the constraints
        return []
    rungs: dict[tuple[int, int, int], int | None] = {}
    for bracket in found.brackets:
        sizes = bracket.sizes or (None,) * len(bracket.resources)
        starts = (0, *bracket.resources) if spec.resumes else (0,) * len(bracket.resources)
        for rung, (resource, start, size) in enumerate(zip(bracket.resources, starts, sizes, strict=False)):
            before = rungs.get((rung, start, resource), 0)
            known = None if size is None or before is None else before + size * spec.repeats
            rungs[rung, start, resource] = known
    shown = []
    for (rung, start, resource), runs in sorted(rungs.items()):
        needs = [
            target.cluster.granted(spec.run_resources.of(RunContext(config, resource, start, rung)))
            for config in configs
        ]
        groups: dict[tuple[int, ...], list[TaskResources]] = {}
        for need in needs:
            groups.setdefault(array_key(need), []).append(need)
        shapes = [(largest_need(group), len(group) / len(needs)) for _, group in sorted(groups.items())]
        seconds = [max(1, need.total_gpus) * need.time_s for need in needs if need.time_s is not None]
        gpu_s = sum(seconds) / len(seconds) if seconds else None
        shown.append(RungShapes(rung, start, resource, runs, shapes, gpu_s))
    return shown


def print_shapes(spec: SweepSpec, target: Target, found: SchedulerPlan) -> list[RungShapes]:
    """Print how many runs of each shape there will be, about, and what they cost at most."""
    rungs = rung_shapes(spec, target, found)
    if not rungs:
        return []
    typer.echo(f"resources of runs, by {SAMPLED} random configurations:")
    for line in _rung_lines(rungs):
        typer.echo(f"  {line}")
    costs = [rung.runs * rung.gpu_s for rung in rungs if rung.runs is not None and rung.gpu_s is not None]
    if len(costs) == len(rungs):
        unit = "GPU-hours" if any(shape.gpus for rung in rungs for shape, _ in rung.shapes) else "run-hours"
        each = "each time: " if found.iterations is None else ""
        hours = sum(costs) * (found.iterations or 1) / 3600
        typer.echo(f"{each}about {hours:.4g} {unit} if every run takes its whole time limit, once")
    caps = [
        f"{plural(spec.cluster.max_gpus, 'GPU')}" if spec.cluster.max_gpus is not None else "",
        f"{plural(spec.cluster.max_tasks, 'task')}" if spec.cluster.max_tasks is not None else "",
    ]
    if any(caps):
        typer.echo(f"at most {' and '.join(filter(None, caps))} at a time, over all shapes")
    if target.reuse:
        idle = f"leaves after {spec.cluster.idle} s without one"
        typer.echo(f"each task does run after run of those with as many GPUs, and {idle}")
    if spec.budget.gpu_hours is not None:
        typer.echo(f"budget.gpu_hours {spec.budget.gpu_hours:g}: each run counts with its GPUs and its limit")
    return rungs


def _rung_lines(rungs: Sequence[RungShapes]) -> Iterator[str]:
    left_out = len(rungs) - RUNGS_SHOWN
    shown = rungs if left_out <= 0 else [*rungs[: RUNGS_SHOWN - 1], rungs[-1]]
    for index, rung in enumerate(shown):
        if left_out > 0 and index == RUNGS_SHOWN - 1:
            yield f".. {left_out} more .."
        runs = "" if rung.runs is None else f", {plural(rung.runs, 'run')}"
        yield f"rung {rung.rung}, from {rung.start} to {rung.resource}{runs}:"
        for shape, share in rung.shapes:
            if len(rung.shapes) == 1:
                count = "all"
            elif rung.runs is None:
                count = f"{100 * share:.0f} %"
            else:
                count = f"about {rung.runs * share:.2g}"
            yield f"  {count} with {shape_text(shape)}"


def shape_text(shape: TaskResources) -> str:
    """`2 GPUs, 8 CPUs, 16G, at most 30m`."""
    parts = [
        f"{shape.nodes} nodes, on each" if shape.nodes > 1 else "",
        plural(shape.gpus, "GPU") if shape.gpus else "",
        plural(shape.cpus, "CPU"),
        format_memory(shape.mem_mib) if shape.mem_mib is not None else "",
        f"at most {duration(shape.time_s)}" if shape.time_s is not None else "",
    ]
    return ", ".join(filter(None, parts))


def print_scripts(session: Session, rungs: Sequence[RungShapes]) -> None:
    """Print the script of the first array as it would be sent, and of others the lines that differ."""
    spec, target = session.spec, session.target
    first: list[str] = []
    name = f"{spec.name}-SWEEP-1-1"
    folder, capped = session.layout.batch(name).root, first_is_capped(session)
    seen: set[TaskResources] = set()
    shown: set[tuple[str, ...]] = set()
    for rung in rungs:
        for run, _ in rung.shapes:
            task = spec.task_shape(reuse=target.reuse, run=run, lanes=target.shape.lanes, turns=1)
            shape = target.within_limits(task)
            if shape in seen:
                continue
            seen.add(shape)
            script = target.cluster.script(Batch(name, folder, 1, 1, shape, requeue=not capped))
            if script is None:
                return
            lines = script.splitlines()
            if tuple(lines) in shown:  # schedulers count whole minutes
                continue
            shown.add(tuple(lines))
            typer.echo("")
            if not first:
                first = lines
                typer.echo(f"script of {shape_text(shape)} (rung {rung.rung}):\n\n{script}")
                continue
            lines = [line for line in lines if line not in first]
            typer.echo(f"for {shape_text(shape)} (rung {rung.rung}) with:")
            for line in lines:
                typer.echo(line)
