"""What README shows is true."""

from __future__ import annotations

import re
from pathlib import Path

from hpcsweep.cli import app
from hpcsweep.schedulers import SCHEDULERS
from hpcsweep.searchers import SEARCHERS
from hpcsweep.spec import load_spec

REPO = Path(__file__).parents[1]
README = (REPO / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_its_sweep_file_is_valid(tmp_path: Path) -> None:
    (text,) = [block for block in blocks("yaml") if "space:" in block]
    path = tmp_path / "my-sweep.yaml"
    path.write_text(text)
    assert load_spec(path).name == "my-sweep"
    (command,) = [block for block in blocks("yaml") if "command:" in block]
    path.write_text(re.sub(r"^train: .*$", lambda _: command.strip(), text, flags=re.MULTILINE))
    assert load_spec(path).program().metrics == (r"val_error=(?P<val_error>\S+)",)


def test_what_it_adds_to_a_sweep_file_is_valid(tmp_path: Path) -> None:
    (text,) = [block for block in blocks("yaml") if "space:" in block]
    more = [block for block in blocks("yaml") if "space:" not in block and "command:" not in block]
    assert len(more) >= 2
    for block in more:
        path = tmp_path / "my-sweep.yaml"
        path.write_text(text + block)
        spec = load_spec(path)
        assert spec.stop or spec.enqueue


def test_it_names_only_verbs_and_files_that_exist() -> None:
    verbs = {command.callback.__name__ for command in app.registered_commands if command.callback}
    called = r"hpcsweep ([a-z]+) (?:SPEC|DIR|results|sweeps|my_sweep|--)"
    used = set(re.findall(called, README))
    assert used
    assert used <= verbs
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (REPO / link).exists(), link
    for module in re.findall(r"`(?:python -m )?benchmarks\.(\w+)`", README):
        assert (REPO / "benchmarks" / f"{module}.py").exists()


def test_its_tables_name_every_searcher_and_scheduler() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))
    assert rows == {*SEARCHERS, *SCHEDULERS}
