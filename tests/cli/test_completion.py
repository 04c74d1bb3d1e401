"""Shell completion, and the examples under each verb's help."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from hpcsweep.cli import app
from hpcsweep.cli.examples import EXAMPLES
from tests.cli.test_list import EVENTS, write

VERBS = sorted(typer.main.get_group(app).commands)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(tmp_path / "results" / "one", EVENTS, age_s=1.0)
    write(tmp_path / "results" / "other", EVENTS, age_s=1.0)
    (tmp_path / "results" / "odd").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def completed(*words: str) -> list[str]:
    """What bash is offered for the last word."""
    line = " ".join(["hpcsweep", *words])
    variables = {
        "_HPCSWEEP_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words)),
    }
    found = CliRunner().invoke(app, [], env=variables, prog_name="hpcsweep")
    assert found.exit_code == 0, found.output
    return found.stdout.split()


def test_verbs_folders_and_trials_are_completed(here: Path) -> None:
    assert completed("st") == ["status", "stop"]
    assert completed("status", "") == ["results/one", "results/other"]
    assert completed("logs", "results/ot") == ["results/other"]
    assert completed("logs", str(here / "results" / "on")) == [str(here / "results" / "one")]
    assert completed("status", "results/one", "results/o") == ["results/one", "results/other"]
    assert completed("explain", "results/one", "") == ["0", "1", "2", "3"]
    assert completed("stop", "results/one", "2") == ["2"]
    assert completed("explain", "nowhere", "") == []
    assert completed("plan", "sweep.yaml", "--cluster", "lo") == ["local"]


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb_ends_with_examples_that_can_be_read(verb: str) -> None:
    shown = CliRunner().invoke(app, [verb, "--help"], prog_name="hpcsweep").stdout
    command = typer.main.get_group(app).commands[verb]
    for line in EXAMPLES[verb]:
        assert f"\n    {line}\n" in shown
        program, *words = shlex.split(re.sub(r" > .*", "", line))
        assert (program, words[0]) == ("hpcsweep", verb)
        with typer.Context(typer.main.get_group(app)) as parent:
            assert command.make_context(verb, words[1:], parent=parent).command is command
