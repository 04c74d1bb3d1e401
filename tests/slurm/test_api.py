"""Sweeps from Python on a real cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hpcsweep as hs
from hpcsweep.views.folder import ResultsFolder

from .fixture import PrivateSlurm
from .sweeps import wait_until

SCRIPT = """\
import hpcsweep as hs

def train(trial):
    start = int((trial.resume_from / "step").read_text()) if trial.resume_from else 0
    assert start == trial.start
    for step in trial.steps():
        trial.report(step, loss=trial.config["x"] + 1 / step)
        with trial.checkpoint(step) as folder:
            (folder / "step").write_text(str(step))

sweep = hs.Sweep(train, {"x": hs.Float(0, 1)}, "loss", searcher="random", name="detached",
    scheduler=hs.Halving(max_resource=4), cluster=hs.Slurm(max_gpus=4, idle=5, grace=5, settle=5),
    gpus_per_node=1, timeout_min=10, slurm_comment="from python")

if __name__ == "__main__":
    assert isinstance(sweep.launch(detach=True), hs.Results)
"""


def test_a_script_launches_leaves_and_the_jobs_finish_the_sweep(slurm: PrivateSlurm, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, env=slurm.env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "From here on its jobs drive it" in done.stdout
    folder = tmp_path / "results/detached"

    wait_until("the sweep is finished", lambda: ResultsFolder(folder).state.ended is not None)
    results = hs.load(folder)
    assert list(results.runs.groupby("resource").size()) == [4, 2, 1]
    assert sorted(results.runs["start_resource"]) == [0] * 4 + [1] * 2 + [2]
    script = next(folder.rglob("script.sbatch"), None)
    if script is not None:  # else it is compacted by now
        assert "--comment=" in script.read_text()


def test_search_cv_has_its_numbers_from_jobs(
    slurm: PrivateSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.datasets import load_iris
    from sklearn.model_selection import GridSearchCV
    from sklearn.naive_bayes import GaussianNB

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", slurm.env.get("PATH", os.environ["PATH"]))
    data, target = load_iris(return_X_y=True)
    space = {"var_smoothing": [1e-9, 1e-3, 1.0]}
    expected = GridSearchCV(GaussianNB(), space, cv=3).fit(data, target)
    cluster = hs.Slurm(max_tasks=2, idle=5, grace=5, settle=5, poll=1)
    found = hs.SearchCV(GaussianNB(), space, cv=3, cluster=cluster, resources=hs.Resources(time="10m"))
    found.fit(data, target)
    for key in ("split0_test_score", "split2_test_score", "mean_test_score", "rank_test_score"):
        assert list(found.cv_results_[key]) == list(expected.cv_results_[key])
    assert found.best_params_ == expected.best_params_
    assert found.folder_ is not None
    assert hs.load(found.folder_).runs["job"].str.len().min() > 0
