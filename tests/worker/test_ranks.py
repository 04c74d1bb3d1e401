"""Runs of several processes: where they meet, how they leave together, and what becomes of one that dies."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from hpcsweep.cluster.task_environment import process_variables, task_variables
from hpcsweep.core.events import FailureKind, Interruption, Outcome
from hpcsweep.errors import TrainerError
from hpcsweep.store.stop_agreement import StopAgreement
from hpcsweep.worker.node import launcher_command
from hpcsweep.worker.ports import Port, is_free, is_taken
from hpcsweep.worker.rank import Place, place_of, rank_environment
from hpcsweep.worker.ranks import (
    ADDRESS_VARIABLE,
    RANK_VARIABLES,
    START_VARIABLE,
    RankFailure,
    RankPlan,
    first_failure,
    launcher_arguments,
    lost_ranks,
    measured_mib,
    write_plan,
)
from tests.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from tests.worker.conftest import Bench

#: Ranks add numbers up at rank 0 in each step, by a socket at the port that they are given.
MEET = """
import os, pickle, socket, time

RANK, SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
PLACE = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])

class Group:
    def __init__(self):
        if RANK:
            while True:
                try:
                    self.peers = [socket.create_connection(PLACE)]
                    break
                except ConnectionRefusedError:
                    time.sleep(0.02)
        else:
            server = socket.create_server(PLACE)
            self.peers = [server.accept()[0] for _ in range(SIZE - 1)]

    def add(self, number):
        def get(peer):
            data = peer.recv(8)
            if not data:
                raise ConnectionError("a peer is gone")
            return int.from_bytes(data, "big")
        if RANK:
            self.peers[0].sendall(number.to_bytes(8, "big"))
            return get(self.peers[0])
        total = number + sum(map(get, self.peers))
        for peer in self.peers:
            peer.sendall(total.to_bytes(8, "big"))
        return total
"""
TRAIN = (
    MEET
    + """
def train(trial):
    assert trial.rank == RANK
    print(f"I am rank {RANK}")
    group = Group()
    for step in trial.steps():
        total = group.add(step * (RANK + 1))
        with open(f"trained-{RANK}", "a") as notes:
            print(step, file=notes)
        DISTURB
        trial.report(step, val_error=total)
        with trial.checkpoint(step) as folder:
            (folder / "state").write_text(str(total))
"""
)


def code(disturb: str = "pass") -> str:
    return TRAIN.replace("DISTURB", disturb)


def steps(bench: Bench, rank: int) -> list[int]:
    return [int(line) for line in (bench.workdir / f"trained-{rank}").read_text().split()]


def processes(bench: Bench, *words: str) -> list[int]:
    """Processes of the bench's runs, with all these words in their command lines."""
    mark, found = f"HPCSWEEP_RUN={bench.temporary}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text()
            if mark in (folder / "environ").read_bytes() and all(word in command for word in words):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_ranks_meet_train_and_report_as_one_run(bench: Bench) -> None:
    bench.plan_python(code(), launcher="srun", processes=3)
    result = bench.work()
    assert (result.outcome, result.value, result.step) == (Outcome.COMPLETED, 3 * (1 + 2 + 3), 3)
    assert [steps(bench, rank) for rank in range(3)] == [[1, 2, 3]] * 3
    assert "I am rank 0\n" in bench.log()
    logs = sorted(path.name for path in bench.batch.logs.iterdir())
    assert logs == ["0.log", "0.rank-1.log", "0.rank-2.log"]
    assert bench.batch.logs.joinpath("0.rank-2.log").read_text() == "I am rank 2\n"
    assert bench.newest() == 3
    assert not list(bench.temporary.iterdir())


def test_a_command_is_started_in_each_rank_and_its_metrics_are_those_of_rank_0(bench: Bench) -> None:
    script = bench.workdir / "program.py"
    script.write_text(MEET + "\nprint('val_error', Group().add(RANK))\n")
    bench.plan_command(
        "{python} program.py",
        bench.run(resource=1),
        launcher="srun",
        processes=2,
        metrics=(r"val_error (?P<val_error>\S+)",),
    )
    result = bench.work()
    assert (result.outcome, result.value) == (Outcome.COMPLETED, 1.0)
    assert bench.batch.logs.joinpath("0.rank-1.log").read_text() == "val_error 1\n"


def test_a_rank_that_dies_ends_the_run_with_its_message_and_leaves_none_behind(bench: Bench) -> None:
    dies = """if RANK == 1 and step == 2:
            print("out of luck", flush=True)
            os.kill(os.getpid(), 9)"""
    bench.plan_python(code(dies), launcher="srun", processes=3)
    result = bench.work()
    assert (result.outcome, result.failure) == (Outcome.FAILED, FailureKind.CRASHED)
    assert result.message == "rank 1: killed by SIGKILL; last lines: I am rank 1 | out of luck"
    assert bench.newest() == 2  # rank 0 has a moment for it
    assert processes(bench) == []


def test_what_all_ranks_raise_is_the_message_of_the_run(bench: Bench) -> None:
    bench.plan_python(code("raise ValueError('lr is too large')"), launcher="srun", processes=2)
    result = bench.work()
    assert result.outcome is Outcome.FAILED
    assert re.fullmatch(r"train\.py:\d+ in train \| ValueError: lr is too large", result.message)


@pytest.mark.parametrize("signum", [signal.SIGUSR2, signal.SIGTERM])
def test_ranks_that_are_told_to_stop_leave_after_the_same_step(bench: Bench, signum: signal.Signals) -> None:
    waits = """Path(f"ready-{RANK}").touch()
        while step == 2 and RANK == 0 and not trial.told_to_stop:
            time.sleep(0.01)"""
    bench.plan_python(
        "from pathlib import Path\n" + code(waits), bench.run(resource=9), launcher="srun", processes=3
    )
    worker = bench.start()
    wait_until(lambda: (bench.workdir / "trained-0").exists() and steps(bench, 0) == [1, 2])
    worker.send_signal(signum)
    assert worker.wait(PATIENCE_S) == 0
    (result,) = bench.results()
    why = Interruption.TIMEOUT if signum is signal.SIGUSR2 else Interruption.PREEMPTED
    assert (result.interrupted, result.step, result.progressed) == (why, 3, True)
    assert [steps(bench, rank) for rank in range(3)] == [[1, 2, 3]] * 3
    assert bench.newest() == 3


def test_ranks_that_do_not_leave_are_ended_after_the_grace_period(bench: Bench) -> None:
    stays = """Path(f"ready-{RANK}").touch()
        while True:
            time.sleep(1)"""
    bench.plan_python("from pathlib import Path\n" + code(stays), launcher="srun", processes=2, grace_s=0.5)
    worker = bench.start()
    wait_until(lambda: all((bench.workdir / f"ready-{rank}").exists() for rank in range(2)))
    worker.terminate()
    assert worker.wait(PATIENCE_S) == 0
    assert bench.results()[0].interrupted is Interruption.PREEMPTED
    assert processes(bench) == []


def test_a_killed_worker_leaves_no_rank_behind(bench: Bench) -> None:
    bench.plan_python(code("time.sleep(100)"), launcher="srun", processes=2)
    worker = bench.start()
    wait_until(lambda: (bench.workdir / "trained-0").exists())
    worker.kill()
    worker.wait()
    wait_until(lambda: processes(bench) == [])


#: In place of what a cluster gives a task to start a rank on each of two nodes.
TWO_NODES = """
import os, subprocess, sys
per_node, module, plan = sys.argv[1:]
ranks = []
for rank in range(2):
    places = {name: str(rank) for name in ("HPCSWEEP_RANK", "HPCSWEEP_NODE_RANK")}
    environ = os.environ | places | {"HPCSWEEP_LOCAL_RANK": "0"}
    ranks.append(subprocess.Popen([sys.executable, "-m", module, plan], env=environ))
sys.exit(max(abs(rank.wait()) for rank in ranks))
"""


@pytest.mark.parametrize(
    ("disturb", "ending", "message"),
    [
        (
            "os.kill(os.getppid(), 9); os.kill(os.getpid(), 9)",
            Interruption.WORKER_DIED,
            r"rank 1 on another node ended without a word, and rank 0 failed: .* a peer is gone",
        ),
        (
            "raise ValueError('lr')",
            Outcome.FAILED,
            r"train\.py:\d+ in train \| ValueError: lr",
        ),
        # It has left by itself: that is no fault of its node.
        ("os._exit(0)", Outcome.FAILED, r"train\.py:\d+ in get \| ConnectionError: a peer is gone"),
    ],
)
def test_a_rank_whose_peer_is_gone_with_its_node_costs_the_configuration_nothing(
    bench: Bench, disturb: str, ending: Interruption | Outcome, message: str
) -> None:
    lost = f"if RANK == 1 and step == 2:\n            {disturb}"
    bench.plan_python(code(lost), launcher="srun", processes=1, nodes=2)
    start = msgspec.json.encode([sys.executable, bench.code(TWO_NODES, "start.py")]).decode()
    told: dict[str, Any] = {START_VARIABLE: start, ADDRESS_VARIABLE: "127.0.0.1", "HPCSWEEP_NODES": "n[1-2]"}
    result = bench.work(**told)
    assert (result.outcome or result.interrupted, result.nodes) == (ending, "n[1-2]")
    assert re.fullmatch(message, result.message)


def test_a_launcher_that_is_killed_costs_the_configuration_nothing(bench: Bench) -> None:
    bench.plan_python(code("time.sleep(100)"), launcher="srun", processes=2)
    worker = bench.start()
    wait_until(lambda: (bench.workdir / "trained-0").exists())
    (launcher,) = processes(bench, "hpcsweep.worker.node")
    os.kill(launcher, signal.SIGKILL)
    assert worker.wait(PATIENCE_S) == 0
    (result,) = bench.results()
    assert result.interrupted is Interruption.WORKER_DIED
    assert result.message.startswith("its ranks ended, and none failed by itself")
    assert processes(bench) == []


def test_ranks_whose_port_was_taken_start_again_at_another_one(bench: Bench) -> None:
    takes = """
import socket, os
from pathlib import Path
with open("ports", "a") as file:
    print(os.environ["MASTER_PORT"], file=file)
if os.environ["RANK"] == "0" and len(Path("ports").read_text().split()) < 3:
    socket.create_server((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))).detach()
"""
    bench.plan_python(takes + code(), launcher="srun", processes=1)
    result = bench.work()
    assert (result.outcome, result.message) == (Outcome.COMPLETED, "")
    ports = (bench.workdir / "ports").read_text().split()
    assert len(ports) == len(set(ports)) == 3
    assert bench.log().count("somebody else had taken the port") == 2


# --------------------------------------------------------------------------- what each is told

PLAN = RankPlan(
    launcher="srun",
    nodes=2,
    per_node=4,
    address="n1",
    port=20_000,
    argv=("python", "train.py"),
    ending="/run/ending.json",
    folder="/run",
    log="/logs/3.log",
    log_limit_mib=None,
    python=sys.executable,
    mark="HPCSWEEP_RUN=/run",
)


def plan(launcher: str, nodes: int = 2) -> RankPlan:
    return msgspec.structs.replace(PLAN, launcher=launcher, nodes=nodes)


def test_cluster_and_worker_use_the_same_variables() -> None:
    task = task_variables(task=0, restart=0, job="1", start=["python", "step"], address="n1")
    assert {START_VARIABLE, ADDRESS_VARIABLE} <= task.keys()
    assert tuple(process_variables(rank=5, local=1, node=1)) == RANK_VARIABLES


def test_ranks_are_started_by_what_reaches_their_nodes() -> None:
    environ = task_variables(task=0, restart=0, job="1", start=["python", "step"])
    path = Path("/run/ranks.json")
    rank, node = "hpcsweep.worker.rank", "hpcsweep.worker.node"
    assert launcher_arguments(plan("srun"), path, environ) == ["python", "step", "4", rank, str(path)]
    assert launcher_arguments(plan("torchrun"), path, environ) == ["python", "step", "1", node, str(path)]
    for launcher in ("torchrun", "accelerate"):  # on its own node the worker needs nobody
        assert launcher_arguments(plan(launcher, nodes=1), path, environ)[-2:] == [node, str(path)]
    assert launcher_arguments(plan("srun", nodes=1), path, {})[-2:] == [node, str(path)]
    with pytest.raises(TrainerError, match="did not tell"):
        launcher_arguments(plan("torchrun"), path, {})


def test_torchrun_and_accelerate_are_told_where_all_ranks_are(tmp_path: Path) -> None:
    torchrun = launcher_command(plan("torchrun"), ["rank"], node=1, environ={})
    assert torchrun == [
        *(sys.executable, "-m", "torch.distributed.run"),
        *("--nnodes=2", "--node-rank=1", "--nproc-per-node=4"),
        *("--master-addr=n1", "--master-port=20000", "--no-python", "rank"),
    ]
    home = {"HF_HOME": str(tmp_path)}
    accelerate = launcher_command(plan("accelerate"), ["rank"], node=1, environ=home)
    expected = [
        *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"),
        *("--num_machines=2", "--machine_rank=1", "--num_processes=8"),
        *("--main_process_ip=n1", "--main_process_port=20000", "--no_python", "rank"),
    ]
    assert accelerate == expected
    config = tmp_path / "accelerate" / "default_config.yaml"
    config.parent.mkdir()
    config.touch()  # it says how to train, and a flag would override it
    expected.remove("--multi_gpu")
    assert launcher_command(plan("accelerate"), ["rank"], node=1, environ=home) == expected
    elsewhere = msgspec.structs.replace(plan("torchrun"), python="/other/python")
    assert launcher_command(elsewhere, ["rank"], node=0, environ={"PATH": ""}) is None


def test_a_rank_learns_its_place_from_what_started_it() -> None:
    srun = process_variables(rank=5, local=1, node=1)
    assert place_of(PLAN, {**srun, "RANK": "7"}) == Place(5, 1, 1)
    torchrun = {"RANK": "7", "LOCAL_RANK": "3", "GROUP_RANK": "1"}
    assert place_of(plan("torchrun"), {**srun, **torchrun}) == Place(7, 3, 1)
    assert place_of(plan("accelerate"), {}) == Place(0, 0, 0)


def test_the_program_of_a_rank_finds_the_others_by_the_variables_of_torch() -> None:
    srun = process_variables(rank=5, local=1, node=1)
    environ = rank_environment(PLAN, Place(5, 1, 1), {**srun, "OMP_NUM_THREADS": "9", "RANK": "0", "A": "b"})
    environ.pop("HPCSWEEP_RANK_MARK")
    assert environ == {
        "A": "b",
        "MASTER_ADDR": "n1",
        "MASTER_PORT": "20000",
        "RANK": "5",
        "LOCAL_RANK": "1",
        "NODE_RANK": "1",
        "WORLD_SIZE": "8",
        "LOCAL_WORLD_SIZE": "4",
        "OMP_NUM_THREADS": "2",
    }
    own = {"RANK": "5", "LOCAL_RANK": "1", "MASTER_PORT": "29401", "WORLD_SIZE": "8"}
    torchrun = rank_environment(plan("torchrun"), Place(5, 1, 1), own)
    assert torchrun | own == torchrun, "what torchrun says stays"


def test_the_rank_that_failed_first_is_that_of_the_run(tmp_path: Path) -> None:
    assert first_failure(tmp_path) is None
    failures = [
        # The clock of its node is late.
        RankFailure(rank=0, returncode=1, at=0.5, message="Connection reset by peer"),
        RankFailure(rank=3, returncode=-9, at=1.0),
        RankFailure(rank=2, returncode=-9, at=2.0),
    ]
    for failure in failures:
        (tmp_path / f"failed-{failure.rank}.json").write_bytes(msgspec.json.encode(failure))
    (tmp_path / "failed-7.json").write_bytes(b"torn")
    assert first_failure(tmp_path) == failures[2], "of equals the lowest"


def test_the_first_rank_of_a_further_node_says_how_much_memory_the_run_held_there(tmp_path: Path) -> None:
    folder, mark = str(tmp_path), {"HPCSWEEP_RUN": str(tmp_path)}
    argv = (sys.executable, "-c", "held = b'x' * (200 << 20)")
    told = msgspec.structs.replace(PLAN, per_node=2, argv=argv, folder=folder, log=f"{folder}/log")
    path = write_plan(msgspec.structs.replace(told, mark=f"HPCSWEEP_RUN={tmp_path}"))
    places = dict(zip(RANK_VARIABLES, ("2", "0", "1"), strict=True))
    command = [sys.executable, "-m", "hpcsweep.worker.rank", str(path)]
    assert lost_ranks(told) == [2, 3]
    assert subprocess.run(command, env=os.environ | mark | places, check=False).returncode == 0
    assert 200 <= measured_mib(told) < 300
    assert lost_ranks(told) == [3]


def test_ports_of_runs_on_one_machine_differ_and_are_free(tmp_path: Path) -> None:
    run = str(tmp_path)  # tests beside this one keep ports, too
    ports = [Port(run) for _ in range(3)]
    numbers = [port.number for port in ports]
    assert len(set(numbers)) == 3
    with socket.create_server(("", numbers[1])):
        assert not is_free(numbers[1])
        ports[1].close()
        another = Port(run)
        assert another.number not in numbers
        another.close()
    for port in ports:
        port.close()
    again = Port(run)
    assert again.number == numbers[0]
    again.close()


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("OSError: [Errno 98] Address already in use", True),
        ("DistNetworkError: ... port: 29500, useIpv6: false, code: -98, name: EADDRINUSE", True),
        ("ConnectionError: a peer is gone", False),
    ],
)
def test_a_taken_port_is_known_by_what_programs_say(text: str, taken: bool) -> None:
    assert is_taken(text) is taken


# --------------------------------------------------------------------------- leaving together


def lockstep(
    path: Path, told_at: int, *, size: int = 3, last: int = 9, calls: bool = False
) -> list[list[int]]:
    """The steps of each rank, which meet in each step; rank 0 is told in step `told_at`."""
    path.touch()
    barrier = threading.Barrier(size, timeout=PATIENCE_S)
    done: list[list[int]] = [[] for _ in range(size)]

    def train(rank: int) -> None:
        agreement = StopAgreement(path, rank=rank, told=lambda: len(done[0]) >= told_at)
        for step in range(1, last + 1):
            if agreement.leaves_now() if calls else agreement.leaves_before(step):
                return
            barrier.wait()
            done[rank].append(step)

    threads = [threading.Thread(target=train, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


@pytest.mark.parametrize("calls", [False, True])
@pytest.mark.parametrize("told_at", [0, 1, 4, 8, 9, 20])
def test_ranks_in_lockstep_end_after_the_same_step(tmp_path: Path, told_at: int, calls: bool) -> None:
    expected = list(range(1, min(told_at + 1, 9) + 1))
    assert lockstep(tmp_path / "agreed", told_at, calls=calls) == [expected] * 3


def test_a_torn_line_decides_nothing_and_steps_and_calls_are_decided_apart(tmp_path: Path) -> None:
    path = tmp_path / "agreed"
    path.write_text("call 2\nstep 1")
    agreement = StopAgreement(path, rank=1, told=lambda: True)
    assert not agreement.leaves_before(5)
    assert [agreement.leaves_now() for _ in range(3)] == [False, False, True]
    path.write_text("call 2\nstep 5\n")
    assert [agreement.leaves_before(step) for step in (5, 6)] == [False, True]
