"""The quality benchmark measures what it says: regrets, virtual time, and verdicts on them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.random import default_rng

import hpcsweep
from benchmarks.held_out import HELD_OUT, WIDE
from benchmarks.problems import PROBLEMS, Curves, hartmann_curves
from benchmarks.quality import OPTUNA_TPE, OURS, Result, Task, argument_parser, main, run_tasks
from benchmarks.quality_ax import AX, AX_INSTALLED
from benchmarks.quality_curves import ReferenceASHA, Sweep, full_training, target, time_to_target
from benchmarks.quality_functions import BEFORE, regret
from benchmarks.quality_verdicts import Table, curve_verdicts, function_verdicts, print_table
from hpcsweep.core.events import Outcome, RunFinished, TrialCreated, TrialPromoted
from hpcsweep.core.protocols import Promote, Scheduler, Start
from hpcsweep.core.space import Float, Parameter, Space
from hpcsweep.schedulers.asha import ASHA
from hpcsweep.schedulers.fifo import Fifo
from hpcsweep.schedulers.synchronous import Hyperband
from hpcsweep.searchers.random import Random

# --------------------------------------------------------------------------- functions


@pytest.mark.parametrize("method", ["random", OPTUNA_TPE])
def test_more_evaluations_have_no_greater_regret(method: str) -> None:
    found = [regret("conditional", method, batch=5, evaluations=n, seed=1) for n in (5, 10, 40)]
    assert found == sorted(found, reverse=True)
    assert found[-1] >= 0
    assert regret("conditional", method, batch=5, evaluations=40, seed=1) == found[-1]


def test_the_regret_of_a_noisy_function_is_the_true_one_of_the_best_observation() -> None:
    problem = PROBLEMS["noisy"]
    configs = problem.space.sample(30, default_rng([3, 0]))
    true = np.array([problem.value(config) for config in configs])
    seeming = true + 0.3 * default_rng([3, 1]).standard_normal(30)
    found = regret("noisy", "random", batch=30, evaluations=30, seed=3)
    assert found == true[seeming.argmin()] - problem.minimum


def test_functions_held_out_have_5_10_and_30_dimensions_and_each_seed_another_one() -> None:
    named = {
        word: argument_parser().parse_args(["--functions", word]).functions for word in ("held-out", "wide")
    }
    assert named == {"held-out": list(HELD_OUT), "wide": list(WIDE)}
    for name, make in (HELD_OUT | WIDE).items():
        one, other = make(0), make(1)
        assert (one.name, len(one.space.columns)) == (name, int(name.rpartition("-")[2]))
        config = {parameter.name: 0.5 for parameter in one.space.parameters}
        assert one.value(config) == make(0).value(config) != other.value(config)


# --------------------------------------------------------------------------- learning curves


def line(max_resource: int) -> Curves:
    """One second a unit; the value is x at any resource."""
    return Curves(
        "line",
        Space((Parameter("x", Float(0.0, 1.0)),)),
        max_resource,
        lambda configs, resource: np.array([config["x"] for config in configs]),
        lambda configs: np.ones(len(configs)),
    )


def test_idle_workers_get_runs_and_time_advances_to_the_next_end() -> None:
    sweep = Sweep(line(9), Fifo(max_resource=9), Random(), seed=0, workers=4)
    for _ in range(3):
        sweep.step()
    assert (sweep.now, sweep.trials) == (27.0, 12)
    first = [config["x"] for config in line(9).space.sample(4, default_rng([0, 0]))]
    assert sweep.best <= min(first)


def test_promoted_trials_go_on_from_their_checkpoint() -> None:
    sweep = Sweep(line(9), Hyperband(max_resource=9, iterations=1), Random(), seed=0, workers=9)
    times = []
    for _ in range(3):  # bracket 2: nine trials to 1, three to 3; bracket 1 begins beside the three
        sweep.step()
        times.append(sweep.now)
    assert times == [1.0, 3.0, 4.0]


def test_the_reference_is_the_papers_asha_on_a_hand_made_table() -> None:
    scheduler = ReferenceASHA(max_resource=9)
    assert scheduler.decide(2) == [Start(0, 1), Start(0, 1)]
    for trial, value in enumerate([0.5, 0.2, 0.9, 0.1, 0.4, 0.3]):
        scheduler.apply(TrialCreated(trial, {}, 0, 1))
        scheduler.apply(RunFinished(trial, 0, Outcome.COMPLETED, value, 1))
    assert scheduler.decide(3) == [Promote(3, 1, 3), Promote(1, 1, 3), Start(0, 1)]
    for trial in (3, 1):
        scheduler.apply(TrialPromoted(trial, 1, 3))
        scheduler.apply(RunFinished(trial, 1, Outcome.COMPLETED, 0.5, 3))
    assert scheduler.decide(1) == [Start(0, 1)]  # two of rung 1 are no three


def test_our_asha_takes_no_longer_than_the_reference() -> None:
    def until(scheduler: Scheduler) -> list[tuple[float, int]]:
        sweep = Sweep(line(27), scheduler, Random(), seed=2, workers=8)
        found = []
        for _ in range(150):
            sweep.step()
            found.append((sweep.now, sweep.trials))
        return found

    assert until(ASHA(max_resource=27)) == until(ReferenceASHA(max_resource=27))


def test_time_to_target_is_when_a_value_first_reaches_it() -> None:
    name = "hartmann6-fidelity"
    seconds = time_to_target(name, "random+hyperband", seed=0)
    scheduler = Hyperband(max_resource=81, iterations=None)
    sweep = Sweep(hartmann_curves(), scheduler, Random(), seed=0)
    while sweep.now < seconds:
        assert sweep.best > target(name, 0)
        sweep.step()
    assert sweep.now == seconds
    assert sweep.best <= target(name, 0)


def test_a_good_value_at_the_full_resource_takes_a_full_training_at_least() -> None:
    name = "hartmann6-fidelity"
    assert full_training(name, 0) == 81.0
    full = time_to_target(name, "tpe+asha", seed=0, full=True)
    assert time_to_target(name, "tpe+asha", seed=0) < 81.0 <= full


# --------------------------------------------------------------------------- results and verdicts


def test_results_that_are_kept_are_not_computed_again(tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    kept.write_text(
        '{"task":{"problem":"branin","method":"random","batch":1,"evaluations":9,"seed":4},'
        '"value":-7.0,"cpu_s":1.0}\n'
    )
    task = Task("branin", "random", 1, 9, 4)
    new = tmp_path / "new.jsonl"
    (found,) = run_tasks([task], load=[kept], save=new, jobs=1)
    assert (found.task, found.value) == (task, -7.0)
    assert not new.exists()
    other = Task("branin", "random", 1, 9, 5)
    first, second = run_tasks([task, other], load=[kept], save=new, jobs=1)
    assert first == found
    assert second.value == regret("branin", "random", batch=1, evaluations=9, seed=5)
    assert list(run_tasks([other], load=[new], save=None, jobs=1)) == [second]


def test_a_sweep_of_an_earlier_version_runs_with_the_package_in_its_folder(tmp_path: Path) -> None:
    earlier, imported = tmp_path / "earlier" / "hpcsweep", tmp_path / "imported"
    earlier.mkdir(parents=True)
    today = str(Path(hpcsweep.__file__).parent)
    (earlier / "__init__.py").write_text(f"__path__ = [{today!r}]\nopen({str(imported)!r}, 'w').close()\n")
    task = Task("branin", f"{BEFORE}random", 3, 9, 2)
    with pytest.raises(SystemExit, match="needs the folder of an earlier version"):
        list(run_tasks([task], load=[], save=None, jobs=1))
    (found,) = run_tasks([task], load=[], save=None, jobs=1, before=earlier.parent)
    assert (found.task, found.value) == (task, regret("branin", "random", batch=3, evaluations=9, seed=2))
    assert imported.exists()


def test_a_sweep_of_an_earlier_version_imports_no_benchmark_of_what_that_may_lack() -> None:
    """Such as priors and several objectives."""
    code = "import sys, benchmarks.quality_functions; print(*sys.modules)"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True, check=True
    )
    found = {name for name in done.stdout.split() if name.startswith("benchmarks.")}
    assert found == {"benchmarks.problems", "benchmarks.held_out", "benchmarks.quality_functions"}


def test_all_parts_are_those_of_several_objectives_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept.jsonl"
    tasks = [
        Task("zdt1", "tpe", 16, 200, 0),
        Task("power-law-pair", "random+asha", 32, 0, 0),
        Task("power-law", "tpe+asha", 32, 0, 0),
    ]
    results = [Result(task, 3.0, 1.0, (2.0, 3.0, 4.0)[: 2 + (not task.evaluations)]) for task in tasks]
    kept.write_bytes(b"\n".join(map(msgspec.json.encode, results)))
    monkeypatch.setattr(sys, "argv", f"quality --part all --seeds 1 --jobs 0 --load {kept}".split())
    assert main() == 0
    out = capsys.readouterr().out
    assert "Median regret after 160 evaluations: not measured" in out
    assert "power-law                    1" in out
    assert "| zdt1, 16, 200 | 1 | - | - | - | 3 |" in out
    assert "| power-law-pair | random+asha | 1 | 2.000 | 3.000 | 4.000 |" in out


@pytest.mark.skipif(AX_INSTALLED, reason="Ax is installed")
def test_ax_that_is_not_installed_is_one_line() -> None:
    with pytest.raises(SystemExit, match=r"ax: Ax is not installed; pip install ax-platform"):
        list(run_tasks([Task("zdt1", AX, 16, 200, 0)], load=[], save=None, jobs=1))


def table_of(batch: int, medians: dict[str, dict[str, float | None]]) -> Table:
    table = Table()
    for problem, by_method in medians.items():
        for method, value in by_method.items():
            for spread in (0.5, 1.0, 4.0):
                table.add(problem, batch, method, value=None if value is None else spread * value)
    return table


def test_verdicts_on_functions_count_wins_and_name_losses() -> None:
    table = table_of(
        1,
        {
            "branin": {"random": 8.0, "tpe": 2.0, OPTUNA_TPE: 2.0, "gp": 1.0, "cmaes": 9.0, "auto": 1.5},
            "levy": {"random": 8.0, "tpe": 2.0, OPTUNA_TPE: 1.0, "gp": 2.0, "cmaes": 1.0, "auto": 4.0},
        },
    )
    claim = "auto never worse than the second best of ours"
    assert [str(verdict) for verdict in function_verdicts(table, ours=OURS, peer=OPTUNA_TPE)] == [
        "tpe <= optuna:TPESampler on at least 7 of 10, batch 1: NOT reached, 1 of 2 (branin 1.00, levy 2.00)",
        "gp < tpe on the smooth ones, batch 1: NOT reached, branin 0.50, levy 1.00",
        f"{claim}: NOT reached, 1 of 2 (levy/1 is number 4, 2.00 of the second)",
        "tpe beats random: reached, 2 of 2",
        "gp beats random: reached, 2 of 2",
        "cmaes beats random: NOT reached, 1 of 2 (not branin/1 1.12)",
        "evolution beats random: not measured",
        "auto beats random: reached, 2 of 2",
    ]


def test_a_searcher_is_held_against_its_earlier_version_on_all_functions_together() -> None:
    found: dict[str, dict[str, float | None]] = {
        "branin": {"gp": 2.0, f"{BEFORE}gp": 1.0},
        "levy": {"gp": 1.0, f"{BEFORE}gp": 2.0},
    }
    claim = "gp has at most 1.15 of the regret of before:gp"
    *_, verdict = function_verdicts(table_of(16, found), ours=OURS, peer=OPTUNA_TPE)
    assert str(verdict) == f"{claim}: reached, 1.00 in the geometric mean (branin/16 2.00, levy/16 0.50)"
    found["levy"]["gp"] = 1.5
    *_, verdict = function_verdicts(table_of(16, found), ours=OURS, peer=OPTUNA_TPE)
    assert str(verdict) == f"{claim}: NOT reached, 1.22 in the geometric mean (branin/16 2.00, levy/16 0.75)"


def test_verdicts_on_learning_curves_want_every_problem() -> None:
    table = table_of(
        32,
        {
            "a": {
                "random+hyperband": 10.0,
                "tpe+hyperband": 6.0,
                "random+asha": 9.0,
                "random+reference-asha": 9.0,
            },
            "b": {
                "random+hyperband": 10.0,
                "tpe+hyperband": 7.0,
                "random+asha": None,
                "random+reference-asha": 9.0,
            },
        },
    )
    claim = "Hyperband with tpe needs at most 0.6 of the time of Hyperband with random"
    assert [str(verdict) for verdict in curve_verdicts(table)] == [
        "ASHA no later than the plain reference ASHA: NOT reached, a 1.00, b inf",
        f"{claim}: NOT reached, a 0.60, b 0.70",
    ]


def test_the_table_shows_medians_and_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    table = table_of(16, {"branin": {"random": 8.0, "tpe": 2.0}, "levy": {"random": 1.0}})
    table.add("branin", 16, "tpe", value=2.0)
    print_table(table, what="Median regret", baseline="random")
    first, *rest = capsys.readouterr().out.splitlines()
    told = "in brackets its ratio to random, and the seeds where they are fewer than the row's"
    assert first == f"Median regret; {told}"
    assert [line.split() for line in rest if line] == [
        ["at", "a", "time:", "16", "seeds", "random", "tpe"],
        ["branin", "4", "8", "(1.00)", "[3]", "2", "(0.25)"],
        ["levy", "3", "1", "(1.00)", "-"],
        ["geometric", "mean", "(1.00)", "(0.25)"],
        ["CPU", "s", "in", "all", "0", "0"],
    ]
