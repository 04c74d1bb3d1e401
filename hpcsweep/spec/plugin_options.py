"""Options of searchers and schedulers that are named in a table: their constructors say which."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from importlib.metadata import entry_points
from types import NoneType, UnionType
from typing import Any, Final, Union, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model

from hpcsweep.cluster import CLUSTERS
from hpcsweep.errors import SpecError
from hpcsweep.spec.models import Cluster

#: Entry point group of the clusters of other packages.
CLUSTER_PLUGINS: Final = "hpcsweep.clusters"
#: Constructor parameters of schedulers that are no options of the spec.
SUPPLIED_TO_SCHEDULERS: Final = ("minimise", "trials", "ahead", "space", "seed", "piece")


def options_model(constructor: Callable[..., Any], *, supplied: Collection[str]) -> type[BaseModel]:
    """A model whose fields are the parameters of the constructor, but for those that are `supplied` to it.

    Where the constructor takes any keywords it has to check them itself.
    """
    parameters = inspect.signature(constructor).parameters
    function = constructor.__init__ if inspect.isclass(constructor) else constructor
    hints = get_type_hints(function)
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in parameters.items()
        if name not in supplied and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    further = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    config = ConfigDict(extra="allow" if further else "forbid", frozen=True, strict=True)
    model: type[BaseModel] = create_model(
        getattr(constructor, "__name__", "Options"), __config__=config, **fields
    )
    return model


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
    own = options_model(constructor, supplied=("spec",))
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


def is_union(annotation: Any) -> bool:
    """Whether it allows several types; one type or None is not meant."""
    members = [member for member in get_args(annotation) if member is not NoneType]
    return get_origin(annotation) in (Union, UnionType) and len(members) > 1


def spoken_type(annotation: Any) -> str:
    """The type in words: `int | None` -> `an integer or null`."""
    words = {int: "an integer", float: "a number", bool: "true or false", str: "text", NoneType: "null"}
    if annotation in words:
        return words[annotation]
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return " or ".join(map(spoken_type, get_args(annotation)))
    if isinstance(origin, type) and issubclass(origin, list | tuple):
        return "a list"
    return "a mapping" if origin is not None else "another value"
