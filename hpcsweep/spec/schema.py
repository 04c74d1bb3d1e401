"""The JSON schema of sweep files, made from the models that validate them."""

from __future__ import annotations

from typing import Any, Final, get_args

from pydantic import BaseModel

from hpcsweep.cluster import ENTRY_POINTS
from hpcsweep.options import Section
from hpcsweep.plugins import entry_points
from hpcsweep.spec.load import KEYS
from hpcsweep.spec.models import (
    SCHEDULER,
    SEARCHER,
    STOP_RULE,
    Budget,
    Cluster,
    Kind,
    Objective,
    Retries,
    Store,
    Train,
    cluster_model,
)
from hpcsweep.spec.parameters import PARAMETER_MODELS
from hpcsweep.spec.resources import Resources

_DESCRIPTIONS: Final = {
    "name": "Name of the sweep, its jobs and its results folder. Default: the file name.",
    "train": "The training code.",
    "objective": "The metric to optimise, or a list of several.",
    "space": "The search space: a mapping of parameter names to a domain, a list of values or one value.",
    "constraints": "Expressions over parameters that every configuration must satisfy.",
    "searcher": "Proposes configurations: a name, or a mapping with a name and options. Default: auto.",
    "scheduler": "Decides which trials start, continue and stop: a name, or a mapping. Default: fifo.",
    "stop": "Rules that stop running trials early: a name, a mapping or a list of these.",
    "repeats": "Trainings of each configuration, each with its own seed; their mean is compared.",
    "enqueue": "Configurations to try first; missing parameters are sampled.",
    "warm_start": "Earlier results to learn from: folders of hpcsweep or Ray Tune, Optuna studies, CSV.",
    "resources": "Resources of one run.",
    "cluster": "Where the sweep runs, and how much of it it may use.",
    "budget": "Limits of the whole sweep.",
    "retries": "How often a failed or interrupted run is repeated.",
    "store": "Limits of what the sweep keeps on disk.",
}
_SEED: Final = {
    "type": "integer",
    "minimum": 0,
    "default": 0,
    "description": "The same seed, spec and results give the same sweep.",
}


def json_schema() -> dict[str, Any]:
    """A JSON schema (draft 2020-12) of sweep files, short forms included."""
    properties: dict[str, Any] = {
        "name": {"type": ["string", "null"], "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
        "train": _object(Train),
        "objective": {
            "anyOf": [_object(Objective), {"type": "array", "minItems": 1, "items": _object(Objective)}]
        },
        "space": {"type": "object", "minProperties": 1, "additionalProperties": _parameter()},
        "constraints": {"type": ["array", "null"], "items": {"type": "string"}},
        "searcher": _named(SEARCHER, default=SEARCHER.default, seed=_SEED),
        "scheduler": _named(SCHEDULER, default=SCHEDULER.default),
        "stop": _stop(),
        "repeats": {"type": ["integer", "null"], "minimum": 1, "default": 1},
        "enqueue": {"type": ["array", "null"], "items": {"type": "object"}},
        "warm_start": {
            "anyOf": [{"type": ["string", "null"]}, {"type": "array", "items": {"type": "string"}}]
        },
    }
    for key, section in (
        ("resources", _object(Resources)),
        ("cluster", _cluster()),
        ("budget", _object(Budget)),
        ("retries", _object(Retries)),
        ("store", _object(Store)),
    ):
        properties[key] = {"anyOf": [section, {"type": "null"}]}
    assert tuple(properties) == KEYS
    for key, schema in properties.items():
        schema["description"] = _DESCRIPTIONS[key]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "hpcsweep sweep",
        "type": "object",
        "properties": properties,
        "required": ["train", "objective", "space"],
        "additionalProperties": False,
    }


def _object(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    schema.pop("title", None)
    defaults = model.model_construct().model_dump(mode="json")
    for key, field in schema.get("properties", {}).items():
        field.pop("title", None)
        if key in defaults:
            field["default"] = defaults[key]
        if "description" in field:
            field["description"] = " ".join(field["description"].split())
    return schema


def _cluster() -> dict[str, Any]:
    forms = [_cluster_form(cluster_model(""))]
    for point in entry_points(group=ENTRY_POINTS):
        form = _cluster_form(cluster_model(point.name))
        form["properties"]["name"] = {"const": point.name}
        form["required"] = ["name", *form.get("required", [])]
        forms.append(form)
    return {"anyOf": forms} if len(forms) > 1 else forms[0]


def _cluster_form(model: type[Cluster]) -> dict[str, Any]:
    schema = _object(model)
    schema.pop("$defs", None)  # a reference would lead out of this part of the schema
    for key, field in model.model_fields.items():
        for kind in get_args(field.annotation):
            if isinstance(kind, type) and issubclass(kind, Section):
                schema["properties"][key] |= {"anyOf": [_object(kind), {"type": "null"}], "default": None}
            elif listed := _listed(kind):
                form = {"type": "array", "items": _object(listed)}
                schema["properties"][key] |= {"anyOf": [form, {"type": "null"}], "default": None}
    return schema


def _listed(kind: Any) -> type[Section] | None:
    """The section of which a type has several; None if it has none."""
    for part in get_args(kind):
        if isinstance(part, type) and issubclass(part, Section):
            return part
        if (found := _listed(part)) is not None:
            return found
    return None


def _parameter() -> dict[str, Any]:
    models = dict.fromkeys(PARAMETER_MODELS.values())
    short = [
        {"type": "array", "minItems": 1, "description": "A choice of these values."},
        {"type": ["number", "string", "boolean"], "description": "A constant."},
    ]
    return {"anyOf": [*map(_object, models), *short]}


def _named(kind: Kind, *, default: str = "", **common: Any) -> dict[str, Any]:
    """A name alone, or a mapping with the options of that name."""
    alone, forms = [], []
    for name in kind.names():
        try:
            form = _object(kind.model(name))
        except Exception:  # of a package that cannot be imported
            continue
        required = form.get("required", [])
        if not required:
            alone.append(name)
        form["properties"] = {"name": {"const": name}, **common, **form.get("properties", {})}
        if name != default:
            form["required"] = ["name", *required]
        forms.append(form)
    return {"anyOf": [{"enum": alone}, *([{"type": "null"}] if default else []), *forms]}


def _stop() -> dict[str, Any]:
    rule = _named(STOP_RULE)
    return {"anyOf": [*rule["anyOf"], {"type": "array", "items": rule}, {"type": "null"}]}
