"""`cluster.pools`: partitions, QOS or kinds of GPUs that a sweep uses side by side, each with a cap. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer

from hpcsweep.options import Millions, Options, PositiveNumber, Section, Text


class SlurmPart(Section):
    """Which part of a site jobs use: keys under `cluster:`, and of each of its pools."""

    partition: Text | None = None
    """Slurm partition, or several separated by commas."""
    account: Text | None = None
    """Slurm account to charge."""
    qos: Text | None = None
    """Slurm quality of service (QOS)."""
    constraint: Text | None = None
    """Required node features, as for `sbatch --constraint`."""
    gpu_type: Text | None = None
    """GPU type as named in Slurm's gres, such as `a100`. Default: any."""
    nodelist: Text | None = None
    """Nodes that may be used, such as `n[3-4]`. Default: all."""
    exclude: Text | None = None
    """Nodes that must not be used, such as `n7,n9`."""


#: Keys of a pool that take the place of those of the same name under `cluster`.
KEYS: Final = tuple(SlurmPart.model_fields)


class SlurmPool(SlurmPart):
    """A part of the site. What it does not say is as under `cluster`."""

    name: Text | None = None
    """For `status` and the report. Default: the partition."""
    options: Options = Field(default_factory=dict)
    """Further sbatch options, such as reservation, beside those of `cluster.options`."""
    max_gpus: Millions | None = None
    """Maximum number of GPUs in use there."""
    max_tasks: Millions | None = None
    """Maximum number of running tasks there."""
    gpu_hours: PositiveNumber | None = None
    """Maximum GPU hours that tasks there take in all, as `budget.gpu_hours` for the whole sweep."""
    preemptible: bool = False
    """Whether jobs there are preempted by others: it gets short runs first."""

    @model_serializer(mode="wrap")
    def _dump(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        return {key: value for key, value in written.items() if value not in (None, {}, False)}

    @property
    def shown(self) -> str:
        """Its name; empty if it has none."""
        return self.name or self.partition or ""


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Pools: TypeAlias = Annotated[tuple[SlurmPool, ...], BeforeValidator(_listed)]


def pool_problems(pools: Sequence[SlurmPool] | None) -> list[str]:
    """What is wrong with them, each line beginning with the key path."""
    if pools is None:
        return []
    if not pools:
        return ["cluster.pools: must have one pool at least, such as {partition: a100, max_gpus: 16}, got []"]
    problems: list[str] = []
    names: dict[str, int] = {}
    for index, pool in enumerate(pools):
        path = f"cluster.pools[{index}]"
        if not pool.shown:
            problems.append(f"{path}: must have a partition, or a name that tells it from the others")
        elif pool.shown in names:
            problems.append(
                f"{path}.name: must differ from that of cluster.pools[{names[pool.shown]}], "
                f"got {pool.shown!r}; give one of them a name"
            )
        names.setdefault(pool.shown, index)
    return problems
