"""Runs of several processes: where they meet, how they leave together, and what becomes of one that dies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hpcsweep.core.events import Outcome

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


def left_over(bench: Bench) -> list[str]:
    """Processes of the bench's runs."""
    mark, found = f"HPCSWEEP_RUN={bench.temporary}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text())
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
