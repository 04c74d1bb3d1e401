"""Options of searchers and schedulers that are named in a table: their constructors say which."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, Final, cast

from pydantic import ConfigDict, create_model

from hpcsweep.cluster import CLUSTERS
from hpcsweep.errors import SpecError
from hpcsweep.options import options_model
from hpcsweep.spec.models import Cluster

#: Entry point group of the clusters of other packages.
CLUSTER_PLUGINS: Final = "hpcsweep.clusters"
#: Constructor parameters of schedulers that are no options of the spec.
SUPPLIED_TO_SCHEDULERS: Final = ("minimise", "trials", "ahead", "space", "seed", "piece")


def cluster_model(name: str) -> type[Cluster]:
    """The section `cluster` for a cluster of this name: that of another package may have keys of its own.

    They are the parameters of its class or function, beside `spec`.

    Raises:
        SpecError: It cannot be imported.
    """
    points = {point.name: point for point in entry_points(group=CLUSTER_PLUGINS)}
    if name in CLUSTERS or name not in points:
        return Cluster
    try:
        return _cluster_model(points[name].load())
    except Exception as error:  # another package's code
        raise SpecError(
            f"cluster.name: {name!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error


@functools.cache
def _cluster_model(constructor: Callable[..., Any]) -> type[Cluster]:
    """The same, so that equal sections are of one type."""
    own = options_model(constructor, ("spec",))
    fields: dict[str, Any] = {
        key: (field.annotation, field)
        for key, field in own.model_fields.items()
        if key not in Cluster.model_fields
    }
    base = type("Cluster", (Cluster,), {"model_config": ConfigDict(extra=own.model_config.get("extra"))})
    return cast("type[Cluster]", create_model("Cluster", __base__=base, **fields))


def cluster_options(cluster: Cluster, constructor: Callable[..., Any]) -> dict[str, Any]:
    """What the constructor of a plug-in cluster takes from its section."""
    parameters = inspect.signature(constructor).parameters
    values = dict(cluster)  # those that it has not declared, too, where it takes any
    return {
        key: value for key, value in values.items() if key in parameters or key in (cluster.model_extra or {})
    }
