"""State of a git repository. Whatever is wrong with git or the repository is recorded, never fatal."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

#: Seconds for all git commands on one folder together.
PATIENCE_S: Final = 5.0
#: How many untracked files and folders are recorded.
NAMED: Final = 200
#: How much of a diff is kept.
DIFF_BYTES: Final = 10 * 2**20

#: Set by git for hooks; they would lead to another repository.
_MISLEADING: Final = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY")


class GitError(Exception):
    """Git gave no answer; the message says why."""


class NotARepository(GitError):
    """There is no repository, or no git."""


class GitState(msgspec.Struct, frozen=True, omit_defaults=True):
    """State of the training code's repository.

    Attributes:
        folder: Of the training code.
        root: Of the repository; empty if there is none.
        commit: Empty before the first commit.
        branch: Empty if none is checked out.
        dirty: Tracked files differ from the commit.
        remote: URL of `origin` without credentials.
        untracked: The first untracked files and folders.
        diff_sha256: Of the diff that is kept.
        problem: Why something is unknown.
    """

    folder: str
    root: str = ""
    commit: str = ""
    branch: str = ""
    dirty: bool = False
    remote: str = ""
    untracked: tuple[str, ...] = ()
    diff_sha256: str = ""
    problem: str = ""


def repository_state(folder: Path) -> tuple[GitState, bytes]:
    """State of the folder's repository, and its diff against the commit (at most `DIFF_BYTES`)."""
    deadline = time.monotonic() + PATIENCE_S
    facts: dict[str, Any] = {}
    diff = b""
    try:
        root = toplevel(folder, patience_s=PATIENCE_S)
        facts["root"] = str(root)
        status = _run_git(root, ["status", "--porcelain=v2", "--branch", "-z"], deadline=deadline)
        facts |= _parse_status(status.decode(errors="replace"))
        with contextlib.suppress(GitError):
            url = _run_git(root, ["config", "--get", "remote.origin.url"], deadline=deadline)
            facts["remote"] = strip_credentials(url.decode(errors="replace").strip())
        if not facts["commit"]:
            facts["problem"] = "the repository has no commit yet"
        elif facts["dirty"]:
            wanted = ["diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv", "--no-color"]
            diff = _run_git(root, wanted, deadline=deadline, limit=DIFF_BYTES)
            facts["diff_sha256"] = hashlib.sha256(diff).hexdigest()
    except GitError as error:
        facts["problem"] = str(error)
    return GitState(str(folder), **facts), diff


def toplevel(folder: Path, *, patience_s: float) -> Path:
    """The root of the repository that the folder is in; GitError if there is none or git does not answer."""
    answer = _run_git(folder, ["rev-parse", "--show-toplevel"], deadline=time.monotonic() + patience_s)
    if not answer.strip():
        raise NotARepository("a repository without a working tree")
    return Path(os.path.realpath(os.fsdecode(answer.removesuffix(b"\n"))))


def list_code_files(root: Path, *, patience_s: float) -> list[str]:
    """Paths below `root` that are tracked, or untracked and not ignored; a nested repository is one path."""
    wanted = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    answer = _run_git(root, wanted, deadline=time.monotonic() + patience_s)
    return list(dict.fromkeys(os.fsdecode(name).rstrip("/") for name in answer.split(b"\0") if name))


def strip_credentials(url: str) -> str:
    """The URL without user, password, query and fragment, which may be secrets. `git@host:path` stays."""
    return re.sub(r"^([a-z0-9+.-]+://)[^/]*@", r"\1", re.sub(r"(?<=://)([^?#]*).*", r"\1", url, flags=re.I))


def _parse_status(status: str) -> dict[str, Any]:
    """Fields of `GitState`."""
    facts: dict[str, str] = {}
    dirty, untracked = False, []
    entries = iter(status.split("\0"))
    for entry in entries:
        kind, _, rest = entry.partition(" ")
        match kind:
            case "#":
                name, _, value = rest.partition(" ")
                facts[name] = value
            case "?":
                untracked.append(rest)
            case "1" | "2" | "u":
                dirty = True
                if kind == "2":
                    next(entries, None)  # the name before it was renamed
    commit, branch = facts.get("branch.oid", ""), facts.get("branch.head", "")
    return {
        "commit": "" if commit == "(initial)" else commit,
        "branch": "" if branch == "(detached)" else branch,
        "dirty": dirty,
        "untracked": tuple(untracked[:NAMED]),
    }


def _run_git(folder: Path, arguments: list[str], *, deadline: float, limit: int = 2**26) -> bytes:
    """The first `limit` bytes of git's output; GitError if it is missing, fails, or takes too long."""
    environ = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
    environ |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    with tempfile.TemporaryFile() as words:
        try:
            git = subprocess.Popen(
                ["git", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false", *arguments],
                cwd=folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=words,
                start_new_session=True,  # so that what git starts is killed with it
            )
        except FileNotFoundError as error:
            raise NotARepository(
                "git is not installed" if folder.is_dir() else f"no folder {folder}"
            ) from error
        except OSError as error:
            raise GitError(f"git cannot be run: {error.strerror}") from error
        with git, _killed_at(git, deadline) as late:
            assert git.stdout is not None
            answer = git.stdout.read(limit)
            if len(answer) == limit:
                _kill(git)
        if late.is_set():
            raise GitError(f"git {arguments[0]} took too long")
        if git.returncode and len(answer) < limit:
            words.seek(0)
            said = words.read(4096).decode(errors="replace").strip().splitlines() or ["no reason given"]
            text = said[0].removeprefix("fatal: ")
            raise (NotARepository if text.startswith("not a git repository") else GitError)(f"git: {text}")
    return answer


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def _killed_at(process: subprocess.Popen[bytes], deadline: float) -> Iterator[threading.Event]:
    """Kill the process at the deadline; the event is set if that happened."""
    late = threading.Event()

    def kill() -> None:
        late.set()
        _kill(process)

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), kill)
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
        timer.join()
