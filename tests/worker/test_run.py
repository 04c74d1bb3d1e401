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

from hpcsweep.core.events import CheckpointSizes, FailureKind, Interruption, Outcome
from hpcsweep.store.checkpoints import disk_usage
from tests.waiting import PATIENCE_S, wait_until

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
    result = bench.work(HPCSWEEP_NODE="n1", HPCSWEEP_JOB="17_0")
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
    files, size = disk_usage(bench.trial().checkpoint(9))
    assert result.checkpoints == CheckpointSizes(size, files, size, files)


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


#: Where training code raises, the line that hpcsweep's own code was called from.
LINE_2 = "train.py:2 in train"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "raise ValueError('lr is too large\\nsee above')",
            f"{LINE_2} | ValueError: lr is too large see above",
        ),
        ("raise KeyboardInterrupt", "killed by SIGINT; last lines: train.py:2 in train | KeyboardInterrupt"),
        ("import sys; print('all is lost'); sys.exit(3)", "exit code 3: all is lost"),
        ("import sys; sys.exit('no data')", "no data"),
        ("import os; os._exit(4)", "exit code 4, and nothing was printed"),
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
            f"{LINE_2} | TypeError: metric 'val_error' must be one number, got 'low' (str)",
        ),
        ("return [1]", "TypeError: metric 'val_error' must be one number, got [1] (list)"),
        (
            "trial.config['momentum']",
            f"{LINE_2} | {INACTIVE}",
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
def test_out_of_memory_is_its_own_outcome(bench: Bench, body: str) -> None:
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


@pytest.mark.parametrize(
    ("signum", "why"),
    [(signal.SIGUSR2, Interruption.TIMEOUT), (signal.SIGTERM, Interruption.PREEMPTED)],
)
def test_a_signalled_run_checkpoints_and_resumes_from_it_in_the_next_start(
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
    bench.wait_for("ready")
    worker.send_signal(signum)
    assert worker.wait(PATIENCE_S) == 0
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
    bench.wait_for("ready")
    worker.terminate()
    assert worker.wait(PATIENCE_S) == 0
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
    bench.wait_for("ready")
    worker.send_signal(signal.SIGUSR2)
    bench.wait_for("told")
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(1)  # five times the grace after SIGTERM
    assert "SIGUSR2: training is told to stop, it has 60 s" in bench.log()
    worker.terminate()
    assert worker.wait(PATIENCE_S) == 0
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
    worker = subprocess.run(argv, env=bench.environment(), timeout=PATIENCE_S, check=False)
    assert worker.returncode == 0
    assert [result.outcome for result in bench.results()] == [Outcome.COMPLETED]


def test_a_plain_command_is_ended_by_sigterm_at_once(bench: Bench) -> None:
    bench.plan_command("sh -c 'touch ready; sleep 60'")
    worker = bench.start()
    bench.wait_for("ready")
    worker.terminate()
    assert worker.wait(PATIENCE_S) == 0
    assert bench.results()[0].interrupted is Interruption.PREEMPTED


#: A worker that waits longer for the signal after its child, since tests may be late.
PATIENT = """
import sys
from hpcsweep.worker import __main__ as worker, run
run.LINGER_S = 60.0
sys.exit(worker.main(sys.argv[1:]))
"""


def test_a_child_that_gets_the_signal_first_is_interrupted_too(bench: Bench) -> None:
    bench.plan_command("sh -c 'echo $$ > pid; touch ready; exec sleep 60'")
    argv = [sys.executable, "-c", PATIENT, str(bench.batch.root), "--task", "0"]
    worker = subprocess.Popen(argv, env=bench.environment(), cwd="/")
    bench.wait_for("ready")
    pid = int((bench.workdir / "pid").read_text())
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not is_running(pid))
    worker.terminate()
    assert worker.wait(PATIENCE_S) == 0
    assert bench.results()[0].interrupted is Interruption.PREEMPTED


def test_sigusr2_does_not_kill_a_program_that_only_looks_at_the_stop_file(bench: Bench) -> None:
    bench.plan_command(
        "touch ready; while [ ! -e $HPCSWEEP_STOP_FILE ]; do sleep 0.02; done; sleep 0.1; "
        'echo state > "$HPCSWEEP_CHECKPOINT_DIR/state"; '
        '"$HPCSWEEP_PYTHON" -m hpcsweep.trial --step 2 val_error=0.5',
        shell=True,
    )
    worker = bench.start()
    bench.wait_for("ready")
    worker.send_signal(signal.SIGUSR2)
    assert worker.wait(PATIENCE_S) == 0
    (result,) = bench.results()
    assert (result.interrupted, result.step, result.progressed) == (Interruption.TIMEOUT, 2, True)
    assert bench.newest() == 2


def test_training_dies_with_a_killed_worker(bench: Bench) -> None:
    bench.plan_command("sh -c 'echo $$ > pid; touch ready; exec sleep 60'")
    worker = bench.start()
    bench.wait_for("ready")
    worker.kill()
    worker.wait()
    pid = int((bench.workdir / "pid").read_text())
    wait_until(lambda: not is_running(pid))


def test_a_task_of_an_abandoned_batch_does_nothing(bench: Bench) -> None:
    bench.plan_python(GOOD)
    bench.batch.abandoned_marker.touch()
    assert bench.start().wait(PATIENCE_S) == 0
    assert bench.results() == []
    assert bench.trained() == []


def test_a_task_whose_abandoned_batch_was_compacted_does_nothing(bench: Bench) -> None:
    bench.plan_python(GOOD)
    shutil.rmtree(bench.batch.root)
    assert bench.start().wait(PATIENCE_S) == 2
    assert bench.trained() == []
    assert not bench.batch.root.exists()


def test_a_run_killed_between_its_last_checkpoint_and_its_result_is_not_trained_again(bench: Bench) -> None:
    bench.plan_python(GOOD)
    bench.work()
    bench.batch.result(0, 0, 0).unlink()
    result = bench.work(restart=1)
    assert bench.trained() == [1, 2, 3]
    assert (result.outcome, result.value, result.start, result.step) == (Outcome.COMPLETED, 1 / 3, 3, 3)


def test_a_lost_last_report_is_trained_again(bench: Bench) -> None:
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
    assert bench.start(task=0).wait(PATIENCE_S) == -signal.SIGKILL
    result = bench.work(task=1)
    assert bench.trained() == [1, 2, 3, 1, 2, 3]
    assert (result.outcome, result.value, result.start) == (Outcome.COMPLETED, 1 / 3, 0)


# --------------------------------------------------------------------------- what is said of a failure


@pytest.mark.parametrize(
    ("printed", "message"),
    [
        ("tensor([0.43,", "'tensor([0.43,'"),
        ("0,43", "'0,43'"),
        ("n/a", "'n/a'"),
        ("x" * 80, f"'{'x' * 60}...'"),
    ],
)
def test_a_printed_metric_that_is_no_number_is_an_error_with_its_text(
    bench: Bench, printed: str, message: str
) -> None:
    bench.code(f"print('loss', 1.0); print('val_error', {printed!r})")
    bench.plan_command("{python} train.py", bench.run(resource=1), metrics=(r"val_error (?P<val_error>\S+)",))
    told = (
        f"metric 'val_error' was printed, but as {message}, which is not a number; have train.metrics match "
        "the number alone, or the program print one"
    )
    result = bench.work()
    assert (result.outcome, result.failure, result.message) == (Outcome.FAILED, FailureKind.UNREADABLE, told)


def test_a_printed_step_that_is_no_number_is_an_error_with_its_text(bench: Bench) -> None:
    bench.code("print('epoch I/3 val_error 0.5')")
    pattern = r"epoch (?P<step>\S+) val_error (?P<val_error>\S+)"
    bench.plan_command("{python} train.py", bench.run(resource=1), metrics=(pattern,))
    result = bench.work()
    assert result.failure is FailureKind.UNREADABLE
    assert result.message.startswith(
        "metric 'val_error' was printed, but its step as 'I/3', which is not a whole number from 0 on; "
    )


NOISE = (
    r"one\ntwo\n\nthree\n\x1b[31mfour\x1b[0m\n"
    r" 50%|###  | 1/2 [00:01<00:01, 1it/s]\r100%|##| 2/2 [00:02, 1it/s]"
)


def test_a_failed_command_is_reported_with_exit_code_and_last_three_lines(bench: Bench) -> None:
    bench.code(f"import sys; print('{NOISE}'); sys.exit(3)")
    bench.plan_command("{python} train.py")
    assert bench.work().message == "exit code 3: two | three | four"


@pytest.mark.parametrize("shell", [False, True])
@pytest.mark.parametrize("command", ["./prog.sh {lr}", "bash prog.sh {lr}"])
def test_a_script_with_windows_line_ends_is_named_in_the_error(
    bench: Bench, command: str, shell: bool
) -> None:
    path = Path(bench.code("", "prog.sh"))
    path.write_bytes(b"#!/bin/bash\r\nset -e\r\ncd somewhere\r\n")
    path.chmod(0o755)
    bench.plan_command(command, shell=shell)
    script = command.split()[0] if command.startswith("./") else "prog.sh"
    result = bench.work()
    assert result.outcome is Outcome.FAILED
    assert result.message.endswith(
        f"{script}: has Windows line ends (CRLF), which Linux takes for part of each line; "
        f"`sed -i 's/\\r$//' {script}` fixes it"
    )


def test_an_interpreter_that_is_not_there_is_named(bench: Bench) -> None:
    Path(bench.code("#!/no/such/python\n", "prog")).chmod(0o755)
    bench.plan_command("./prog")
    message = "./prog: cannot be started: ./prog: its first line asks for /no/such/python, which is not there"
    assert bench.work().message == message


# --------------------------------------------------------------------------- files that bar the worker

#: Root may read everything, unless it gives that up.
AS_USER = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


METRICS = "json.load(open(os.environ['HPCSWEEP_RUN']))['metrics_file']"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("os.umask(0o777); trial.report(1, val_error=0.5)", ""),  # the reports are made readable
        (
            f"trial.report(1, val_error=0.5); os.chmod({METRICS}, 0)",
            "metrics-0.0.0.jsonl: cannot be read: Permission denied",
        ),
        (f"os.makedirs({METRICS})", "metrics-0.0.0.jsonl: cannot be read: is a folder, not a file"),
        (
            "trial.report(1, val_error=0.5); os.chmod(trial.checkpoint_dir.parent, 0)",
            "checkpoints/.work-0-0-0: Permission denied",
        ),
    ],
    ids=["umask", "mode 000", "a folder", "checkpoints"],
)
def test_files_that_training_made_unreadable_cost_its_run_and_not_the_worker(
    bench: Bench, code: str, message: str
) -> None:
    bad = f"""
        import json, os
        def train(trial):
            if trial.id == 0:
                {code}
            else:
                trial.report(1, val_error=0.25)
    """
    bench.plan_python(bad, bench.run(resource=1), bench.run(trial=1, resource=1))
    argv = [sys.executable, "-m", "hpcsweep.worker", str(bench.batch.root), "--task", "0"]
    done = subprocess.run(
        [*AS_USER, *argv], env=bench.environment(), cwd="/", check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 0
    first, second = bench.results()
    assert (second.outcome, second.value) == (Outcome.COMPLETED, 0.25)
    assert first.outcome is (Outcome.FAILED if message else Outcome.COMPLETED)
    assert first.message.endswith(message)


# --------------------------------------------------------------------------- much output


def test_of_an_output_beyond_the_limit_the_beginning_and_the_end_are_kept(bench: Bench) -> None:
    code = """
        import sys
        for line in range(400_000):
            print(f"line {line}")
        print("val_error 0.5")
        sys.exit(3)
    """
    bench.code(code)
    pattern = r"val_error (?P<val_error>\S+)"
    bench.plan_command("{python} train.py", bench.run(resource=1), metrics=(pattern,), log_limit_mib=1)
    result = bench.work()
    assert result.message == "exit code 3: line 399998 | line 399999 | val_error 0.5"
    log = bench.log()
    assert len(log) < (1 << 20) + 1000
    ours = [line for line in log.splitlines() if line.startswith("[hpcsweep] train.log_limit")]
    kept = "".join(line + "\n" for line in log.splitlines() if line[0] != "[")
    left_out = 4_688_904 - len(kept) + 1  # where it was cut the line has an end
    assert ours == [
        "[hpcsweep] train.log_limit is reached: of what follows only the end is kept, and written at its end",
        f"[hpcsweep] train.log_limit: {left_out} bytes are left out here",
    ]
    lines = [line for line in log.splitlines() if line.startswith("line ")]
    assert (lines[0], lines[-1]) == ("line 0", "line 399999")


@pytest.mark.parametrize("limit", [None, 1])
def test_a_program_that_prints_without_end_is_stopped_in_its_time(bench: Bench, limit: int | None) -> None:
    bench.plan_command("yes", log_limit_mib=limit, notice_s=0.5, grace_s=0.5)
    worker = bench.start()
    while not bench.batch.log(0).exists() or bench.batch.log(0).stat().st_size < 1000:
        time.sleep(0.01)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE_S) == 0
    assert bench.results()[0].interrupted is Interruption.PREEMPTED


@pytest.mark.parametrize("restart", [0, 1])
def test_a_script_of_an_earlier_version_leaves_the_task_to_slurm_s_variables(
    bench: Bench, restart: int
) -> None:
    bench.plan_python(GOOD)
    slurm = {"SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "0", "SLURMD_NODENAME": "n1"}
    slurm |= {"SLURM_RESTART_COUNT": "1"} if restart else {}
    env = bench.environment(**slurm)
    argv = [sys.executable, "-m", "hpcsweep.worker", str(bench.batch.root)]
    assert subprocess.run(argv, env=env, cwd="/", check=False, timeout=PATIENCE_S).returncode == 0
    (result,) = bench.results()
    assert (result.task, result.restart, result.job, result.node) == (0, restart, "17_0", "n1")


def test_a_worker_without_task_index_is_refused(bench: Bench) -> None:
    bench.plan_python(GOOD)
    argv = [sys.executable, "-m", "hpcsweep.worker", str(bench.batch.root)]
    done = subprocess.run(argv, env=bench.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "which task? Give --task or HPCSWEEP_TASK" in done.stderr
