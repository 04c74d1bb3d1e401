"""What `status` says of the pools of a cluster."""

from __future__ import annotations

import pytest

from hpcsweep.core.events import AnyEvent, BatchClosed, BatchPlanned, BatchSubmitted, PoolSkipped, TaskBegan
from hpcsweep.core.state import SweepState
from hpcsweep.views.format import pool_text, warning_lines
from hpcsweep.views.pools import pool_records

SINCE = "since 60 s after the simulation began"
BEGAN = TaskBegan("b", 650.0, 0, 0, started=640.0, ends=None, node="n1", job="1_0")


def planned(name: str, pool: str, *, tasks: int, gpus: int) -> list[AnyEvent]:
    batch = BatchPlanned(name, 100.0, ((),) * tasks, gpus, tasks, reuse=True, pool=pool)
    return [batch, BatchSubmitted(name, "1", 100.0)]


@pytest.mark.parametrize(
    ("events", "lines"),
    [
        ([], []),
        (planned("b", "", tasks=2, gpus=4), []),
        (planned("b", "a100", tasks=2, gpus=4), ["a100: 8 GPUs submitted; 0 GPU-hours"]),
        (
            [*planned("b", "a100", tasks=2, gpus=4), BEGAN],
            ["a100: 4 GPUs in use, 4 more submitted; 0 GPU-hours"],
        ),
        (
            [*planned("b", "low", tasks=1, gpus=4), BEGAN, BatchClosed("b", 1800.0, 7200.0)],
            ["low: no tasks; 2 of 100 GPU-hours"],
        ),
        (
            [*planned("b", "a100", tasks=1, gpus=1), PoolSkipped("a100", 1e9 + 60, "1 task waited")],
            ["a100: 1 GPU submitted; 0 GPU-hours"],
        ),
    ],
)
def test_each_pool_tells_what_it_holds_and_what_it_has_cost(events: list[AnyEvent], lines: list[str]) -> None:
    cluster = {"pools": [{"partition": "a100"}, {"name": "low", "partition": "p", "gpu_hours": 100}]}
    assert [pool_text(record) for record in pool_records(SweepState.replay(events), cluster)] == lines


@pytest.mark.parametrize("spent", [False, True])
def test_a_pool_that_gets_no_more_tasks_is_a_warning_with_its_reason(spent: bool) -> None:
    state = SweepState.replay([PoolSkipped("a100", 1e9 + 60, "why", spent)])
    assert warning_lines(state, now=1e9) == [f"gets no more tasks: pool a100 ({SINCE}): why"]
    [record] = pool_records(state, {})
    assert (record["skipped"], record["since"]) == ("why", 1e9 + 60)
