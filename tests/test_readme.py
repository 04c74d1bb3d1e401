"""What README shows is true."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from hpcsweep.cli import app
from tests.docs.doc_runner import DocRunner, blocks

REPO = Path(__file__).parents[1]
README = (REPO / "README.md").read_text(encoding="utf-8")


def is_the_test_command(text: str) -> bool:
    return "-m pytest" in text


def shortened(text: str) -> str:
    """The first command with one run of two epochs: the sweep itself is tested elsewhere."""
    first = "launch sweeps/digits_hyperband.yaml"
    return text.replace(first, f"{first} --set scheduler.max_resource=2")


def test_its_commands_and_snippets_work(tmp_path: Path) -> None:
    shutil.copytree(REPO / "sweeps", tmp_path / "sweeps")
    runner = DocRunner(tmp_path, os.environ)
    tested = [block for block in blocks(README) if not is_the_test_command(block.text)]
    assert len(tested) == len(list(blocks(README))) - 1
    for block in tested:
        runner.run(block._replace(text=shortened(block.text)))
    assert (tmp_path / "results" / "digits-hyperband" / "report.html").exists()


def test_it_names_only_verbs_and_files_that_exist() -> None:
    verbs = {each.name or each.callback.__name__ for each in app.registered_commands if each.callback}
    used = set(re.findall(r"hpcsweep ([a-z]+) (?:SPEC|DIR|results|sweep\.yaml|--)", README))
    assert used
    assert used <= verbs
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (REPO / link).exists(), link
    for module in re.findall(r"`(?:python -m )?benchmarks\.(\w+)`", README):
        assert (REPO / "benchmarks" / f"{module}.py").exists()


def test_ci_runs_its_test_command() -> None:
    (command,) = [block.text for block in blocks(README) if is_the_test_command(block.text)]
    ci = (REPO / ".ci" / "run").read_text(encoding="utf-8")
    for step in (".[test]", "-m pytest", "-n auto"):
        assert step in command
        assert step in ci
