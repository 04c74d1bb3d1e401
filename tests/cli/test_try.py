"""`try`: what it shows of one configuration, what it advises, and what its exit code says."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

import hpcsweep
from hpcsweep.cli import app
from hpcsweep.store.process_id import start_time
from tests.waiting import PATIENCE_S

#: Counts epochs to `--epochs` and resumes from the file of `--resume`.
RESUMES = """\
import argparse, json, pathlib
p = argparse.ArgumentParser()
p.add_argument("--lr", type=float)
p.add_argument("--epochs", type=int)
p.add_argument("--save", type=pathlib.Path)
p.add_argument("--resume", type=pathlib.Path)
a = p.parse_args()
start = json.loads((a.resume / "state.json").read_text()) if a.resume else 0
for epoch in range(start + 1, a.epochs + 1):
    print(f"epoch {epoch}: val_loss {a.lr / epoch}")
    if a.save:
        (a.save / "state.json").write_text(json.dumps(epoch))
"""
COUNTS_FROM_0 = """\
import sys
for epoch in range(int(sys.argv[1])):
    print(f"epoch {epoch}: val_loss {float(sys.argv[2]) / (1 + epoch)}")
"""
COST = "so each of 3 rungs trains from scratch, also what the one before has trained"
NO_CHECKPOINT = f"- no checkpoint was made, {COST}"
SAVING = "--save {checkpoint_dir} {resume_from?--resume {resume_from}}"


class Tried:
    """One call of `try`, its output without what differs from call to call."""

    def __init__(self, *argv: str) -> None:
        done = CliRunner().invoke(app, ["try", *argv])
        self.code = done.exit_code
        text = re.sub(r"(after|took) [0-9.e-]+ s", r"\1 N s", done.output)
        text = re.sub(r"\S*/bin/python\S*", "PYTHON", text)
        self.lines = re.sub(r"/tmp/hpcsweep-try-\w+-\w+", "TMP", text).splitlines()

    @property
    def advice(self) -> list[str]:
        """What is to be looked at, and how it ends."""
        found = [index for index, line in enumerate(self.lines) if "to look at in" in line]
        return self.lines[found[0] + 1 :] if found else self.lines[-2:]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", "/tmp")
    return tmp_path


def write(folder: Path, program: str, *, command: str, metrics: str = "", scheduler: str = "") -> None:
    """A program `p.py` and its spec `s.yaml`."""
    (folder / "p.py").write_text(program)
    pattern = r"epoch (?P<step>\d+): val_loss (?P<val_loss>\S+)"
    spec = {
        "train": {"command": f"{{python}} p.py {command}", "metrics": metrics or pattern},
        "objective": {"metric": "val_loss"},
        "space": {"lr": {"type": "float", "low": 0.25, "high": 0.75}},
        "scheduler": scheduler or {"name": "asha", "max_resource": 9},
        "budget": {"trials": 3},
        "resources": {"cpus": 1},
    }
    with open(folder / "s.yaml", "w") as file:
        YAML().dump(spec, file)


def test_a_program_that_resumes_is_shown_to_resume(folder: Path) -> None:
    write(folder, RESUMES, command="{args} --epochs {resource} " + SAVING)
    tried = Tried("s.yaml")
    run = "TMP/trials/0000/0/checkpoints"
    assert tried.lines == [
        "s.yaml, one trial on this machine: lr=0.5",
        "",
        "1. to step 1, from scratch",
        f"   command: PYTHON p.py --lr 0.5 --epochs 1 --save {run}/.work-0-0-0",
        "   | epoch 1: val_loss 0.5",
        "   completed after N s",
        "   metrics: val_loss 0.5 at step 1 (the objective)",
        "   steps: 1",
        "   checkpoints: step 1 (state.json)",
        "",
        "2. to step 3, to be resumed",
        f"   command: PYTHON p.py --lr 0.5 --epochs 3 --save {run}/.work-1-0-0 --resume {run}/step-1",
        "   | epoch 2: val_loss 0.25",
        "   | epoch 3: val_loss 0.16666666666666666",
        "   completed after N s",
        "   metrics: val_loss 0.166667 at step 3 (the objective)",
        "   steps: 2, 3",
        "   checkpoints: step 3 (state.json)",
        "   it resumed from step 1",
        "",
        "a sweep finds val_loss; next: hpcsweep plan s.yaml",
    ]
    assert tried.code == 0
    assert {path.name for path in folder.iterdir()} == {"p.py", "s.yaml"}


def test_without_a_checkpoint_it_says_what_that_costs(folder: Path) -> None:
    write(folder, RESUMES, command="{args} --epochs {resource}")
    tried = Tried("s.yaml", "lr=0.3")
    assert tried.lines[0] == "s.yaml, one trial on this machine: lr=0.3"
    assert "   it trained from scratch" in tried.lines
    assert (tried.code, tried.advice) == (
        0,
        [
            f"{NO_CHECKPOINT}; if the program can resume, tell it where to save and where from",
            "    train: {command: ... --save {checkpoint_dir} ...}",
            "    train: {command: ... {resume_from?--resume {resume_from}} ...}",
            "",
            "a sweep finds val_loss; next: hpcsweep plan s.yaml",
        ],
    )


def test_a_program_that_saves_and_begins_anew_is_found_out(folder: Path) -> None:
    write(folder, RESUMES, command="{args} --epochs {resource} --save {checkpoint_dir}")
    assert Tried("s.yaml").advice[:2] == [
        f"- there was a checkpoint, but the program was not told, {COST}",
        "    train: {command: ... {resume_from?--resume {resume_from}} ...}",
    ]
    (folder / "p.py").write_text(RESUMES.replace("if a.resume else 0", "if False else 0"))
    told = ["--set", "train.resume={args: '--resume {resume_from}'}"]
    assert Tried("s.yaml", *told).advice[0] == (
        f"- there was a checkpoint, but the program began anew, {COST}"
    )


def test_a_checkpoint_that_is_not_where_the_spec_says_is_missed(folder: Path) -> None:
    write(folder, RESUMES, command="{args} --epochs {resource}")
    where = "train.checkpoint={path: '{output_dir}/*.pt'}"
    tried = Tried("s.yaml", "--set", where, "--set", "train.resume={args: '--resume {output_dir}'}")
    assert tried.advice[0] == (
        "- to step 1: it left no checkpoint: no file matches train.checkpoint.path, {output_dir}/*.pt"
    )


def test_steps_from_0_are_told_with_the_key_that_says_so_and_then_it_works(folder: Path) -> None:
    write(folder, COUNTS_FROM_0, command="{resource} {lr}")
    tried = Tried("s.yaml")
    assert tried.code == 1
    assert tried.advice[1:] == [
        "    train: {first_step: 0}",
        "",
        "a sweep would not find val_loss: change that, then again: hpcsweep try s.yaml",
    ]
    assert Tried("s.yaml", "--set", "train.first_step=0").code == 0


def apply(folder: Path, lines: list[str]) -> None:
    """Change the spec as the lines of YAML say."""
    yaml = YAML()
    spec = yaml.load(folder / "s.yaml")
    for line in lines:
        for section, values in yaml.load(line).items():
            spec[section].update(values)
    yaml.dump(spec, folder / "s.yaml")


@pytest.mark.parametrize(
    ("printed", "line"),
    [
        ("'epoch', e, 'val_loss', 1 / e", "epoch 1 val_loss 1.0"),
        ("f'[{e}/9] Validation loss: {1 / e:8.4f} (lr 0.1)'", "[1/9] Validation loss:   1.0000 (lr 0.1)"),
        ("{'epoch': e, 'val_loss': 1 / e, 'lr': 1e-5}", "{'epoch': 1, 'val_loss': 1.0, 'lr': 1e-05}"),
        ("f'epoch={e} train_acc=0.1 val_acc={1 / e:.0%}'", "epoch=1 train_acc=0.1 val_acc=100%"),
    ],
)
def test_a_pattern_is_proposed_from_the_printed_line_and_then_it_works(
    folder: Path, printed: str, line: str
) -> None:
    program = f"import sys\nfor e in range(1, int(sys.argv[1]) + 1): print({printed})\n"
    write(folder, program, command="{resource} {lr}", metrics="never=(?P<val_loss>x)")
    tried = Tried("s.yaml")
    assert tried.code == 1
    assert tried.advice[0] == f"- no 'val_loss' was found, but this line has numbers: {line}"
    apply(folder, [each for each in tried.advice if each.startswith("    ")])
    again = Tried("s.yaml")
    assert (again.code, again.lines[-1][:15]) == (0, "a sweep finds v")


NOTHING = "nothing with a number was printed: have the program print it, or name the file that it writes"
NAMELESS = "the last line with a number, whose name says nothing"


@pytest.mark.parametrize(
    ("program", "advice"),
    [
        ("", "no 'val_loss' was found, and nothing was printed"),
        ("print('done')", f"no 'val_loss' was found, and {NOTHING}"),
        ("print('took 3 s')", f"no 'val_loss' was found; {NAMELESS}: took N s"),
        ("raise ValueError('no data')", "the run failed: exit code 1: p.py:1 | ValueError: no data"),
    ],
)
def test_a_program_without_the_metric_is_told_what_it_did_instead(
    folder: Path, program: str, advice: str
) -> None:
    write(folder, program, command="{resource} {lr}")
    tried = Tried("s.yaml")
    assert (tried.code, tried.advice[0]) == (1, f"- {advice}")
    assert tried.lines[-1] == "a sweep would not find val_loss: change that, then again: hpcsweep try s.yaml"


def test_what_launch_refuses_is_told_although_the_metric_is_found(folder: Path) -> None:
    write(folder, RESUMES, command="--epochs {resource} --lr 0.1")
    tried = Tried("s.yaml")
    assert tried.code == 1
    assert tried.advice[0].startswith("- launch refuses it: train.command: never uses the parameter lr: ")
    assert tried.lines[-1] == "it cannot be launched: change that, then again: hpcsweep try s.yaml"


def test_time_ends_a_run_that_would_go_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed, passed = folder / "printed", itertools.count(step=60.0)
    # No time passes until it has printed, however long that takes; then it flies.
    monkeypatch.setattr("hpcsweep.cli.try_.monotonic", lambda: next(passed) if printed.exists() else 0.0)
    prints = f"echo epoch 1 val_loss 0.5; echo epoch 2 val_loss 0.4; touch {printed}; sleep 1000\n"
    (folder / "p.sh").write_text(prints)
    (folder / "s.yaml").write_text(
        "train: {command: 'sh p.sh {args}', metrics: 'epoch (?P<step>.) val_loss (?P<val_loss>\\S+)'}\n"
        "objective: {metric: val_loss}\nspace: {lr: [1, 2]}\nscheduler: {name: fifo, max_resource: 9}\n"
    )
    tried = Tried("s.yaml", "--time", "100s")
    assert (tried.code, tried.lines[2:]) == (
        0,
        [
            "1. to step 9, from scratch",
            "   command: sh p.sh --lr 1",
            "   | epoch 1 val_loss 0.5",
            "   | epoch 2 val_loss 0.4",
            "   stopped after N s",
            "   metrics: val_loss 0.4 at step 2 (the objective)",
            "   steps: 1, 2",
            "   checkpoints: none",
            "",
            "a sweep finds val_loss; next: hpcsweep plan s.yaml",
        ],
    )


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_takes_its_job_with_it(folder: Path, signum: signal.Signals) -> None:
    (folder / "p.sh").write_text("echo $$ > pid; echo $$; exec sleep 1000\n")
    (folder / "s.yaml").write_text(
        "train: {command: 'sh p.sh {args}', metrics: '(?P<loss>never)'}\n"
        "objective: {metric: loss}\nspace: {lr: [1, 2]}\n"
    )
    command = [sys.executable, "-m", "hpcsweep", "try", "s.yaml"]
    environ = {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    environ["PYTHONPATH"] = str(Path(hpcsweep.__file__).parent.parent)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as tried:
        assert tried.stdout is not None
        shown = next(line for line in tried.stdout if line.startswith("   | "))
        tried.send_signal(signum)
        tried.wait(timeout=PATIENCE_S)
    assert tried.returncode == 130
    assert start_time(int(shown.split()[-1])) is None
    assert sorted(path.name for path in folder.iterdir()) == ["p.sh", "pid", "s.yaml"]


def test_a_function_that_makes_no_checkpoint_is_told_how(folder: Path) -> None:
    body = "    for step in trial.steps():\n        trial.report(step, val_loss=trial.config['lr'])\n"
    (folder / "t.py").write_text(f"def train(trial):\n{body}")
    (folder / "s.yaml").write_text(
        "train: {function: 't.py:train'}\nobjective: {metric: val_loss}\n"
        "space: {lr: [0.1]}\nscheduler: {name: hyperband, max_resource: 9}\n"
    )
    tried = Tried("s.yaml")
    assert (tried.code, tried.advice[0]) == (
        0,
        f"{NO_CHECKPOINT}; make one with trial.checkpoint(step)",
    )


def test_keep_leaves_the_results_folder(folder: Path) -> None:
    write(folder, RESUMES, command="{args} --epochs {resource}", scheduler="fifo")
    done = CliRunner().invoke(app, ["try", "s.yaml", "--keep"])
    kept = next(line for line in done.output.splitlines() if line.startswith("kept: "))
    path = Path(shlex.split(kept)[1])
    assert (path / "journal").is_dir()
    shutil.rmtree(path)
    assert not list(folder.glob("results"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["gone.yaml"], "hpcsweep: gone.yaml: cannot be read: No such file or directory"),
        (["s.yaml", "lx=1"], "hpcsweep: try: lx: unknown parameter; expected one of: lr"),
        (["s.yaml", "lr=9"], "hpcsweep: try: lr: must be between 0.25 and 0.75, got 9"),
        (["s.yaml", "lr"], "hpcsweep: try: lr: must be name=value"),
        (["s.yaml", "--time", "3"], "hpcsweep: --time: must be a time with its unit such as 90s, 30m"),
        (["s.yaml", "--cluster", "moon"], "hpcsweep: s.yaml: cluster.name: unknown name 'moon'; "),
    ],
)
def test_a_wrong_request_has_exit_code_2(folder: Path, argv: list[str], message: str) -> None:
    write(folder, RESUMES, command="{args} --epochs {resource}")
    tried = Tried(*argv)
    assert (tried.code, len(tried.lines)) == (2, 1)
    assert tried.lines[0].startswith(message)
