"""What sweeps live through, on real daemons.

Each scenario has a cluster of its own, and several go on at a time: most of them wait.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hpcsweep.cluster.script import packaged_templates
from hpcsweep.core.events import (
    BatchPlanned,
    BatchSubmitted,
    CheckpointsDropped,
    CheckpointsRemoved,
    ClusterMessage,
    Interruption,
    NodeExcluded,
    RunFinished,
    RunInterrupted,
    TasksReleased,
)
from tests.compacted import batch_files

from .conftest import require_slurm
from .fixture import NODES, PrivateSlurm
from .sweeps import Sweep, finish, outcome, undisturbed, wait_until

AT_A_TIME = 5

#: Writes down each epoch that it trains, and makes a checkpoint after each.
TRAINER = """\
import time
from pathlib import Path

def train(trial):
    for step in trial.steps():
        time.sleep(trial.config["pause"])
        with open(Path(__file__).with_name("epochs"), "a") as epochs:
            epochs.write(f"{trial.id} {step}\\n")
        trial.report(step, loss=(trial.config["x"] - 0.3) ** 2 + 1 / step)
        with trial.checkpoint(step) as folder:
            (folder / "state").write_text(str(step))
"""
#: Tests that must find all trials running do what they do before the third epoch.
HOLD = {"hold": "step == 3"}
#: A command line that waits for sbatch no longer than 3 s.
IMPATIENT = (
    sys.executable,
    "-c",
    "import hpcsweep.cluster.slurm.programs as s; s.SBATCH_S = 3; from hpcsweep.__main__ import main; main()",
)

Scenario = Callable[[PrivateSlurm, Path], None]
#: One that believes within seconds that a job can never start.
HASTY = (
    sys.executable,
    "-c",
    (
        "import hpcsweep.driver.live_batches as f; f.RECORDED_AFTER_S, f.IMPOSSIBLE_AFTER_S = 2, 5; "
        "from hpcsweep.__main__ import main; main()"
    ),
)
_scenarios: dict[str, tuple[dict[str, Any], Scenario]] = {}


@pytest.fixture(autouse=True)
def _on_the_private_cluster() -> None:
    """In place of the session's cluster, which nothing here uses."""
    require_slurm()


@pytest.fixture(scope="module")
def ended(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Future[None]]:
    """The scenarios of all tests that were asked for, each at its end."""
    require_slurm()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return {
            item.name: pool.submit(_play, *_scenarios[item.name], tmp_path_factory.mktemp("survival"))
            for item in request.session.items
            if item.name in _scenarios and item.path == request.path
        }


def _play(options: dict[str, Any], scenario: Scenario, folder: Path) -> None:
    cluster = PrivateSlurm(**options)
    cluster.start()
    try:
        scenario(cluster, folder)
    except BaseException as error:
        error.add_note(cluster.last_log_lines(5))
        raise
    finally:
        cluster.stop()


def on_a_cluster(**options: Any) -> Callable[[Scenario], Callable[[dict[str, Future[None]]], None]]:
    """Make a test of a scenario, on a private cluster with these options."""

    def make(scenario: Scenario) -> Callable[[dict[str, Future[None]]], None]:
        _scenarios[scenario.__name__] = options, scenario

        def test(ended: dict[str, Future[None]]) -> None:
            ended[scenario.__name__].result()

        return test

    return make


def fifo(trials: int, epochs: int) -> tuple[str, str]:
    """So many independent trials of so many epochs."""
    return f"scheduler={{name: fifo, max_resource: {epochs}}}", f"budget.trials={trials}"


def every_run_once(sweep: Sweep, n: int) -> None:
    """All runs are completed and counted once, and each array was submitted once."""
    runs = Counter((event.trial, event.rung) for event in sweep.of_kind(RunFinished))
    assert set(runs.values()) == {1}
    assert len(runs) == n
    assert list(sweep.runs["outcome"]) == ["completed"] * n
    assert len({batch for batch, _ in sweep.submitted()}) == len(sweep.of_kind(BatchSubmitted))
    assert sweep.arrays() <= sweep.submitted(), "no array that the journal does not know"


def interruptions(sweep: Sweep) -> Counter[tuple[str, bool]]:
    """How often which it was, and whether Slurm itself ran the task again."""
    return Counter((event.interruption.value, event.requeued) for event in sweep.of_kind(RunInterrupted))


def waiting(sweep: Sweep) -> int:
    """How many trials have trained two epochs."""
    return len({trial for trial, step in sweep.epochs() if step == 2})


# --------------------------------------------------------------------------- the long ones first


@on_a_cluster()
def test_a_controller_that_is_down_for_two_minutes_changes_nothing(slurm: PrivateSlurm, folder: Path) -> None:
    hold = {"hold": "trial.resource == 1 and trial.id >= 4"}
    with Sweep(slurm, folder, trainer=TRAINER, pause=1.0, max_gpus=4, holds=hold) as sweep:
        driver = sweep.launch()
        wait_until("the first runs have ended", lambda: len(sweep.of_kind(RunFinished)) >= 4)

        def later() -> list[str]:
            return [row.task for row in slurm.squeue(states="running") if int(row.task) >= 4]

        wait_until("others run", lambda: len(later()) == 4)
        slurm.stop_controller()
        before = len(sweep.events)
        sweep.release("hold")
        time.sleep(120)
        meanwhile = sweep.events[before:]
        slurm.start_controller()
        finish(driver)
        allowed = {RunFinished, CheckpointsDropped, CheckpointsRemoved, ClusterMessage}
        assert {type(event) for event in meanwhile} <= allowed, (
            "results that were on their way, and the outage"
        )
        assert {RunFinished, ClusterMessage} <= {type(event) for event in meanwhile}
        assert interruptions(sweep) == {}
        assert (sweep.runs["attempts"] == 1).all()
        every_run_once(sweep, 22)


@on_a_cluster()
def test_a_trial_that_ignores_signals_goes_on_from_its_checkpoint_after_a_time_limit(
    slurm: PrivateSlurm, folder: Path
) -> None:
    deaf = TRAINER.replace("trial.steps()", "range(trial.start + 1, trial.resource + 1)")
    limit = ("resources.time=1m", "cluster.signal=0")
    with Sweep(slurm, folder, *fifo(2, 110), *limit, trainer=deaf, pause=1.0) as sweep:
        sweep.finish()
        every_run_once(sweep, 2)
        assert interruptions(sweep).keys() == {("timeout", False)}
        for event in sweep.of_kind(RunInterrupted):
            assert event.progressed
            assert event.node in NODES
        for trial in range(2):
            steps = [step for which, step in sweep.epochs() if which == trial]
            attempts = 1 + sum(event.trial == trial for event in sweep.of_kind(RunInterrupted))
            assert attempts >= 2
            assert len(steps) <= 110 + attempts - 1, "nothing before its last checkpoint is trained again"


@on_a_cluster(min_job_age=2)
def test_a_driver_that_sleeps_while_its_jobs_vanish_finds_every_result(
    slurm: PrivateSlurm, folder: Path
) -> None:
    hold = {"hold": "trial.resource == 1 and trial.id >= 4"}
    with Sweep(slurm, folder, trainer=TRAINER, pause=0.2, holds=hold) as sweep:
        driver = sweep.launch()
        wait_until("some runs have ended", lambda: len(sweep.of_kind(RunFinished)) >= 2)
        driver.send_signal(signal.SIGSTOP)
        sweep.release("hold")
        wait_until("Slurm remembers nothing of it", lambda: slurm.squeue() == [])
        driver.send_signal(signal.SIGCONT)
        finish(driver)
        assert interruptions(sweep) == {}
        assert (sweep.runs["attempts"] == 1).all()
        every_run_once(sweep, 22)


@contextlib.contextmanager
def preempting(slurm: PrivateSlurm) -> Iterator[None]:
    """Short jobs of the urgent partition take whole nodes from sweeps that run there."""
    done = threading.Event()
    argv = ["sbatch", "--partition=urgent", "--exclusive", "--time=1", "--output=/dev/null", "--wrap=sleep 1"]

    def preempt() -> None:
        while not done.wait(2.5):
            busy = [row.node for row in slurm.squeue(states="running") if row.name.startswith("free-")]
            if busy:
                slurm.run(*argv, f"--nodelist={busy[-1]}")

    thread = threading.Thread(target=preempt)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@on_a_cluster()
def test_preempted_throughout_a_sweep_ends_as_undisturbed(slurm: PrivateSlurm, folder: Path) -> None:
    trials = "budget.trials=30"
    decided, epochs, best = undisturbed(folder / "undisturbed", trials, max_resource=27)
    hold = {"hold": "trial.resource == 27"}
    with Sweep(slurm, folder / "s", trials, max_resource=27, trainer=TRAINER, pause=0.2, holds=hold) as sweep:
        with preempting(slurm):
            driver = sweep.launch()
            wait_until("three were preempted", lambda: interruptions(sweep)["preempted", True] >= 3)
            sweep.release("hold")
            finish(driver)
        assert outcome(sweep.folder) == decided
        assert sweep.status()["best"]["trial"] == best
        every_run_once(sweep, 45)
        assert {requeued for _, requeued in interruptions(sweep)} == {True}
        assert epochs <= len(sweep.epochs()) <= epochs + interruptions(sweep).total()


# --------------------------------------------------------------------------- nodes


def job_processes(slurm: PrivateSlurm, node: str) -> list[int]:
    """Processes of the jobs on this node, and the daemons that watch over them."""
    ours = {f"SLURM_CONF={slurm.conf}".encode(), f"SLURMD_NODENAME={node}".encode()}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if ours <= set((folder / "environ").read_bytes().split(b"\0")):
                found.append(int(folder.name))
    return found


@on_a_cluster()
def test_runs_of_a_failed_node_go_on_elsewhere(slurm: PrivateSlurm, folder: Path) -> None:
    with Sweep(slurm, folder, *fifo(16, 24), trainer=TRAINER, holds=HOLD, pause=1.0, max_gpus=16) as sweep:
        driver = sweep.launch()
        wait_until("every trial waits", lambda: waiting(sweep) == 16)
        there = Counter(row.node for row in slurm.squeue(states="running"))
        assert there == dict.fromkeys(NODES, 4)
        for node in ("n2", "n3"):
            slurm.kill_node(node)
            slurm.run("scontrol", "update", f"nodename={node}", "state=down", "reason=broken")
        for pid in job_processes(slurm, "n3"):  # at n2 they live on, as behind a broken switch
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        sweep.release("hold")
        finish(driver)
        every_run_once(sweep, 16)
        assert interruptions(sweep) == {("node_fail", True): 8}
        assert Counter(event.node for event in sweep.of_kind(RunInterrupted)) == {"n2": 4, "n3": 4}
        assert sweep.status()["interrupted"] == {"node_fail": 8}


@on_a_cluster(kill_wait=60)
def test_a_requeue_of_a_whole_array_is_lived_through_by_each_of_its_tasks(
    slurm: PrivateSlurm, folder: Path
) -> None:
    with Sweep(slurm, folder, *fifo(6, 12), trainer=TRAINER, holds=HOLD, pause=0.5, max_gpus=4) as sweep:
        driver = sweep.launch()
        wait_until("four trials wait", lambda: waiting(sweep) == 4)
        ((_, array),) = sweep.submitted()
        slurm.run("scontrol", "requeue", array, check=False)  # it complains of those that wait
        sweep.release("hold")
        finish(driver)
        every_run_once(sweep, 6)
        assert interruptions(sweep) == {("preempted", True): 4}
        assert sorted(sweep.runs["attempts"]) == [1, 1, 2, 2, 2, 2]
        assert Counter(sweep.epochs()).most_common(1)[0][1] == 1, "an epoch with a checkpoint is not repeated"


@on_a_cluster()
def test_a_node_where_everything_dies_is_left_out(slurm: PrivateSlurm, folder: Path) -> None:
    setup = 'cluster.setup=["[ $SLURMD_NODENAME != n2 ] || { echo no GPU here >&2; exit 1; }"]'
    with Sweep(slurm, folder, *fifo(28, 2), "cluster.grace=1", setup, pause=1, max_gpus=16) as sweep:
        driver = sweep.launch()
        wait_until("a node is left out", lambda: len(sweep.of_kind(NodeExcluded)) > 0)
        driver.send_signal(signal.SIGSTOP)  # or the sweep ends while it is looked at
        (told,) = sweep.status()["excluded"]
        assert told["node"] == "n2"
        assert "no GPU here" in told["reason"]
        assert "excluded: n2" in sweep.told("status")
        driver.send_signal(signal.SIGCONT)
        finish(driver)
        every_run_once(sweep, 28)
        # Those that waited in the queue while it looked as if all would fail alike were on no node.
        begun = [e for e in sweep.of_kind(RunInterrupted) if e.interruption is not Interruption.NOT_STARTED]
        assert {event.node for event in begun} == {"n2"}
        (excluded,) = sweep.of_kind(NodeExcluded)
        position = sweep.events.index(excluded)
        assert (
            len({event.trial for event in sweep.events[:position] if isinstance(event, RunInterrupted)}) >= 3
        )
        later = [event.batch for event in sweep.events[position:] if isinstance(event, BatchPlanned)]
        assert later
        files = batch_files(sweep.root)
        for batch in later:
            assert b"--exclude=n2\n" in files[f"{batch}/script.sbatch"]


# --------------------------------------------------------------------------- submitting


@on_a_cluster()
def test_submissions_whose_replies_are_lost_happen_once(slurm: PrivateSlurm, folder: Path) -> None:
    endings = {"hangs": "sleep 600", "exits": "exit 1", "dies": "kill -KILL $$"}
    with contextlib.ExitStack() as stack:
        sweeps = [stack.enter_context(Sweep(slurm, folder / name, max_resource=3)) for name in endings]
        for sweep, ending in zip(sweeps, endings.values(), strict=True):
            sweep.put_before("sbatch", f'"$real" "$@" >/dev/null\n{ending}\n')
        drivers = [sweep.launch(command=IMPATIENT) for sweep in sweeps]
        for sweep, driver in zip(sweeps, drivers, strict=True):
            finish(driver)
            every_run_once(sweep, 6)
            assert sweep.arrays() == sweep.submitted(), "one array for each intent"
            assert (sweep.runs["attempts"] == 1).all()


@on_a_cluster(max_array_size=5)
def test_rungs_larger_than_an_array_may_be_are_cut(slurm: PrivateSlurm, folder: Path) -> None:
    halving = "scheduler={name: halving, min_resource: 1, max_resource: 3, eta: 3, prefact: 4.01}"
    with Sweep(slurm, folder, halving, max_gpus=16) as sweep:
        sweep.finish()
        every_run_once(sweep, 12 + 4)
        assert [len(event.tasks) for event in sweep.of_kind(BatchPlanned)] == [5, 5, 2, 4]


@on_a_cluster(max_job_count=10, max_array_size=10, min_job_age=2)
def test_a_sweep_larger_than_the_queue_goes_in_bit_by_bit(slurm: PrivateSlurm, folder: Path) -> None:
    with Sweep(slurm, folder, *fifo(15, 1), max_gpus=1000) as sweep:
        sweep.finish()
        every_run_once(sweep, 15)
        assert (sweep.runs["attempts"] == 1).all()


# --------------------------------------------------------------------------- what pauses a sweep


@on_a_cluster()
def test_a_template_that_fails_at_once_pauses_until_it_is_mended(slurm: PrivateSlurm, folder: Path) -> None:
    good = (packaged_templates() / "default.sbatch").read_text()
    words = "module: no such module: cuda"
    bad = good.replace("{{ command }}", f"echo '{words}' >&2; exit 1\n{{{{ command }}}}")
    with Sweep(slurm, folder, "cluster.template=site.sbatch", "cluster.grace=1") as sweep:
        template = folder / "site.sbatch"
        template.write_text(bad)
        for attempt in (1, 2):  # the second one with the same error still in it
            status = sweep.ends(sweep.launch())
            assert status["state"] == "paused"
            assert words in status["reason"]
            assert words in sweep.told("status")
            assert len(sweep.of_kind(BatchSubmitted)) <= 3 * attempt
        template.write_text(good)
        sweep.finish()
        every_run_once(sweep, 22)
        assert len(set(sweep.runs["node"])) > 1, "no node is left out for what was the template's fault"


@on_a_cluster()
def test_a_working_directory_that_is_gone_pauses_the_sweep(slurm: PrivateSlurm, folder: Path) -> None:
    workdir = folder / "work"
    workdir.mkdir()
    hold = {"hold": "trial.resource == 1 and trial.id >= 2"}
    with Sweep(slurm, folder, f"train.workdir={workdir}", "cluster.grace=1", holds=hold) as sweep:
        driver = sweep.launch()
        wait_until("some runs have ended", lambda: len(sweep.of_kind(RunFinished)) >= 2)
        workdir.rename(folder / "elsewhere")
        sweep.release("hold")
        status = sweep.ends(driver)
        assert status["state"] == "paused"
        assert f"no working directory {workdir}" in status["reason"]
        (folder / "elsewhere").rename(workdir)
        sweep.finish()
        every_run_once(sweep, 22)


@on_a_cluster()
def test_jobs_that_can_never_start_pause_the_sweep_with_the_reason(slurm: PrivateSlurm, folder: Path) -> None:
    with Sweep(slurm, folder, max_resource=3, max_gpus=2, holds={"hold": "True"}) as sweep:
        driver = sweep.launch(command=HASTY)
        wait_until("two run", lambda: len(slurm.squeue(states="running")) == 2)
        slurm.run("scontrol", "update", "partitionname=gpu", "maxtime=5")
        sweep.release("hold")
        status = sweep.ends(driver)
        assert status["state"] == "paused"
        assert "PartitionTimeLimit" in status["reason"]
        assert slurm.squeue(states="running,pending") == []
        slurm.run("scontrol", "update", "partitionname=gpu", "maxtime=1-0")
        sweep.finish()
        every_run_once(sweep, 6)
        assert interruptions(sweep).keys() == {("never_started", False)}


@on_a_cluster()
def test_tasks_that_slurm_holds_are_released_once_and_then_told(slurm: PrivateSlurm, folder: Path) -> None:
    held = "job requeued in held state"
    holds = {f"step-{step}": f"trial.id == 0 and step == {step + 1}" for step in (2, 10)}
    with Sweep(slurm, folder, *fifo(2, 12), trainer=TRAINER, holds=holds) as sweep:
        driver = sweep.launch()

        def runs() -> bool:
            return "0" in {row.task for row in slurm.squeue(states="running,completing")}

        def hold(after: int, *, before: int) -> None:
            wait_until("it has trained so far", lambda: (0, after) in sweep.epochs())
            slurm.run("scontrol", "requeuehold", f"{sweep.of_kind(BatchSubmitted)[0].job}_0")
            wait_until("it was ended", lambda: len(sweep.of_kind(RunInterrupted)) > before or not runs())
            sweep.release(f"step-{after}")

        hold(after=2, before=0)
        wait_until("it is let go", lambda: len(sweep.of_kind(TasksReleased)) == 1)
        hold(after=10, before=1)
        wait_until("it is told", lambda: held in sweep.told("status"))
        assert [event.tasks for event in sweep.of_kind(TasksReleased)] == [(0,)]
        slurm.run("scontrol", "release", f"{sweep.of_kind(BatchSubmitted)[0].job}_0")
        finish(driver)
        every_run_once(sweep, 2)
        assert interruptions(sweep) == {("preempted", True): 2}
        assert sweep.status()["hindered"] == []


@on_a_cluster()
def test_a_whole_sweep_needs_no_accounts_and_no_sacct(slurm: PrivateSlurm, folder: Path) -> None:
    programs = folder / "programs"
    programs.mkdir()
    for program in ("sbatch", "squeue", "scontrol", "scancel", "sinfo"):
        path = shutil.which(program)
        assert path is not None
        (programs / program).symlink_to(path)
    with Sweep(slurm, folder / "sweep", max_resource=3) as sweep:
        sweep.env["PATH"] = str(programs)
        sweep.finish()
        every_run_once(sweep, 6)
        assert sweep.arrays() == sweep.submitted()


# --------------------------------------------------------------------------- memory


@on_a_cluster(memory_limits=True)
def test_a_task_that_slurm_kills_for_its_memory_has_failed(slurm: PrivateSlurm, folder: Path) -> None:
    until_killed = "much = bytearray((trial.id == 0) << 30); trial.id or time.sleep(600)"
    greedy = TRAINER.replace("    for", f"    {until_killed}\n    for")
    with Sweep(slurm, folder, *fifo(2, 1), "resources.mem=500M", trainer=greedy) as sweep:
        sweep.finish()
        assert list(sweep.runs["outcome"]) == ["out_of_memory", "completed"]
        (failure,) = sweep.status()["failures"]
        assert "memory limit" in failure["message"]
        assert failure["node"] in NODES


@on_a_cluster()
def test_a_child_that_the_kernel_kills_for_memory_fails_its_run_whose_script_exits_0(
    slurm: PrivateSlurm, folder: Path
) -> None:
    kernel = folder / "kernel"
    counter = kernel / "sys/fs/cgroup/task/memory.events"
    for file, text in ((kernel / "proc/self/cgroup", "0::/task\n"), (counter, "oom_kill 0\n")):
        file.parent.mkdir(parents=True)
        file.write_text(text)
    (kernel / "sitecustomize.py").write_text(
        "import pathlib\n"
        "from hpcsweep.worker.process import oom_kills\n"
        f"oom_kills.__defaults__ = (pathlib.Path({str(kernel)!r}),)\n"
    )
    child = f"echo oom_kill 1 >{counter}; kill -KILL $$"
    unwell = "import subprocess\n" + TRAINER.replace(
        "    for", f'    trial.id or subprocess.run(["sh", "-c", "{child}"])\n    for'
    )
    seen = f"cluster.environment={{PYTHONPATH: {kernel}}}"
    with Sweep(slurm, folder, *fifo(2, 1), seen, trainer=unwell, max_gpus=1) as sweep:
        sweep.finish()
        assert list(sweep.runs["outcome"]) == ["out_of_memory", "completed"]
        assert {row.state for row in slurm.squeue()} == {"COMPLETED"}, "as its script says"


# --------------------------------------------------------------------------- a site that renames jobs


#: As a job_submit plugin does it, for all that the task itself can tell; the first reply is lost.
RENAMES = """\
name=$(sed -n 's/^#SBATCH --job-name=//p' "${@: -1}")
if mkdir "$0.lost" 2>/dev/null; then
  "$real" --job-name="lab7-$name" "$@" >/dev/null
  echo "sbatch: error: Socket timed out on send/recv operation" >&2; exit 1
fi
exec "$real" --job-name="4711" "$@"
"""


@on_a_cluster()
def test_site_that_renames_jobs_runs_each_epoch_once(slurm: PrivateSlurm, folder: Path) -> None:
    halving = "scheduler={name: halving, max_resource: 3, eta: 3}"
    # An epoch takes longer than the grace of 5 s after which a task that does not show is lost.
    with Sweep(slurm, folder, halving, trainer=TRAINER, pause=8.0) as sweep:
        sweep.put_before("sbatch", RENAMES)
        sweep.put_before("squeue", '"$real" "$@" | cut -c1-60')
        sweep.finish()
        assert not any(
            event.batch == row.name for event in sweep.of_kind(BatchSubmitted) for row in slurm.squeue()
        )
        assert sorted(Counter(sweep.epochs()).values()) == [1] * 5, "3 runs of one epoch, one of two more"
        runs = [(event.trial, event.rung) for event in sweep.of_kind(RunFinished)]
        assert len(runs) == len(set(runs)) == 4
        assert sweep.of_kind(RunInterrupted) == []
        tasks = {(row.job, row.task) for row in slurm.squeue()}
        assert len(tasks) == 4, "each array was submitted once"


# --------------------------------------------------------------------------- words that nobody knows


@on_a_cluster(accounting=True)
def test_pending_for_a_reason_that_is_not_known_is_told_in_slurm_s_words(
    slurm: PrivateSlurm, folder: Path
) -> None:
    slurm.sacctmgr("modify", "qos", "normal", "set", "MinTRESPerJob=gres/gpu=2")
    with Sweep(slurm, folder, *fifo(2, 1), pause=0.1) as sweep:
        sweep.launch()
        wait_until("it is submitted", lambda: bool(sweep.submitted()))
        wait_until("it is told", lambda: "QOSMin" in sweep.told("status"))
        assert "cannot start: 2 tasks: QOSMinGRES" in sweep.told("status")
        assert "cannot start: 2 tasks: QOSMinGRES" in sweep.told("explain", "0")
        slurm.sacctmgr("modify", "qos", "normal", "set", "MinTRESPerJob=gres/gpu=-1")
        wait_until("all have run", lambda: len(sweep.of_kind(RunFinished)) == 2)
        every_run_once(sweep, 2)


# --------------------------------------------------------------------------- whole nodes


@on_a_cluster(
    extra="PartitionName=whole Nodes=n[1-4] OverSubscribe=EXCLUSIVE MaxTime=1-0 DefaultTime=60 State=UP"
)
def test_whole_nodes_are_told_of_capped_and_charged(slurm: PrivateSlurm, folder: Path) -> None:
    held = (
        "a task asks for 1 and holds 4 GPUs: partition whole gives whole nodes (OverSubscribe=EXCLUSIVE); "
        "cluster.concurrent: 4 shares them among 4 runs"
    )
    with Sweep(slurm, folder, *fifo(4, 1), "cluster.partition=whole", pause=2.0, max_gpus=8) as sweep:
        refused = sweep.launch("--set", "cluster.max_gpus=3")
        out, _ = refused.communicate(timeout=120)
        assert refused.returncode == 2
        assert f"cluster.max_gpus: must be at least 4, got 3: {held}" in out
        ticks = (
            "note: with --detach, each small job that ticks the sweep holds 4 GPUs for some seconds, beyond "
            "cluster.max_gpus: partition whole gives whole nodes (OverSubscribe=EXCLUSIVE); give such jobs a "
            "partition of their own by cluster.tick_options: {partition: "
        )
        assert ticks in sweep.plan()
        assert f"note: {held}" in sweep.finish()
        every_run_once(sweep, 4)
        assert [(batch.gpus_held, batch.throttle) for batch in sweep.of_kind(BatchPlanned)] == [(4, 2)]
        for run in sweep.of_kind(RunFinished):
            assert run.gpu_seconds == pytest.approx(4 * run.seconds, abs=0.01)
