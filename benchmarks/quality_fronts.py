"""Hypervolume that a searcher, a sampler of Optuna, or Ax, reaches with several objectives."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.random import default_rng

from benchmarks.front_problems import FRONTS, FrontProblem
from benchmarks.quality_ax import AX, ax_values
from benchmarks.quality_functions import OPTUNA
from hpcsweep.core import pareto
from hpcsweep.core.history import History
from hpcsweep.core.objectives import Objective, Objectives
from hpcsweep.searchers import make_searcher

#: After so many evaluations the hypervolume is looked at.
CHECKED: Final = (100, 200)
#: Ours and theirs, and what level means: medians within noise. `auto` is `gp` on all these problems.
FRONT_SEARCHERS: Final = ("random", "sobol", "evolution", "tpe", "auto")
PEERS: Final = (*(f"{OPTUNA}{name}" for name in ("NSGAIISampler", "TPESampler", "GPSampler")), AX)
#: Of one objective only.
SINGLE: Final = ("cmaes", f"{OPTUNA}CmaEsSampler")
NOISE: Final = 1.05


#: Values of each evaluation.
Points: TypeAlias = list[tuple[float, ...]]


class Cell(NamedTuple):
    """Hypervolumes of one method on one problem, one for each seed."""

    problem: str
    batch: int
    evaluations: int
    method: str


def print_fronts(found: Mapping[Cell, Sequence[float]]) -> bool:
    """Print the medians, and whether `auto` is level with the best peer in each cell and ahead in half.

    A cell of fewer seeds than the row has says of how many.
    """
    methods = list(dict.fromkeys(cell.method for cell in found))
    print("Median hypervolume (larger is better); in brackets the seeds of a cell that has fewer\n")
    print("| problem, batch, evaluations | seeds | " + " | ".join(methods) + " |")
    print("| --- | --- |" + " --- |" * len(methods))
    level = ahead = cells = 0
    for problem, batch, evaluations in dict.fromkeys(cell[:3] for cell in found):
        medians = {
            method: float(np.median(values))
            for method in methods
            if (values := found.get(Cell(problem, batch, evaluations, method)))
        }
        if not medians:
            continue
        seeds = {method: len(found[Cell(problem, batch, evaluations, method)]) for method in medians}
        most = max(seeds.values())
        row = (
            f"{medians[method]:.4g}" + (f" ({seeds[method]})" if seeds[method] < most else "")
            if method in medians
            else "-"
            for method in methods
        )
        print(f"| {problem}, {batch}, {evaluations} | {most} | " + " | ".join(row) + " |")
        peers = [value for method, value in medians.items() if method in PEERS]
        if peers and "auto" in medians:
            cells += 1
            level += medians["auto"] * NOISE >= max(peers)
            ahead += medians["auto"] > max(peers)
    reached = level == cells and 2 * ahead >= cells
    if cells:
        verdict = "reached" if reached else "NOT REACHED"
        print(f"\n{verdict}: auto is level with the best peer in {level} of {cells} cells, ahead in {ahead}")
    return reached or not cells


def checked_within(evaluations: int) -> list[int]:
    """After how many evaluations a sweep of so many is looked at."""
    return [count for count in CHECKED if count <= evaluations]


def hypervolumes(
    name: str,
    method: str,
    *,
    batch: int,
    evaluations: int,
    seed: int,
    checked: Sequence[int] | None = None,
) -> tuple[float, ...]:
    """Of one sweep after each of `checked` evaluations; a batch is evaluated before the next is asked for.

    `checked` is `checked_within` the evaluations by default.
    """
    problem = FRONTS[name]
    if method.startswith(OPTUNA):
        sampler = method.removeprefix(OPTUNA)
        values = _optuna_values(problem, sampler, batch=batch, evaluations=evaluations, seed=seed)
    elif method == AX:
        values = ax_values(problem, batch=batch, evaluations=evaluations, seed=seed)
    else:
        values = _our_values(problem, method, batch=batch, evaluations=evaluations, seed=seed)
    reference = np.array(problem.reference)
    return tuple(
        pareto.hypervolume(np.array(values[:count]), reference)
        for count in checked or checked_within(evaluations)
    )


def _our_values(problem: FrontProblem, method: str, *, batch: int, evaluations: int, seed: int) -> Points:
    objectives = Objectives(Objective(f"f{index}") for index in range(len(problem.reference)))
    searcher = make_searcher(method, seed=seed, options={}, trials=evaluations, objectives=objectives)
    history = History(problem.space, objectives=objectives)
    values: list[tuple[float, ...]] = []
    while (done := history.proposed) < evaluations:
        for config in searcher.ask(min(batch, evaluations - done), history, default_rng([seed, done])):
            values.append(problem.values(config))
            history.add(config)
        for index in range(done, history.proposed):
            history.observe(index, values[index][0], 1, key=(0.0, *values[index]))
        if history.proposed == done:
            break
    return values


def _optuna_values(problem: FrontProblem, sampler: str, *, batch: int, evaluations: int, seed: int) -> Points:
    """By Optuna's own ask and tell, with the sampler's defaults; ordered values are told by their index."""
    import optuna

    from hpcsweep.searchers.optuna_study import distributions, suggest_config

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    of = distributions(problem.space)
    values: list[tuple[float, ...]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        directions = [optuna.study.StudyDirection.MINIMIZE] * len(problem.reference)
        study = optuna.create_study(
            sampler=getattr(optuna.samplers, sampler)(seed=seed), directions=directions
        )
        while (done := len(values)) < evaluations:
            trials = [study.ask() for _ in range(min(batch, evaluations - done))]
            values += [problem.values(suggest_config(trial, problem.space, of)) for trial in trials]
            for trial, found in zip(trials, values[done:], strict=True):
                study.tell(trial, found)
    return values
