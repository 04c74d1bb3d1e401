"""Resources that differ between runs: how they are written, and what is checked of them at load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcsweep.core.cluster_protocol import TaskResources
from hpcsweep.core.run_resources import RunContext
from hpcsweep.errors import SpecError
from hpcsweep.spec.load import read_spec
from hpcsweep.spec.sweep import SweepSpec

BASE: dict[str, Any] = {
    "name": "s",
    "train": {"command": "true {args} {resource}", "check": False},
    "objective": {"metric": "loss"},
    "space": {
        "width": {"type": "int", "low": 256, "high": 4096, "log": True},
        "act": ["relu", "gelu"],
        "momentum": {"type": "float", "low": 0.0, "high": 0.9, "when": {"act": "relu"}},
    },
    "scheduler": {"name": "hyperband", "max_resource": 9, "eta": 3},
}


def load(resources: dict[str, Any], **sections: Any) -> SweepSpec:
    return read_spec({**BASE, "resources": resources, **sections}, source="s.yaml", folder=Path("/x"))


def problems(resources: dict[str, Any], **sections: Any) -> list[str]:
    with pytest.raises(SpecError) as error:
        load(resources, **sections)
    return str(error.value).splitlines()


def test_each_number_may_be_an_expression() -> None:
    written = {
        "gpus": "1 if width <= 1024 else 4",
        "cpus": "4 * gpus",
        "mem": "8 * 1024 if width > 512 else 4096",
        "time": "600 * resource",
    }
    spec = load(written)
    run = RunContext({"width": 600, "act": "gelu"}, resource=3, start=1, rung=1)
    assert spec.run_resources.of(run) == TaskResources(1, 4, 8192, 1800)
    assert spec.largest_run == TaskResources(4, 16, 8192, 5400)
    assert spec.resources.plain() == {"nodes": 1, **written}
    assert read_spec(spec.resolved(), source="again", folder=Path("/x")) == spec


def test_time_may_grow_with_the_resource() -> None:
    written = {"time": {"base": "2m", "per_unit": "90s", "max": "12h"}}
    spec = load(written)
    assert spec.run_resources.of(RunContext({}, resource=9, start=3)).time_s == 660
    assert spec.largest_run.time_s == 120 + 90 * 9
    time = {"base": "2m", "per_unit": "1m30s", "max": "12h"}
    assert spec.resources.plain() == {"nodes": 1, "gpus": 0, "cpus": 1, "time": time}
    assert read_spec(spec.resolved(), source="again", folder=Path("/x")) == spec


@pytest.mark.parametrize(
    "written",
    [
        {"mem": {"start": "16G", "max": "128G"}},
        {"mem": {"start": "'8G' if width < 999 else '4G'", "factor": 1.5, "max": "64G"}},
        {"mem": "auto", "time": "auto"},
        {"mem": {"max": "64G"}, "time": {"max": "12h"}},
        {"time": {"per_unit": "2 * width"}},
    ],
)
def test_memory_and_time_may_grow_or_be_learned(written: dict[str, Any]) -> None:
    spec = load(written)
    assert spec.resources.plain() == {"nodes": 1, "gpus": 0, "cpus": 1, **written}
    assert read_spec(spec.resolved(), source="again", folder=Path("/x")) == spec


def test_the_first_runs_of_what_is_learned_get_the_most_that_may_be_asked_for() -> None:
    assert load({"mem": "auto", "time": "auto"}).largest_run == TaskResources()
    most = load({"mem": {"max": "64G"}, "time": {"max": "12h"}})
    assert most.largest_run == TaskResources(mem_mib=65536, time_s=43200)


def test_the_most_memory_that_a_run_may_get_must_be_there() -> None:
    assert load({"mem": {"start": "16G", "max": "128G"}}).largest_run.mem_mib == 131072


def test_changed_resources_leave_the_sweep_the_same() -> None:
    assert load({"gpus": "1 if width < 999 else 2"}).identity() == load({"gpus": 1}).identity()


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (
            {"gpus": "1 if widht <= 1024 else 4", "cpus": "4 * gpu"},
            [
                "s.yaml: resources.gpus: unknown name 'widht'; did you mean 'width'?",
                "s.yaml: resources.cpus: unknown name 'gpu'; did you mean 'gpus'?",
            ],
        ),
        (
            {"gpus": "cpus"},
            [
                (
                    "s.yaml: resources.gpus: unknown name 'cpus'; expected one of: width, act, momentum, "
                    "resource, start, rung, attempt"
                )
            ],
        ),
        (
            {"gpus": "2"},
            [
                "s.yaml: resources.gpus: must be an integer or an expression over parameters, got '2'",
            ],
        ),
        (
            {"gpus": "1 if width"},
            [
                (
                    "s.yaml: resources.gpus: must be an integer or an expression over parameters, got "
                    "'1 if width': column 1: expected 'else' after 'if' expression"
                )
            ],
        ),
        (
            {"gpus": 1.5, "mem": 16, "time": "90"},
            [
                "s.yaml: resources.gpus: must be an integer or an expression over parameters, got 1.5",
                "s.yaml: resources.mem: must be a size with its unit such as 500M or 16G, got 16",
                (
                    "s.yaml: resources.time: must be a time with its unit such as 90s, 30m, 2h or 01:30:00, "
                    "got '90'"
                ),
            ],
        ),
        (
            {"time": {"base": "auto", "per_unit": "auto"}, "mem": {"start": "auto", "max": "8G"}},
            [
                (
                    "s.yaml: resources.mem.start: must be a size with its unit such as 16G or an expression "
                    "over parameters, got 'auto'; leave out start to have it learned"
                ),
                *(
                    f"s.yaml: resources.time.{key}: must be a time with its unit such as 90s or an "
                    "expression over parameters, got 'auto'; leave out base and per_unit to have it learned"
                    for key in ("base", "per_unit")
                ),
            ],
        ),
        (
            {"time": {"base": "2m", "per_uint": "90s"}, "mem": {"start": "16G"}},
            [
                "s.yaml: resources.mem: must have max, the most memory that a run gets",
                "s.yaml: resources.time.per_uint: unknown key; did you mean 'per_unit'?",
            ],
        ),
        (
            {"time": {"base": "2m"}, "mem": {"start": "16G", "max": "8G"}},
            [
                "s.yaml: resources.mem: start must be at most max (8G), got 16G",
                "s.yaml: resources.time: must have per_unit, the time of one unit of resource, beside base",
            ],
        ),
        (
            {"time": {}, "mem": {"factor": 2, "max": "8G"}},
            [
                "s.yaml: resources.mem: must have start beside factor",
                "s.yaml: resources.time: must have per_unit, or max for a time that is learned",
            ],
        ),
        (
            {"mem": {"start": "16 * widht", "factor": 1, "max": "8G"}},
            ["s.yaml: resources.mem.factor: must be > 1, got 1"],
        ),
        (
            {"mem": {"start": "16 * widht", "max": "8G"}},
            [("s.yaml: resources.mem.start: unknown name 'widht'; did you mean 'width'?")],
        ),
        (
            {"cpus": "width // 512"},
            [
                (
                    "s.yaml: resources.cpus: must give a whole number from 1 to 1000000, got 0 of "
                    "'width // 512' for width=267"
                )
            ],
        ),
        (
            {"time": "60 / (3 - resource) ** 2"},
            [
                (
                    "s.yaml: resources.time: '60 / (3 - resource) ** 2' cannot be computed for resource=3: "
                    "division by zero"
                )
            ],
        ),
        (
            {"mem": "1000 * momentum + 10"},
            [
                (
                    "s.yaml: resources.mem: '1000 * momentum + 10' cannot be computed for momentum=None: "
                    "needs a number, got None; momentum is None where it is inactive: write "
                    "'... if momentum is not None else ...'"
                )
            ],
        ),
    ],
)
def test_errors_name_the_key_what_was_expected_and_the_values(
    resources: dict[str, Any], expected: list[str]
) -> None:
    assert problems(resources) == expected


def test_rare_corners_of_the_space_are_tried() -> None:
    assert problems({"gpus": "1 if width < 4096 else 20000"}) == [
        (
            "s.yaml: resources.gpus: must give a whole number from 0 to 10000, got 20000 of "
            "'1 if width < 4096 else 20000' for width=4096"
        )
    ]


def test_configurations_that_break_a_constraint_are_not_tried() -> None:
    spec = load({"gpus": "1 if width < 4096 else 20000"}, constraints=["width < 4000"])
    assert spec.largest_run.gpus == 1


def test_what_exceeds_a_cap_names_the_configurations() -> None:
    resources = {"gpus": "8 if width == 4096 else 1", "time": "40 * (rung + 1)"}
    assert problems(resources, cluster={"max_gpus": 4}) == [
        (
            "s.yaml: cluster.max_gpus: must be at least the 8 of one task (resources.gpus x concurrent) for "
            "width=4096, got 4"
        ),
        "s.yaml: cluster.signal: must be less than resources.time (40 seconds for rung=0), got 60",
    ]


def test_what_a_retry_asks_for_is_held_to_the_caps_before_the_sweep_begins() -> None:
    assert problems({"gpus": "4 if attempt else 1"}, cluster={"max_gpus": 2}) == [
        (
            "s.yaml: cluster.max_gpus: must be at least the 4 of one task (resources.gpus x concurrent) for "
            "attempt=1, got 2"
        )
    ]
