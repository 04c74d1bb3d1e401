"""`init` on the command line: where the file goes, what is refused, what is listed."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpcsweep.cli import app
from hpcsweep.spec import load_spec

SCRIPT = """\
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--epochs", type=int, default=9)
args = parser.parse_args()
for epoch in range(1, args.epochs + 1):
    print(f"epoch {epoch} val_loss {args.lr / epoch}")
raise SystemExit("this script must not run")
"""


def init(*argv: str) -> tuple[int, list[str]]:
    done = CliRunner().invoke(app, ["init", *argv])
    return done.exit_code, done.output.splitlines()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "train.py").write_text(SCRIPT)
    return tmp_path


def test_the_spec_is_beside_the_script_and_the_next_step_is_named(folder: Path) -> None:
    assert init("project/train.py") == (
        0,
        [
            "wrote project/sweep.yaml",
            "  command: {python} train.py {args} --epochs {resource}",
            "  space: lr",
            "  objective: val_loss, min",
            "next: hpcsweep try project/sweep.yaml",
        ],
    )
    spec = load_spec(folder / "project" / "sweep.yaml")
    assert (spec.name, spec.train.workdir) == ("project-train", str(folder / "project"))


def test_a_file_that_exists_is_never_overwritten(folder: Path) -> None:
    (folder / "project" / "sweep.yaml").write_text("mine\n")
    code, lines = init("project/train.py")
    assert (code, lines) == (
        2,
        ["hpcsweep: project/sweep.yaml: exists: name another file with --output, or - for the terminal"],
    )
    assert (folder / "project" / "sweep.yaml").read_text() == "mine\n"


def test_a_spec_elsewhere_names_the_script_from_there(folder: Path) -> None:
    (folder / "sweeps").mkdir()
    code, lines = init("project/train.py", "--output", "sweeps/lr.yaml")
    assert (code, lines[1]) == (0, "  command: {python} ../project/train.py {args} --epochs {resource}")
    assert init("project/train.py", "-o", "-")[1][2] == "name: project-train"


def test_without_a_script_the_only_one_is_taken_and_several_are_listed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "project")
    (folder / "project" / "utils.py").write_text("import math\n")
    assert init()[1][0] == "wrote sweep.yaml"
    (folder / "project" / "my eval.py").write_text(SCRIPT)
    assert init() == (
        2,
        [
            "hpcsweep: SCRIPT: several scripts here seem to train; choose one:",
            "  hpcsweep init train.py",
            "  hpcsweep init 'my eval.py'",
        ],
    )


def test_where_no_script_trains_there_is_a_spec_to_fill_in(folder: Path) -> None:
    code, lines = init()
    assert (code, lines[0], lines[-1]) == (0, "wrote sweep.yaml", "next: hpcsweep try sweep.yaml")
    assert "to do: train.command: write your script in the place of FILL_IN.py" in lines
    assert load_spec(folder / "sweep.yaml").train.command == "{python} FILL_IN.py"


def test_a_script_of_a_hostile_name_can_be_started(folder: Path) -> None:
    (folder / "project" / "it's {new}.py").write_text(SCRIPT.replace("raise", "pass #"))
    code, _ = init("project/it's {new}.py")
    assert code == 0
    done = CliRunner().invoke(app, ["try", "project/sweep.yaml"])
    assert done.exit_code == 0, done.output


def test_a_script_of_a_package_is_started_as_a_module(folder: Path) -> None:
    package = folder / "project" / "net"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "model.py").write_text("size = 3\n")
    (package / "train.py").write_text("from .model import size\n" + SCRIPT)
    code, lines = init("project/net/train.py")
    assert (code, lines[1]) == (0, "  command: {python} -m net.train {args} --epochs {resource}")
    assert load_spec(package / "sweep.yaml").train.workdir == str(folder / "project")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gone.py", None, "gone.py: cannot be read: No such file or directory"),
        (
            "project",
            None,
            "project: is a folder: expected a script; `hpcsweep init` lists those of this ",
        ),
        ("old.py", "print 'loss'\n", "old.py, line 1: is not Python that this version can read: "),
    ],
)
def test_what_is_no_script_is_refused(folder: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (folder / name).write_text(text)
    code, lines = init(name)
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith(f"hpcsweep: {message}")


@pytest.mark.parametrize("content", [b"\x7fELF\x02\x01\x00\x00", b"", b"\xff\xfe\x00#!\n", b"#!/bin/sh\n"])
def test_a_program_of_which_nothing_is_known_has_a_spec_to_fill_in(folder: Path, content: bytes) -> None:
    (folder / "simulate").write_bytes(content)
    (folder / "simulate").chmod(0o755)
    code, lines = init("simulate")
    assert code == 0
    assert {line.split(": ")[1] for line in lines if line.startswith("to do: ")} == {"space", "train.metrics"}
    load_spec(folder / "sweep.yaml")
