"""What git says of a folder, whatever state git and the folder are in."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hpcsweep.store import git

NAMED = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]


def run_git(folder: Path, *argv: str) -> str:
    done = subprocess.run(["git", *NAMED, *argv], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One commit on `main` with `train.py` and `old.py` in it, and a folder `inner`."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    root = tmp_path / "a repo"
    (root / "inner").mkdir(parents=True)
    (root / "train.py").write_text("x = 1\n")
    (root / "inner" / "old.py").write_text("a = 1\nb = 2\nc = 3\n")
    run_git(root, "init", "-q", "-b", "main")
    run_git(root, "add", "-A")
    run_git(root, "commit", "-q", "-m", "one")
    return root


def test_a_clean_repository_has_commit_branch_and_remote_and_no_diff(repository: Path) -> None:
    run_git(repository, "remote", "add", "origin", "https://me:token@example.org/x.git")
    state, diff = git.repository_state(repository / "inner")
    assert state == git.GitState(
        str(repository / "inner"),
        root=str(repository),
        commit=run_git(repository, "rev-parse", "HEAD"),
        branch="main",
        remote="https://example.org/x.git",
    )
    assert diff == b""


def test_the_diff_of_a_dirty_repository_brings_it_back(repository: Path, tmp_path: Path) -> None:
    run_git(repository, "mv", "inner/old.py", "inner/new.py")
    (repository / "train.py").write_text("x = 2\n")
    (repository / "data.bin").write_bytes(b"\0\1\xff")
    run_git(repository, "add", "data.bin")
    (repository / "ü new.py").write_text("")
    state, diff = git.repository_state(repository)
    assert (state.dirty, state.untracked, state.problem) == (True, ("ü new.py",), "")
    assert len(state.diff_sha256) == 64
    run_git(tmp_path, "clone", "-q", str(repository), "copy")
    subprocess.run(["git", "apply"], cwd=tmp_path / "copy", input=diff, check=True)
    assert (tmp_path / "copy" / "train.py").read_text() == "x = 2\n"
    assert (tmp_path / "copy" / "data.bin").read_bytes() == b"\0\1\xff"
    assert not (tmp_path / "copy" / "inner" / "old.py").exists()


def test_only_so_much_of_a_diff_is_read(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git, "DIFF_BYTES", 100)
    (repository / "train.py").write_text("x = 2\n" * 100_000)
    state, diff = git.repository_state(repository)
    assert (len(diff), state.dirty, state.problem) == (100, True, "")


def test_missing_commit_repository_git_or_folder_is_recorded_and_no_error(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty, plain = tmp_path / "empty", tmp_path / "plain"
    empty.mkdir()
    plain.mkdir()
    run_git(empty, "init", "-q", "-b", "main")
    state = git.repository_state(empty)[0]
    assert (state.root, state.commit, state.branch) == (str(empty), "", "main")
    assert state.problem == "the repository has no commit yet"
    assert git.repository_state(plain)[0].problem.startswith("git: not a git repository")
    assert git.repository_state(tmp_path / "gone")[0].problem == f"no folder {tmp_path / 'gone'}"
    monkeypatch.setenv("PATH", str(plain))
    assert git.repository_state(repository)[0] == git.GitState(
        str(repository), problem="git is not installed"
    )


def test_a_repository_of_another_user_is_recorded_with_git_s_message(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    state, diff = git.repository_state(repository)
    assert "dubious ownership" in state.problem
    assert (state.commit, diff) == ("", b"")


def test_a_git_that_takes_too_long_is_killed_with_what_it_started(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nsleep 600 &\nwait\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:/usr/bin:/bin")
    monkeypatch.setattr(git, "PATIENCE_S", 0.2)
    assert git.repository_state(repository)[0].problem == "git rev-parse took too long"


def test_git_variables_of_another_repository_are_ignored(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other"))
    assert git.repository_state(repository)[0].root == str(repository)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:secret@host.org/a/b.git", "https://host.org/a/b.git"),
        ("https://token@host.org:8443/a.git?private_token=x#y", "https://host.org:8443/a.git"),
        ("ssh://git:pw@host.org/a.git", "ssh://host.org/a.git"),
        ("git@host.org:a/b.git", "git@host.org:a/b.git"),
        ("/srv/a@b/c.git", "/srv/a@b/c.git"),
        ("https://host.org/~me@home/a.git", "https://host.org/~me@home/a.git"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert git.strip_credentials(url) == shown


def test_code_files_are_those_tracked_or_untracked_but_not_ignored(repository: Path) -> None:
    (repository / ".gitignore").write_text("data/\n")
    (repository / "data").mkdir()
    (repository / "data" / "big").write_text("")
    (repository / "né\tw.py").write_text("")
    files = git.list_code_files(repository, patience_s=10)
    assert sorted(files) == [".gitignore", "inner/old.py", "né\tw.py", "train.py"]
