"""Several sweeps compared by their best values, at equal cost too, with confidence intervals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np

from hpcsweep.core.domains import Floats
from hpcsweep.core.objectives import Objective, Objectives, without_reference
from hpcsweep.errors import FolderError, SpecError
from hpcsweep.views.configurations import standard_error
from hpcsweep.views.progress import SweepProgress
from hpcsweep.views.results import Results, load

if TYPE_CHECKING:
    from hpcsweep.views.front_history import HypervolumeStep, Reference

#: What sweeps with several objectives are compared by.
HYPERVOLUME: Final = "hypervolume"
#: Shares of the smallest cost of any sweep at which the best values so far are compared.
SHARES: Final = (0.125, 0.25, 0.5, 1.0)
CONFIDENCE: Final = 0.95
#: Up to so many groups each is compared with each, more with the best one alone.
_ALL_PAIRS: Final = 5


class Estimate(NamedTuple):
    """The mean of repeats; the interval holds the true one with `CONFIDENCE`, None for a single sweep."""

    mean: float
    median: float
    low: float | None
    high: float | None


class Group(NamedTuple):
    """Sweeps that differ in nothing but the seed."""

    label: str
    sweeps: tuple[SweepSummary, ...]
    values: tuple[Estimate | None, ...]  # for each of the budgets; None while a sweep has no value


class Pair(NamedTuple):
    """Mean of `first` minus that of `second` at the largest budget; no interval where one is `single`."""

    first: str
    second: str
    difference: float
    low: float | None
    high: float | None
    single: tuple[str, ...] = ()

    def better(self, *, minimise: bool) -> str | None:
        """The one that is better beyond doubt; None if that is open."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return None
        return self.first if (self.high < 0) == minimise else self.second


class Comparison(NamedTuple):
    """Groups of sweeps, compared at `budgets` in `unit`; no budgets while a sweep has cost nothing."""

    metric: str
    minimise: bool
    unit: str  # `GPU-hours`, or `run-hours` where a sweep uses no GPU
    groups: tuple[Group, ...]
    budgets: tuple[float, ...]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]  # what makes them less comparable than they look

    @property
    def sweeps(self) -> list[SweepSummary]:
        return [sweep for group in self.groups for sweep in group.sweeps]


def compare(folders: Sequence[Path]) -> Comparison:
    """Read the folders and compare their sweeps.

    Raises:
        SpecError: Fewer than two folders, one of them twice, or they measured different things.
        FolderError: One is not a results folder.
        JournalError: A journal is damaged.
    """
    if len(folders) < 2:
        raise SpecError(f"DIR: give at least two results folders to compare, got {len(folders)}")
    loaded = [load(folder) for folder in folders]
    _check(loaded)
    states = [results.folder.state for results in loaded]
    gpus = all(state.spent_gpu_s > 0 or not state.spent_s for state in states)
    reference = _common_reference(loaded)
    sweeps = [summarise(results, gpus=gpus, reference=reference) for results in loaded]
    least = min(sweep.cost for sweep in sweeps)
    budgets = tuple(share * least for share in SHARES) if least > 0 else ()
    together: dict[bytes, list[SweepSummary]] = {}
    for sweep in sweeps:
        together.setdefault(sweep.settings, []).append(sweep)
    repeats = list(together.values())
    groups = tuple(
        Group(label, tuple(same), tuple(_estimate(_values(same, hours)) for hours in budgets))
        for label, same in zip(_labels(repeats), repeats, strict=True)
    )
    several = loaded[0].objectives.has_front
    minimise = loaded[0].minimise and not several
    return Comparison(
        metric=HYPERVOLUME if several else loaded[0].metric,
        minimise=minimise,
        unit="GPU-hours" if gpus else "run-hours",
        groups=groups,
        budgets=budgets,
        pairs=_pairs(groups, budgets, minimise=minimise) if budgets else (),
        notes=(*_front_notes(loaded[0].objectives, reference), *_notes(loaded, sweeps)),
    )


def _common_reference(loaded: Sequence[Results]) -> Reference | None:
    """Of the first configurations of all sweeps together; None with one objective, and without values."""
    objectives = loaded[0].objectives
    if not objectives.has_front:
        return None
    from hpcsweep.views.front_history import first_keys, reference_of

    if len({results.objectives.reference for results in loaded}) > 1:
        objectives = Objectives.read([without_reference(msgspec.to_builtins(each)) for each in objectives])
    changes = [results.folder.progress.values_changes for results in loaded]
    keys = [key for each in changes for key in first_keys(objectives, each)]
    return reference_of(objectives, keys) if keys else None


def _front_notes(objectives: Objectives, reference: Reference | None) -> Iterable[str]:
    if reference is not None:
        from hpcsweep.views.front_history import point_by_metric
        from hpcsweep.views.fronts import values_text

        point = values_text(point_by_metric(objectives, reference))
        others = "a point for these sweeps, with others it may be another"
        if reference.own:
            others = "the reference point of their sweep files"
        yield f"Hypervolumes are measured up to {point}: {others}."


def _check(loaded: Sequence[Results]) -> None:
    for first, second in itertools.combinations(loaded, 2):
        if first.path.resolve() == second.path.resolve():
            raise SpecError(f"{second.path}: is given twice; name each results folder once")
        started, other = first.folder.state.started, second.folder.state.started
        if started and other and started.sweep == other.sweep:
            raise SpecError(f"{second.path}: is a copy of {first.path}, the same sweep; name one of the two")
    measured = [", ".join(map(_objective_text, results.objectives)) for results in loaded]
    if len(set(measured)) > 1:
        raise SpecError(
            "must have the same objective to be compared; leave out what measured something else, got "
            + ", ".join(f"{what} in {results.path}" for what, results in zip(measured, loaded, strict=True))
        )


def _objective_text(objective: Objective) -> str:
    """`error (min)`, `latency (min, at most 50)`."""
    least = [] if objective.at_least is None else [f"at least {objective.at_least:g}"]
    most = [] if objective.at_most is None else [f"at most {objective.at_most:g}"]
    return f"{objective.metric} ({', '.join([objective.mode, *least, *most])})"


def _notes(loaded: Sequence[Results], sweeps: Sequence[SweepSummary]) -> Iterable[str]:
    simulated = [str(results.path) for results in loaded if results.simulated]
    if simulated:
        yield f"Simulated, with nothing trained: {', '.join(simulated)}."
    ways = {tuple(each.at for each in results.objectives) for results in loaded}
    if len(ways) > 1:
        yield "Not all take the value at the same step: objective.at is last in some, best in others."
    resources = sorted({sweep.best["resource"] for sweep in sweeps if sweep.best})
    if len(resources) > 1:
        yield f"The best values are of different resources: {', '.join(map(str, resources))}."
    if len({results.objectives.reference for results in loaded}) > 1:
        yield "Their sweep files give different reference points: none of them is taken."
    spaces = {msgspec.json.encode(results.identity.get("space"), order="sorted") for results in loaded}
    if len(spaces) > 1:
        yield "They searched different spaces."
    seeds = [(sweep.settings, sweep.seed) for sweep in sweeps]
    if len(set(seeds)) < len(seeds):
        yield "Some repeats have the same seed: what a searcher draws at random is no different in them."


# ---------------------------------------------------------------------- groups


def _labels(groups: Sequence[Sequence[SweepSummary]]) -> list[str]:
    """The shortest kind of name that tells the groups apart."""
    firsts = [group[0] for group in groups]
    kinds = (
        [sweep.name for sweep in firsts],
        [f"{sweep.searcher}/{sweep.scheduler}" for sweep in firsts],
        [sweep.label for sweep in firsts],
    )
    return next(labels for labels in kinds if len(set(labels)) == len(firsts))


def _values(sweeps: Sequence[SweepSummary], hours: float) -> Floats:
    return np.array([sweep.curve.at(np.array([hours]), "cost")[0] for sweep in sweeps])


def _estimate(values: Floats) -> Estimate | None:
    if np.isnan(values).any():
        return None
    mean, median = float(values.mean()), float(np.median(values))
    if len(values) < 2:
        return Estimate(mean, median, None, None)
    margin = _margin(values)
    return Estimate(mean, median, mean - margin, mean + margin)


def _margin(*samples: Floats) -> float:
    """Half of the interval of the sum (or difference) of the samples' means: Welch (1947).

    A bootstrap would promise too much of few repeats: of 3 normal values its 95 % are 74 %.
    """
    from scipy.stats import t

    errors = [(float(values.var(ddof=1)) / len(values), len(values) - 1) for values in samples]
    total = sum(error for error, _ in errors)
    if total == 0:
        return 0.0
    freedom = total**2 / sum(error**2 / count for error, count in errors)
    return float(t.ppf(0.5 + CONFIDENCE / 2, freedom)) * math.sqrt(total)


def _pairs(groups: Sequence[Group], budgets: Sequence[float], *, minimise: bool) -> tuple[Pair, ...]:
    """The better one of each pair comes first."""
    known = [group for group in groups if group.values[-1] is not None]
    known.sort(key=lambda group: _mean(group) if minimise else -_mean(group))
    pairs = [
        pair for pair in itertools.combinations(known, 2) if len(known) <= _ALL_PAIRS or pair[0] is known[0]
    ]
    return tuple(_pair(first, second, budgets[-1]) for first, second in pairs)


def _mean(group: Group) -> float:
    newest = group.values[-1]
    assert newest is not None
    return newest.mean


def _pair(first: Group, second: Group, hours: float) -> Pair:
    difference = _mean(first) - _mean(second)
    single = tuple(group.label for group in (first, second) if len(group.sweeps) == 1)
    if single:
        return Pair(first.label, second.label, difference, None, None, single)
    margin = _margin(*(_values(group.sweeps, hours) for group in (first, second)))
    return Pair(first.label, second.label, difference, difference - margin, difference + margin)


Axis: TypeAlias = Literal["cost", "time"]


class BestCurve(NamedTuple):
    """The best value so far, each time that it changed, `(n,)`."""

    time: Floats  # hours since the start, pauses between an end and a resumption left out
    cost: Floats  # GPU-hours by then, or run-hours where no GPU is used
    value: Floats

    def at(self, hours: Floats, axis: Axis) -> Floats:
        """The value by then; NaN before the first one."""
        steps = np.searchsorted(self.cost if axis == "cost" else self.time, hours, side="right")
        return np.concatenate([[math.nan], self.value])[steps]


class SweepSummary(NamedTuple):
    """One results folder."""

    path: Path
    name: str
    searcher: str
    scheduler: str
    seed: int | None
    state: str
    trials: int
    best: dict[str, Any] | None
    error: float | None  # standard error of the best value where that is a mean of repeats
    cost: float  # all GPU-hours, or run-hours where no GPU is used
    time: float  # hours, as in `BestCurve`
    curve: BestCurve
    settings: bytes  # everything but the seed: equal for sweeps that repeat each other

    @property
    def label(self) -> str:
        return str(self.path)


def summarise(results: Results, *, gpus: bool, reference: Reference | None = None) -> SweepSummary:
    """What is compared of a folder; its cost in GPU-hours or in run-hours.

    With several objectives the value of the best, the knee, is the hypervolume up to the reference point.
    """
    progress, identity = results.folder.progress, results.identity
    state = progress.state
    searcher = dict(identity.get("searcher", {}))
    name, resolved = str(searcher.get("name", "?")), state.started.resolved_searcher if state.started else ""
    best, curve = results.best, None
    if results.objectives.has_front:
        curve = _hypervolume_curve(progress, reference, gpus=gpus)
        best = None if best is None else best | {"value": float(curve.value[-1]) if len(curve.value) else 0.0}
    return SweepSummary(
        path=results.path,
        name=results.name,
        searcher=f"{name} ({resolved})" if resolved else name,
        scheduler=str(identity.get("scheduler", {}).get("name", "?")),
        seed=searcher.pop("seed", None),
        state=progress.status,
        trials=len(state.trials),
        best=best,
        error=standard_error(state) if curve is None else None,
        cost=(state.spent_gpu_s if gpus else state.spent_s) / 3600,
        time=progress.active_s / 3600,
        curve=_best_curve(progress, gpus=gpus) if curve is None else curve,
        settings=msgspec.json.encode(
            [
                identity | {"searcher": searcher, "objective": without_reference(identity.get("objective"))},
                resolved,
                _training(results),
            ],
            order="sorted",
        ),
    )


def _training(results: Results) -> object:
    """What was trained, which is no part of a sweep's identity; None where the spec is not in the folder."""
    try:
        return results.spec.get("train")
    except (FolderError, SpecError):
        return None


def _hypervolume_curve(progress: SweepProgress, reference: Reference | None, *, gpus: bool) -> BestCurve:
    steps: Sequence[HypervolumeStep] = ()
    if reference is not None:
        from hpcsweep.views.front_history import measured

        steps = measured(progress.state.objectives, progress.values_changes, reference).steps
    rows = [(s.active_s / 3600, (s.spent_gpu_s if gpus else s.spent_s) / 3600, s.value) for s in steps]
    time, cost, value = np.array(rows, dtype=float).reshape(-1, 3).T
    return BestCurve(time, cost, value)


def _best_curve(progress: SweepProgress, *, gpus: bool) -> BestCurve:
    changes = progress.best_changes
    # Another trial may have become the best with the same value.
    changes = [*changes[:1], *(new for old, new in pairwise(changes) if new.value != old.value)]
    rows = [(c.active_s / 3600, (c.spent_gpu_s if gpus else c.spent_s) / 3600, c.value) for c in changes]
    time, cost, value = np.array(rows, dtype=float).reshape(-1, 3).T
    return BestCurve(time, cost, value)
