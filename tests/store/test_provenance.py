"""Records of launches: what is in them, and when there is a new one."""

from __future__ import annotations

import concurrent.futures
import hashlib
import importlib.metadata
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

import hpcsweep
from hpcsweep.store import git, provenance
from hpcsweep.store.batch import CodeSnapshot, Program
from hpcsweep.store.layout import Layout
from hpcsweep.store.provenance import list_records, record_launch, spec_digest, training_files

SPEC = {"name": "s", "space": {"x": [1, 2]}}


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with an uncommitted change in `train.py`."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    root = tmp_path / "code"
    root.mkdir()
    (root / "train.py").write_text("x = 1\n")
    named = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for argv in (["init", "-q"], ["add", "-A"], [*named, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", *argv], cwd=root, check=True)
    (root / "train.py").write_text("x = 2\n")
    return root


@pytest.fixture
def program(code: Path) -> Program:
    return Program(workdir=str(code), metric="m", function=f"{code / 'train.py'}:train")


def record(folder: Path, program: Program, spec: dict[str, Any] = SPEC) -> str | None:
    path = record_launch(Layout(folder), program, spec, cluster="local", python="/other/python")
    return None if path is None else path.name


def test_a_record_says_who_launched_what_where_and_with_which_code(
    tmp_path: Path, code: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_TOKEN", "do not tell")
    assert record(tmp_path / "r", program) == "1.json"
    text = (tmp_path / "r" / "provenance" / "1.json").read_text()
    assert "do not tell" not in text
    found = msgspec.json.decode(text)
    assert found["cwd"] == str(tmp_path)
    assert found["argv"] == sys.orig_argv
    assert found["python"] == {
        "version": sys.version.split()[0],
        "executable": sys.executable,
        "trials": "/other/python",
    }
    assert (found["hpcsweep"], found["cluster"]) == (hpcsweep.__version__, "local")
    assert found["spec_sha256"] == spec_digest({"space": {"x": [1, 2]}, "name": "s"})
    assert found["files"] == {str(code / "train.py"): hashlib.sha256(b"x = 2\n").hexdigest()}
    assert found["code"]["dirty"] is True
    assert found["diff"] == "1.diff"
    assert "+x = 2" in (tmp_path / "r" / "provenance" / "1.diff").read_text()
    installed = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    assert found["packages"] == installed


def test_only_what_matters_makes_a_new_record(
    tmp_path: Path, code: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "r"
    assert record(folder, program) == "1.json"
    assert record(folder, program) is None
    monkeypatch.chdir(code)
    monkeypatch.setattr(socket, "gethostname", lambda: "another-login-node")
    (code / "output.txt").write_text("of training")
    assert record(folder, program) is None
    assert record(folder, program, SPEC | {"name": "t"}) == "2.json"
    (code / "train.py").write_text("x = 3\n")
    assert record(folder, program, SPEC | {"name": "t"}) == "3.json"
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "hpcsweep"])
    assert record(folder, program, SPEC | {"name": "t"}) == "4.json"
    files = sorted(path.name for path in (folder / "provenance").iterdir())
    assert files == ["1.diff", "1.json", "2.json", "3.diff", "3.json", "4.json"]
    assert [one.diff for _, one in list_records(Layout(folder))] == ["1.diff", "1.diff", "3.diff", "3.diff"]


def test_the_first_record_describes_the_original_of_a_snapshot_and_later_ones_the_copy(
    tmp_path: Path, code: Path
) -> None:
    copy = tmp_path / "r" / "code"
    copy.mkdir(parents=True)
    (copy / "train.py").write_text("x = 2\n")
    program = Program(
        workdir=str(copy),
        metric="m",
        function=f"{copy / 'train.py'}:train",
        snapshot=CodeSnapshot(str(code), str(copy), str(code)),
    )
    assert record(tmp_path / "r", program) == "1.json"
    (code / "train.py").write_text("x = 3\n")
    assert record(tmp_path / "r", program) == "2.json"
    (code / "train.py").write_text("x = 4\n")
    assert record(tmp_path / "r", program) is None
    (_, first), (_, second) = list_records(Layout(tmp_path / "r"))
    assert (first.code.folder, first.code.dirty, first.copied) == (str(code), True, str(code))
    assert (second.code.commit, second.files) == ("", first.files)
    assert second.code.problem == "the copy that was made when the sweep began is run"


def test_launches_at_the_same_moment_write_a_record_each(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.provenance.mkdir()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda _: provenance._claimed(layout).name, range(40)))
    assert sorted(claimed) == sorted(f"{number}.json" for number in range(1, 41))


def test_a_record_of_a_killed_launch_is_skipped_and_its_number_not_reused(
    tmp_path: Path, program: Program
) -> None:
    record(tmp_path, program)
    (tmp_path / "provenance" / "2.json").touch()
    assert [path.name for path, _ in list_records(Layout(tmp_path))] == ["1.json"]
    assert record(tmp_path, program, {}) == "3.json"


def test_a_cut_diff_has_a_note(
    tmp_path: Path, code: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git, "DIFF_BYTES", 2**20)
    (code / "train.py").write_text("x = 2\n" * 2**18)
    record(tmp_path, program)
    assert (tmp_path / "provenance" / "1.diff").stat().st_size == 2**20
    assert list_records(Layout(tmp_path))[0][1].diff_note == "cut after 1 MiB"


def test_the_training_files_are_the_function_s_or_those_that_the_command_names(tmp_path: Path) -> None:
    for name in ("train.py", "my conf.yaml", "pkg/__init__.py", "mod.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")

    def files(**given: Any) -> list[str]:
        found = training_files(Program(workdir=str(tmp_path), metric="m", **given))
        return [path.relative_to(tmp_path).as_posix() for path in found]

    assert files(function=f"{tmp_path}/train.py:f") == ["train.py"]
    assert files(function="pkg:f") == ["pkg/__init__.py"]
    assert files(function="mod:f") == ["mod.py"]
    assert files(function="json:loads") == []
    assert files(command="python train.py -c 'my conf.yaml' {lr} none.py") == ["train.py", "my conf.yaml"]
    assert files(command="echo it's | python train.py") == ["train.py"]
