"""Every verb that reads tells what it found, whatever lies in a results folder or in place of its files."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest
from typer.testing import CliRunner

from hpcsweep.cli import app
from hpcsweep.core.events import AnyEvent, BatchClosed, SweepEnded, SweepOutcome
from hpcsweep.store.layout import Layout
from tests.compacted import compact
from tests.exports.exported import EVENTS, exported

#: Read a results folder, and write nothing in it but what was asked for.
VERBS: Final = (
    ("status",),
    ("status", "--json"),
    ("best",),
    ("best", "--rerun"),
    ("explain", "0"),
    ("logs", "0"),
    ("logs", "4", "--tail", "2"),
    ("clean",),
    ("export", "--table", "runs"),
    ("export", "--table", "attempts", "--format", "json"),
    ("export", "--table", "metrics"),
    ("export", "--format", "optuna", "--output", "{out}/optuna.log"),
    ("export", "--format", "tensorboard", "--output", "{out}/tensorboard"),
    ("report", "--output", "{out}/report.html"),
    ("compare", "{other}", "--output", "{out}/compared.html"),
)
ROUNDS: Final = 24
LONGEST_S: Final = 60.0
ENDINGS: Final = (None, SweepOutcome.STOPPED, SweepOutcome.FINISHED)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(path))


#: Makes something at a path where nothing is. Nothing large: a journal, say, is read as a whole.
ODD: Final[tuple[Callable[[Path], Any], ...]] = (
    Path.mkdir,
    os.mkfifo,
    make_socket,
    Path.touch,
    lambda path: path.symlink_to(path.name),
    lambda path: path.symlink_to("/nowhere"),
    lambda path: path.symlink_to("/dev/zero"),
    lambda path: path.symlink_to("."),
    lambda path: path.write_bytes(b"{"),
    lambda path: path.write_bytes(b"[1]\n"),
    lambda path: path.write_bytes(b'{"step": 1, "loss": "x"}\n{"step": -1}\n{"step": 1e400, "loss": null}\n'),
    lambda path: path.write_bytes(b'{"trial": -1, "rung": 99999999999, "kind": 7}\n'),
    lambda path: path.write_bytes(b"\xff\x00\x1b]0;x\x07\r\n" * 99),
    lambda path: path.write_bytes(b"a: [b: {c\n"),
    lambda path: path.write_bytes(b"[" * 100_000),
    lambda path: path.write_bytes(b"PAR1" + bytes(99)),
    lambda path: path.write_bytes(b"PK\x03\x04" + bytes(99)),
)
NAMES: Final = (
    "notes",
    "0.0.0.json",
    "0.0.0 (copy).json",
    "000002.jsonl",
    "metrics-0.0.0.jsonl",
    "metrics-9.0.0.jsonl",
    "step-3",
    "00007",
    "sweep.yaml",
    "0.log",
    "tables.json",
    "metrics-000001-1.parquet",
    "batches-000001-1.zip",
    "0001.json",
    "manifest.jsonl",
    "checkpoints",
    ".hidden",
    "a\x1b[31m\nb",
    os.fsdecode(b"\xff.json"),
    "n" * 200,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of a running, a stopped and a finished sweep with files of all kinds; the last one compacted."""
    return [whole(tmp_path_factory.mktemp("whole"), ending) for ending in ENDINGS]


def whole(root: Path, ending: SweepOutcome | None) -> Path:
    events: list[AnyEvent] = [*EVENTS, BatchClosed("a"), BatchClosed("b")]
    if ending is not None:
        events.append(SweepEnded(2000.0, ending, "as asked"))
    folder = exported(root, events=events, sweep=str(ending))
    layout = Layout(folder)
    shutil.copy(root / "lr.yaml", layout.spec)
    layout.control.mkdir()
    layout.provenance.mkdir()
    (layout.provenance / "0001.json").write_text("{}")
    for name, trials in (("a", range(4)), ("b", (0, 4))):
        batch = layout.batch(name)
        batch.logs.mkdir(parents=True)
        batch.script.write_text("#!/bin/bash\n")
        for task, _ in enumerate(trials):
            batch.log(task).write_text("2001-01-01 00:00:00 trial 0 rung 0 attempt 0\nepoch 1\n")
    for step in (3, 9):
        layout.trial(0).checkpoint(step).mkdir(parents=True)
        (layout.trial(0).checkpoint(step) / "weights").write_bytes(bytes(10))
    if ending is SweepOutcome.FINISHED:
        compact(folder, tables=True)
    return folder


def disturb(folder: Path, draw: random.Random) -> list[str]:
    """Put odd things beside its files and in place of some; what was done, for the message of a failure."""
    told = []
    for _ in range(draw.randint(1, 4)):
        inside = sorted(path for path in folder.rglob("*") if not path.is_symlink())
        if draw.random() < 0.5:
            places = [folder, *(path for path in inside if path.is_dir())]
            path = draw.choice(places) / draw.choice(NAMES)
        else:
            path = draw.choice(inside)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        kind = draw.randrange(len(ODD))
        ODD[kind](path)
        told.append(f"{path.relative_to(folder)!s}: {kind}")
    return told


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise where it takes longer: something was waited for."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_no_reading_verb_has_a_traceback_or_hangs(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    draw = random.Random(seed)
    folder = tmp_path / "s"
    shutil.copytree(folders[seed % len(folders)], folder)
    other = folders[(seed + 1) % len(folders)]
    monkeypatch.chdir(tmp_path)
    done = disturb(folder, draw)
    for verb in draw.sample(VERBS, 4):
        argv = [verb[0], str(folder), *(word.format(out=tmp_path, other=other) for word in verb[1:])]
        with at_most(LONGEST_S):
            result = CliRunner().invoke(app, argv)
        told = f"{verb} after {done}: {result.exception!r}\n{result.output}"
        assert result.exception is None or isinstance(result.exception, SystemExit), told
        assert result.exit_code in (0, 1, 2), told
        assert result.exit_code == 0 or result.stderr.startswith("hpcsweep: "), told
