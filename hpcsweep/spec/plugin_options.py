"""Options of schedulers and clusters: which keys each has in the spec."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, create_model

from hpcsweep.cluster import CLUSTERS
from hpcsweep.cluster.backend import cluster_names, find_backend, options_of
from hpcsweep.core.space import Space
from hpcsweep.spec.models import Cluster


def cluster_model(name: str) -> type[Cluster]:
    """The section `cluster` for a cluster of this name.

    Its keys are those of all clusters, its own, and those of the clusters of this package: a sweep for Slurm
    may be tried on this machine or simulated.

    Raises:
        SpecError: It cannot be imported.
    """
    names = [*([name] if name in cluster_names() and name not in CLUSTERS else []), *CLUSTERS]
    return _cluster_model(tuple(find_backend(each).options for each in names))


@functools.cache
def _cluster_model(models: tuple[type[BaseModel], ...]) -> type[Cluster]:
    """The same for the same models, so that equal sections are of one type."""
    fields: dict[str, Any] = {}
    extra = "forbid"
    for model in models:
        for key, field in model.model_fields.items():
            if key not in Cluster.model_fields:
                fields.setdefault(key, (field.annotation, field))
        extra = cast("str", model.model_config.get("extra")) if model is models[0] else extra
    base = type("Cluster", (Cluster,), {"model_config": ConfigDict(extra=cast("Any", extra))})
    return cast("type[Cluster]", create_model("Cluster", __base__=base, **fields))


def cluster_problems(section: Cluster, space: Space) -> Iterator[str]:
    """What does not fit together in the keys of single clusters, each line beginning with the key path."""
    names = cluster_names() if section.name in cluster_names() else [*CLUSTERS]
    for name in [each for each in names if each in CLUSTERS or each == section.name]:
        options = options_of(find_backend(name).options, section)
        problems = getattr(options, "problems", None)
        if problems is not None:
            yield from problems(space)
