"""A program with settings, checkpoints and a folder of its own is swept as it is."""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hpcsweep
from hpcsweep.cli import app
from hpcsweep.store.layout import Layout
from hpcsweep.views.folder import LogReader, ResultsFolder, attempt_logs

SWEEPS = Path(__file__).parents[2] / "sweeps"


def test_each_rung_of_the_character_model_trains_only_the_difference(tmp_path: Path) -> None:
    text = (SWEEPS / "char_model.yaml").read_text()
    assert len([line for line in text.splitlines() if not line.startswith("#")]) <= 15
    assert "hpcsweep" not in (SWEEPS / "char_model.py").read_text().partition('"""\n\n')[2]
    shutil.copy(SWEEPS / "char_model.py", tmp_path)
    (tmp_path / "sweep.yaml").write_text(text)
    sets = ("scheduler.max_resource=30", "budget.trials=3", "train.keep=all")
    argv = ["launch", "sweep.yaml", "--quiet", "--cluster", "local"]
    with contextlib.chdir(tmp_path):
        done = CliRunner().invoke(app, [*argv, *(word for each in sets for word in ("--set", each))])
    assert (done.exit_code, done.stderr) == (0, "")
    assert "warning" not in done.stdout
    folder = ResultsFolder(tmp_path / "results/char-model")
    best = folder.state.best
    assert best is not None
    runs = folder.state.trials[best.trial].runs
    assert [(run.start, run.step) for run in runs] == [(0, 10), (10, 30)]
    logs = LogReader(folder.layout, folder.events)
    texts = [
        (logs.read(each)[1] or b"").decode()
        for each in attempt_logs(folder.events, folder.layout, best.trial)
    ]
    assert [re.findall(r"^step (\d+)", text, re.MULTILINE) for text in texts] == [
        ["0", "10"],
        ["10", "20", "30"],
    ]
    assert "resuming from" not in texts[0]
    assert f"{Layout(folder.layout.root).trial(best.trial).output}/ckpt.npz at iteration 10" in texts[1]
    losses = hpcsweep.load(folder.layout.root).metrics.query(f"trial == {best.trial} and step == 10")
    assert losses["val_loss"].nunique() == 1, "it goes on where it was"


@pytest.mark.parametrize("torn", [False, True])
def test_an_interrupted_character_model_goes_on_from_its_last_report(tmp_path: Path, torn: bool) -> None:
    """Also where it was killed while it saved: its file is put back as it was when it was complete."""
    from tests.worker.conftest import Bench

    bench = Bench(tmp_path)
    shutil.copy(SWEEPS / "char_model.py", bench.workdir)
    bench.plan(
        [bench.run(resource=20)],
        [bench.run(resource=40, attempt=1)],
        command="{python} char_model.py --out_dir={output_dir} --max_iters={resource}",
        metrics=(r"step (?P<step>\d+): train loss \S+, val loss (?P<val_error>\S+)",),
        checkpoint_path="{output_dir}/ckpt.npz",
        resume_args="--init_from=resume",
    )
    bench.work(task=0)
    if torn:
        (bench.trial().output / "ckpt.npz").write_text("torn")
    result = bench.work(task=1)
    assert (result.start, result.step) == (20, 40)
    assert "at iteration 20" in bench.log(1)
