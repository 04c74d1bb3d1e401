"""Ticks of tasks that go on: they hand over runs, and ask the cluster seldom, over all of them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcsweep import tick
from hpcsweep.core.cluster_protocol import SubmittedBatch
from hpcsweep.core.events import RunsAssigned, TaskBegan, TaskLeft
from hpcsweep.core.models import RunStatus
from hpcsweep.core.state import SweepState
from hpcsweep.session import session as session_module
from hpcsweep.session.target import Target
from hpcsweep.store.journal import current_driver
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.requests import Request, write_request
from tests.doubles import SHAPE
from tests.test_tick import Site, Time


class ReusingSite(Site):
    """The same sweep in four tasks that keep their GPUs and do nothing unless a test says so."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, reuse=True)

    def go_on(self, *tasks: int, runs: int = 1) -> None:
        """Tasks begin, or do so many of the runs that they were given, or leave."""
        name, batch = self.batch.name, self.batch
        folder = self.layout.batch(name).root
        live = SubmittedBatch(name, "", folder, len(batch.tasks), batch.throttle, SHAPE, ())
        for task in tasks:
            self.cluster.go_on(live, task, runs)

    def tick_beside(self) -> int:
        """A tick of a task that goes on; how often it asked the cluster."""
        before = self.cluster.polls
        argv = [str(self.root), "--batch", self.batch.name, "--task", "0", "--job", "7_0", "--goes-on"]
        assert tick.main(argv, {}) == 0
        return self.cluster.polls - before

    def kinds(self, kind: type) -> int:
        return sum(isinstance(event, kind) for event in self.events())


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReusingSite:
    site = ReusingSite(tmp_path)

    def resolve(spec: object, *, name: str | None, state: SweepState | None) -> Target:
        return site.place

    monkeypatch.setattr(session_module, "resolve_target", resolve)
    return site


def test_ticks_together_ask_the_cluster_once_in_five_seconds(site: ReusingSite, passing: Time) -> None:
    site.go_on(0, 1, 2, 3)
    assert site.tick_beside() == 1
    assert site.kinds(TaskBegan) == site.kinds(RunsAssigned) == 4
    asked_at = passing.now
    asked = 0
    while site.state.counts[RunStatus.COMPLETED] < 4:
        site.go_on(site.state.counts[RunStatus.COMPLETED])
        asked += site.tick_beside()
    assert asked <= 1 + (passing.now - asked_at) / tick.POLL_S


def test_what_ended_meanwhile_is_followed_by_a_promotion_before_the_cluster_is_asked_again(
    site: ReusingSite, passing: Time
) -> None:
    site.go_on(0, 1, 2, 3)
    site.tick_beside()
    site.go_on(0, 1, 2, 3)
    promoted: list[int] = []
    passing.then[passing.sleeps + 1] = lambda: promoted.append(site.cluster.polls)
    before = site.cluster.polls
    assert site.tick_beside() == 1, "in full at last: what changed may need more tasks"
    assert promoted == [before], "not before it was handed over"
    assert site.state.counts[RunStatus.COMPLETED] == 4
    assert site.kinds(RunsAssigned) >= 5


def test_a_tick_takes_up_results_and_requests_that_come_while_it_stays(
    site: ReusingSite, passing: Time
) -> None:
    site.go_on(0, 1, 2, 3)
    site.tick_beside()
    later: list[Callable[[], object]] = [
        lambda: site.go_on(0),
        lambda: site.go_on(1),
        lambda: write_request(site.layout, Request("stop", 0.0, "me")),
    ]
    for number, action in enumerate(later, start=passing.sleeps + 1):
        passing.then[number] = action
    began = passing.now
    site.tick_beside()
    assert site.state.counts[RunStatus.COMPLETED] == 2
    assert site.state.stopping is not None
    assert passing.now - began <= tick.STAY_S + tick.POLL_S + 1.0


def test_a_tick_leaves_soon_when_nothing_comes_and_others_let_commands_go_first(
    site: ReusingSite, passing: Time
) -> None:
    site.go_on(0, 1, 2, 3)
    began = passing.now
    site.tick_beside()
    assert passing.now - began <= tick.STAND_BACK_S + tick.QUIET_S + 1.0
    began, polls = passing.now, site.cluster.polls
    site.tick_beside()
    assert passing.now - began > tick.STAND_BACK_S / 2, "the journal was let go just now"
    assert site.cluster.polls == polls, "nothing has changed"


def test_tasks_that_leave_one_after_another_need_not_ask_the_cluster_each(
    site: ReusingSite, passing: Time
) -> None:
    site.go_on(0, 1, 2, 3)
    site.tick_beside()
    before = site.cluster.polls
    assert site.tick(site.batch.name, 1) == 0
    assert site.cluster.polls == before, "three others go on"
    passing.now += tick.POLL_S
    assert site.tick(site.batch.name, 1) == 0
    assert site.cluster.polls == before + 1
    assert site.kinds(TaskLeft) == 0


def test_the_last_task_that_leaves_leaves_the_end_to_the_job_behind_its_array(
    site: ReusingSite, passing: Time
) -> None:
    site.go_on(0, 1, 2, 3)
    while site.state.counts[RunStatus.COMPLETED] < 7:
        tick.note_poll(site.layout)
        assert site.tick(site.batch.name, 0) == 0
        site.go_on(0, 1, 2, 3)
    polls = site.cluster.polls
    tick.note_poll(site.layout)
    assert site.tick(site.batch.name, 0) == 0
    assert (site.kinds(TaskLeft), site.cluster.polls) == (4, polls)
    assert site.state.ended is None
    assert site.tick(job=site.batch.tick_job) == 0
    assert site.state.ended is not None


def test_a_tick_that_is_told_to_end_lets_go_of_the_journal_and_submits_nothing(
    site: ReusingSite, passing: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another machine nobody would know that it is gone."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # of the tests' own process
    site.go_on(0, 1, 2, 3)
    site.tick_beside()
    site.go_on(0, 1, 2)
    called = len(site.cluster.called)
    passing.then[passing.sleeps + 2] = tick.leave_at_once
    with pytest.raises(SystemExit):
        site.tick_beside()
    assert site.state.counts[RunStatus.COMPLETED] == 3
    assert len(site.cluster.called) == called
    assert current_driver(read_journal(site.layout)) is None
    site.go_on(3)
    site.tick_beside()
    assert site.state.counts[RunStatus.COMPLETED] == 4


def test_a_tick_loads_no_tables_no_figures_and_no_models() -> None:
    """It holds GPUs, and reads these from a shared filesystem."""
    heavy = ("pandas", "plotly", "pyarrow", "scipy", "sklearn", "torch", "typer", "rich")
    code = (
        "import sys; import hpcsweep.tick, hpcsweep.session.session, hpcsweep.cluster.slurm.backend; "
        "from hpcsweep.cluster.slurm.cluster import SlurmCluster; "
        "from hpcsweep.cluster.slurm.options import SlurmOptions; SlurmCluster(SlurmOptions()); "
        f"print(*set({heavy!r}) & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
