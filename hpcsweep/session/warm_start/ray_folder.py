"""The results folder of an experiment of Ray Tune: a folder for each trial. Ray is not needed.

Each trial has `params.json`, `result.json` with a line for each report, and `error.txt` or `error.pkl` if it
failed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcsweep.errors import SpecError
from hpcsweep.session.warm_start.earlier import Earlier, Rungs, by_our_names
from hpcsweep.spec import SweepSpec


def read(spec: SweepSpec, path: Path, part: str, key: str) -> Iterator[Earlier]:
    """Each trial; see `Reader`. What is the same in all configurations and no parameter here is no matter."""
    folders = sorted(file.parent for file in path.glob("*/params.json"))
    try:
        configs = [by_our_names(spec.space, _flat(_json(folder / "params.json"))) for folder in folders]
        reports = [_reports(folder / "result.json") for folder in folders]
    except OSError as error:
        raise SpecError(f"{key}: {error.filename or path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SpecError(f"{key}: {path}: {error}") from error
    metrics, rungs = spec.objectives.metrics, Rungs(spec)
    known = sorted({name for rows in reports for row in rows for name in row if _number(row[name])})
    missing = [metric for metric in metrics if metric not in known]
    if any(reports) and missing:
        shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
        raise SpecError(f"{key}: {path} has no metric {missing[0]!r}; there are {shown}")
    fixed = _fixed(configs) - set(spec.space.names)
    for folder, config, rows in zip(folders, configs, reports, strict=True):
        values = {
            int(row.get("training_iteration", number)): [
                float(row[metric]) if _number(row.get(metric)) else None for metric in metrics
            ]
            for number, row in enumerate(rows, start=1)
        }
        failed = any((folder / name).exists() for name in ("error.txt", "error.pkl"))
        nan = any(map(_never_finite, zip(*values.values(), strict=True)))
        given = {name: value for name, value in config.items() if name not in fixed}
        yield rungs.earlier(given, values, failed=failed or nan)


def _reports(file: Path) -> list[dict[str, Any]]:
    """The lines of a file, flat; a torn last one is left out."""
    if not file.exists():
        return []
    rows = []
    lines = file.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(_flat(json.loads(line)))
        except ValueError:
            if number < len(lines):
                raise ValueError(f"{file}: line {number} is damaged") from None
    return rows


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: is damaged: {error}") from None


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, `{"optimizer/lr": 0.1}`, as Ray names them."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    found: dict[str, Any] = {}
    for name, item in value.items():
        found |= _flat(item, f"{prefix}/{name}" if prefix else str(name))
    return found


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _never_finite(values: Sequence[float | None]) -> bool:
    """Of one objective, in all reports: whether it had values, and none of them was finite."""
    known = [value for value in values if value is not None]
    return bool(known) and not any(map(math.isfinite, known))


def _fixed(configs: list[dict[str, Any]]) -> set[str]:
    """Names with the same value in all configurations."""
    names = {name for config in configs for name in config}
    return {
        name
        for name in names
        if all(name in config and config[name] == configs[0][name] for config in configs)
    }
