"""Trials as rows, one each, with all that is known of them: what `trials`, `best -n` and notebooks show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from hpcsweep.core.domains import Choice, Ordinal
from hpcsweep.core.events import AnyEvent, RunFinished, RunInterrupted
from hpcsweep.core.expressions import Expression
from hpcsweep.core.models import Trial
from hpcsweep.core.space import Space
from hpcsweep.core.state import SweepState
from hpcsweep.core.text import suggest_name
from hpcsweep.errors import SpecError
from hpcsweep.store.batch import trial_seed
from hpcsweep.views.configurations import valued_configurations
from hpcsweep.views.tables import failure_kind, trial_status

if TYPE_CHECKING:
    import pandas as pd

#: Times, Unix seconds in rows and timestamps in frames.
_TIMES: Final = ("started", "ended")
_WHOLE: Final = (
    "trial",
    "resource",
    "rung",
    "bracket",
    "attempts",
    "seed",
    "repeat",
    "parent",
    "front",
    "place",
)
#: Where a name of an expression or a sort key is looked for, the first one first.
_NESTED: Final = ("config", "values", "metrics")


def trial_rows(
    state: SweepState, events: Iterable[AnyEvent], metrics: Mapping[int, Mapping[str, float]]
) -> list[dict[str, Any]]:
    """A row for each trial, by number.

    `value`, `resource` and `rung` are those of the highest rung that gave a value, `seconds` and
    `gpu_seconds` what all attempts took. `attempts` tells how often its runs were begun, requeues by the
    cluster included; see `Run.attempts`. `started` is when the first attempt began, `ended` when the last one
    that has ended did, as far as results tell, in Unix seconds by the clock of the node. What is unknown is
    None.
    With several objectives a row has also all `values` by metric, of its configuration the number of its
    `front` and its `place` in the whole sweep, both from 1, and whether it is `infeasible`.

    Args:
        state: Of the sweep.
        events: All of them.
        metrics: Trial -> what it reported last, by metric.
    """
    started, ended = _times(events)
    seed = int(state.started.identity.get("searcher", {}).get("seed", 0)) if state.started else 0
    rows: list[dict[str, Any]] = []
    standing = _standing(state)
    for trial in state.trials:
        last, newest = trial.last_completed, trial.runs[-1]
        rows.append(
            {
                "trial": trial.trial,
                "status": trial_status(trial),
                "failure": failure_kind(newest),
                "value": last.value if last else None,
                "resource": last.achieved_resource if last else None,
                "rung": last.rung if last else None,
                "bracket": trial.bracket,
                "config": dict(trial.config),
                "metrics": dict(metrics.get(trial.trial, {})),
                "seconds": sum(run.seconds for run in trial.runs),
                "gpu_seconds": sum(run.gpu_seconds for run in trial.runs),
                "attempts": trial.attempts,
                "started": started.get(trial.trial),
                "ended": ended.get(trial.trial),
                "seed": trial_seed(seed, trial.trial),
                "repeat": trial.repeat,
                "parent": trial.parent,
                "origin": trial.origin,
                "node": newest.node or None,
                "job": newest.job or None,
                "message": trial.stopped or newest.message or None,
            }
        )
        if standing is not None:
            rows[-1] |= standing(trial, last.values if last else ())
    return rows


def _standing(state: SweepState) -> Callable[[Trial, tuple[float, ...]], dict[str, Any]] | None:
    """What a row has beside the rest where there are several objectives; None with one."""
    objectives = state.objectives
    if not objectives.several:
        return None
    from hpcsweep.views.fronts import front_numbers

    fronts = front_numbers(state)
    keys = {first: state.value_key(first) for first in fronts}
    places = {first: int(key[0]) + 1 for first, key in keys.items() if key is not None}

    def standing(trial: Trial, values: tuple[float, ...]) -> dict[str, Any]:
        first = trial.trial - trial.repeat
        return {
            "values": dict(zip(objectives.metrics, values, strict=True)) if values else {},
            "front": fronts.get(first),
            "place": places.get(first),
            "infeasible": objectives.violation(values) > 0 if values else None,
        }

    return standing


def _times(events: Iterable[AnyEvent]) -> tuple[dict[int, float], dict[int, float]]:
    """When trials began and ended, as far as results tell."""
    started: dict[int, float] = {}
    ended: dict[int, float] = {}
    for event in events:
        if isinstance(event, RunFinished | RunInterrupted) and event.started is not None:
            end = event.started + event.seconds
            started[event.trial] = min(event.started, started.get(event.trial, event.started))
            ended[event.trial] = max(end, ended.get(event.trial, end))
    return started, ended


def best_rows(rows: Sequence[Mapping[str, Any]], state: SweepState, n: int) -> list[dict[str, Any]]:
    """The first trials of the best `n` configurations, best first; with repeats `value` is their mean."""
    ranked = sorted(valued_configurations(state), key=lambda each: state.value_key(each.trial) or ())
    found = []
    for each in ranked[:n]:
        row = dict(rows[each.trial]) | {"value": each.value, "resource": each.resource, "rung": each.rung}
        if each.values:
            row["values"] = dict(zip(state.objectives.metrics, each.values, strict=True))
            row["infeasible"] = state.objectives.violation(each.values) > 0
        found.append(row)
    return found


def known_names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """What expressions and sort keys may name: parameters, metrics, columns."""
    nested = Counter(f"{part}.{name}" for row in rows for part in _NESTED for name in row.get(part, ()))
    short = dict.fromkeys(name.partition(".")[2] for name in nested)
    columns = [name for row in list(rows)[:1] for name in row if name not in _NESTED]
    return [*dict.fromkeys([*short, *columns, *nested])]


def names_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The values that expressions see; a parameter hides a metric, and that a column, of its name."""
    found = {name: value for name, value in row.items() if name not in _NESTED}
    for part in reversed(_NESTED):
        nested = row.get(part, {})
        found |= nested
        found |= {f"{part}.{name}": value for name, value in nested.items()}
    return {name: value for name, value in found.items() if value is not None}


def select_rows(rows: Sequence[dict[str, Any]], where: str) -> list[dict[str, Any]]:
    """The rows for which the expression holds; one that lacks a name of it is left out.

    Raises:
        SpecError: It is no expression, names something unknown, or cannot be computed.
    """
    try:
        expression = Expression(where)
        known = known_names(rows)
        for name in sorted(expression.names - set(known)):
            if rows:
                raise ValueError(suggest_name(name, known, kind=f"name {name!r}"))
        seen = [(row, names_of(row)) for row in rows]
        return [row for row, names in seen if expression.names <= names.keys() and expression.evaluate(names)]
    except ValueError as error:
        raise SpecError(f"--where: {error}") from None


def sort_rows(
    rows: Sequence[dict[str, Any]], key: str | None, *, minimise: bool = True
) -> list[dict[str, Any]]:
    """Best first, or by a name, with `-` before it the largest first; rows without it come last.

    Raises:
        SpecError: There is no such name, or its values cannot be ordered.
    """
    name = (key or "value").removeprefix("-")
    if key is None:
        falling = not minimise and not (rows and "place" in rows[0])
    else:
        falling = key.startswith("-")
        known = known_names(rows)
        if rows and name not in known:
            raise SpecError(f"--sort: {suggest_name(name, known, kind=f'name {name!r}')}")
    keyed: list[tuple[Any, dict[str, Any]]] = []
    rest: list[dict[str, Any]] = []
    for row in rows:
        value = row.get("place", row["value"]) if key is None else names_of(row).get(name)
        if value is None or value != value:
            rest.append(row)
        else:
            keyed.append((value, row))
    kinds = {isinstance(value, int | float) for value, _ in keyed}
    as_text = kinds == {True, False} or not all(isinstance(value, int | float | str) for value, _ in keyed)
    keyed.sort(key=lambda pair: str(pair[0]) if as_text else pair[0], reverse=falling)
    return [*(row for _, row in keyed), *rest]


def rows_frame(rows: Sequence[Mapping[str, Any]], space: Space | None = None) -> pd.DataFrame:
    """The rows as a frame: names with `config.` or `metrics.` before them, times as timestamps.

    Whole numbers and booleans stay what they are where some are missing (`Int64`, `boolean`). Parameters
    whose listed values are texts are categories, ordered ones of ordinals.

    Args:
        rows: As of `trial_rows`.
        space: Of the sweep, for the categories.
    """
    import pandas as pd

    flat = [
        {name: value for name, value in row.items() if name not in _NESTED}
        | {f"{part}.{name}": value for part in _NESTED for name, value in row.get(part, {}).items()}
        for row in rows
    ]
    frame = pd.DataFrame(flat)
    listed = _categories(space) if space else {}
    for name in frame.columns:
        values = [row.get(name) for row in flat]
        kinds = {type(value) for value in values if value is not None}
        if name in _TIMES:
            times = pd.to_datetime(pd.Series(values, dtype="float64"), unit="s", utc=True)
            frame[name] = times.dt.as_unit("us")
        elif name in listed and {value for value in values if value is not None} <= {*listed[name][0]}:
            frame[name] = pd.Categorical(values, *listed[name])
        elif kinds == {int} or name in _WHOLE:
            frame[name] = pd.Series(values, dtype="int64" if None not in values else "Int64")
        elif kinds == {bool}:
            frame[name] = pd.Series(values, dtype="bool" if None not in values else "boolean")
        elif (kinds <= {int, float} and kinds) or name == "value":
            frame[name] = pd.Series(values, dtype="float64")
    if not frame.empty:
        frame.insert(list(frame.columns).index("ended") + 1, "duration", frame["ended"] - frame["started"])
    return frame


def _categories(space: Space) -> dict[str, tuple[list[object], bool]]:
    """By column: the values of a parameter that are all texts, and whether they are ordered."""
    found: dict[str, tuple[list[object], bool]] = {}
    for parameter in space.columns:
        match parameter.domain:
            case Choice(values=values) | Ordinal(values=values) if all(isinstance(v, str) for v in values):
                found[f"config.{parameter.name}"] = [*values], isinstance(parameter.domain, Ordinal)
            case _:
                pass
    return found
