"""`SlurmCluster` against real daemons, with a shell script in the worker's place."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hpcsweep.cluster.backend import Presence
from hpcsweep.cluster.slurm.backend import SlurmBackend
from hpcsweep.cluster.slurm.cluster import SlurmCluster
from hpcsweep.cluster.slurm.options import OptionValue, SlurmOptions
from hpcsweep.core.cluster_protocol import (
    Batch,
    Limits,
    Phase,
    SubmittedBatch,
    TaskAllocation,
    TaskId,
    TaskResources,
    TaskState,
)
from hpcsweep.errors import ClusterUnavailable, SubmitLimited, SubmitRefused
from hpcsweep.store.files import make_dirs
from hpcsweep.store.layout import BatchLayout

from .fixture import NODES, PrivateSlurm
from .sweeps import wait_until

#: In the interpreter's place: called as `standin -P -m hpcsweep.cluster.slurm.task FOLDER`.
STANDIN = """\
#!/bin/bash
[ "$2" = -c ] && exit 0
told() {{ echo "$1" >"$folder/results/$SLURM_ARRAY_TASK_ID.told"; exit 0; }}
folder="$4"
trap 'told USR2' USR2; trap 'told TERM' TERM
place="GPUs $CUDA_VISIBLE_DEVICES on $SLURMD_NODENAME"
echo "task $SLURM_ARRAY_TASK_ID start ${{SLURM_RESTART_COUNT:-0}} $place"
echo "to stderr" >&2
{body}
"""

#: No task ends before all of eight have begun.
ALL_EIGHT = """\
touch "$folder/here.$SLURM_ARRAY_TASK_ID"
until [ "$(ls "$folder" | grep -c '^here')" = 8 ]; do sleep 0.2; done
"""

NO_FEATURE = "allocation failure: Invalid feature specification"

Make = Callable[..., tuple[SlurmCluster, Batch]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A cluster whose tasks run `body`, and a batch for it."""

    def make(
        body: str = "exit 0",
        *,
        root: str = "results",
        tasks: int = 3,
        throttle: int = 3,
        shape: TaskResources | None = None,
        options: SlurmOptions | None = None,
    ) -> tuple[SlurmCluster, Batch]:
        name = f"sweep-{uuid.uuid4().hex[:8]}"
        standin = tmp_path / "standin"
        standin.write_text(STANDIN.format(body=body))
        standin.chmod(0o755)
        cluster = SlurmCluster((options or SlurmOptions()).model_copy(update={"python": str(standin)}))
        folder = tmp_path / root / "batches" / name
        make_dirs(folder)
        return cluster, Batch(
            name=name, folder=folder, tasks=tasks, throttle=throttle, shape=shape or TaskResources(time_s=600)
        )

    return make


def live(batch: Batch, job: str) -> SubmittedBatch:
    return SubmittedBatch(
        name=batch.name,
        job=job,
        folder=batch.folder,
        tasks=batch.tasks,
        throttle=batch.throttle,
        shape=batch.shape,
        open_tasks=range(batch.tasks),
    )


def phases(cluster: SlurmCluster, batches: Sequence[SubmittedBatch]) -> dict[TaskId, Phase]:
    shown = cluster.poll(batches)
    assert shown is not None
    return {task: state.phase for task, state in shown.items()}


def wait_for(
    cluster: SlurmCluster,
    batch: SubmittedBatch,
    done: Callable[[list[Phase]], bool],
    *,
    tasks: int | None = None,
) -> dict[int, TaskState]:
    """Poll until so many tasks are shown (all of them unless told) and their phases are as wanted."""
    end = time.monotonic() + 300
    while True:
        shown = cluster.poll([batch])
        assert shown is not None
        if len(shown) == (tasks or batch.tasks) and done([state.phase for state in shown.values()]):
            return {task.task: state for task, state in shown.items()}
        assert time.monotonic() < end, shown
        time.sleep(0.2)


def all_are(phase: Phase) -> Callable[[list[Phase]], bool]:
    return lambda phases: all(each is phase for each in phases)


def logs(batch: Batch) -> list[str]:
    layout = BatchLayout(batch.folder)
    return [layout.log(task).read_text() for task in range(batch.tasks)]


def test_probe_names_the_controller_that_answers() -> None:
    presence, why = SlurmBackend().detect()
    assert presence is Presence.ANSWERS
    assert "is UP" in why


def test_every_task_runs_and_is_shown_completed_with_its_node(make: Make) -> None:
    cluster, batch = make(tasks=5, throttle=5)
    job = cluster.submit(batch)
    shown = wait_for(cluster, live(batch, job), all_are(Phase.COMPLETED))
    assert sorted(shown) == [0, 1, 2, 3, 4]
    assert all(re.fullmatch("n[1-4]", state.node) for state in shown.values())
    assert cluster.find(batch.name) == job, "an ended array is found as long as the controller knows it"
    assert cluster.find(batch.name + "0") is None


def test_both_streams_go_to_one_log_below_a_hostile_folder(make: Make) -> None:
    cluster, batch = make(
        """echo "in $PWD"; echo "$folder" >"$folder/results/told" """,
        root="""a b'c$HOME"d#e%a%%j %x;f&*é""",
        tasks=2,
    )
    job = cluster.submit(batch)
    wait_for(cluster, live(batch, job), all_are(Phase.COMPLETED))
    assert (batch.folder / "results" / "told").read_text().strip() == str(batch.folder)
    for task, log in enumerate(logs(batch)):
        assert re.fullmatch(
            rf"task {task} start 0 GPUs  on n[1-4]\nto stderr\nin {re.escape(str(batch.folder))}\n", log
        )


def test_tasks_of_a_node_get_disjoint_gpus(make: Make) -> None:
    shape = TaskResources(gpus=2, cpus=2, mem_mib=1000, time_s=600)
    cluster, batch = make(ALL_EIGHT, tasks=8, throttle=8, shape=shape, options=SlurmOptions(gpu_type="a100"))
    job = cluster.submit(batch)
    wait_for(cluster, live(batch, job), all_are(Phase.COMPLETED))
    places = sorted(re.findall(r"GPUs (\S+) on (\S+)", "".join(logs(batch))))
    assert places == sorted((gpus, f"n{n}") for n in (1, 2, 3, 4) for gpus in ("0,1", "2,3"))


def test_throttle_is_held_and_raised(make: Make, slurm: PrivateSlurm) -> None:
    cluster, batch = make("sleep 100", tasks=9, throttle=2)
    job = cluster.submit(batch)
    wait_for(cluster, live(batch, job), lambda p: p.count(Phase.RUNNING) == 2)
    for _ in range(10):
        assert list(phases(cluster, [live(batch, job)]).values()).count(Phase.RUNNING) <= 2
        time.sleep(0.2)
    reasons = {row.reason for row in slurm.squeue(states="PENDING")}
    assert reasons == {"JobArrayTaskLimit"}
    cluster.throttle(live(batch, job), 5)
    wait_for(cluster, live(batch, job), lambda p: p.count(Phase.RUNNING) == 5)
    time.sleep(1)
    assert list(phases(cluster, [live(batch, job)]).values()).count(Phase.RUNNING) == 5


def test_throttle_holds_where_some_or_all_tasks_have_ended(make: Make) -> None:
    cluster, batch = make('[ "$SLURM_ARRAY_TASK_ID" = 0 ] || sleep 100', tasks=4, throttle=2)
    job = cluster.submit(batch)
    wait_for(cluster, live(batch, job), lambda p: p.count(Phase.COMPLETED) == 1)
    cluster.throttle(live(batch, job), 3)
    wait_for(cluster, live(batch, job), lambda p: p.count(Phase.RUNNING) == 3)
    cluster.cancel(live(batch, job), range(4))
    wait_for(cluster, live(batch, job), lambda p: p.count(Phase.CANCELLED) == 3)
    cluster.throttle(live(batch, job), 4)


def test_cancel_ends_these_tasks_and_no_others(make: Make) -> None:
    cluster, batch = make("sleep 100", tasks=6, throttle=3)
    job = cluster.submit(batch)
    wait_for(cluster, live(batch, job), lambda p: p.count(Phase.RUNNING) == 3)
    cluster.cancel(live(batch, job), [0, 1, 5])
    # Of a task that never started Slurm keeps nothing: it is not shown any more.
    ended = {0: Phase.CANCELLED, 1: Phase.CANCELLED}
    going_on = {2: Phase.RUNNING, 3: Phase.RUNNING, 4: Phase.RUNNING}
    settled = sorted([*ended.values(), *going_on.values()], key=str)
    shown = wait_for(cluster, live(batch, job), lambda p: sorted(p, key=str) == settled, tasks=5)
    assert {task: state.phase for task, state in shown.items()} == ended | going_on
    cluster.cancel(live(batch, job), [0, 1, 5])
    cluster.cancel(live(batch, job), range(6))
    wait_for(cluster, live(batch, job), all_are(Phase.CANCELLED), tasks=5)


def test_cancel_of_a_job_that_slurm_has_forgotten_is_no_error(make: Make) -> None:
    cluster, batch = make()
    cluster.cancel(live(batch, "987654"), [0, 1])
    cluster.throttle(live(batch, "987654"), 2)


def test_failed_task_is_shown_failed(make: Make) -> None:
    cluster, batch = make("exit 3", tasks=1)
    job = cluster.submit(batch)
    assert wait_for(cluster, live(batch, job), all_are(Phase.FAILED))[0].reason == "NonZeroExitCode"


def test_refusal_has_sbatch_s_own_words_and_is_not_found_as_accepted(make: Make) -> None:
    cluster, batch = make(shape=TaskResources(gpus=8))
    with pytest.raises(SubmitRefused, match="Requested node configuration is not available"):
        cluster.submit(batch)
    # Slurm remembers the refused array as failed.
    assert cluster.find(batch.name) is None


def test_refusal_of_an_unknown_partition_and_of_an_unknown_option(make: Make) -> None:
    cluster, batch = make(options=SlurmOptions(partition="nope"))
    with pytest.raises(SubmitRefused, match="Invalid partition name"):
        cluster.submit(batch)
    cluster, batch = make(options=SlurmOptions(options={"no-such-option": 1}))
    with pytest.raises(SubmitRefused, match="unrecognized option"):
        cluster.submit(batch)


def test_largest_array_is_what_limits_says(make: Make) -> None:
    cluster, batch = make("sleep 100", tasks=1001, throttle=1)
    assert cluster.limits().array_tasks == 1001
    job = cluster.submit(batch)
    assert len(phases(cluster, [live(batch, job)])) == 1001
    cluster, larger = make(tasks=1002)
    with pytest.raises(SubmitRefused, match="Invalid job array specification"):
        cluster.submit(larger)


def test_limits_are_those_of_the_site(make: Make) -> None:
    cluster, _ = make()
    assert cluster.limits() == Limits(
        array_tasks=1001, queued_tasks=10_000, time_s=3600, most_times_s=(86400,), nodes=NODES
    )


@pytest.mark.parametrize(
    ("options", "shape", "lines"),
    [
        (SlurmOptions(), TaskResources(gpus=4, cpus=16, mem_mib=64000, time_s=86400), []),
        (
            SlurmOptions(partition="urgent"),
            TaskResources(gpus=8, time_s=90000),
            [
                "resources.time: partition urgent allows 1-00:00:00 at most, got 1-01:00:00",
                "resources.gpus: the nodes of partition urgent have 4 GPUs at most, got 8",
            ],
        ),
        (
            SlurmOptions(partition="nope"),
            TaskResources(),
            ["cluster.partition: there is no nope; there are gpu, urgent"],
        ),
        (
            SlurmOptions(constraint="nvlink"),
            TaskResources(),
            ["cluster: Slurm would never take such a task: " + NO_FEATURE],
        ),
    ],
)
def test_what_can_never_run_is_known_before_anything_is_submitted(
    make: Make, slurm: PrivateSlurm, options: SlurmOptions, shape: TaskResources, lines: list[str]
) -> None:
    cluster, batch = make(options=options)
    assert cluster.problems(shape) == lines
    assert batch.name not in {row.name for row in slurm.squeue()}


def test_task_that_fits_has_no_problem_while_all_nodes_are_drained(make: Make, slurm: PrivateSlurm) -> None:
    for node in NODES:
        slurm.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    cluster, _ = make()
    assert cluster.problems(TaskResources(gpus=4)) == []


def test_submit_limits_of_the_account_are_found_out_and_met(
    make: Make, accounts: PrivateSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(accounts.conf))
    accounts.limit_submits(association=9)
    cluster, batch = make("sleep 100", tasks=9, throttle=1)
    assert cluster.limits().queued_tasks == 9
    job = cluster.submit(batch)
    phases(cluster, [live(batch, job)])
    assert cluster.queued_tasks == 9
    other, more = make(tasks=1)
    with pytest.raises(SubmitLimited, match="AssocMaxSubmitJobLimit"):
        other.submit(more)
    assert other.problems(TaskResources()) == [], "a submit limit passes"
    accounts.limit_submits(association=9, qos=10)
    assert make()[0].limits().queued_tasks == 10, "a QOS's limit stands in for that of the association"


def test_tasks_run_on_nodes_that_may_be_used_and_on_no_other(make: Make) -> None:
    shape = TaskResources(gpus=4, time_s=600)
    options = SlurmOptions(nodelist="n[3-4],n9")
    cluster, batch = make("sleep 100", tasks=3, throttle=3, shape=shape, options=options)
    assert cluster.problems(shape) == []
    job = cluster.submit(batch)
    shown = wait_for(cluster, live(batch, job), lambda p: p.count(Phase.RUNNING) == 2)
    assert {state.node for state in shown.values()} == {"n3", "n4", ""}
    cluster.cancel(live(batch, job), range(3))


@pytest.mark.parametrize("options", [{"exclusive": True}, {"partition": "gpu", "--exclus": ""}])
def test_whole_nodes_are_foretold_and_seen(make: Make, options: dict[str, OptionValue]) -> None:
    shape = TaskResources(gpus=1, time_s=600)
    cluster, batch = make("sleep 100", tasks=1, shape=shape, options=SlurmOptions(options=options))
    assert cluster.allocation_of(shape) == TaskAllocation(4, 16, "--exclusive takes whole nodes")
    job = cluster.submit(batch)
    shown = wait_for(cluster, live(batch, job), lambda p: p == [Phase.RUNNING])
    assert shown[0].gpus == 4
    cluster.cancel(live(batch, job), [0])


def test_task_that_slurm_holds_is_released(make: Make, slurm: PrivateSlurm) -> None:
    cluster, batch = make("sleep 100", tasks=3, throttle=2)
    job = cluster.submit(batch)
    wait_for(cluster, live(batch, job), lambda p: p.count(Phase.RUNNING) == 2)
    slurm.run("scontrol", "requeuehold", f"{job}_1")
    wait_for(cluster, live(batch, job), lambda p: p.count(Phase.RUNNING) == 2 and Phase.PENDING in p)

    def is_blocked() -> bool:
        shown = wait_for(cluster, live(batch, job), lambda p: True)
        return shown[1].block is not None

    wait_until("Slurm holds it", is_blocked)
    cluster.cancel(live(batch, job), [2])
    cluster.release(live(batch, job), [1])
    task = TaskId(batch.name, 1)
    wait_until("it runs", lambda: phases(cluster, [live(batch, job)])[task] is Phase.RUNNING)
    cluster.release(live(batch, job), [0, 1, 2])


def test_job_that_ticks_runs_behind_the_array_whatever_became_of_it(make: Make, slurm: PrivateSlurm) -> None:
    cluster, batch = make('[ -z "$SLURM_ARRAY_TASK_ID" ] || exit 3', tasks=2)
    job = cluster.submit(batch)
    root = batch.folder.parent.parent
    tick = cluster.submit_tick("s-tick", root, after=job)

    def state_of(job: str) -> set[str]:
        return {row.state for row in slurm.squeue() if row.job == job}

    wait_until("it has ticked", lambda: state_of(tick) == {"COMPLETED"})
    assert state_of(job) == {"FAILED"}
    assert "to stderr" in (root / "ticks.log").read_text()


def test_usr2_reaches_the_worker_before_the_time_limit(make: Make) -> None:
    # Slurm may send it up to 60 s early, and counts time limits in minutes.
    options = SlurmOptions(signal_s=55)
    cluster, batch = make(
        "for i in {1..900}; do sleep 0.1; done", tasks=1, options=options, shape=TaskResources(time_s=60)
    )
    job = cluster.submit(batch)
    wait_for(cluster, live(batch, job), all_are(Phase.COMPLETED))
    assert (batch.folder / "results" / "0.told").read_text() == "USR2\n"


def test_preempted_task_is_requeued_and_appends_to_its_log(make: Make) -> None:
    whole_node = TaskResources(gpus=4, time_s=600)
    body = '[ -n "$SLURM_RESTART_COUNT" ] || for i in {1..900}; do sleep 0.1; done'
    cluster, low = make(body, tasks=4, throttle=4, shape=whole_node)
    job = cluster.submit(low)
    wait_for(cluster, live(low, job), all_are(Phase.RUNNING))
    urgent, high = make(body, tasks=1, shape=whole_node, options=SlurmOptions(partition="urgent"))
    high_job = urgent.submit(high)
    wait_for(urgent, live(high, high_job), all_are(Phase.RUNNING))
    shown = wait_for(cluster, live(low, job), lambda p: p.count(Phase.RUNNING) == 3)
    requeued = next(task for task, state in shown.items() if state.phase is not Phase.RUNNING)
    assert shown[requeued].phase is Phase.PENDING
    urgent.cancel(live(high, high_job), [0])
    wait_for(cluster, live(low, job), lambda p: p.count(Phase.COMPLETED) == 1)
    text = BatchLayout(low.folder).log(requeued).read_text()
    assert re.findall(r"start (\d)", text) == ["0", "1"]
    assert (low.folder / "results" / f"{requeued}.told").read_text() == "TERM\n"


def test_a_controller_that_is_down_means_that_nothing_is_known(
    make: Make, slurm: PrivateSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, batch = make("sleep 100", tasks=2)
    job = cluster.submit(batch)
    wait_for(cluster, live(batch, job), all_are(Phase.RUNNING))
    slurm.stop_controller()
    with monkeypatch.context() as impatient:
        impatient.setattr("hpcsweep.cluster.slurm.programs.QUERY_S", 3.0)
        assert cluster.poll([live(batch, job)]) is None
        with pytest.raises(ClusterUnavailable):
            cluster.find(batch.name)
    slurm.start_controller()
    assert phases(cluster, [live(batch, job)]) == {TaskId(batch.name, task): Phase.RUNNING for task in (0, 1)}


def test_a_job_s_own_variables_and_the_user_s_defaults_do_not_reach_the_batch(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in {
        "SLURM_RESTART_COUNT": "7",
        "SBATCH_ARRAY_INX": "5-9",
        "SBATCH_JOB_NAME": "mine",
        "SBATCH_TIMELIMIT": "100-0",
        "SBATCH_WAIT": "1",
        "SBATCH_PARTITION": "urgent",
        "SQUEUE_PARTITION": "nowhere",
        "SQUEUE_STATES": "SUSPENDED",
    }.items():
        monkeypatch.setenv(key, value)
    cluster, batch = make("echo partition $SLURM_JOB_PARTITION", tasks=2)
    job = cluster.submit(batch)
    wait_for(cluster, live(batch, job), all_are(Phase.COMPLETED))
    for task, log in enumerate(logs(batch)):
        assert log.startswith(f"task {task} start 0")
        assert log.endswith("partition urgent\n"), "what the spec leaves open is the user's to default"


def test_nothing_but_the_script_is_needed_where_the_site_passes_no_environment(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_EXPORT", "NIL")
    monkeypatch.setenv("LEAKED", "leaked")
    options = SlurmOptions(environment={"MINE": "a 'b' $HOME"}, setup=['echo "setup sees $MINE"'])
    cluster, batch = make('echo "worker sees $MINE, ${LEAKED:-nothing else}"', tasks=1, options=options)
    job = cluster.submit(batch)
    wait_for(cluster, live(batch, job), all_are(Phase.COMPLETED))
    (log,) = logs(batch)
    assert "setup sees a 'b' $HOME\n" in log
    assert log.endswith("worker sees a 'b' $HOME, nothing else\n")


def test_a_small_site_refuses_what_is_beyond_its_limits_and_forgets_soon(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = PrivateSlurm(max_array_size=11, min_job_age=2)
    site.start()
    try:
        monkeypatch.setenv("SLURM_CONF", str(site.conf))
        cluster, batch = make(tasks=11, throttle=11)
        assert cluster.limits().array_tasks == 11
        job = cluster.submit(batch)
        other, larger = make(tasks=12)
        with pytest.raises(SubmitRefused, match="Invalid job array specification"):
            other.submit(larger)
        wait_until("it is forgotten", lambda: cluster.poll([live(batch, job)]) == {})
        assert cluster.find(batch.name) is None
    finally:
        site.stop()


def test_full_table_of_jobs_is_a_submit_limit_and_sbatch_is_not_waited_for(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = PrivateSlurm(max_job_count=10)
    site.start()
    try:
        monkeypatch.setenv("SLURM_CONF", str(site.conf))
        cluster, batch = make("sleep 100", tasks=7, throttle=1)
        assert cluster.limits().queued_tasks == 10
        job = cluster.submit(batch)
        other, more = make(tasks=7)
        with pytest.raises(SubmitLimited) as caught:
            other.submit(more)
        # After all its tries, two minutes later, it would say more.
        assert (
            str(caught.value)
            == "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying"
        )
        assert other.problems(TaskResources()) == []
        cluster.cancel(live(batch, job), range(7))
        time.sleep(3)  # sbatch's own next try would be one second after its first
        assert other.find(more.name) is None
    finally:
        site.stop()
