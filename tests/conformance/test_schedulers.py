"""Every scheduler of the table, alone and with stopping rules, passes the conformance suite."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import pytest

from hpcsweep.core.objectives import Objective, Objectives
from hpcsweep.core.protocols import Scheduler
from hpcsweep.schedulers import SCHEDULERS
from hpcsweep.schedulers.stopping_rules import Median, Plateau, WithStoppingRules
from hpcsweep.testing.schedulers import SPACE, SchedulerConformance
from tests.effort import by_effort


class Case(NamedTuple):
    """A scheduler of the table with small options."""

    scheduler: str
    options: dict[str, Any]
    with_rules: bool = False


#: A new entry of the table belongs here too.
CASES = {
    "fifo": Case("fifo", {"max_resource": 4, "trials": 11}),
    "halving": Case("halving", {"min_resource": 2, "max_resource": 10, "eta": 2, "rounds": 2}),
    "hyperband": Case("hyperband", {"max_resource": 9, "eta": 3}),
    "asha": Case("asha", {"max_resource": 10, "eta": 2, "trials": 20}),
    "asha, endless, with brackets": Case("asha", {"max_resource": 9, "brackets": 3}),
    "asha, stopping": Case("asha", {"max_resource": 9, "brackets": 2, "trials": 11, "stopping": True}),
    "halving, auto": Case("halving", {"min_resource": "auto", "max_resource": 9, "eta": 3, "rounds": 4}),
    "hyperband, auto": Case("hyperband", {"min_resource": "auto", "max_resource": 9, "iterations": 3}),
    "asha, auto": Case("asha", {"min_resource": "auto", "max_resource": 9, "eta": 2, "trials": 40}),
    "pbt": Case("pbt", {"population": 5, "interval": 2, "max_resource": 7, "space": SPACE, "seed": 0}),
}
CASES |= {
    f"{name}, with rules": CASES[name]._replace(with_rules=True)
    for name in ("fifo", "hyperband", "asha", "asha, stopping", "pbt")
}


#: Two objectives, and a bound that about half of the trials keep.
SEVERAL = Objectives([Objective("error"), Objective("speed", "max", at_least=0.4)])


def make(case: Case, objectives: Objectives) -> Scheduler:
    module, _, class_name = SCHEDULERS[case.scheduler].partition(":")
    options = {**case.options, "objectives": objectives}
    scheduler: Scheduler = getattr(import_module(module), class_name)(**options)
    if case.with_rules:
        median = Median(min_trials=2, objectives=objectives)
        return WithStoppingRules(scheduler, rules=[median, Plateau(patience=2, objectives=objectives)])
    return scheduler


def test_options_are_given_for_exactly_the_table() -> None:
    assert {case.scheduler for case in CASES.values()} == set(SCHEDULERS)


class TestSchedulers(SchedulerConformance):
    sweeps = by_effort(50, 3000, ci=150)

    @pytest.fixture(autouse=True, params=CASES)
    def _choose(self, request: pytest.FixtureRequest) -> None:
        self.case = CASES[request.param]

    def make_scheduler(self) -> Scheduler:
        return make(self.case, self.objectives)


class TestSchedulersOfSeveralObjectives(SchedulerConformance):
    sweeps = by_effort(12, 1000, ci=50)
    objectives = SEVERAL

    @pytest.fixture(autouse=True, params=CASES)
    def _choose(self, request: pytest.FixtureRequest) -> None:
        self.case = CASES[request.param]

    def make_scheduler(self) -> Scheduler:
        return make(self.case, self.objectives)
