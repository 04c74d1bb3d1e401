"""The command line: what it refuses, in which words and with which code, and that it leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hpcsweep.cli import app
from hpcsweep.cli.launch import Interrupted, _Signals
from tests.doubles import FolderCluster
from tests.driver.sweeps import drive
from tests.waiting import PATIENCE_S, wait_until

SPEC = """\
name: lr
train: {function: "trainer.py:train"}
objective: {metric: loss}
space:
  lr: {type: float, low: 1e-4, high: 1.0, log: true}
searcher: random
scheduler: {name: hyperband, max_resource: 9}
cluster: {name: local, slots: 1}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "trainer.py").write_text("def train(trial):\n    return trial.config['lr']\n\nnumber = 3\n")
    (tmp_path / "broken.py").write_text("import a_package_that_is_not_there\n")
    (tmp_path / "lr.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*argv: str) -> Result:
    return CliRunner().invoke(app, argv)


#: Hyperband of five trials and six runs.
SHORT = ("--set", "scheduler.max_resource=3")
LAUNCH = "hpcsweep: lr.yaml: "
BAD = {
    "schedular=3": "--set schedular=3: schedular: unknown key; did you mean 'scheduler'?",
    "space.lr.low=0": "--set space.lr.low=0: space.lr.low: must be > 0 on a log scale, got 0",
    "space.lr.low=2.0": "--set space.lr.low=2.0: space.lr.low: must be < high (1.0), got 2.0",
    "space.o={type: choice, values: []}": "space.o.values: must have at least one value, got an empty list",
    "space.m={type: float, low: 0, high: 1, when: {opt: sgd}}": (
        "space.m.when.opt: unknown parameter; expected one of: lr, m"
    ),
    "train.function=nowhere.py:train": "train.function: {here}/nowhere.py: there is no such file",
    "train.function=trainer.py:trian": "train.function: {here}/trainer.py: has no 'trian'",
    "train.function=broken.py:train": "No module named 'a_package_that_is_not_there'",
    "train.function=trainer.py:number": "trainer.py: 'number' is not a function but int",
    "cluster.name=slurn": "cluster.name: unknown name 'slurn'; did you mean 'slurm'?",
    "resources.mem=lots": "resources.mem: ",
}


@pytest.mark.parametrize(("override", "words"), BAD.items(), ids=list(BAD))
def test_invalid_input_exits_with_2_and_creates_nothing(here: Path, override: str, words: str) -> None:
    before = sorted(here.rglob("*"))
    result = run("launch", "lr.yaml", "--set", override)
    assert result.exit_code == 2, result.output
    assert words.format(here=here) in result.stderr
    assert result.stderr.startswith("hpcsweep: ")
    assert "Traceback" not in result.output
    assert [path for path in sorted(here.rglob("*")) if "__pycache__" not in path.parts] == before


def test_missing_spec_and_invalid_yaml_exit_with_2(here: Path) -> None:
    missing = run("launch", "nofile.yaml")
    assert (missing.exit_code, missing.stderr) == (
        2,
        "hpcsweep: nofile.yaml: cannot be read: No such file or directory\n",
    )
    (here / "bad.yaml").write_text("name: [unclosed\n")
    broken = run("launch", "bad.yaml")
    assert broken.exit_code == 2
    assert broken.stderr.startswith("hpcsweep: bad.yaml:")


def test_folder_of_another_sweep_is_refused_with_the_difference_and_left_alone(here: Path) -> None:
    assert run("launch", "lr.yaml", "--set", "budget.trials=1", "--quiet").exit_code == 0
    before = sorted((path, path.stat().st_mtime_ns) for path in (here / "results").rglob("*"))
    changed = ["--set", "space.lr.high=0.5", "--set", "scheduler.eta=2", "--set", "objective.mode=max"]
    result = run("launch", "lr.yaml", *changed)
    assert result.exit_code == 2
    assert result.stderr == (
        "hpcsweep: results/lr: belongs to another sweep ('lr'); since it was started this has changed:\n"
        "  objective.mode: 'min' -> 'max' (values that were measured otherwise cannot be compared)\n"
        "  space.lr.high: 1.0 -> 0.5 (results before and after it would be of different searches)\n"
        "  scheduler.eta: 3 -> 2 "
        "(its rungs and brackets follow from it; of hyperband, iterations may be raised)\n"
        "Take the change back, or give another folder with --results, where `warm_start: [results/lr]` "
        "lets the searcher learn from the results of this one. "
        "budget, cluster, resources and store may change at any time.\n"
    )
    assert sorted((path, path.stat().st_mtime_ns) for path in (here / "results").rglob("*")) == before


def test_budget_cluster_and_resources_may_change_between_launches(here: Path) -> None:
    assert run("launch", "lr.yaml", *SHORT, "--once").exit_code == 3
    changed = ["--set", "budget.time=1d", "--set", "cluster.slots=2", "--set", "resources.time=5m"]
    assert run("launch", "lr.yaml", *SHORT, *changed).exit_code == 0


def test_folder_without_a_sweep_must_be_empty(here: Path) -> None:
    (here / "thesis").mkdir()
    (here / "thesis" / "chapter1.tex").touch()
    (here / "file").touch()
    for folder, words in (("thesis", "is not empty and holds no sweep"), ("file", "is a file")):
        result = run("launch", "lr.yaml", "--results", folder)
        assert result.exit_code == 2
        assert words in result.stderr
    assert sorted(path.name for path in (here / "thesis").iterdir()) == ["chapter1.tex"]


def test_results_folder_that_cannot_be_created_is_an_error(here: Path) -> None:
    result = run("launch", "lr.yaml", "--results", "/proc/1/results")
    assert result.exit_code == 2
    assert "/proc/1/results/journal: cannot be written: No such file or directory" in result.stderr


@pytest.mark.parametrize("verb", ["status", "best", "stop", "export", "retry"])
def test_verbs_refuse_what_is_no_results_folder(here: Path, verb: str) -> None:
    for folder, words in (("nowhere", "does not exist"), (".", "is not a results folder")):
        result = run(verb, folder)
        assert result.exit_code == 2
        assert words in result.stderr


def test_plan_prints_trials_runs_and_units_and_writes_nothing(here: Path) -> None:
    result = run("plan", "lr.yaml", "--set", "scheduler.max_resource=81")
    assert result.exit_code == 0
    assert result.stdout == (
        "lr: on this machine, 1 run at a time on CPUs (as asked for)\n"
        "searcher: random\n"
        "\n"
        "search space: infinite\n"
        "bracket 0 (trials x resource): 81x1 > 27x3 > 9x9 > 3x27 > 1x81\n"
        "bracket 1 (trials x resource): 34x3 > 11x9 > 3x27 > 1x81\n"
        "bracket 2 (trials x resource): 15x9 > 5x27 > 1x81\n"
        "bracket 3 (trials x resource): 8x27 > 2x81\n"
        "bracket 4 (trials x resource): 5x81\n"
        "143 trials, 206 runs at most\n"
        "1,581 units of resource trained if each rung goes on from checkpoints (1,902 without them)\n"
        "wall time: unknown; --seconds-per-step gives an estimate\n"
    )
    assert not (here / "results").exists()


@pytest.mark.parametrize(
    ("resources", "processes"),
    [("{cpus: 3}", "3"), ("{gpus: 2, cpus: 4}", "2"), ("{gpus: '1 if lr < 1e-3 else 4', cpus: 4}", "1 to 4")],
)
def test_plan_says_how_many_processes_a_run_has(here: Path, resources: str, processes: str) -> None:
    sets = ["train.launcher=torchrun", f"resources={resources}"]
    sets += ["train.processes=3"] if processes == "3" else []
    result = run("plan", "lr.yaml", *(word for each in sets for word in ("--set", each)))
    assert f"\nprocesses of a run: {processes}, started by torchrun\n" in result.stdout


def test_plan_of_endless_rounds_says_so(here: Path) -> None:
    halving = "scheduler={name: halving, min_resource: 2, max_resource: 10, rounds: null}"
    result = run("plan", "lr.yaml", "--set", halving, "--set", "budget.trials=20")
    assert "bracket 0 (trials x resource): 8x2 > 4x4 > 2x8 > 1x10\n" in result.stdout
    assert "each time: 8 trials, 15 runs at most\n" in result.stdout
    assert (
        "each time: 34 units of resource trained if each rung goes on from checkpoints (58 without them)\n"
        in result.stdout
    )
    assert "again and again until the budget ends\n" in result.stdout


def test_plan_of_asha_estimates_each_rung_and_prints_the_maximum(here: Path) -> None:
    asha = "scheduler={name: asha, max_resource: 27, eta: 3}"
    result = run("plan", "lr.yaml", "--set", asha, "--set", "budget.trials=100")
    assert "bracket 0 (about, trials x resource): 100x1 > 33x3 > 11x9 > 3x27\n" in result.stdout
    words = "about 147 runs, 388 at most: who is promoted stays so when better ones come\n"
    assert words in result.stdout
    assert "one in 3 of a rung goes on, as results come\ntrials: 100\n" in result.stdout
    endless = run("plan", "lr.yaml", "--set", asha, "--set", "budget.time=1h")
    assert "bracket 0 (resource): 1 > 3 > 9 > 27\n" in endless.stdout
    ends = "trials: until the budget ends\nwall time: about 60 min, when budget.time ends it\n"
    assert endless.stdout.endswith(ends)


def test_plan_of_repeats_counts_each_of_them(here: Path) -> None:
    result = run("plan", "lr.yaml", "--set", "repeats=3")
    assert "51 trials, 66 runs at most\n" in result.stdout


def test_plan_of_tasks_that_keep_their_gpus_says_how_many_for_how_long_and_what_waits_do(here: Path) -> None:
    def told(*sets: str) -> list[str]:
        options = ("cluster.reuse=true", "cluster.idle=60", "cluster.slots=8", *sets)
        out = run("plan", "lr.yaml", *(word for each in options for word in ("--set", each))).stdout
        return out.splitlines()

    each = "each does run after run, for 60 min at most, and leaves after 60 s without one"
    waits = "queue waits: one for each task, then about 3 runs one after another"
    assert told("resources.time=25m")[-3:] == [
        f"at most 8 tasks at a time; {each}",
        f"{waits} (with cluster.reuse: false one for each run, 3 in a row up to the last rung)",
        "if every run takes its whole time limit, 22 runs take 11 tasks: those that end are replaced",
    ]
    assert told("scheduler={name: fifo, max_resource: 3}", "budget.trials=5")[-2:] == [
        "at most 5 tasks at a time; each does run after run, and leaves after 60 s without one",
        "queue waits: one for each task (with cluster.reuse: false one for each run)",
    ]
    assert told("scheduler={name: asha, max_resource: 27}", "budget.time=1h")[-2:] == [
        "wall time: about 60 min, when budget.time ends it",
        "at most 8 tasks at a time; each does run after run, and leaves after 60 s without one",
    ]


def test_plan_prints_how_many_tasks_a_gpu_hours_budget_allows_in_the_queue(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcsweep.cluster.local.backend.local_gpus", lambda: ["0", "1", "2", "3"])
    gpus = ["--set", "resources.gpus=2", "--set", "budget.gpu_hours=10"]
    told = run("plan", "lr.yaml", *gpus, "--set", "resources.time=90m")
    assert told.stdout.splitlines()[-1] == (
        "budget.gpu_hours 10: at most 3 tasks in the queue at a time, 2 GPUs for 90 min each"
    )
    unlimited = run("plan", "lr.yaml", *gpus)
    assert (unlimited.exit_code, unlimited.stderr) == (
        2,
        (
            "hpcsweep: lr.yaml: budget.gpu_hours: needs resources.time: "
            "without a time limit nothing can be held to it\n"
        ),
    )
    on_cpus = run("plan", "lr.yaml", "--set", "resources.gpus=0", "--set", "budget.gpu_hours=10")
    assert on_cpus.exit_code == 0
    assert on_cpus.stdout.endswith("budget.gpu_hours 10: nothing is spent of it, as no run has a GPU\n")


def test_next_launch_runs_what_is_enqueued(here: Path) -> None:
    assert run("launch", "lr.yaml", *SHORT, "--once").exit_code == 3
    result = run("enqueue", "results/lr", "lr=1e-2")
    assert (result.exit_code, result.stdout) == (
        0,
        "enqueued; no driver is at work: launch again to resume\n",
    )
    assert run("launch", "lr.yaml", *SHORT, "--quiet").exit_code == 0
    told = json.loads(run("explain", "results/lr", "3", "--json").stdout)
    assert told["config"] == {"lr": 0.01}
    status = json.loads(run("status", "results/lr", "--json").stdout)
    assert status["enqueued"] == 0
    late = run("enqueue", "results/lr", "lr=0.5")
    assert "the sweep has finished: launch it again to run it" in late.stdout


def test_enqueue_status_and_launch_report_what_waits_for_a_higher_budget(here: Path) -> None:
    fifo = ["--set", "scheduler=fifo", "--set", "budget.trials=2"]
    assert run("launch", "lr.yaml", "--quiet", *fifo).exit_code == 0
    why = "budget.trials 2 lets none start; raise it, then launch again"
    assert run("enqueue", "results/lr", "lr=0.5").stdout == f"enqueued, and waits: {why}\n"
    assert f"enqueued: 1 configuration waits for its start; {why}\n" in run("status", "results/lr").stdout
    again = run("launch", "lr.yaml", *fifo).stdout
    words = "already finished: nothing is started, though 1 enqueued configuration waits."
    assert f"{words} To extend it, raise budget.trials or scheduler.max_resource.\n" in again
    raised = [*fifo[:-1], "budget.trials=3"]
    assert run("launch", "lr.yaml", "--quiet", *raised).exit_code == 0
    assert json.loads(run("explain", "results/lr", "2", "--json").stdout)["config"] == {"lr": 0.5}
    assert "enqueued" not in run("status", "results/lr").stdout


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["lr=2"], "enqueue: lr: must be between 0.0001 and 1.0, got 2"),
        (["rl=0.5"], "enqueue: rl: unknown parameter; expected one of: lr"),
        (["lr"], "enqueue lr: must be name=value"),
        (["lr=0.1", "lr=0.2"], "enqueue lr=0.2: lr must be given once, got it twice"),
        (["lr=[0.1"], "enqueue lr=[0.1:1: not YAML"),
    ],
)
def test_invalid_configuration_is_not_enqueued(here: Path, values: list[str], words: str) -> None:
    assert run("launch", "lr.yaml", "--once").exit_code == 3
    result = run("enqueue", "results/lr", *values)
    assert result.exit_code == 2
    assert words in result.stderr
    assert list((here / "results/lr/control").glob("*")) == []


def test_warm_start_reports_what_it_takes_and_what_it_skips(here: Path) -> None:
    assert run("launch", "lr.yaml", *SHORT, "--quiet").exit_code == 0
    more = [*SHORT, "--set", "name=next", "--set", "warm_start=[results/lr]", "--set", "space.lr.high=0.01"]
    result = run("launch", "lr.yaml", *more)
    assert result.exit_code == 0, result.output
    first, second = [
        line for line in result.stdout.splitlines() if line.startswith("warm") or "left out" in line
    ]
    taken = int(first.split()[2])
    assert first == f"warm start: {taken} of 5 configurations of {here}/results/lr"
    assert second == f"  {5 - taken} left out: lr: must be between 0.0001 and 0.01"
    assert 0 < taken < 5
    nowhere = run("launch", "lr.yaml", "--set", "name=third", "--set", "warm_start=[nowhere]")
    assert nowhere.exit_code == 2
    assert nowhere.stderr == (
        "hpcsweep: lr.yaml: warm_start[0]: "
        "expected a results folder that `launch` made, a study of Optuna (its journal or SQLite file), a "
        f"results folder of Ray Tune, or a CSV file, got {here}/nowhere, which does not exist\n"
    )
    assert not (here / "results/third").exists()


def test_auto_reports_its_searcher_and_keeps_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finite = ["--set", "searcher=auto", "--set", "space.lr=[0.1, 0.01, 0.001]"]
    planned = run("plan", "lr.yaml", *finite)
    assert "searcher: random, chosen by auto: 17 trials go through all 3 configurations\n" in planned.stdout
    first = run("launch", "lr.yaml", *finite, "--once")
    assert "searcher: random, chosen by auto: 17 trials go through all 3 configurations\n" in first.stdout
    assert "the searcher" not in run("status", "results/lr").stdout
    monkeypatch.setattr("hpcsweep.searchers.VERSIONS", {"random": 2})
    changed = "warning: the searcher random has changed since the sweep began (version 1, now 2): new"
    assert changed in run("status", "results/lr").stdout
    # With this budget it would pick another one now.
    again = run("launch", "lr.yaml", *finite, "--set", "budget.trials=2")
    assert again.exit_code == 0, again.output
    assert "searcher: random, chosen by auto: as when the sweep began\n" in again.stdout
    assert changed in again.stdout


def test_repeats_have_their_own_seeds(here: Path) -> None:
    (here / "trainer.py").write_text("def train(trial):\n    trial.report(1, loss=trial.seed)\n")
    fifo = ["--set", "scheduler=fifo", "--set", "budget.trials=2", "--set", "repeats=3"]
    result = run("launch", "lr.yaml", *fifo)
    assert result.exit_code == 0, result.output
    table = json.loads(run("export", "results/lr", "--format", "json").stdout)
    assert [row["repeat"] for row in table] == [0, 1, 2, 0, 1, 2]
    assert len({row["value"] for row in table}) == 6
    assert len({row["config.lr"] for row in table}) == 2
    best = json.loads(run("best", "results/lr", "--json").stdout)
    means = [sum(row["value"] for row in table[i : i + 3]) / 3 for i in (0, 3)]
    assert (best["value"], best["repeats"]) == (pytest.approx(min(means)), 3)


def test_schema_is_json(here: Path) -> None:
    assert json.loads(run("plan", "--schema").stdout)["title"] == "hpcsweep sweep"


def test_status_and_best_as_json_have_the_documented_fields(here: Path, tmp_path: Path) -> None:
    folder = here / "results" / "s"
    drive(folder, FolderCluster(here / "controller"))
    status = json.loads(run("status", str(folder), "--json").stdout)
    assert [status.pop(time) > 0 for time in ("started", "newest", "ended")] == [True] * 3
    brackets = [[rung["runs"] for rung in each["rungs"]] for each in status.pop("brackets")]
    assert brackets == [[9, 3, 1], [5, 1], [3]]
    assert status == {
        "name": "s",
        "metric": "loss",
        "mode": "min",
        "end": None,
        "simulated": False,
        "state": "finished",
        "reason": "all trials are done",
        "pausing": None,
        "driver": None,
        "detached": None,
        "tick_jobs": [],
        "hindered": [],
        "limited": None,
        "clocks": {},
        "cluster_said": [],
        "excluded": [],
        "trials": 17,
        "enqueued": 0,
        "rank_correlations": [],
        "runs": {"waiting": 0, "pending": 0, "running": 0, "completed": 22, "failed": 0, "stopped": 0},
        "checkpoints": {
            "bytes": 0,
            "files": 0,
            "trials": 0,
            "removed_trials": 0,
            "removed_bytes": 0,
        },
        "best": json.loads(run("best", str(folder), "--json").stdout),
        "gpu_hours": pytest.approx(78 / 3600, abs=1e-5),
        "budget_gpu_hours": None,
        "liveness": None,
        "run_hours": pytest.approx(78 / 3600, abs=1e-5),
        "interrupted": {},
        "newest_interruptions": [],
        "failures": [],
        "tasks": None,
        "queue_waits": None,
        "pools": [],
        "failed_by": {},
        "warnings": [],
        "added_parameters": [],
        "checkpoint_quota": {"bytes": None, "files": None},
        "quota_reached": None,
        "passed_over": [],
    }
    assert set(status["best"]) == {"trial", "value", "resource", "config"}


def test_best_exits_with_1_if_no_run_has_a_value(here: Path) -> None:
    folder = here / "results" / "s"
    drive(folder, FolderCluster(here / "controller", objective=lambda *_: None))
    result = run("best", str(folder))
    assert result.exit_code == 1
    assert "no run has given a value yet" in result.stderr


def test_closed_pipe_is_no_error(here: Path) -> None:
    folder = here / "results" / "s"
    drive(folder, FolderCluster(here / "controller"))
    command = f"{sys.executable} -m hpcsweep export {folder} --table runs"
    status = os.waitstatus_to_exitcode(os.system(f"bash -c 'set -o pipefail; {command} 2>err | true'"))
    assert status in (0, 141)
    assert (here / "err").read_text() == ""


def test_first_signal_lets_a_tick_finish_and_second_interrupts_it() -> None:
    with _Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)  # nothing is raised: the tick goes on
        with pytest.raises(Interrupted) as told:
            signals.raise_if_received()
        assert told.value.code == 128 + signal.SIGTERM
        with pytest.raises(Interrupted) as again:
            os.kill(os.getpid(), signal.SIGINT)
        assert again.value.code == 130


def test_signal_just_before_a_sleep_ends_it() -> None:
    with _Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted) as told:
            signals.clock.sleep(PATIENCE_S)
        assert told.value.code == 128 + signal.SIGTERM
        assert not signals.clock.sleeping


def test_signal_between_ticks_interrupts_at_once() -> None:
    with _Signals() as signals:

        def hang_up() -> None:
            wait_until(lambda: signals.clock.sleeping)
            os.kill(os.getpid(), signal.SIGHUP)

        threading.Thread(target=hang_up).start()
        with pytest.raises(Interrupted):
            signals.clock.sleep(PATIENCE_S)
