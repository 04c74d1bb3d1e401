"""The tables of several objectives: hypervolumes, shares over time, and of how many seeds they are."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.front_problems import FRONTS
from benchmarks.quality_ax import AX_INSTALLED, ax_values
from benchmarks.quality_front_curves import JUDGED, front_curves, print_shares, shares
from benchmarks.quality_fronts import PEERS, Cell, hypervolumes, print_fronts
from hpcsweep.core import pareto
from hpcsweep.core.history import History
from hpcsweep.searchers import make_searcher


@pytest.mark.parametrize("method", ["random", PEERS[0]])
def test_a_hypervolume_is_that_of_the_first_evaluations_of_a_sweep(method: str) -> None:
    found = hypervolumes("digits", method, batch=4, evaluations=12, seed=3, checked=(5, 12))
    assert 0 < found[0] <= found[1]
    assert found[:1] == hypervolumes("digits", method, batch=4, evaluations=5, seed=3, checked=(5,))


@pytest.mark.skipif(not AX_INSTALLED, reason="Ax is not installed")
@pytest.mark.filterwarnings("ignore")
def test_a_sweep_of_ax_is_asked_in_batches_and_told_all_objectives() -> None:
    values = ax_values(FRONTS["digits"], batch=4, evaluations=10, seed=0)
    assert len(values) == 10
    assert {len(value) for value in values} == {2}
    assert values == ax_values(FRONTS["digits"], batch=4, evaluations=10, seed=0)
    assert values != ax_values(FRONTS["digits"], batch=4, evaluations=10, seed=1)


def test_a_hypervolume_is_up_to_the_reference_point_of_the_problem() -> None:
    problem = FRONTS["zdt2"]
    configs = make_searcher("random", seed=0, options={}).ask(
        8, History(problem.space), np.random.default_rng([0, 0])
    )
    values = np.array([problem.values(config) for config in configs])
    expected = pareto.hypervolume(values, np.array(problem.reference))
    assert hypervolumes("zdt2", "random", batch=8, evaluations=8, seed=0, checked=(8,)) == (expected,)


def test_the_table_of_hypervolumes_says_of_how_many_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    peer = PEERS[0]
    found = {
        Cell("zdt1", 1, 100, "auto"): [3.0, 1.0, 2.0],
        Cell("zdt1", 1, 100, peer): [2.2],
        Cell("zdt1", 16, 100, "auto"): [],
    }
    assert not print_fronts(found)
    *_, head, _, row, _, verdict = capsys.readouterr().out.splitlines()
    assert head == f"| problem, batch, evaluations | seeds | auto | {peer} |"
    assert row == "| zdt1, 1, 100 | 3 | 2 | 2.2 (1) |"
    assert verdict == "NOT REACHED: auto is level with the best peer in 0 of 1 cells, ahead in 0"


def test_a_share_is_that_of_what_random_configurations_reach_in_full() -> None:
    problem = front_curves("power-law-time", 0)
    found = shares("power-law-time", "random+fifo", seed=0)
    assert 0 == found[0] < found[1] < found[2] < 1  # nothing ends in half a full training
    configs = problem.curves.space.sample(50, np.random.default_rng(1))
    low, full = problem.points(configs, 9), problem.points(configs, 81)
    assert (full[:, 0] < low[:, 0]).all()
    assert (full[:, 1] == low[:, 1]).all()
    assert problem.curves.values(configs, 9) == pytest.approx(low.sum(axis=1))


def test_asha_of_all_objectives_is_held_against_fifo_and_the_sum(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"random+fifo": 0.2, "random+asha-sum": 0.4, JUDGED: 0.5}
    found = {("pair", method): [(0.1, 0.2, share)] * 2 for method, share in rows.items()}
    assert print_shares(found)
    assert f"| pair | {JUDGED} | 2 | 0.100 | 0.200 | 0.500 |" in capsys.readouterr().out
    found["pair", "random+asha-sum"] = [(0.1, 0.2, 0.6)]
    assert not print_shares(found)
    assert "NOT REACHED" in capsys.readouterr().out
