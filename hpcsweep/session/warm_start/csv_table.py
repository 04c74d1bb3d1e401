"""A CSV file: a row for each trial, or for each of its reports, with columns for parameters and the metric.

The names are those of the space and of the objective, bare or as tools write them: `config.lr` (`hpcsweep
export`), `params_lr` (Optuna's `trials_dataframe`), `config/lr` (Ray's `get_dataframe`). Others are ignored.
Of several objectives each has a column: `loss`, `values.loss`, `values_loss` or, in their order, `values_0`.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hpcsweep.core.domains import Choice, Constant, Domain, Float, Int, Ordinal
from hpcsweep.core.objectives import Objectives
from hpcsweep.core.space import Space
from hpcsweep.core.text import json_key
from hpcsweep.errors import SpecError
from hpcsweep.session.warm_start.earlier import Earlier, Rungs, canonical_name
from hpcsweep.spec import SweepSpec

PREFIXES: Final = ("", "config.", "config/", "params_", "params.", "params/")
RESOURCES: Final = ("resource", "training_iteration", "step", "epoch")
STATES: Final = ("status", "state")
_FAILED: Final = ("failed", "fail", "error")
_OPEN: Final = ("running", "waiting", "submitted", "pending")


def read(spec: SweepSpec, path: Path, part: str, key: str) -> Iterator[Earlier]:
    """Each configuration with its rows; see `Reader`."""
    try:
        names, rows = _rows(path)
    except OSError as error:
        raise SpecError(f"{key}: {path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"{key}: {path}: is no CSV file in UTF-8: {error}") from error
    columns = _columns(spec.space, names)
    metrics = [_metric(spec.objectives, index, names) for index in range(len(spec.objectives))]
    if None in metrics:
        metric, shown = spec.objectives.metrics[metrics.index(None)], ", ".join(names)
        raise SpecError(f"{key}: {path} has no column {metric!r}; there are {shown}")
    measured = [name for name in metrics if name is not None]
    missing = [p.name for p in spec.space.columns if p.name not in columns and not p.when]
    if missing:
        raise SpecError(f"{key}: {path} has no column {missing[0]!r}; there are {', '.join(names)}")
    taken = {*measured, *columns.values()}
    resource = next((name for name in RESOURCES if name in names and name not in taken), None)
    state = next((name for name in STATES if name in names and name not in taken), None)
    rungs = Rungs(spec)
    trials: dict[Any, tuple[dict[str, Any], list[Mapping[str, str]]]] = {}
    for number, row in enumerate(rows):
        config = _config(spec.space, {name: row[column].strip() for name, column in columns.items()})
        # Rows of one configuration at several resources are one trial.
        same = json_key(config) if resource is not None else number
        trials.setdefault(same, (config, []))[1].append(row)
    for config, own in trials.values():
        yield _earlier(config, own, rungs, metrics=measured, resource=resource, state=state)


def _metric(objectives: Objectives, index: int, names: Sequence[str]) -> str | None:
    """The column of one objective."""
    metric = objectives.metrics[index]
    if len(objectives) == 1:
        written = [metric, "value"]
    else:
        written = [metric, f"values.{metric}", f"values_{metric}", f"values_{index}"]
    return next((name for name in written if name in names), None)


def _rows(path: Path) -> tuple[Sequence[str], list[dict[str, str]]]:
    """Column names, and rows in which no cell is missing."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        head = file.readline()
        file.seek(0)
        reader = csv.DictReader(file, delimiter=max(",;\t", key=head.count), restval="")
        rows = [{name: value for name, value in row.items() if isinstance(name, str)} for row in reader]
        return list(reader.fieldnames or ()), rows


def _columns(space: Space, names: Sequence[str]) -> dict[str, str]:
    """The column of each parameter that has one."""
    known = {canonical_name(name): name for name in reversed(names)}
    found = {}
    for name in space.names:
        written = (canonical_name(f"{prefix}{name}") for prefix in PREFIXES)
        column = next((known[each] for each in written if each in known), None)
        if column is not None:
            found[name] = column
    return found


def _config(space: Space, cells: Mapping[str, str]) -> dict[str, Any]:
    """The configuration of a row: an empty cell is an inactive parameter, or null where that is a value."""
    domains = {parameter.name: parameter.domain for parameter in space.parameters}
    config = {name: parse_cell(domains[name], text) for name, text in cells.items() if text}
    for parameter in space.topological_order:
        name = parameter.name
        null = isinstance(parameter.domain, Choice | Ordinal) and None in parameter.domain.values
        if null and name in cells and name not in config and space.is_active(name, config):
            config[name] = None
    return config


def parse_cell(domain: Domain, text: str) -> Any:
    """The value that a cell stands for; its text where it is none of the domain's kind."""
    plain = _json(text)
    match domain:
        case Float() | Int():
            try:
                number = float(text)
            except ValueError:
                return text
            return int(number) if isinstance(domain, Int) and number.is_integer() else number
        case Choice(values) | Ordinal(values):
            for value in values:
                if text in (value, str(value)) or json_key(plain) == json_key(value):
                    return value
                if _is_number(value) and _is_number(plain) and float(value) == float(plain):
                    return value
            return plain
        case Constant(value):
            return value if text == str(value) else plain


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _earlier(
    config: dict[str, Any],
    rows: Sequence[Mapping[str, str]],
    rungs: Rungs,
    *,
    metrics: Sequence[str],
    resource: str | None,
    state: str | None,
) -> Earlier:
    reports: dict[int, Sequence[float | None]] = {}
    failed = False
    why = ""
    for row in rows:
        said = row[state].strip().lower().rpartition(".")[2] if state is not None else ""
        numbers = [_float(row[metric]) for metric in metrics]
        step = _float(row[resource]) if resource is not None else None
        if said in _OPEN:
            why = "no result yet"
        elif said in _FAILED or any(number is not None and not math.isfinite(number) for number in numbers):
            failed = True
        elif all(number is None for number in numbers):
            why = f"{metrics[0]}: no number"
        elif step is not None and not (math.isfinite(step) and step >= 1):
            why = f"{resource}: must be at least 1"
        else:
            reports[rungs.full if step is None else int(step)] = numbers
            if None in numbers:
                why = f"{metrics[numbers.index(None)]}: no number"
    return rungs.earlier(config, reports, failed=failed, why=why)


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
