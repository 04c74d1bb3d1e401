"""What training code sees, in a sweep and by hand."""

from __future__ import annotations

import math
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from hpcsweep import current_trial
from hpcsweep.errors import HpcsweepError
from hpcsweep.store import checkpoints
from hpcsweep.store.layout import TrialLayout
from hpcsweep.store.run_files import Report, RunFile, metrics_files, read_reports
from hpcsweep.trial import Trial, current_rank
from tests.waiting import PATIENCE_S


def run_file(tmp_path: Path, **fields: Any) -> RunFile:
    layout = TrialLayout(tmp_path / "trial")
    work = layout.checkpoints / ".work"
    work.mkdir(parents=True, exist_ok=True)
    defaults: dict[str, Any] = {
        "trial": 3,
        "rung": 1,
        "bracket": 2,
        "resource": 4,
        "attempt": 0,
        "restart": 0,
        "seed": 7,
        "config": {"lr": 0.1},
        "start": 0,
        "resume_from": None,
        "checkpoint_dir": str(work),
        "stop_file": str(tmp_path / "stop"),
        "trial_folder": str(layout.root),
        "metrics_file": str(layout.metrics(1, 0, 0)),
        "metric": "val_error",
    }
    return RunFile(**{**defaults, **fields})


def make(tmp_path: Path, rank: int = 0, **fields: Any) -> Trial:
    return Trial(run_file(tmp_path, **fields), rank=rank)


def reports(tmp_path: Path) -> list[Report]:
    return list(read_reports(TrialLayout(tmp_path / "trial").metrics(1, 0, 0)))


def newest(tmp_path: Path) -> int | None:
    found = checkpoints.newest(TrialLayout(tmp_path / "trial"))
    return found.step if found else None


def test_steps_are_the_remaining_ones(tmp_path: Path) -> None:
    assert list(make(tmp_path).steps()) == [1, 2, 3, 4]
    assert list(make(tmp_path, start=3).steps()) == [4]
    assert list(make(tmp_path, start=4).steps()) == []


def test_the_stop_file_ends_the_steps_even_after_it_is_removed(tmp_path: Path) -> None:
    trial = make(tmp_path)
    trained = []
    for step in trial.steps():
        trained.append(step)
        if step == 2:
            (tmp_path / "stop").touch()
    assert trained == [1, 2]
    (tmp_path / "stop").unlink()
    assert trial.should_stop


@pytest.mark.parametrize(
    "number",
    [0.5, 1, True, np.float32(0.5), np.int64(1), np.array([0.5])],
)
def test_numbers_of_any_kind_are_accepted(tmp_path: Path, number: Any) -> None:
    make(tmp_path).report(np.int64(2), val_error=number)  # type: ignore[arg-type]
    assert reports(tmp_path) == [Report(2, {"val_error": float(np.asarray(number).item())})]


def test_only_tensors_of_one_number_are_accepted(tmp_path: Path) -> None:
    import torch

    trial: Any = make(tmp_path)
    trial.report(1, a=torch.tensor(0.5), b=torch.tensor([1]))
    assert reports(tmp_path) == [Report(1, {"a": 0.5, "b": 1.0})]
    with pytest.raises(TypeError, match=r"got tensor\(\[0., 0.\]\) \(Tensor\)"):
        trial.report(2, a=torch.zeros(2))
    assert reports(tmp_path) == [Report(1, {"a": 0.5, "b": 1.0})]


def test_metrics_that_are_not_finite_survive_as_json(tmp_path: Path) -> None:
    make(tmp_path).report(1, a=math.nan, b=math.inf, c=-math.inf, d=1e-300)
    line = TrialLayout(tmp_path / "trial").metrics(1, 0, 0).read_bytes()
    assert line == b'{"step":1,"a":"nan","b":"inf","c":"-inf","d":1e-300}\n'
    ((step, metrics),) = reports(tmp_path)
    assert (step, metrics["b"], metrics["c"], metrics["d"]) == (1, math.inf, -math.inf, 1e-300)
    assert math.isnan(metrics["a"])


@pytest.mark.parametrize(
    ("step", "metrics", "error", "message"),
    [
        (1, {}, ValueError, "name at least one metric"),
        (-1, {"a": 1}, ValueError, "got -1"),
        (1.0, {"a": 1}, TypeError, r"a step is an integer, counted 1, 2, ... resource; got 1.0 \(float\)"),
        (True, {"a": 1}, TypeError, "got True"),
        (1, {"a": "0.1"}, TypeError, r"metric 'a' must be one number, got '0.1' \(str\)"),
        (1, {"a": None}, TypeError, r"got None"),
    ],
)
def test_a_wrong_report_says_what_is_wrong_with_it(
    tmp_path: Path, step: Any, metrics: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(tmp_path).report(step, **metrics)
    assert reports(tmp_path) == []


def test_a_torn_last_line_is_not_a_report_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    make(tmp_path).report(1, a=1)
    path = TrialLayout(tmp_path / "trial").metrics(1, 0, 0)
    with path.open("ab") as file:
        file.write(b'{"step":2,"a"')
    assert reports(tmp_path) == [Report(1, {"a": 1.0})]
    make(tmp_path).report(2, a=3)
    assert reports(tmp_path) == [Report(1, {"a": 1.0}), Report(2, {"a": 3.0})]


def test_metrics_files_are_ordered_by_rung_attempt_and_restart(tmp_path: Path) -> None:
    layout = TrialLayout(tmp_path)
    for key in [(1, 0, 0), (0, 10, 0), (0, 9, 1), (0, 9, 0)]:
        layout.metrics(*key).touch()
    (tmp_path / "metrics-other.jsonl").touch()
    found = [(file.rung, file.attempt, file.restart) for file in metrics_files(layout)]
    assert found == [(0, 9, 0), (0, 9, 1), (0, 10, 0), (1, 0, 0)]


def test_a_checkpoint_is_kept_and_the_one_before_removed(tmp_path: Path) -> None:
    trial = make(tmp_path)
    for step in (1, 2):
        with trial.checkpoint(step) as folder:
            (folder / "model").write_text(str(step))
    assert newest(tmp_path) == 2
    assert not TrialLayout(tmp_path / "trial").checkpoint(1).exists()


@pytest.mark.parametrize("step", [-1, 1.5])
def test_a_checkpoint_of_no_step_is_refused(tmp_path: Path, step: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="a step is"), make(tmp_path).checkpoint(step):
        pass


def test_only_rank_0_reports_and_checkpoints(tmp_path: Path) -> None:
    trial = make(tmp_path, rank=1)
    trial.report(1, val_error=0.5)
    with trial.checkpoint(1) as folder:
        (folder / "shard").write_text("x")
    assert not folder.exists()
    assert (reports(tmp_path), newest(tmp_path)) == ([], None)
    with pytest.raises(TypeError):
        trial.report(1, val_error="low")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("environ", "rank"),
    [
        ({}, 0),
        ({"SLURM_PROCID": "0"}, 0),
        ({"SLURM_PROCID": "2"}, 2),
        ({"SLURM_PROCID": "0", "RANK": "3"}, 3),
        ({"SLURM_PROCID": "0", "OMPI_COMM_WORLD_RANK": "1"}, 1),
        ({"RANK": ""}, 0),
    ],
)
def test_the_rank_is_that_of_the_launcher_that_started_this_process(
    environ: dict[str, str], rank: int
) -> None:
    assert current_rank(environ) == rank


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (None, []),
        (0.5, [Report(4, {"val_error": 0.5})]),
        ({"a": 1, "b": 2}, [Report(4, {"a": 1.0, "b": 2.0})]),
    ],
)
def test_the_returned_value_counts_for_the_last_step(
    tmp_path: Path, returned: Any, expected: list[Report]
) -> None:
    make(tmp_path).finish(returned)
    assert reports(tmp_path) == expected


def test_the_value_returned_after_a_stop_counts_for_the_reached_step(tmp_path: Path) -> None:
    trial = make(tmp_path)
    for step in trial.steps():
        if step == 2:
            (tmp_path / "stop").touch()
    trial.finish(0.5)
    trial = make(tmp_path)  # its code asks for should_stop itself
    trial.report(3, val_error=0.4)
    assert trial.should_stop
    trial.finish(0.3)
    assert [step for step, _ in reports(tmp_path)] == [2, 3, 3]


def test_a_trial_can_be_pickled_and_shows_itself(tmp_path: Path) -> None:
    trial = pickle.loads(pickle.dumps(make(tmp_path, start=1)))
    assert repr(trial) == "<Trial 3 rung 1: steps 2..4, {'lr': 0.1}>"
    assert dict(trial.config, new=1) == {"lr": 0.1, "new": 1}
    assert trial.metric == "val_error"


def test_outside_a_sweep_the_arguments_make_a_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HPCSWEEP_RUN", raising=False)
    trial = current_trial({"lr": 0.1}, batch_size=8, resource=2)
    assert (trial.config, trial.resource, trial.start, trial.rank) == ({"lr": 0.1, "batch_size": 8}, 2, 0, 0)
    assert (trial.checkpoint_dir, trial.should_stop, trial.metric) == (None, False, None)
    trial.report(1, val_error=0.25)
    assert capsys.readouterr().out == "step 1: val_error=0.25\n"
    with trial.checkpoint(1) as folder:
        pass
    assert not folder.exists()


def test_outside_a_sweep_a_folder_keeps_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HPCSWEEP_RUN", raising=False)
    with current_trial(resource=3, folder=tmp_path).checkpoint(2) as folder:
        (folder / "model").write_text("x")
    again = current_trial(resource=3, folder=tmp_path)
    assert (again.start, list(again.steps())) == (2, [3])
    assert again.resume_from is not None
    assert (again.resume_from / "model").read_text() == "x"


def test_a_missing_run_file_is_an_error_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPCSWEEP_RUN", str(tmp_path / "gone.json"))
    with pytest.raises(HpcsweepError, match=r"HPCSWEEP_RUN=.*gone.json: cannot be read"):
        current_trial()


def python(tmp_path: Path, *arguments: str, **fields: Any) -> subprocess.CompletedProcess[str]:
    """Run Python inside a run."""
    path = tmp_path / "run.json"
    path.write_bytes(msgspec.json.encode(run_file(tmp_path, **fields)))
    environ = {**os.environ, "HPCSWEEP_RUN": str(path)}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_any_language_reports_and_checkpoints_through_the_shell(tmp_path: Path) -> None:
    work = Path(run_file(tmp_path).checkpoint_dir)
    (work / "model").write_text("x")
    done = python(
        tmp_path, "-m", "hpcsweep.trial", "--step", "3", "val_error=0.12", "loss=nan", "--checkpoint"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    ((step, metrics),) = reports(tmp_path)
    assert (step, metrics["val_error"], math.isnan(metrics["loss"])) == (3, 0.12, True)
    assert newest(tmp_path) == 3
    assert (TrialLayout(tmp_path / "trial").checkpoint(3) / "model").read_text() == "x"
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--step", "3"], "nothing to do: give NAME=NUMBER, --checkpoint or both"),
        (["--step", "3", "val_error"], "'val_error' is not NAME=NUMBER, as in val_error=0.12"),
        (["--step", "3", "val_error=low"], "'val_error=low' is not NAME=NUMBER, as in val_error=0.12"),
        (["--step", "-3", "val_error=1"], "a step is counted 1, 2, ... resource; got -3"),
        (["--step", "3", "step=1"], "a metric cannot be called 'step'; a name like 'val_error' will do"),
        (["val_error=1"], "the following arguments are required: --step"),
    ],
)
def test_a_wrong_shell_report_says_what_is_wrong_with_it(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = python(tmp_path, "-m", "hpcsweep.trial", *arguments)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(message)
    assert reports(tmp_path) == []


@pytest.mark.parametrize("signum", [signal.SIGUSR2, signal.SIGTERM])
def test_a_signal_sets_the_stop_flag_in_every_process_and_kills_no_python(
    tmp_path: Path, signum: signal.Signals
) -> None:
    code = f"""
import os, time
from hpcsweep import current_trial
trial = current_trial()
assert current_trial() is trial
os.kill(os.getpid(), {int(signum)})
print(trial.should_stop, list(trial.steps()), os.path.exists({str(tmp_path / "stop")!r}))
"""
    assert python(tmp_path, "-c", code).stdout == "True [] True\n"


def test_processes_that_training_forks_die_of_sigterm_as_everywhere(tmp_path: Path) -> None:
    code = """
import multiprocessing, time
from hpcsweep import current_trial
trial = current_trial()
codes = set()
for _ in range(30):
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,))
    child.start()
    child.terminate()
    child.join()
    codes.add(child.exitcode)
print(codes, trial.should_stop)
"""
    assert python(tmp_path, "-c", code).stdout == "{-15} False\n"


def test_handlers_of_the_training_code_are_left_alone(tmp_path: Path) -> None:
    code = """
import signal
mine = lambda *_: None
signal.signal(signal.SIGTERM, mine)
from hpcsweep import current_trial
current_trial()
print(signal.getsignal(signal.SIGTERM) is mine, signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL)
"""
    assert python(tmp_path, "-c", code).stdout == "True False\n"


@pytest.mark.parametrize(
    "module", ["hpcsweep.trial", "hpcsweep.worker.__main__", "hpcsweep.worker.entrypoint"]
)
def test_nothing_heavy_is_imported_on_compute_nodes(module: str) -> None:
    heavy = (
        "{'numpy', 'pandas', 'torch', 'rich', 'typer', 'pydantic', 'jinja2', 'submitit', 'scipy', 'pyarrow'}"
    )
    code = f"import sys, {module}; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
