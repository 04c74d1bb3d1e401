"""Twenty-two programs of different kinds: the spec that `init` writes for each, and what it is worth."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpcsweep.cli import app
from hpcsweep.core.state import SweepState
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from tests.init.proposed import NAMES, SCRIPTS, SPECS, proposed, stored

#: Those whose spec needs a word of the user, and what they are told.
TO_DO = {
    "constants.py": """\
to do: space: the script takes no arguments that were found: write its parameters here, and their \
placeholders into train.command
to do: space: a script of constants can read them: lr = float(os.environ.get('HPCSWEEP_PARAM_LR', 0.1))""",
    "silent.py": """\
to do: train.command: data must be given: write it in place of FILL_IN
to do: train.metrics: no metric was found in what the script prints or writes: write a pattern for the line \
that has it, or print one such as `print(f'val_loss {val_loss}')`; `hpcsweep try` shows what it prints""",
}
#: Those whose interpreter is on few machines: what is written for them is compared, not run.
NOT_RUN = {"fit.R", "flux.jl"}
#: Those that resume from their checkpoints.
RESUMING = ["char_gpt.py", "click_train.py", "logging_train.py"]
RUN = [name for name in NAMES if name not in TO_DO and name not in NOT_RUN]


def test_there_are_twenty_scripts_and_most_need_no_word_of_the_user() -> None:
    assert len(NAMES) >= 20
    assert len(RUN) >= 16
    assert sorted(path.name for path in SPECS.iterdir()) == sorted(stored(name).name for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_spec_is_as_it_was(name: str) -> None:
    assert proposed(name) == stored(name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", RUN)
def test_the_spec_launches_as_it_is_and_finds_its_metric(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(SCRIPTS, tmp_path / "code")
    folder = (tmp_path / "code" / name).parent
    shutil.copy(stored(name), folder / "sweep.yaml")
    monkeypatch.chdir(folder)
    argv = ["launch", "sweep.yaml", "-q", "--cluster", "local", "--results", str(tmp_path / "results")]
    done = CliRunner().invoke(app, [*argv, "--set", "budget.trials=1"])
    assert done.exit_code == 0, done.output
    state = SweepState.replay(read_journal(Layout(tmp_path / "results")).events)
    assert [run.value is not None for run in state.trials[0].runs] == [True]
    assert state.warnings == {}


@pytest.mark.parametrize("name", RESUMING)
def test_the_spec_of_a_program_that_can_resume_has_it_resume(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(SCRIPTS / name, tmp_path)
    shutil.copy(stored(name), tmp_path / "sweep.yaml")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["try", "sweep.yaml"])
    assert done.exit_code == 0, done.output
    assert [line for line in done.output.splitlines() if line.startswith("   it ")] == [
        f"   it resumed from step {20 if name == 'char_gpt.py' else 1}"
    ]
    assert "to look at" not in done.output


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_RUN])
def test_what_is_left_to_do_is_said(name: str, tmp_path: Path) -> None:
    output = tmp_path / "sweep.yaml"
    done = CliRunner().invoke(app, ["init", str(SCRIPTS / name), "-o", str(output)])
    lines = done.output.splitlines()
    assert [line for line in lines if line.startswith("to do:")] == TO_DO.get(name, "").splitlines()
    assert lines[-1] == f"next: hpcsweep try {output}"
    written = " ".join(output.read_text().replace("\n", " ").replace("#", " ").split())
    for line in TO_DO.get(name, "").splitlines():
        assert line.partition(": ")[2].partition(": ")[2] in written
