"""What a run finds in its environment, and what it must not find there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import hpcsweep
from hpcsweep.core.events import Outcome
from hpcsweep.store.batch import Program
from hpcsweep.store.run_files import RunFile
from hpcsweep.worker.command import run_environment
from tests.waiting import PATIENCE_S

if TYPE_CHECKING:
    from tests.worker.conftest import Bench

#: Of the task's environment.
JOB = {"SLURM_JOB_ID": "70", "LC_CTYPE": "de_DE.UTF-8", "HOME": "/home/me"}
#: Of the task and of another run.
OTHERS = {
    "HPCSWEEP_JOB": "70_3",
    "HPCSWEEP_TASK": "3",
    "HPCSWEEP_RESTART": "1",
    "HPCSWEEP_NODE": "n1",
    "HPCSWEEP_TICK": "ab",
    "HPCSWEEP_RUN": "/other.json",
    "HPCSWEEP_PARAM_GONE": "1",
}
RUN = RunFile(
    trial=4,
    rung=1,
    bracket=0,
    resource=9,
    attempt=0,
    restart=0,
    seed=7,
    config={"lr": 0.5, "optimizer.beta-1": None},
    start=3,
    resume_from="/t/step-3",
    checkpoint_dir="/t/work",
    output_dir="/t/output",
    stop_file="/s/stop",
    trial_folder="/t",
    metrics_file="/t/m",
    metric="loss",
)
OWN = {
    "HPCSWEEP_RUN": "/s/run.json",
    "HPCSWEEP_TRIAL": "4",
    "HPCSWEEP_RUNG": "1",
    "HPCSWEEP_RESOURCE": "9",
    "HPCSWEEP_START": "3",
    "HPCSWEEP_SEED": "7",
    "HPCSWEEP_CHECKPOINT_DIR": "/t/work",
    "HPCSWEEP_OUTPUT_DIR": "/t/output",
    "HPCSWEEP_RESUME_FROM": "/t/step-3",
    "HPCSWEEP_STOP_FILE": "/s/stop",
    "HPCSWEEP_PYTHON": "/p/python",
    "HPCSWEEP_WORKDIR": "/w",
    "HPCSWEEP_PARAM_LR": "0.5",
    "HPCSWEEP_PARAM_OPTIMIZER_BETA_1": "",
    "PYTHONUNBUFFERED": "1",
}


def given(
    base: dict[str, str], *, devices: list[str] | None = None, modules: Path | None = None
) -> dict[str, str]:
    program = Program(workdir="/w", metric="loss")
    return run_environment(
        base, RUN, program, run_file=Path("/s/run.json"), devices=devices, python="/p/python", modules=modules
    )


def test_a_run_has_the_task_s_environment_and_its_own_without_other_runs_variables() -> None:
    found = given({**JOB, **OTHERS}, devices=["2", "3"])
    assert found == {**JOB, **OWN, "CUDA_VISIBLE_DEVICES": "2,3"}


def test_outside_of_slurm_nothing_is_added_but_the_run_s_own() -> None:
    assert given({"HOME": "/home/me", "PYTHONPATH": "/a:/b"}) == {
        "HOME": "/home/me",
        "PYTHONPATH": "/a:/b",
        **OWN,
    }


@pytest.mark.parametrize(("before", "after"), [("", "/m"), ("/a:/b", "/a:/b:/m")])
def test_what_training_needs_to_find_hpcsweep_is_the_last_on_its_path(before: str, after: str) -> None:
    base = {"PYTHONPATH": before} if before else {}
    assert given(base, modules=Path("/m"))["PYTHONPATH"] == after


# --------------------------------------------------------------------------- where it is not installed

PROBE = """
import hpcsweep, importlib.util, json, os, sys
with open("probe", "w") as file:
    json.dump([hpcsweep.__file__, importlib.util.find_spec("beside_it") is None,
               os.environ.get("PYTHONPATH")], file)
hpcsweep.current_trial().report(1, val_error=0.5)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the package beside folders of its repository, unknown to the interpreter."""
    root = tmp_path / "check out"
    shutil.copytree(Path(hpcsweep.__file__).parent, root / "hpcsweep")
    (root / "beside_it").mkdir()
    (root / "beside_it" / "__init__.py").touch()
    return root


def start(bench: Bench, package: Path, **environ: str) -> int:
    """Do task 0 with the package in this folder, as a batch script starts it."""
    argv = [sys.executable, "-P", str(package / "bootstrap.py"), "hpcsweep.worker", str(bench.batch.root)]
    env = bench.environment(HPCSWEEP_RESTART="0", **environ)
    return subprocess.run(
        [*argv, "--task", "0"], env=env, cwd="/", check=False, timeout=PATIENCE_S
    ).returncode


def probed(bench: Bench) -> tuple[str, bool, str | None]:
    import json

    path, hidden, searched = json.loads((bench.workdir / "probe").read_text())
    return path, hidden, searched


def test_training_finds_a_package_that_is_not_installed_and_nothing_beside_it(
    bench: Bench, checkout: Path
) -> None:
    bench.code(PROBE)
    bench.plan_command("{python} train.py", bench.run(resource=1))
    assert start(bench, checkout / "hpcsweep", PYTHONPATH="/mine:/yours") == 0
    path, hidden, searched = probed(bench)
    assert hidden
    assert searched is not None
    *mine, ours = searched.split(":")
    assert mine == ["/mine", "/yours"]
    assert path == f"{ours}/hpcsweep/__init__.py"
    assert [result.outcome for result in bench.results()] == [Outcome.COMPLETED]
    assert not list(bench.temporary.iterdir())


def test_a_function_trains_with_a_package_that_is_not_installed_in_spawned_processes_too(
    bench: Bench, checkout: Path
) -> None:
    code = """
        import multiprocessing

        def square(x):
            import hpcsweep
            return x * x, hpcsweep.__file__

        def train(trial):
            import hpcsweep
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                value, path = pool.apply(square, (3,))
            assert path == hpcsweep.__file__, path
            trial.report(1, val_error=value)
    """
    bench.plan_python(code, bench.run(resource=1))
    assert start(bench, checkout / "hpcsweep") == 0
    assert [(result.value, result.message) for result in bench.results()] == [(9.0, "")]


def test_where_the_interpreter_finds_it_by_itself_the_path_of_training_is_the_user_s(bench: Bench) -> None:
    bench.code(PROBE)
    bench.plan_command("{python} train.py", bench.run(resource=1))
    package = Path(hpcsweep.__file__).parent
    assert start(bench, package, PYTHONPATH="/mine") == 0
    path, _, searched = probed(bench)
    assert os.path.realpath(path) == os.path.realpath(hpcsweep.__file__)
    assert searched == "/mine"
