"""The data of a spec, as YAML has it: sections put together, paths moved, objects made of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcsweep.api import objects
from hpcsweep.api.parts import Listed, Named, NamedCluster, Parameter, Part, Section
from hpcsweep.errors import SpecError

if TYPE_CHECKING:
    from hpcsweep.spec import SweepSpec


def merged(data: Mapping[str, Any], more: Mapping[str, Any], *, path: str = "") -> dict[str, Any]:
    """Both mappings in one.

    Raises:
        SpecError: A key has a value in both.
    """
    both = dict(data)
    for key, value in more.items():
        where = f"{path}.{key}" if path else key
        if key not in both:
            both[key] = value
        elif isinstance(value, Mapping) and isinstance(both[key], Mapping):
            both[key] = merged(both[key], value, path=where)
        else:
            raise SpecError(f"{where}: is given twice, once by a parameter of submitit: give one of the two")
    return both


def moved(data: Mapping[str, Any], spec: SweepSpec, *, base: Path, folder: Path) -> dict[str, Any]:
    """The data for a sweep file in `folder`, when its paths were relative to `base`.

    Args:
        data: Of the spec.
        spec: The same with absolute paths.
        base: Absolute.
        folder: Absolute.
    """
    train = dict(data["train"])
    for key, value in train.items():
        absolute = getattr(spec.train, key, None)
        if key == "function":
            file, colon, name = str(absolute).rpartition(":")
            train[key] = f"{_relative(file, folder)}{colon}{name}" if os.path.isabs(file) else value
        elif key == "workdir" or _is_path(value, absolute):
            train[key] = _relative(str(absolute), folder)
    if "workdir" not in train and folder != base:
        train["workdir"] = _relative(str(base), folder)
    if train.get("workdir") == ".":
        del train["workdir"]
    data = {**data, "train": train}
    if isinstance(section := data.get("cluster"), Mapping):
        data["cluster"] = {
            key: _relative(str(absolute), folder) if _is_path(value, absolute) else value
            for key, value in section.items()
            for absolute in [getattr(spec.cluster, key, None)]
        }
    if spec.warm_start:
        data["warm_start"] = [_relative(path, folder) for path in spec.warm_start]
    return data


def _is_path(given: object, absolute: object) -> bool:
    """Whether reading has made an absolute path of what was given."""
    return isinstance(given, str) and isinstance(absolute, str) and given != absolute and absolute[:1] == "/"


def _relative(path: str, folder: Path) -> str:
    """The path as seen from the folder where it lies in it, else as it is."""
    inside = Path(path).is_relative_to(folder)
    return os.path.relpath(path, folder) if inside else path


def objects_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """Valid data of a spec as objects; what has no class, as of another package, stays as it is."""
    return {key: _object_of(key, value) for key, value in data.items() if value is not None}


def _object_of(key: str, value: Any) -> Any:
    match key:
        case "space":
            return {name: _parameter(each) for name, each in value.items()}
        case "stop" if isinstance(value, list):
            return [_named(each, objects.schedulers) for each in value]
        case "objective" if isinstance(value, list):
            return [_object_of(key, each) for each in value]
        case "stop" | "scheduler":
            return _named(value, objects.schedulers)
        case "searcher":
            return _named(value, objects.searchers)
        case "cluster":
            return _cluster(value)
        case _:
            cls = getattr(objects, key.capitalize(), None)
            return cls(**value) if cls is not None and issubclass(cls, Section) else value


def _parameter(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    cls = _classes(objects.parameters, "type")[value["type"]]
    options = {key: option for key, option in value.items() if key != "type"}
    if issubclass(cls, Listed):
        values = options.pop("values")
        return cls(values, **options) if len(values) == 1 else cls(*values, **options)
    return cls(**options)


def _named(value: Any, module: Any) -> Any:
    name = value if isinstance(value, str) else value.get("name")
    cls = _classes(module, "name").get(str(name))
    if cls is None:
        return value
    options = {} if isinstance(value, str) else {key: each for key, each in value.items() if key != "name"}
    return cls(**options)


def _cluster(value: Mapping[str, Any]) -> Any:
    cls = _classes(objects.clusters, "name").get(value.get("name", "auto"))
    own = {key: each for key, each in value.items() if key != "name"}
    # The keys of one cluster may be in the section of another: a sweep for Slurm may be tried here.
    if cls is not None and own.keys() <= cls.__dataclass_fields__.keys():
        return cls(**own)
    known = value.keys() <= objects.Cluster.__dataclass_fields__.keys()
    return objects.Cluster(**value) if known else value


def _classes(module: Any, attribute: str) -> dict[str, Any]:
    """The classes of the module by their names in YAML."""
    return dict(_by_name(module, attribute))


def _by_name(module: Any, attribute: str) -> Iterator[tuple[str, type[Part]]]:
    for name in module.__all__:
        cls = getattr(module, name)
        if issubclass(cls, Named | Parameter | NamedCluster):
            yield getattr(cls, attribute), cls
