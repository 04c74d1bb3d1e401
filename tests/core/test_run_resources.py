"""What one run needs, by its configuration, rung and attempt."""

from __future__ import annotations

from typing import Any

import pytest

from hpcsweep.core.cluster_protocol import DefaultLimits, TaskResources
from hpcsweep.core.expressions import Expression
from hpcsweep.core.run_resources import Learned, MemorySteps, RunContext, RunResources, UnitTime

WIDE = RunContext({"width": 2048, "act": "relu"}, resource=9, start=3, rung=2, attempt=1)
NARROW = WIDE._replace(config={"width": 256, "act": "gelu"})


def text(expression: str) -> Expression:
    return Expression(expression)


def test_constants_are_the_same_for_every_run() -> None:
    resources = RunResources(gpus=1, cpus=4, mem_mib=16384, time_s=1800)
    every = TaskResources(gpus=1, cpus=4, mem_mib=16384, time_s=1800)
    assert resources.constant == resources.of(WIDE) == resources.of(NARROW) == every


def test_expressions_are_computed_for_each_run() -> None:
    resources = RunResources(
        gpus=text("1 if width <= 1024 else 4"),
        cpus=text("4 * gpus"),
        mem_mib=text("'64G' if act == 'relu' else 1000.5"),
        time_s=text("60 * (resource - start) * (1 + attempt) + rung + gpus + cpus"),
    )
    assert resources.constant is None
    assert resources.of(WIDE) == TaskResources(4, 16, 65536, 742)
    assert resources.of(NARROW) == TaskResources(1, 4, 1001, 727)


@pytest.mark.parametrize(
    ("start", "resource", "time_s"), [(0, 1, 210), (0, 9, 900), (3, 9, 660), (9, 9, 120), (0, 10**6, 900)]
)
def test_time_by_units_counts_those_that_are_left_up_to_its_maximum(
    start: int, resource: int, time_s: int
) -> None:
    resources = RunResources(time_s=UnitTime(120, 90, 900))
    assert resources.of(RunContext({}, resource, start)).time_s == time_s


def test_units_may_take_a_time_that_depends_on_the_configuration() -> None:
    resources = RunResources(time_s=UnitTime(text("'2m' if gpus else 60"), text("width / 1024")))
    assert resources.of(WIDE).time_s == 60 + 12


def test_parameters_go_before_what_the_run_has_of_its_own() -> None:
    run = RunContext({"rung": 7, "gpus": 3}, resource=1)
    assert RunResources(gpus=1, cpus=text("rung + gpus")).of(run).cpus == 10


def test_inactive_parameters_are_none() -> None:
    resources = RunResources(cpus=text("1 if momentum is None else 2"))
    assert resources.of(RunContext({}, 1)).cpus == 1
    assert resources.of(RunContext({"momentum": 0.5}, 1)).cpus == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"gpus": text("width // 4096 - 1")},
            (
                "resources.gpus: must give a whole number from 0 to 10000, got -1 of 'width // 4096 - 1' for "
                "width=2048"
            ),
        ),
        (
            {"cpus": text("width / 4096")},
            (
                "resources.cpus: must give a whole number from 1 to 1000000, got 0.5 of 'width / 4096' for "
                "width=2048; round it with ceil(...)"
            ),
        ),
        (
            {"gpus": text("width > 1024")},
            (
                "resources.gpus: must give a whole number from 0 to 10000, got true of 'width > 1024' for "
                "width=2048"
            ),
        ),
        (
            {"mem_mib": text("width - 2048")},
            "resources.mem: must give more than 0, got 0 of 'width - 2048' for width=2048",
        ),
        (
            {"mem_mib": text("width * 2 ** 40")},
            (
                "resources.mem: must give at most 1048576T, got 2251799813685248 of 'width * 2 ** 40' for "
                "width=2048"
            ),
        ),
        (
            {"mem_mib": text("'16' if width else 1")},
            (
                "resources.mem: \"'16' if width else 1\": must be a size with its unit such as 500M or 16G, "
                "got '16'"
            ),
        ),
        (
            {"time_s": text("1 / (width - 2048)")},
            "resources.time: '1 / (width - 2048)' cannot be computed for width=2048: division by zero",
        ),
        (
            {"time_s": text("act == 'relu'")},
            (
                "resources.time: must give seconds, or a text such as '30m', got true of \"act == 'relu'\""
                " for act='relu'"
            ),
        ),
        (
            {"time_s": UnitTime(0.0, text("0 - width"))},
            "resources.time.per_unit: must be >= 0, got -2048",
        ),
        (
            {"cpus": text("2 * momentum")},
            (
                "resources.cpus: '2 * momentum' cannot be computed for momentum=None: needs a number, got "
                "None; momentum is None where it is inactive: write '... if momentum is not None else ...'"
            ),
        ),
    ],
)
def test_what_cannot_be_computed_says_where_and_for_which_values(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        RunResources(**given).of(WIDE)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("lacked_mib", "mem_mib"),
    [(0, 100), (50, 100), (100, 200), (150, 200), (200, 400), (801, 1000), (1000, 1000)],
)
def test_memory_grows_step_by_step_beyond_what_was_too_little(lacked_mib: int, mem_mib: int) -> None:
    resources = RunResources(mem_mib=MemorySteps(100, 1000))
    assert resources.of(RunContext({}, 1, lacked_mib=lacked_mib)).mem_mib == mem_mib
    assert resources.allows_more_memory(lacked_mib) is (lacked_mib < 1000)


def test_a_small_factor_is_a_step_as_well() -> None:
    resources = RunResources(mem_mib=MemorySteps(text("width"), 4096, factor=1.0001))
    assert resources.of(WIDE._replace(lacked_mib=2048)).mem_mib == 2049


@pytest.mark.parametrize(("idle_timeouts", "time_s"), [(0, 210), (1, 420), (2, 840), (3, 900), (99, 900)])
def test_time_doubles_after_each_time_out_without_progress_up_to_its_maximum(
    idle_timeouts: int, time_s: int
) -> None:
    run = RunContext({}, 1, idle_timeouts=idle_timeouts)
    assert RunResources(time_s=UnitTime(120, 90, 900)).of(run).time_s == time_s
    assert RunResources(time_s=UnitTime(120, 90)).of(run).time_s == 210, "the site may allow no more"


@pytest.mark.parametrize(("first", "first_mib"), [(None, None), (7200, 8000)])
def test_what_is_learned_is_asked_for_until_it_was_too_little(first: int, first_mib: int) -> None:
    resources = RunResources(time_s=Learned(first), mem_mib=Learned(first_mib))
    run = RunContext({}, 1)
    learned = run._replace(expected_s=600, expected_mib=1000)
    asked = [
        (run, (first, first_mib)),
        (learned, (600, 1000)),
        (learned._replace(short_guesses=1), (1200, 1000)),
        (learned._replace(short_guesses=2, lacked_mib=1000), (first, first_mib)),
    ]
    for context, expected in asked:
        needs = resources.of(context)
        assert (needs.time_s, needs.mem_mib) == expected
    assert (resources.is_guess(600), resources.is_guess(7200), resources.is_guess(0)) == (
        True,
        first is None,
        False,
    )
    assert resources.allows_more_memory(1000)
    assert resources.allows_more_memory(8000) is (first_mib is None)


def test_no_more_than_at_first_is_asked_for() -> None:
    resources = RunResources(time_s=Learned(500), mem_mib=Learned(500))
    needs = resources.of(RunContext({}, 1, expected_s=600, expected_mib=600))
    assert (needs.time_s, needs.mem_mib) == (500, 500)


def test_less_than_the_cluster_gives_by_default_is_asked_for_where_others_used_less() -> None:
    resources = RunResources(gpus=1, defaults=DefaultLimits(3600, 8000))
    run = RunContext({}, 1)
    learned = run._replace(expected_s=600, expected_mib=1000)
    asked = [
        (run, (None, None)),
        (learned, (600, 1000)),
        (learned._replace(short_guesses=1), (1200, 1000)),
        (learned._replace(short_guesses=2, lacked_mib=1000), (None, None)),
        (learned._replace(expected_s=1801, expected_mib=4001), (None, None)),
    ]
    for context, expected in asked:
        needs = resources.of(context)
        assert (needs.gpus, needs.time_s, needs.mem_mib) == (1, *expected)
    assert resources.constant == TaskResources(gpus=1), "all runs are alike to a driver"
    assert [resources.is_guess(time_s) for time_s in (0, 600, 3600)] == [False, True, False]
    assert [resources.allows_more_memory(mib) for mib in (1000, 8000)] == [True, False]
    assert resources.learns
    assert resources.watches_memory


def test_what_the_spec_gives_is_not_learned() -> None:
    given = RunResources(time_s=60, mem_mib=100, defaults=DefaultLimits(3600, 8000))
    needs = given.of(RunContext({}, 1, expected_s=30, expected_mib=50))
    assert (needs.time_s, needs.mem_mib) == (60, 100)
    assert (given.learns, given.watches_memory, given.is_guess(30), given.changes) == (
        False,
        False,
        False,
        [],
    )


def test_what_changes_as_the_sweep_goes_on_is_said() -> None:
    assert RunResources(defaults=DefaultLimits(3600, 8192)).changes == [
        "memory of a run: the cluster's default of 8G at first, then as much as others used, never more",
        "time limit of a run: the cluster's default of 1h at first, then what others took, never more",
    ]
    assert RunResources(mem_mib=100, time_s=60).changes == []
    assert RunResources(mem_mib=MemorySteps(16384, 131072), time_s=Learned(43200)).changes == [
        "memory of a run: 16G at first, 2 times as much each time it runs out of it, up to 128G",
        "time limit of a run: 12h at first, then what others took",
    ]
    assert RunResources(mem_mib=Learned(), time_s=Learned()).changes == [
        "memory of a run: the cluster's default at first, then as much as others used",
        "time limit of a run: the cluster's default at first, then what others took",
    ]
