"""What becomes of a run, whatever its training code does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hpcsweep.core.events import Interruption, Outcome

if TYPE_CHECKING:
    from tests.worker.conftest import Bench

GOOD = """
    def train(trial):
        for step in trial.steps():
            with open("trained", "a") as notes:
                print(step, file=notes)
            trial.report(step, val_error=1 / step)
            with trial.checkpoint(step) as folder:
                (folder / "model").write_text(str(step))
"""

BEYOND = (
    "metric 'val_error' was reported only for steps beyond the resource 3, first for 1000: "
    "steps count in the unit of the resource, 1 to 3"
)
INACTIVE = (
    "KeyError: \"this trial has no parameter 'momentum'; it has lr. A parameter that is not active "
    "in a configuration is absent: use config.get('momentum', default)\""
)


def test_a_run_that_trains_to_its_resource_is_completed_with_its_last_value(bench: Bench) -> None:
    bench.plan_python(GOOD, gpus=2)
    result = bench.work(SLURMD_NODENAME="n1", HPCSWEEP_JOB="17_0")
    assert (result.outcome, result.interrupted, result.value) == (Outcome.COMPLETED, None, 1 / 3)
    assert (result.start, result.step, result.progressed) == (0, 3, True)
    assert (result.node, result.job, result.message) == ("n1", "17_0", "")
    assert result.started is not None
    assert abs(result.started - time.time()) < 60
    assert result.gpu_seconds == pytest.approx(2 * result.seconds)
    assert not list(bench.temporary.iterdir())


def test_a_promoted_run_trains_only_the_difference(bench: Bench) -> None:
    code = bench.code(GOOD) + ":train"
    bench.plan([bench.run(resource=3)], [bench.run(resource=9, rung=1)], function=code)
    bench.work(task=0)
    result = bench.work(task=1)
    assert bench.trained() == list(range(1, 10))
    assert (result.start, result.step, result.value) == (3, 9, 1 / 9)


def test_a_run_without_own_checkpoint_starts_from_its_parents(bench: Bench) -> None:
    code = bench.code(GOOD) + ":train"
    bench.plan(
        [bench.run(resource=3)], [bench.run(trial=1, parent=0, parent_step=3, resource=5)], function=code
    )
    bench.work(task=0)
    assert bench.work(task=1).start == 3
    assert bench.trained() == [1, 2, 3, 4, 5]
    assert (bench.newest(0), bench.newest(1)) == (3, 5)


def test_a_clone_starts_from_the_step_that_was_chosen_although_its_parent_has_gone_on(
    bench: Bench,
) -> None:
    code = bench.code(GOOD) + ":train"
    clone = bench.run(trial=1, parent=0, parent_step=3, resource=5)
    bench.plan([bench.run(resource=3)], [bench.run(rung=1, resource=5, keep=(3,))], [clone], function=code)
    bench.work(task=0)
    bench.work(task=1)
    assert bench.newest(0) == 5
    assert bench.work(task=2).start == 3
    assert bench.trained() == [1, 2, 3, 4, 5, 4, 5]


def test_best_value_counts_where_the_objective_says_so(bench: Bench) -> None:
    code = """
        def train(trial):
            for step in trial.steps():
                trial.report(step, val_error=[0.3, 0.1, float("nan")][step - 1])
    """
    bench.plan_python(code, at="best")
    assert bench.work().value == 0.1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise ValueError('lr is too large\\nsee above')", "ValueError: lr is too large see above"),
        ("raise KeyboardInterrupt", "killed by SIGINT; last line: KeyboardInterrupt"),
        ("import sys; print('all is lost'); sys.exit(3)", "all is lost"),
        ("import sys; sys.exit('no data')", "no data"),
        ("import os; os._exit(4)", "ended with exit code 4 and printed nothing"),
        ("import os; os.kill(os.getpid(), 11)", "killed by SIGSEGV"),
        ("import sys; sys.exit(0)", "metric 'val_error' was never reported; nothing was"),
        (
            "trial.report(1, loss=2, acc=1)",
            "metric 'val_error' was never reported; reported were 'loss', 'acc'",
        ),
        ("trial.report(1, val_error=float('nan'))", "metric 'val_error' is nan at step 1"),
        ("trial.report(1, val_error=float('-inf'))", "metric 'val_error' is -inf at step 1"),
        (
            "trial.report(1000, val_error=1)",
            BEYOND,
        ),
        (
            "trial.report(1, val_error='low')",
            "TypeError: metric 'val_error' must be one number, got 'low' (str)",
        ),
        ("return [1]", "TypeError: metric 'val_error' must be one number, got [1] (list)"),
        (
            "trial.config['momentum']",
            INACTIVE,
        ),
    ],
)
def test_training_that_goes_wrong_is_a_failed_run_that_says_why(
    bench: Bench, body: str, message: str
) -> None:
    bench.plan_python(f"def train(trial):\n    {body}\n")
    result = bench.work()
    assert (result.outcome, result.value, result.message) == (Outcome.FAILED, None, message)


@pytest.mark.parametrize(
    "body",
    [
        "class OutOfMemoryError(RuntimeError): pass\n    raise OutOfMemoryError('40 GiB')",
        "raise RuntimeError('CUDA out of memory. Tried to allocate 40 GiB')",
        "raise MemoryError",
    ],
)
def test_running_out_of_memory_is_told_from_other_failures(bench: Bench, body: str) -> None:
    bench.plan_python(f"def train(trial):\n    {body}\n")
    assert bench.work().outcome is Outcome.OUT_OF_MEMORY


def test_a_traceback_is_in_the_log(bench: Bench) -> None:
    bench.plan_python("def train(trial):\n    return 1 / 0  # here\n")
    bench.work()
    assert "Traceback (most recent call last)" in bench.log()
    assert "return 1 / 0  # here" in bench.log()
    assert "ZeroDivisionError: division by zero" in bench.log()


@pytest.mark.parametrize(
    "returned", ["0.25", "{'val_error': 0.25, 'loss': 3}", "__import__('numpy').float32(0.25)"]
)
def test_what_a_function_returns_is_a_report_of_its_last_step(bench: Bench, returned: str) -> None:
    bench.plan_python(f"def train(trial):\n    return {returned}\n")
    result = bench.work()
    assert (result.outcome, result.value, result.step) == (Outcome.COMPLETED, 0.25, 3)


def test_training_that_leaves_early_by_itself_is_completed_with_what_it_reported(bench: Bench) -> None:
    bench.plan_python("import sys\ndef train(trial):\n    trial.report(2, val_error=0.5)\n    sys.exit(0)\n")
    result = bench.work()
    assert (result.outcome, result.value, result.step) == (Outcome.COMPLETED, 0.5, 2)


def test_an_old_value_does_not_stand_in_for_a_run_that_reported_none(bench: Bench) -> None:
    code = """
        def train(trial):
            if trial.rung == 0:
                trial.report(3, val_error=0.5)
                with trial.checkpoint(3):
                    pass
    """
    function = bench.code(code) + ":train"
    bench.plan([bench.run()], [bench.run(rung=1, resource=9)], function=function)
    bench.work(task=0)
    result = bench.work(task=1)
    assert result.outcome is Outcome.FAILED
    assert result.message == (
        "metric 'val_error' was not reported after step 3, where this run went on from a checkpoint, "
        "up to step 9"
    )


def test_a_grandchild_does_not_survive_its_run(bench: Bench) -> None:
    code = """
        import os, time
        def train(trial):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    open("grandchild", "w").write(str(os.getpid()))
                    time.sleep(60)
                os._exit(0)
            while not os.path.exists("grandchild") or not open("grandchild").read():
                time.sleep(0.01)
            return 0.5
    """
    bench.plan_python(code)
    assert bench.work().outcome is Outcome.COMPLETED
    assert not is_running(int((bench.workdir / "grandchild").read_text()))


def is_running(pid: int) -> bool:
    """Whether the process still runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for(bench: Bench, name: str) -> None:
    deadline = time.monotonic() + 20
    while not (bench.workdir / name).exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("signum", "why"),
    [(signal.SIGUSR2, Interruption.TIMEOUT), (signal.SIGTERM, Interruption.PREEMPTED)],
)
def test_a_told_run_makes_its_checkpoint_and_goes_on_from_it_in_the_next_start(
    bench: Bench, signum: signal.Signals, why: Interruption
) -> None:
    code = """
        import pathlib, time
        def train(trial):
            for step in trial.steps():
                with open("trained", "a") as notes:
                    print(step, file=notes)
                trial.report(step, val_error=1 / step)
                if step == 2 and trial.start == 0:
                    pathlib.Path("ready").touch()
                    while not trial.should_stop:
                        time.sleep(0.01)
                if trial.should_stop:
                    with trial.checkpoint(step):
                        pass
            return 1 / step
    """
    bench.plan_python(code, bench.run(resource=4))
    worker = bench.start()
    wait_for(bench, "ready")
    worker.send_signal(signum)
    assert worker.wait(20) == 0
    (told,) = bench.results()
    assert (told.outcome, told.interrupted, told.value) == (None, why, None)
    assert (told.step, told.progressed, told.message) == (
        2,
        True,
        f"told to stop by {signum.name} at step 2 of 4",
    )
    result = bench.work(restart=1)
    assert (result.outcome, result.start, result.step, result.value) == (Outcome.COMPLETED, 2, 4, 0.25)
    assert bench.trained() == [1, 2, 3, 4]
    assert [r.restart for r in bench.results()] == [0, 1]


def test_training_that_ignores_sigterm_is_killed_after_the_grace_period(bench: Bench) -> None:
    code = """
        import pathlib, signal, time
        def train(trial):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            pathlib.Path("ready").touch()
            time.sleep(60)
    """
    bench.plan_python(code, grace_s=0.2)
    worker = bench.start()
    wait_for(bench, "ready")
    began = time.monotonic()
    worker.terminate()
    assert worker.wait(20) == 0
    assert time.monotonic() - began < 10
    assert bench.results()[0].interrupted is Interruption.PREEMPTED


def test_training_has_the_whole_notice_after_sigusr2_unless_sigterm_cuts_it_short(bench: Bench) -> None:
    code = """
        import pathlib, signal, time
        def train(trial):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGUSR2, lambda *_: pathlib.Path("told").touch())
            pathlib.Path("ready").touch()
            while True:
                time.sleep(0.01)
    """
    bench.plan_python(code, notice_s=60.0, grace_s=0.2)
    worker = bench.start()
    wait_for(bench, "ready")
    worker.send_signal(signal.SIGUSR2)
    wait_for(bench, "told")
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(1)  # five times the grace after SIGTERM
    assert "SIGUSR2: training is told to stop, it has 60 s" in bench.log()
    worker.terminate()
    assert worker.wait(20) == 0
    assert bench.results()[0].message == "told to stop by SIGUSR2 at step 0 of 3"


#: Runs the worker, and sends a signal when Python has taken its handlers down on the way out.
LATE_SIGNAL = """
import os, runpy, signal, sys

class Late:
    def __del__(self, kill=os.kill, me=os.getpid(), signum=signal.Signals[sys.argv.pop(1)]):
        kill(me, signum)

late = Late()
runpy.run_module("hpcsweep.worker", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2", "SIGTERM"])
def test_a_signal_while_the_worker_leaves_does_not_make_a_failed_task_of_it(bench: Bench, name: str) -> None:
    bench.plan_python(GOOD)
    argv = [sys.executable, "-c", LATE_SIGNAL, name, str(bench.batch.root), "--task", "0"]
    worker = subprocess.run(argv, env=bench.environment(), timeout=60, check=False)
    assert worker.returncode == 0
    assert [result.outcome for result in bench.results()] == [Outcome.COMPLETED]


def test_a_plain_command_is_ended_by_sigterm_at_once(bench: Bench) -> None:
    bench.plan_command("sh -c 'touch ready; sleep 60'")
    worker = bench.start()
    wait_for(bench, "ready")
    began = time.monotonic()
    worker.terminate()
    assert worker.wait(20) == 0
    assert time.monotonic() - began < 10
    assert bench.results()[0].interrupted is Interruption.PREEMPTED


def test_a_child_that_gets_the_signal_first_is_interrupted_too(bench: Bench) -> None:
    bench.plan_command("sh -c 'echo $$ > pid; touch ready; exec sleep 60'")
    worker = bench.start()
    wait_for(bench, "ready")
    os.kill(int((bench.workdir / "pid").read_text()), signal.SIGTERM)
    time.sleep(0.2)
    worker.terminate()
    assert worker.wait(20) == 0
    assert bench.results()[0].interrupted is Interruption.PREEMPTED


def test_sigusr2_does_not_kill_a_program_that_only_looks_at_the_stop_file(bench: Bench) -> None:
    bench.plan_command(
        "touch ready; while [ ! -e $HPCSWEEP_STOP_FILE ]; do sleep 0.02; done; sleep 0.1; "
        'echo state > "$HPCSWEEP_CHECKPOINT_DIR/state"; '
        '"$HPCSWEEP_PYTHON" -m hpcsweep.trial --step 2 val_error=0.5',
        shell=True,
    )
    worker = bench.start()
    wait_for(bench, "ready")
    worker.send_signal(signal.SIGUSR2)
    assert worker.wait(20) == 0
    (result,) = bench.results()
    assert (result.interrupted, result.step, result.progressed) == (Interruption.TIMEOUT, 2, True)
    assert bench.newest() == 2


def test_training_dies_with_a_killed_worker(bench: Bench) -> None:
    bench.plan_command("sh -c 'echo $$ > pid; touch ready; exec sleep 60'")
    worker = bench.start()
    wait_for(bench, "ready")
    worker.kill()
    worker.wait()
    pid = int((bench.workdir / "pid").read_text())
    deadline = time.monotonic() + 5
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_task_of_an_abandoned_batch_does_nothing(bench: Bench) -> None:
    bench.plan_python(GOOD)
    bench.batch.void.touch()
    assert bench.start().wait(20) == 0
    assert bench.results() == []
    assert bench.trained() == []


def test_a_task_whose_abandoned_batch_was_compacted_does_nothing(bench: Bench) -> None:
    bench.plan_python(GOOD)
    shutil.rmtree(bench.batch.root)
    assert bench.start().wait(20) == 2
    assert bench.trained() == []
    assert not bench.batch.root.exists()


def test_a_run_killed_between_its_last_checkpoint_and_its_result_is_not_trained_again(bench: Bench) -> None:
    bench.plan_python(GOOD)
    bench.work()
    bench.batch.result(0, 0, 0).unlink()
    result = bench.work(restart=1)
    assert bench.trained() == [1, 2, 3]
    assert (result.outcome, result.value, result.start, result.step) == (Outcome.COMPLETED, 1 / 3, 3, 3)


def test_a_last_value_that_was_lost_is_trained_for_again(bench: Bench) -> None:
    code = """
        import os, pathlib
        def train(trial):
            for step in trial.steps():
                with open("trained", "a") as notes:
                    print(step, file=notes)
                with trial.checkpoint(step):
                    pass
                if step == 3 and trial.attempt == 0:
                    return os.kill(os.getppid(), 9)
                trial.report(step, val_error=1 / step)
    """
    bench.plan([bench.run()], [bench.run(attempt=1)], function=bench.code(code) + ":train")
    assert bench.start(task=0).wait(20) == -signal.SIGKILL
    result = bench.work(task=1)
    assert bench.trained() == [1, 2, 3, 1, 2, 3]
    assert (result.outcome, result.value, result.start) == (Outcome.COMPLETED, 1 / 3, 0)
