"""Programs that know nothing of us: what they report, where they go on, and how they end."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hpcsweep.core.events import FailureKind, Interruption, Outcome
from hpcsweep.store import checkpoints
from hpcsweep.store.run_files import read_reports
from hpcsweep.worker.resuming import can_resume, placeholders
from tests.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from tests.worker.conftest import Bench

STEPS = (r"epoch (?P<step>\d+) error (?P<val_error>\S+)",)
COUNTED = (r"error (?P<val_error>\S+)",)


def reported(bench: Bench, rung: int = 0, attempt: int = 0) -> list[int]:
    """The steps that a run's attempt reported."""
    return [report.step for report in read_reports(bench.trial().metrics(rung, attempt, 0))]


def ending(bench: Bench, task: int = 0) -> tuple[Any, ...]:
    """How the run of this task ended."""
    result = next(result for result in bench.results() if result.task == task)
    return result.outcome or result.interrupted, result.value, result.start, result.step, result.progressed


# --------------------------------------------------------------------------- where a program goes on


@pytest.mark.parametrize(
    ("command", "resumes"),
    [
        ("python plain.py --epochs {resource} --out {checkpoint_dir}", False),
        ("python plain.py {{resume_from}}", False),
        ("python plain.py --resume {resume_from}", True),
        ("python plain.py {resume_from?--resume {resume_from}}", True),
        ("python plain.py --from {start}", True),
        ("python plain.py --epochs {epochs_left}", True),
        ("python plain.py --out {output_dir}", True),
        ("python ours.py", True),
        ("python imports.py", True),
        ("python -m package.main", True),
        ("bash run.sh", True),
        ("bash variable.sh", True),
        ("python missing.py 'a\" b", False),
    ],
)
def test_whether_a_program_can_resume_shows_in_its_command_and_its_files(
    tmp_path: Path, command: str, resumes: bool
) -> None:
    (tmp_path / "package").mkdir()
    for name, text in {
        "plain.py": "import os, plain\nprint('error 1')\n",
        "ours.py": "from hpcsweep import current_trial\n",
        "imports.py": "import os\nfrom package.tools import x\n",
        "package/tools.py": "import os\nfrom hpcsweep import current_trial\n",
        "package/main.py": "from . import x\nfrom package.tools import x\n",
        "run.sh": 'cd x && python ours.py "$@"\n',
        "variable.sh": "cat $HPCSWEEP_RESUME_FROM/model\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert can_resume(command, workdir=str(tmp_path)) is resumes


def test_placeholders_inside_of_fragments_are_found() -> None:
    template = "a {x} {{y}} {resume_from?--from {start}} {args:--name=value} {z.w} {}"
    assert placeholders(template) == {"x", "resume_from", "start", "args"}


def test_a_program_that_knows_no_resume_trains_each_rung_from_scratch_and_is_counted_from_0(
    bench: Bench,
) -> None:
    bench.plan(
        [bench.run(resource=2)],
        [bench.run(resource=4, rung=1, reached=2)],
        command="for e in $(seq {resource}); do echo error 0.$e; done; echo model > {checkpoint_dir}/model",
        shell=True,
        metrics=COUNTED,
        resumes=False,
    )
    bench.work(task=0)
    bench.work(task=1)
    assert ending(bench, 0) == (Outcome.COMPLETED, 0.2, 0, 2, False)
    assert ending(bench, 1) == (Outcome.COMPLETED, 0.4, 0, 4, False)
    assert reported(bench, rung=1) == [1, 2, 3, 4]
    assert bench.newest() == 4


def test_steps_that_count_from_0_are_shifted_where_the_spec_says_so(bench: Bench) -> None:
    command = "sh -c 'for e in 0 1 2; do echo epoch $e error 0.$e; done'"
    bench.plan([bench.run()], command=command, metrics=STEPS, first_step=0)
    assert bench.work().value == 0.2
    assert reported(bench) == [1, 2, 3]


@pytest.mark.parametrize(
    ("first", "last", "start", "shown"), [(0, 0, 0, "step 0"), (0, 1, 1, "steps 0 to 1"), (2, 2, 2, "step 2")]
)
def test_steps_that_seem_to_count_from_0_are_an_error_that_names_the_key(
    bench: Bench, first: int, last: int, start: int, shown: str
) -> None:
    command = f"for e in $(seq {first} {last}); do echo epoch $e error 0.$e; done"
    for step in range(1, start + 1):
        (bench.trial().checkpoint(step)).mkdir(parents=True)
        (bench.trial().checkpoint(step) / ".hpcsweep.json").write_text(
            f'{{"step": {step}, "files": {{}}, "version": 1}}'
        )
    bench.plan([bench.run(resource=last + 1)], command=command, shell=True, metrics=STEPS)
    result = bench.work()
    assert (result.outcome, result.failure) == (Outcome.FAILED, FailureKind.NEVER_REPORTED)
    assert result.message == (
        f"metric 'val_error' was reported for {shown} and not for {last + 1}, the last one: its steps seem "
        "to count from 0; train.first_step: 0 says so"
    )


FROM_0 = (
    "it reported steps 0 to 2 where its resource is 3: its steps seem to count from 0; "
    "train.first_step: 0 says so"
)
BEYOND = (
    "it reported steps up to 5 although its resource is 3, and those beyond do not count; have it train up "
    "to 3, and report each step once"
)
TOO_MANY = (
    "it went on from step 1 and trained 3 steps more, not up to step 3; {epochs_left} in train.command is "
    "how many are left"
)


@pytest.mark.parametrize(
    ("steps", "start", "warning"),
    [
        ((1, 3), 0, ""),
        (
            (0, 2),
            0,
            FROM_0,
        ),
        (
            (1, 5),
            0,
            BEYOND,
        ),
        (
            (2, 4),
            1,
            TOO_MANY,
        ),
    ],
)
def test_more_steps_than_asked_for_and_steps_from_0_are_told(
    bench: Bench, steps: tuple[int, int], start: int, warning: str
) -> None:
    command = f"for e in $(seq {steps[0]} {steps[1]}); do echo epoch $e error 0.$e; done"
    bench.plan([bench.run(resource=3, reached=start)], command=command, shell=True, metrics=STEPS)
    result = bench.work()
    assert (result.outcome, result.value, result.start) == (Outcome.COMPLETED, min(steps[1], 3) / 10, start)
    assert result.warning == warning
    assert not warning or f"warning: {warning}" in bench.log()


# --------------------------------------------------------------------------- how it ends

ENDLESS = (
    "trap '' TERM USR2; e=0; while :; do e=$((e + 1)); echo epoch $e error 0.$e; "
    "[ $e = 4 ] && touch ready && sleep 60; done"
)


def test_a_run_that_has_its_value_at_its_resource_is_completed_whatever_ends_it(bench: Bench) -> None:
    bench.plan([bench.run(resource=3)], command=ENDLESS, shell=True, metrics=STEPS, notice_s=0.2)
    worker = bench.start()
    bench.wait_for("ready")
    worker.send_signal(signal.SIGUSR2)
    assert worker.wait(PATIENCE_S) == 0
    assert ending(bench) == (Outcome.COMPLETED, 0.3, 0, 3, False)
    assert bench.results()[0].warning == (
        "it trained on after step 3, its resource, until it was told to stop at 4; "
        "train.stop_at_resource: true ends it in time"
    )


IGNORED = "it went on for 0.2 s after SIGTERM, which told it that its last step is reported"


@pytest.mark.parametrize("deaf", [False, True])
def test_a_program_is_ended_once_its_value_at_its_resource_is_there(bench: Bench, deaf: bool) -> None:
    trap = "trap '' TERM; " if deaf else ""
    command = f"{trap}e=0; while sleep 0.01; do e=$((e + 1)); echo epoch $e error 0.$e; done"
    # One that is not deaf has all the time there is.
    options: dict[str, Any] = {
        "metrics": STEPS,
        "stop_at_resource": True,
        "grace_s": 0.2 if deaf else PATIENCE_S,
    }
    bench.plan([bench.run(resource=3)], command=command, shell=True, **options)
    result = bench.work()
    assert (result.outcome, result.value) == (Outcome.COMPLETED, 0.3)
    assert "step 3 is reported: training is told to end" in bench.log()
    assert (IGNORED in bench.log()) is deaf
    assert result.warning == (f"{IGNORED}: each run takes so much longer; end it on SIGTERM" if deaf else "")


def test_a_program_that_goes_on_from_a_folder_of_its_own_makes_progress(bench: Bench) -> None:
    command = (
        "e=$(cat last || echo 0); echo $((e + 2)) > last; "
        "echo epoch $((e + 1)) error 1; echo epoch $((e + 2)) error 0.5; kill $PPID; sleep 60"
    )
    attempts = [[bench.run(resource=9, attempt=attempt)] for attempt in range(3)]
    bench.plan(*attempts, command=command, shell=True, metrics=STEPS)
    for task in range(3):
        bench.work(task=task)
    why = Interruption.PREEMPTED
    # Whether the first one left anything is not known yet.
    assert ending(bench, 0) == (why, None, 0, 2, False)
    assert ending(bench, 1) == (why, None, 2, 4, True)
    assert ending(bench, 2) == (why, None, 4, 6, True)


def test_a_program_that_begins_anew_each_time_makes_no_progress(bench: Bench) -> None:
    command = "echo epoch 1 error 1; echo epoch 2 error 0.5; kill $PPID; sleep 60"
    attempts = [[bench.run(resource=9, attempt=attempt)] for attempt in range(2)]
    bench.plan(*attempts, command=command, shell=True, metrics=STEPS)
    for task in range(2):
        bench.work(task=task)
    assert ending(bench, 1) == (Interruption.PREEMPTED, None, 0, 2, False)


# --------------------------------------------------------------------------- folders of its own


def test_the_output_folder_stays_for_all_runs_of_a_trial_and_goes_with_its_checkpoints(bench: Bench) -> None:
    command = (
        'cat {output_dir}/last; echo {resource} > {output_dir}/last; ls "$HPCSWEEP_OUTPUT_DIR"; '
        "echo left {epochs_left}; echo epoch {resource} error 1"
    )
    runs = ([bench.run(resource=2)], [bench.run(resource=6, rung=1, reached=2)])
    bench.plan(*runs, command=command, shell=True, metrics=STEPS)
    bench.work(task=0)
    bench.work(task=1)
    assert [line for line in bench.log(1).splitlines() if "hpcsweep" not in line][:2] == ["2", "last"]
    assert bench.trial().output == bench.trial().root / "output"
    assert checkpoints.disk_usage_by_trial(bench.layout) == {0: (1, 2)}
    assert checkpoints.remove_all(bench.trial()) == ((1, 2), True)
    assert not bench.trial().output.exists()


def test_a_run_that_names_no_output_folder_makes_none(bench: Bench) -> None:
    bench.plan_command("echo epoch 3 error 1", metrics=STEPS)
    bench.work()
    assert not bench.trial().output.exists()


def test_a_program_for_some_epochs_gets_those_that_are_left(bench: Bench) -> None:
    command = (
        "for e in $(seq {epochs_left}); do echo epoch $(({start} + e)) error 0.$e; done; "
        "echo model > {checkpoint_dir}/model"
    )
    runs = ([bench.run(resource=2)], [bench.run(resource=6, rung=1, reached=2)])
    bench.plan(*runs, command=command, shell=True, metrics=STEPS)
    bench.work(task=0)
    bench.work(task=1)
    assert reported(bench, rung=1) == [3, 4, 5, 6]
    assert ending(bench, 1) == (Outcome.COMPLETED, 0.4, 2, 6, True)


def test_a_rung_that_the_program_has_passed_has_the_value_that_it_reported_there(bench: Bench) -> None:
    command = (
        "e=$(cat {output_dir}/n || echo 0); "
        "for i in 1 2 3 4 5; do e=$((e+1)); echo epoch $e error 0.$e; echo $e > {output_dir}/n; done"
    )
    runs = ([bench.run(resource=2)], [bench.run(resource=4, rung=1, reached=2)])
    bench.plan(*runs, command=command, shell=True, metrics=STEPS, stop_at_resource=True)
    assert [bench.work(task=task).value for task in (0, 1)] == [0.2, 0.4]


def test_an_endless_program_that_began_beyond_its_resource_is_told_so(bench: Bench) -> None:
    command = "e=7; while :; do e=$((e+1)); echo epoch $e error 0.$e; sleep 0.1; done"
    bench.plan([bench.run(resource=4)], command=command, shell=True, metrics=STEPS, stop_at_resource=True)
    result = bench.work()
    assert (result.outcome, result.failure) == (Outcome.FAILED, FailureKind.NEVER_REPORTED)
    assert result.message == (
        "metric 'val_error' was reported only for steps beyond the resource 4, first for 8: steps count in "
        "the unit of the resource, 1 to 4"
    )


def test_a_path_of_checkpoints_that_no_file_matches_is_a_warning(bench: Bench) -> None:
    command = "sh -c 'touch {output_dir}/model.pth; echo epoch 1 error 1'"
    bench.plan([bench.run(resource=1)], command=command, metrics=STEPS, checkpoint_path="{output_dir}/*.pt")
    result = bench.work()
    assert (result.outcome, result.warning) == (
        Outcome.COMPLETED,
        "it left no checkpoint: no file matches train.checkpoint.path, {output_dir}/*.pt",
    )


@pytest.mark.parametrize(
    ("fields", "second"),
    [
        ({}, "args --from 2 end"),  # a checkpoint of what it left in {checkpoint_dir}
        ({"checkpoint_path": "{output_dir}/none*"}, "args end"),
        ({"checkpoint_path": "{output_dir}/st?te"}, "args --from 2 end"),
    ],
)
def test_arguments_are_added_only_where_there_is_something_to_resume_from(
    bench: Bench, fields: dict[str, Any], second: str
) -> None:
    code = """
        import sys
        left, resource, *rest = sys.argv[1:]
        print("args", *rest, "end")
        for folder in left.split(":"):
            open(f"{folder}/state", "w").write("x")
        print(f"epoch {resource} error 1")
    """
    bench.code(code, "prog.py")
    runs = ([bench.run(resource=2)], [bench.run(resource=6, rung=1, reached=2)])
    bench.plan(
        *runs,
        command="{python} prog.py {checkpoint_dir}:{output_dir} {resource}",
        metrics=STEPS,
        resume_args="--from {start}",
        **fields,
    )
    bench.work(task=0)
    bench.work(task=1)
    assert "args end" in bench.log(0).splitlines()
    assert second in bench.log(1).splitlines()


def test_what_is_in_the_output_folder_is_something_to_resume_from(bench: Bench) -> None:
    command = "echo args; ls {output_dir}; touch {output_dir}/x; echo epoch {resource} error 1; echo"
    runs = ([bench.run(resource=2)], [bench.run(resource=6, rung=1, reached=2)])
    bench.plan(*runs, command=command, shell=True, metrics=STEPS, resume_args="--resume {output_dir}")
    bench.work(task=0)
    bench.work(task=1)
    assert "--resume" not in [line for line in bench.log(0).splitlines() if "hpcsweep" not in line]
    assert f"--resume {bench.trial().output}" in bench.log(1).splitlines()


def test_kept_files_are_put_back_and_what_came_after_them_is_removed(bench: Bench) -> None:
    """It is killed after step 3 was kept, with half of later ones written."""
    code = f"""
        import os, pathlib, sys, time
        out, resource = pathlib.Path(sys.argv[1]), int(sys.argv[2])
        print("found", *sorted(f"{{path.name}}:{{path.read_text()}}" for path in out.iterdir()))
        for step in range(1, resource + 1):
            (out / f"{{step}}.pt").write_text(str(step))
            if step > 1:
                (out / f"{{step - 1}}.pt").unlink(missing_ok=True)
            (out / "same.txt").write_text(str(step))
            print(f"epoch {{step}} error 1", flush=True)
            if resource == 9 and step == 3:
                while not os.path.exists({str(bench.trial().checkpoint(3))!r}):
                    time.sleep(0.01)
                (out / "3.pt").rename(out / "9.pt")
                (out / "10.pt").write_text("to")
                (out / "same.txt").write_text("9")
                os.kill(os.getppid(), 9)
                break
    """
    bench.code(code, "prog.py")
    runs = ([bench.run(resource=2)], [bench.run(resource=9, rung=1)], [bench.run(resource=8, rung=1)])
    command = "{python} prog.py {output_dir} {resource}"
    bench.plan(*runs, command=command, metrics=STEPS, checkpoint_path="{output_dir}/*.pt")
    bench.work(task=0)
    assert bench.start(task=1).wait(PATIENCE_S) == -signal.SIGKILL
    bench.work(task=2)
    assert "found 3.pt:3 same.txt:9" in bench.log(2)


def test_a_clone_finds_what_its_parent_kept(bench: Bench) -> None:
    command = "cat {output_dir}/model; echo {trial} > {output_dir}/model; echo epoch {resource} error 1"
    runs = ([bench.run(resource=2)], [bench.run(trial=1, resource=4, parent=0, parent_step=2)])
    fields: dict[str, Any] = {"shell": True, "metrics": STEPS, "checkpoint_path": "{output_dir}/model"}
    bench.plan(*runs, command=command, **fields)
    bench.work(task=0)
    bench.work(task=1)
    assert "0" in bench.log(1).splitlines()
    assert (bench.trial(1).output / "model").read_text() == "1\n"


def test_a_training_function_has_the_output_folder_of_its_trial(bench: Bench) -> None:
    code = """
        def train(trial):
            notes = trial.output_dir / "notes"
            trial.report(trial.resource, val_error=float(notes.exists()))
            notes.touch()
    """
    runs = ([bench.run(resource=2)], [bench.run(resource=6, rung=1, reached=2)])
    bench.plan(*runs, function=bench.code(code) + ":train")
    assert [bench.work(task=0).value, bench.work(task=1).value] == [0.0, 1.0]


# --------------------------------------------------------------------------- programs that report by our API

REPORTS = (
    "echo {start} {resume_from}; for e in $(seq $(({start} + 1)) 9); do echo $e > {checkpoint_dir}/model; "
    '"$HPCSWEEP_PYTHON" -m hpcsweep.trial --step $e val_error=0.$e; touch ready-$e; sleep {pause}; done'
)


def test_what_a_program_keeps_that_reports_by_our_api_is_a_checkpoint_too(bench: Bench) -> None:
    fields: dict[str, Any] = {"shell": True, "parameters": ("lr", "pause")}
    config = {"lr": 0.5, "pause": 60}
    bench.plan([bench.run(resource=9, config=config)], command=REPORTS, **fields)
    worker = bench.start()
    wait_until(lambda: bench.newest() == 1)
    worker.kill()
    worker.wait()
    kept = checkpoints.newest(bench.trial())
    assert kept is not None
    assert (kept.path / "model").read_text() == "1\n"


def test_a_program_that_reports_by_our_api_is_ended_at_its_resource(bench: Bench) -> None:
    fields: dict[str, Any] = {"shell": True, "parameters": ("lr", "pause"), "stop_at_resource": True}
    config = {"lr": 0.5, "pause": 0.1}
    bench.plan([bench.run(resource=2, config=config)], command=f"{REPORTS}; sleep 60", **fields)
    result = bench.work()
    assert (result.outcome, result.value, result.step) == (Outcome.COMPLETED, 0.2, 2)


def copied(bench: Bench, worker: subprocess.Popen[bytes], name: str) -> Callable[[], bool]:
    """Whether the file is copied, and the process that does that has come and gone."""
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
    copies = bench.trial().checkpoints.glob
    return lambda: any(copies(f".seal*/{name}")) and len(children.read_text().split()) == 1


def test_a_program_that_reports_nothing_on_its_way_makes_progress_by_what_it_keeps(bench: Bench) -> None:
    command = (
        "touch {checkpoint_dir}/settings; while [ ! -e go ]; do sleep 0.02; done; rm go; "
        "echo $(($(cat {resume_from}/model || echo 0) + 1)) > {checkpoint_dir}/model; sleep 60"
    )
    attempts = [[bench.run(resource=9, attempt=attempt)] for attempt in range(2)]
    bench.plan(*attempts, command=command, shell=True, metrics=STEPS)
    for task in range(2):
        worker = bench.start(task=task)
        wait_until(copied(bench, worker, "settings"))
        (bench.workdir / "go").touch()
        wait_until(copied(bench, worker, "model"))
        worker.terminate()
        worker.wait(PATIENCE_S)
        kept = checkpoints.newest(bench.trial())
        assert kept is not None
        assert (kept.step, (kept.path / "model").read_text()) == (0, f"{task + 1}\n")
        assert ending(bench, task)[-1] is True
