"""From a spec to the simulated site that it runs on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpcsweep.cluster.backend import options_of
from hpcsweep.cluster.simulated.cluster import EPOCH_S, SimulatedCluster
from hpcsweep.cluster.simulated.options import SimulatedOptions, SimulatedSection
from hpcsweep.cluster.simulated.training import Curve, UnitSeconds
from hpcsweep.core.events import Config
from hpcsweep.core.expressions import Expression
from hpcsweep.core.protocols import TaskResources
from hpcsweep.errors import SpecError
from hpcsweep.session.target import Target, max_tasks
from hpcsweep.simulation.curves import RecordedCurves
from hpcsweep.spec import SweepSpec

#: Where neither the spec nor recorded curves tell.
UNIT_S = 10.0


def simulated_target(
    spec: SweepSpec,
    curve: Curve,
    *,
    start: float = EPOCH_S,
    reached: Mapping[int, int] | None = None,
) -> tuple[Target, SimulatedCluster]:
    """The site of `cluster.simulated`, large enough for the spec's caps where it names no nodes.

    Args:
        spec: Of the sweep; the site's chances go by its searcher's seed.
        curve: What the trials give.
        start: Unix seconds at which virtual time begins.
        reached: Newest checkpoint of each trial that was trained before.

    Raises:
        SpecError: Something in `cluster.simulated` makes no sense, or no task fits a node.
    """
    section, shape = spec.cluster, spec.task_shape()
    cap = max_tasks(spec, shape)
    options = _options(spec, shape, cap)
    times: dict[str, Any] = {"settle_s": section.settle, "grace_s": section.grace}
    if section.poll is not None:
        times["poll_s"] = (section.poll, section.poll)
    cluster = SimulatedCluster(
        options,
        shape=shape,
        curve=curve,
        unit_seconds=_unit_seconds(options, curve),
        seed=spec.searcher.seed,
        start=start,
        reached=reached,
        **{key: value for key, value in times.items() if value is not None},
    )
    kind = f"{options.gpus} GPUs" if shape.gpus else f"{options.places(shape)} CPU slots"
    why = f"{options.nodes} simulated nodes with {kind} each"
    return Target("simulated", why, cluster, shape, cap, simulated=True), cluster


def _options(spec: SweepSpec, shape: TaskResources, cap: int | None) -> SimulatedOptions:
    options = options_of(SimulatedSection, spec.cluster).site()
    places = options.places(shape)
    if places == 0:
        raise SpecError(
            f"cluster.simulated.gpus: must be at least the {shape.gpus} of one task, got {options.gpus}"
        )
    if cap is None or "nodes" in options.model_fields_set:
        return options
    return options.model_copy(update={"nodes": -(-cap // places)})


def _unit_seconds(options: SimulatedOptions, curve: Curve) -> UnitSeconds:
    seconds = options.seconds_per_unit
    if isinstance(seconds, str):
        return _seconds_from_expression(Expression(seconds))
    if seconds is None and isinstance(curve, RecordedCurves):
        return lambda config: curve.unit_seconds(config) or UNIT_S
    constant = UNIT_S if seconds is None else float(seconds)
    return lambda config: constant


def _seconds_from_expression(expression: Expression) -> UnitSeconds:
    key = "cluster.simulated.seconds_per_unit"

    def seconds(config: Config) -> float:
        try:
            found = expression.number(config)
        except ValueError as error:
            raise SpecError(f"{key}: {error}") from None
        if found < 0:
            raise SpecError(f"{key}: must be >= 0, got {found:g} for {config}")
        return found

    return seconds
