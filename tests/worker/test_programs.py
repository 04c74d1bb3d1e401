"""Programs that know nothing of us: what they report, where they go on, and how they end."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hpcsweep.core.events import FailureKind, Interruption, Outcome
from hpcsweep.store.run_files import read_reports
from hpcsweep.worker.resuming import can_resume, placeholders

if TYPE_CHECKING:
    from tests.worker.conftest import Bench

STEPS = (r"epoch (?P<step>\d+) error (?P<val_error>\S+)",)
COUNTED = (r"error (?P<val_error>\S+)",)


def wait_for(bench: Bench, name: str) -> None:
    deadline = time.monotonic() + 20
    while not (bench.workdir / name).exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


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
    wait_for(bench, "ready")
    worker.send_signal(signal.SIGUSR2)
    assert worker.wait(20) == 0
    assert ending(bench) == (Outcome.COMPLETED, 0.3, 0, 3, False)
    assert bench.results()[0].warning == (
        "it trained on after step 3, its resource, until it was told to stop at 4; "
        "train.stop_at_resource: true ends it in time"
    )


@pytest.mark.parametrize("deaf", [False, True])
def test_a_program_is_ended_once_its_value_at_its_resource_is_there(bench: Bench, deaf: bool) -> None:
    trap = "trap '' TERM; " if deaf else ""
    command = f"{trap}e=0; while sleep 0.01; do e=$((e + 1)); echo epoch $e error 0.$e; done"
    options: dict[str, Any] = {"metrics": STEPS, "stop_at_resource": True, "grace_s": 0.2}
    bench.plan([bench.run(resource=3)], command=command, shell=True, **options)
    result = bench.work()
    assert (result.outcome, result.value, result.warning) == (Outcome.COMPLETED, 0.3, "")
    assert "step 3 is reported: training is told to end" in bench.log()


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
