"""The copy of the training code: what is in it, what is refused, and what runs from it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import IO, Any

import pytest

from hpcsweep.errors import FolderError, SpecError
from hpcsweep.store import snapshot
from hpcsweep.store.batch import Program
from hpcsweep.store.layout import Layout
from hpcsweep.store.snapshot import copy_code, list_code, use_snapshot


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `train.py`, a package, and what is no code; the results folder is `results/s` in it."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    root = tmp_path / "my code"
    for name, text in {
        "train.py": "def train(trial): ...",
        "pkg/__init__.py": "",
        "pkg/net.py": "layers = 3",
        "run me.sh": "#!/bin/sh",
        "pkg/__pycache__/net.pyc": "",
        "env/pyvenv.cfg": "",
        "env/lib/x.py": "",
        "results/s/sweep.yaml": "",
        "results/s/code/train.py": "",
        "results/other/sweep.yaml": "",
        "results/other/journal/000001.jsonl": "",
        "data/big.bin": "0123456789",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "run me.sh").chmod(0o755)
    return root


def git(root: Path, *argv: str) -> None:
    subprocess.run(["git", *argv], cwd=root, check=True, capture_output=True)


def function(root: Path) -> Program:
    return Program(workdir=str(root), metric="m", function=f"{root / 'train.py'}:train")


def copied(program: Program, root: Path) -> Path:
    """The copy, made in the results folder."""
    layout = Layout(root / "results" / "s")
    copy_code(list_code(program, layout.root), layout, owner=1, heartbeat=lambda: None)
    return layout.code


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_outside_of_a_repository_the_file_s_folder_is_copied_but_for_results_environments_and_caches(
    code: Path,
) -> None:
    copy = copied(function(code), code)
    assert contents(copy) == [
        ".hpcsweep.json",
        "data/big.bin",
        "pkg/__init__.py",
        "pkg/net.py",
        "run me.sh",
        "train.py",
    ]
    assert (copy / "pkg" / "net.py").read_text() == "layers = 3"
    assert os.access(copy / "run me.sh", os.X_OK)
    assert not os.access(copy / "train.py", os.X_OK)
    assert contents(copy.parent) == sorted(["sweep.yaml", *(f"code/{name}" for name in contents(copy))])


def test_of_a_repository_all_is_copied_that_git_does_not_ignore(code: Path) -> None:
    git(code, "init", "-q")
    (code / ".gitignore").write_text("data/\n")
    (code / "gone.py").write_text("")
    inner = code / "lib"
    inner.mkdir()
    (inner / "own.py").write_text("")
    git(inner, "init", "-q")
    git(code, "add", "train.py", "gone.py", "data/../pkg/net.py", ".gitignore")
    (code / "gone.py").unlink()
    (code / "pkg" / "net.py").write_text("layers = 4")
    program = Program(workdir=str(code / "pkg"), metric="m", command="python net.py")
    copy = copied(program, code)
    assert contents(copy) == [
        ".gitignore",
        ".hpcsweep.json",
        "lib/own.py",
        "pkg/__init__.py",
        "pkg/net.py",
        "run me.sh",
        "train.py",
    ]
    assert (copy / "pkg" / "net.py").read_text() == "layers = 4"
    assert use_snapshot(program, Layout(copy.parent)).workdir == str(copy / "pkg")


def test_links_never_lead_from_the_copy_back_to_code_that_was_copied(code: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "shared.py").write_text("shared")
    (outside / "data").mkdir()
    (code / "pkg" / "same.py").symlink_to("net.py")
    (code / "absolute.py").symlink_to(code / "pkg" / "net.py")
    (code / "package").symlink_to("pkg")
    (code / "shared.py").symlink_to(outside / "shared.py")
    (code / "outside").symlink_to("../outside/data")
    (code / "broken").symlink_to("nowhere")
    (code / "loop").symlink_to("loop")
    (code / "zero").symlink_to("/dev/zero")
    os.mkfifo(code / "pipe")
    copy = copied(function(code), code)
    links = {path.name: os.readlink(path) for path in copy.rglob("*") if path.is_symlink()}
    assert links == {
        "same.py": "net.py",
        "absolute.py": "pkg/net.py",
        "package": "pkg",
        "outside": str(outside / "data"),
    }
    assert (copy / "absolute.py").read_text() == "layers = 3"
    assert (copy / "shared.py").read_text() == "shared"
    assert not {"broken", "loop", "zero", "pipe"} & set(os.listdir(copy))


def test_leftovers_of_a_killed_copy_are_removed_and_an_unused_copy_is_replaced(code: Path) -> None:
    folder = code / "results" / "s"
    (folder / ".code-7.tmp").mkdir()
    (folder / ".code-7.tmp" / "train.py").write_text("half")
    assert contents(copied(function(code), code))[-1] == "train.py"
    assert sorted(os.listdir(folder)) == ["code", "sweep.yaml"]
    assert (folder / "code" / "train.py").read_text() == "def train(trial): ..."


def test_too_much_is_refused_with_the_largest_files_and_what_to_do(
    code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "MAX_BYTES", 2**20)
    (code / "data" / "big.bin").write_bytes(bytes(3 * 2**19))
    with pytest.raises(SpecError) as refusal:
        list_code(function(code), code / "results" / "s")
    told = str(refusal.value)
    assert told.startswith(f"train.snapshot: {code} has 2 MiB, expected 1 at most; the largest files: ")
    assert "data/big.bin (1.5 MiB), train.py (0.0 MiB)" in told
    assert told.endswith("or set train.snapshot: false")
    monkeypatch.setattr(snapshot, "MAX_FILES", 3)
    with pytest.raises(SpecError, match="has more than 3 files, expected code only; leave out"):
        list_code(function(code), code / "results" / "s")


def test_code_whose_copy_would_not_run_is_refused(code: Path) -> None:
    results = code / "results" / "s"
    installed = Program(workdir=str(code), metric="m", function="json.decoder:JSONDecoder")
    with pytest.raises(SpecError, match=r"'json' is not in .*my code: set train.workdir"):
        list_code(installed, results)
    absolute = Program(workdir=str(code), metric="m", command=f"python '{code / 'train.py'}' {{lr}}")
    with pytest.raises(SpecError, match=r"train.command: .*train.py would be run in place of its copy"):
        list_code(absolute, results)
    git(code, "init", "-q")
    (code / ".gitignore").write_text("train.py\n")
    with pytest.raises(SpecError, match=r"train.py is not copied: expected a file that git does not ignore"):
        list_code(function(code), results)
    assert (
        "pkg/net.py" in list_code(Program(workdir=str(code), metric="m", function="pkg.net:f"), results).files
    )


def test_a_repository_that_git_does_not_list_is_an_error_and_not_copied_in_part(
    code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(code, "init", "-q")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(SpecError, match="cannot be listed: git: detected dubious ownership"):
        list_code(function(code), code / "results" / "s")


def test_a_file_that_cannot_be_read_is_named(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path.open

    def denied(path: Path, mode: str = "r") -> IO[Any]:
        if path == code / "pkg" / "net.py":
            raise PermissionError(13, "Permission denied")
        return original(path, mode)

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(SpecError, match=r"net.py: cannot be read: Permission denied; leave out"):
        copied(function(code), code)


def test_the_program_runs_in_the_copy_also_when_the_original_is_gone_and_the_results_have_moved(
    code: Path, tmp_path: Path
) -> None:
    program = function(code)
    copied(program, code)
    moved = tmp_path / "elsewhere"
    (code / "results" / "s").rename(moved)
    (code / "train.py").unlink()
    found = use_snapshot(program, Layout(moved))
    assert found.function == f"{moved / 'code' / 'train.py'}:train"
    assert found.workdir == str(moved / "code")
    assert found.snapshot is not None
    assert (found.snapshot.root, found.snapshot.workdir) == (str(code), str(code))


def test_the_code_is_found_in_the_copy_through_a_link_to_its_folder(code: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(code)
    program = function(tmp_path / "link")
    copy = copied(program, code)
    found = use_snapshot(program, Layout(copy.parent))
    assert found.function == f"{copy / 'train.py'}:train"
    assert found.workdir == str(copy)


def test_a_workdir_outside_of_the_code_stays(code: Path, tmp_path: Path) -> None:
    program = Program(workdir=str(tmp_path), metric="m", function=f"{code / 'train.py'}:train")
    assert use_snapshot(program, Layout(copied(program, code).parent)).workdir == str(tmp_path)


def test_no_copy_and_a_function_that_is_not_in_it_are_errors_that_say_what_to_do(code: Path) -> None:
    layout = Layout(code / "results" / "s")
    with pytest.raises(FolderError, match="expected the copy of the training code"):
        use_snapshot(function(code), Layout(code / "results" / "none"))
    copied(function(code), code)
    other = Program(workdir=str(code), metric="m", function=f"{code / 'other.py'}:train")
    with pytest.raises(SpecError, match=r"train.function: .*other.py is not in the copy .*take the change"):
        use_snapshot(other, layout)
