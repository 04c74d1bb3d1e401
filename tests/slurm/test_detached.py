"""Sweeps that nobody stays with: their own jobs drive them on, on real daemons."""

from __future__ import annotations

import threading
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from hpcsweep.core.events import BatchAbandoned, BatchSubmitted, RunFinished, SweepStarted

from .fixture import PrivateSlurm
from .sweeps import TRAINER, Sweep, drives, finish, outcome, undisturbed, wait_until

#: Writes down each start of training.
COUNTING = TRAINER.replace(
    "def train(trial):",
    "import pathlib\n\n"
    "def train(trial):\n"
    "    with open(pathlib.Path(__file__).parent / 'starts', 'a') as file:\n"
    "        file.write(f'{trial.id} {trial.resource}\\n')\n",
)
HALVING = "scheduler={name: halving, max_resource: %d, eta: 2}"
#: Begins a wrapper around sbatch that leaves alone what is not called inside a job.
IN_JOBS = """\
tr '\\0' '\\n' </proc/$PPID/environ | grep -q ^SLURM_JOB_ID= || exec $real "$@"
"""
#: Three times the submission of an array inside a job costs its tick the life: with the worker whose tick it
#: is, alone before sbatch, and alone after it. What follows a tick job that was killed comes at once.
KILLS = (
    IN_JOBS
    + """\
case "${@: -1}" in
*/tick.sbatch) exec $real "$@";;
--begin=*) exec $real "${@:1:$#-1}";;
esac
kills="$(dirname "$0")/kills"
mkdir -p $kills
nth=$(ls $kills | wc -l)
mkdir $kills/$nth || exit 1
tick=$PPID
worker=$(awk '{print $4}' /proc/$tick/stat)
case $nth in
0) tr '\\0' ' ' </proc/$tick/cmdline >$kills/0/tick; kill -9 $worker $tick;;
1) kill -9 $tick;;
2) $real "$@"; kill -9 $tick;;
*) exec $real "$@";;
esac
"""
)
#: Tick jobs that wait for their time never come.
NO_LATER_TICKS = """\
grep -q '^#SBATCH --begin=' "${@: -1}" && set -- --begin=now+3600 "$@"
exec $real "$@"
"""
REFUSAL = "sbatch: error: Batch job submission failed: Access/permission denied"


def made_sweep(
    slurm: PrivateSlurm, tmp_path: Path, *, most: int = 4, held: tuple[int, ...] = (1,), **holds: str
) -> Sweep:
    """Rungs up to `most` epochs, on six GPUs; those that are `held` wait for the release of `rung-N`."""
    holds |= {f"rung-{resource}": f"trial.resource == {resource}" for resource in held}
    halving = HALVING % most
    made = Sweep(slurm, tmp_path / "detached", halving, max_gpus=6, pause=0.1, trainer=COUNTING, holds=holds)
    made.env["HPCSWEEP_OURS"] = str(tmp_path)
    return made


@pytest.fixture
def sweep(slurm: PrivateSlurm, tmp_path: Path) -> Sweep:
    """Of three rungs, the first of which is held."""
    return made_sweep(slurm, tmp_path)


def detach(sweep: Sweep) -> str:
    """`launch --detach`, its output."""
    process = sweep.launch("--detach")
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 3, out
    return out


def outside_jobs(tmp_path: Path) -> list[str]:
    """Command lines of processes of this test's sweep that belong to no job."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environ = (folder / "environ").read_bytes().split(b"\0")
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        ours = f"HPCSWEEP_OURS={tmp_path}".encode() in environ
        if ours and not any(each.startswith(b"SLURM_JOB_ID=") for each in environ):
            found.append(b" ".join(words).decode(errors="replace"))
    return found


def check_whole(sweep: Sweep, *, most: int = 4) -> None:
    """Each rung with its best half promoted, each run once, each array once."""
    runs = sweep.runs
    rungs = [1 << power for power in range(most.bit_length())]
    assert Counter(runs["resource"]) == {resource: most // resource for resource in rungs}
    assert set(runs["outcome"]) == {"completed"}
    for low, high in pairwise(rungs):
        rung = runs[runs["resource"] == low].sort_values("value")
        assert set(rung["trial"][: most // high]) == set(runs[runs["resource"] == high]["trial"])
    assert Counter(event.run for event in sweep.of_kind(RunFinished)) == Counter(
        dict.fromkeys(zip(runs["trial"], runs["rung"], strict=True), 1)
    )
    arrays = {(name, job) for name, job in sweep.arrays() if not name.endswith("-tick")}
    assert arrays == sweep.submitted()


def started(sweep: Sweep) -> Counter[str]:
    """How often training of each run was begun, by the trainer's own account."""
    return Counter((sweep.folder / "starts").read_text().splitlines())


def test_a_detached_sweep_of_four_rungs_finishes_by_itself(slurm: PrivateSlurm, tmp_path: Path) -> None:
    """The last result of a rung promotes: it is not left to a job a minute later."""
    sweep = made_sweep(slurm, tmp_path, most=8)
    sweep.put_before("sbatch", NO_LATER_TICKS)
    out = detach(sweep)
    assert outside_jobs(tmp_path) == []
    assert "Follow it with: hpcsweep status results/free; end it with: hpcsweep stop results/free" in out
    sweep.release("rung-1")
    sweep.ends_by_itself()
    assert outside_jobs(tmp_path) == []
    wait_until("no job of it is left", lambda: not sweep.slurm.squeue(states="pending,running"))
    check_whole(sweep, most=8)
    assert set(started(sweep).values()) == {1}
    assert len(sweep.of_kind(BatchSubmitted)) == 4
    assert (sweep.root / "ticks.log").read_text() == ""


def test_it_finishes_although_ticks_and_their_workers_are_killed(slurm: PrivateSlurm, tmp_path: Path) -> None:
    sweep = made_sweep(slurm, tmp_path, held=(), others="trial.id < 3", last="trial.id == 3")
    sweep.put_before("sbatch", KILLS)
    detach(sweep)
    name = f"free-{sweep.of_kind(SweepStarted)[0].sweep}-tick"
    slurm.run("scancel", f"--name={name}")
    sweep.release("others")
    array = sweep.of_kind(BatchSubmitted)[0].job

    def ended() -> int:
        return [row.job for row in slurm.squeue(states="completed")].count(array)

    wait_until("three tasks have ended", lambda: ended() == 3)
    # Without the tick job that comes in a minute, only the last task can be the first that submits.
    slurm.run("scancel", f"--name={name}")
    sweep.release("last")
    sweep.ends_by_itself()
    kills = sweep.folder / "wrappers" / "kills"
    assert sorted(path.name for path in kills.iterdir()) == ["0", "1", "2", "3"]
    assert " --batch " in (kills / "0" / "tick").read_text(), "it was the tick of a task"
    check_whole(sweep)
    assert set(started(sweep).values()) == {1}
    assert len(sweep.of_kind(BatchAbandoned)) == 2, "two were killed before sbatch was called"


def test_any_number_of_drivers_on_one_folder_do_no_harm(slurm: PrivateSlurm, tmp_path: Path) -> None:
    sweep = made_sweep(slurm, tmp_path, held=(1, 4))
    two = [sweep.launch("--detach"), sweep.launch("--detach")]
    said = [process.communicate(timeout=120)[0] for process in two]
    assert [process.returncode for process in two] == [3, 3], said
    codes = []
    over = threading.Event()

    def cron() -> None:
        while True:
            once = sweep.launch("--once")
            once.communicate(timeout=120)
            codes.append(once.returncode)
            if over.wait(2.0):
                break

    thread = threading.Thread(target=cron)
    thread.start()
    try:
        foreground = sweep.launch()
        sweep.release("rung-1")
        wait_until("the launch drives", lambda: drives(sweep.root, foreground))
        sweep.release("rung-4")
        finish(foreground)
    finally:
        over.set()
        thread.join()
    sweep.ends_by_itself()
    assert set(codes) <= {0, 3}
    check_whole(sweep)
    assert set(started(sweep).values()) == {1}
    assert outcome(sweep.folder) == undisturbed(tmp_path / "alone", HALVING % 4, max_resource=4).outcome


def test_a_launch_that_is_killed_leaves_a_detached_sweep_to_its_jobs(
    slurm: PrivateSlurm, tmp_path: Path
) -> None:
    sweep = made_sweep(slurm, tmp_path, held=(1, 2))
    detach(sweep)
    foreground = sweep.launch()
    wait_until("the launch drives", lambda: drives(sweep.root, foreground))
    sweep.release("rung-1")
    wait_until("it promotes", lambda: len(sweep.of_kind(BatchSubmitted)) == 2)
    assert drives(sweep.root, foreground)
    foreground.kill()
    foreground.communicate()
    wait_until("nothing of it is left outside of jobs", lambda: outside_jobs(tmp_path) == [])
    sweep.release("rung-2")
    sweep.ends_by_itself()
    check_whole(sweep)
    assert set(started(sweep).values()) == {1}


def test_where_compute_nodes_may_not_submit_the_sweep_waits_for_a_launch(
    slurm: PrivateSlurm, sweep: Sweep
) -> None:
    sweep.put_before("sbatch", IN_JOBS + f"echo '{REFUSAL}' >&2; exit 1\n")
    detach(sweep)
    sweep.release("rung-1")
    wait_until("the first rung ends", lambda: len(sweep.of_kind(RunFinished)) == 4)
    wait_until("its jobs are over", lambda: not slurm.squeue(states="running,completing"))
    wait_until("it is said", lambda: REFUSAL in str(sweep.status()["reason"]))
    log = (sweep.root / "ticks.log").read_text()
    assert REFUSAL in log
    assert "Traceback" not in log
    sweep.finish()
    check_whole(sweep)
    assert set(started(sweep).values()) == {1}


def test_a_cluster_without_such_jobs_refuses_before_anything_is_submitted(sweep: Sweep) -> None:
    done = sweep.launch("--detach", "--cluster", "local")
    out, _ = done.communicate(timeout=120)
    assert done.returncode == 2
    assert "--detach: no job can drive a sweep here: leave `launch` running" in out
    assert sweep.of_kind(BatchSubmitted) == []
    again = sweep.launch("--detach", "--set", "cluster.tick_options={partition: nowhere}")
    out, _ = again.communicate(timeout=120)
    assert again.returncode == 2
    assert "invalid partition specified: nowhere" in out
    assert "Nothing was submitted." in out
    assert sweep.of_kind(BatchSubmitted) == []
