"""Whether one sweep fits where it is to run, found out without submitting anything."""

from __future__ import annotations

from hpcsweep.core.counting import plural
from hpcsweep.core.findings import Finding, failure, good, one_line, warning
from hpcsweep.core.protocols import TaskResources
from hpcsweep.errors import ClusterUnavailable, SpecError, TrainerError
from hpcsweep.session.snapshot import check_training_code
from hpcsweep.session.target import Target, resolve_target
from hpcsweep.spec import SweepSpec

MEND = "mend it in the spec"


def placed(spec: SweepSpec, *, name: str) -> tuple[Target | None, list[Finding]]:
    """Where it runs, None if it cannot: the cluster's options, the template and the resources."""
    try:
        place = resolve_target(spec, name=name)
    except SpecError as error:
        return None, [failure("spec", problem, MEND) for problem in error.problems]
    found = []
    if place.cluster.template:
        found.append(good("template", f"{place.cluster.template} renders"))
    try:
        problems = place.problems(max_gpus=spec.cluster.max_gpus)
    except ClusterUnavailable as error:
        return place, [*found, failure("resources", one_line(str(error)), "try again when Slurm answers")]
    if problems:
        return place, [*found, *(failure("resources", problem, MEND) for problem in problems)]
    found.append(good("resources", f"{shape_words(place.shape)} of one task: fits"))
    held = place.allocation()
    if held.why:
        advice = "max_gpus and budget.gpu_hours count what is held"
        found.append(warning("whole nodes", place.allocation_note(held), advice))
    ticks, _, advice = place.tick_note().partition("; ")
    if ticks:
        found.append(warning("tick jobs", f"with --detach, {ticks}", advice))
    return place, found


def training_code(spec: SweepSpec) -> Finding:
    """Whether it can be imported here."""
    if not spec.train.check:
        return good("training code", "not looked at (train.check: false)")
    try:
        check_training_code(spec)
    except TrainerError as error:
        return failure("training code", one_line(str(error)), MEND)
    return good("training code", f"{spec.train.function or 'the command'} can be run")


def shape_words(shape: TaskResources) -> str:
    """For example `2 GPUs, 8 CPUs, 16384 MiB, 30 min`."""
    parts = [plural(shape.gpus, "GPU")] if shape.gpus else []
    parts.append(plural(shape.cpus, "CPU"))
    parts += [] if shape.mem_mib is None else [f"{shape.mem_mib} MiB"]
    parts += [] if shape.time_s is None else [f"{shape.time_s / 60:g} min"]
    return ", ".join(parts)
