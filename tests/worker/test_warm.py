"""Runs that are forked from a process that has imported the training function."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcsweep.core.events import Interruption, Outcome, RunId
from hpcsweep.store.assignments import Assignment, StartId, new_announcements, request_leave, write_assignment
from hpcsweep.store.batch import CodeSnapshot, Header, Program, Result, Reuse, read_result, request_stop
from hpcsweep.worker.command import TaskContext
from hpcsweep.worker.warm import WarmProcess
from tests.waiting import PATIENCE_S, wait_until
from tests.worker.conftest import Bench

START = StartId(0, 0)
FORKED = "a fork of the warm process"


class WarmTask:
    """A worker that keeps its GPUs, and is given the runs of a test."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._given = 0
        self.worker: subprocess.Popen[bytes] | None = None

    def begin(self, code: str, *, visible: str = "", **plan: Any) -> None:
        """Start the worker with the `train` of this code, else with `function`."""
        if code:
            plan["function"] = self.bench.code(code) + ":train"
        self.bench.plan((), reuse=Reuse(60.0), **{"notice_s": 1.0, **plan})
        self.worker = self.bench.start(CUDA_VISIBLE_DEVICES=visible)
        wait_until(lambda: bool(list(new_announcements(self.bench.batch, ()))))

    def give(self, trial: int, resource: int = 1, **fields: Any) -> int:
        """Assign a run; its number."""
        time_s = fields.pop("time_s", None)
        run = self.bench.run(trial, resource, **fields)
        limits = {} if time_s is None else {"time_s": time_s}
        write_assignment(self.bench.batch, START, self._given, Assignment(run, **limits))
        self._given += 1
        return self._given - 1

    def result(self, number: int) -> Result:
        """Wait for the result."""
        path = self.bench.batch.result(0, 0, number)
        wait_until(path.exists)
        return read_result(path)

    def do(self, trial: int, resource: int = 1, **fields: Any) -> Result:
        return self.result(self.give(trial, resource, **fields))

    def log(self, number: int) -> str:
        return self.bench.batch.assigned_log(0, 0, number).read_text()

    def log_so_far(self, number: int) -> str:
        """The same while it may not be there yet."""
        try:
            return self.log(number)
        except FileNotFoundError:
            return ""

    @property
    def pid(self) -> int:
        assert self.worker is not None
        return self.worker.pid

    def printed(self, number: int) -> list[str]:
        """What the run has printed."""
        return [line for line in self.log(number).splitlines() if not line.startswith("[hpcsweep]")]

    def leave(self) -> None:
        assert self.worker is not None
        request_leave(self.bench.batch, START)
        assert self.worker.wait(PATIENCE_S) == 0

    def processes(self) -> list[int]:
        """Processes of the worker, by the folder of the test in their arguments."""
        found = []
        for name in filter(str.isdecimal, os.listdir("/proc")):
            try:
                words = Path(f"/proc/{name}/cmdline").read_bytes()
                state = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if str(self.bench.workdir).encode() in words and state not in "ZX" and int(name) != os.getpid():
                found.append(int(name))
        return found


@pytest.fixture
def task(bench: Bench) -> Iterator[WarmTask]:
    begun = WarmTask(bench)
    yield begun
    if begun.worker is not None and begun.worker.poll() is None:
        begun.worker.kill()
        begun.worker.wait()


def test_a_module_is_imported_once_and_each_run_is_a_process_of_its_own(task: WarmTask) -> None:
    task.begin(
        """
        import os
        with open("imports", "a") as file:
            file.write("x")
        print("imported")
        def train(trial):
            print("in", os.getpid(), os.getsid(0) == os.getpid() == os.getpgid(0))
            return trial.id
        """
    )
    values = [task.do(trial).value for trial in (3, 5)]
    task.leave()
    assert values == [3.0, 5.0]
    assert (task.bench.workdir / "imports").read_text() == "x"
    lines = [task.printed(number) for number in (0, 1)]
    assert [line[0] for line in lines] == ["imported", "imported"]
    processes = [line[1].split()[1:] for line in lines]
    assert [alone for _, alone in processes] == ["True", "True"]
    assert processes[0][0] != processes[1][0]
    assert all(FORKED in task.log(number) for number in (0, 1))


SHOWS = """
    import json, os, random, signal, sys, threading
    import numpy as np
    random.seed(5)
    os.environ["CHOSEN"] = "by the module"
    def train(trial):
        signals = signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGPIPE
        handlers = [signal.getsignal(signum) for signum in signals]
        print(json.dumps({
            "argv": sys.argv,
            "main": sys.modules["__main__"].__spec__.name,
            "environ": dict(os.environ),
            "trial": [repr(trial), trial.seed, str(trial.checkpoint_dir)],
            "seeded": random.random(),
            "cwd": os.getcwd(),
            "stdin": os.fstat(0).st_rdev,
            "descriptors": sorted(os.listdir("/proc/self/fd"), key=int),
            "mask": list(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            "handlers": [getattr(handler, "__qualname__", repr(handler)) for handler in handlers],
            "threads": threading.active_count(),
            "streams": [sys.stdout.encoding, sys.stdout.line_buffering, sys.stdout.write_through],
            "path": sys.path,
        }))
        return float(np.linalg.norm(np.arange(9.0).reshape(3, 3) @ np.ones((3, 3))))
"""


def test_a_fork_finds_what_a_fresh_process_would(task: WarmTask, tmp_path: Path) -> None:
    ways = []
    for name, warm in (("forked", True), ("afresh", False)):
        other = WarmTask(Bench(tmp_path / name))
        other.begin(
            "", function=task.bench.code(SHOWS) + ":train", workdir=str(task.bench.workdir), warm=warm
        )
        values = [other.do(trial, 1, config={"lr": trial / 4}).value for trial in (1, 2)]
        other.leave()
        assert (FORKED in other.log(1)) is warm
        scratch = f"hpcsweep-{other.log(1).partition('/tmp/hpcsweep-')[2].partition('/')[0]}"
        text = "[" + ",".join(line for number in (0, 1) for line in other.printed(number)) + "]"
        ways.append((values, json.loads(text.replace(f"/{name}/", "/W/").replace(scratch, "S"))))
    (values, forked), (expected, afresh) = ways
    assert values == expected
    for seen, wanted in zip(forked, afresh, strict=True):
        assert {key: value for key, value in seen.items() if value != wanted[key]} == {}


ENDS = """
    import os, signal, sys
    def train(trial):
        print("before the end")
        match trial.id:
            case 0: raise ValueError("not this one")
            case 1: sys.exit(3)
            case 2: sys.exit("for a reason")
            case 3: os._exit(7)
            case 4: os.kill(os.getpid(), signal.SIGKILL)
            case 5: os.kill(os.getpid(), signal.SIGSEGV)
            case 6: raise MemoryError("no room")
            case 7: return None
            case 8: return float("nan")
            case 9: return 1.5
"""


def test_each_end_is_what_it_is_in_a_fresh_process(task: WarmTask, tmp_path: Path) -> None:
    ways = []
    for name, warm in (("forked", True), ("afresh", False)):
        other = WarmTask(Bench(tmp_path / name))
        other.begin(ENDS, warm=warm)
        results = [other.do(trial) for trial in range(10)]
        other.leave()
        assert all((FORKED in other.log(number)) is warm for number in range(10))
        ways.append([(it.outcome, it.interrupted, it.failure, it.message, it.value) for it in results])
    assert ways[0] == ways[1]
    assert [found[0] for found in ways[0]] == [Outcome.FAILED] * 6 + [
        Outcome.OUT_OF_MEMORY,
        Outcome.FAILED,
        Outcome.FAILED,
        Outcome.COMPLETED,
    ]


def test_handlers_at_exit_run_in_each_fork_and_what_was_not_flushed_is_printed(task: WarmTask) -> None:
    task.begin(
        """
        import atexit, sys
        atexit.register(lambda: print("left"))
        def train(trial):
            sys.stdout.write("no end of line")
            return 1
        """,
    )
    for trial in (0, 1):
        task.do(trial)
        assert task.printed(trial)[-1] == "no end of lineleft"
    task.leave()


def test_unseeded_random_numbers_differ_from_run_to_run(task: WarmTask) -> None:
    task.begin(
        """
        import random
        import numpy.random
        import torch
        def train(trial):
            print(random.random(), numpy.random.random(), torch.rand(()).item())
            return 1
        """
    )
    for trial in range(3):
        task.do(trial)
    task.leave()
    numbers = [number for run in range(3) for number in task.printed(run)[-1].split()]
    assert len(set(numbers)) == 9
    assert FORKED in task.log(2)


def test_random_numbers_that_the_import_has_seeded_are_those_of_a_fresh_process(task: WarmTask) -> None:
    task.begin(
        """
        import random
        import numpy.random
        import torch
        random.seed(3)
        numpy.random.seed(3)
        torch.manual_seed(3)
        def train(trial):
            print(random.random(), numpy.random.random(), torch.initial_seed())
            return 1
        """
    )
    for trial in range(2):
        task.do(trial)
    task.leave()
    seeded = f"{random.Random(3).random()} {np.random.RandomState(3).random_sample()} 3"
    assert [task.printed(run)[-1] for run in range(2)] == [seeded] * 2
    assert FORKED in task.log(1)


@pytest.mark.parametrize(
    ("imported", "reason"),
    [
        (
            "threading.Thread(target=time.sleep, args=(600,), name='mine', daemon=True).start()",
            "leaves a thread behind (mine)",
        ),
        (
            "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', os.getcwd()])",
            "leaves a process behind",
        ),
        (
            "subprocess.run(f'setsid {sys.executable} -c {SLEEP} $PWD &', shell=True)",
            "leaves a process behind",
        ),
        ("file = open('notes', 'w')", "notes open"),
        ("folder = tempfile.TemporaryDirectory()", "makes a temporary file"),
        ("seed = os.environ['HPCSWEEP_SEED']", "reads HPCSWEEP_SEED"),
        ("lr = os.getenv('HPCSWEEP_PARAM_LR')", "reads HPCSWEEP_PARAM_LR"),
        ("here = hpcsweep.current_trial()", "reads HPCSWEEP_RUN"),
        ("environ = {**os.environ, 'A': 'b'}", "copies os.environ"),
        ("environ = os.environ.copy()", "copies os.environ"),
        ("shared = mmap.mmap(-1, 4096)", "sets up shared memory"),
        ("import torch", "uses a GPU"),
        ("import numpy; numpy.random.random()", "uses random numbers of NumPy that have no seed"),
    ],
)
def test_what_forks_would_share_or_miss_makes_fresh_processes(
    task: WarmTask, imported: str, reason: str
) -> None:
    torch = "from types import SimpleNamespace\ncuda = SimpleNamespace(is_initialized=lambda: True)\n"
    (task.bench.workdir / "torch.py").write_text(torch)
    task.begin(
        f"""
        import mmap, os, subprocess, sys, tempfile, threading, time
        import hpcsweep
        SLEEP = "'import time; time.sleep(600)'"
        {imported}
        def train(trial):
            return trial.id
        """
    )
    assert [task.do(trial).value for trial in (1, 2)] == [1.0, 2.0]
    for number in (0, 1):
        assert "a fresh process, not a fork of the warm one: its import " in task.log(number)
        assert reason in task.log(number)
    assert [pid for pid in task.processes() if pid != task.pid] == []
    task.leave()


@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        (
            "import no_such_module",
            "train.py:1 | ModuleNotFoundError: No module named 'no_such_module'",
            "its import fails (ModuleNotFoundError)",
        ),
        ("import os; os._exit(3)", "exit code 3, and nothing was printed", "it ended during its import"),
    ],
)
def test_an_import_that_fails_fails_the_run_as_ever(
    task: WarmTask, code: str, message: str, reason: str
) -> None:
    task.begin(code)
    result = task.do(0)
    task.leave()
    assert (result.outcome, result.message) == (Outcome.FAILED, message)
    assert reason in task.log(0)


def test_a_process_that_cannot_fork_is_given_up(task: WarmTask) -> None:
    task.begin(
        """
        import os
        forks = []
        def end():
            forks.append(1)
            if len(forks) > 1:
                os._exit(1)
        os.register_at_fork(before=end)
        def train(trial):
            return trial.id
        """
    )
    assert [task.do(trial).value for trial in (1, 2)] == [1.0, 2.0]
    task.leave()
    for number in (0, 1):
        assert "not a fork of the warm one: it ended again and again" in task.log(number)


def test_an_import_that_takes_too_long_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcsweep.worker.warm.IMPORT_S", 0.2)
    program = Program(
        str(bench.workdir), "loss", function=bench.code("import time\ntime.sleep(600)") + ":train"
    )
    context = TaskContext(
        batch=bench.batch,
        header=Header("b", "s", program, gpus=0),
        task=0,
        restart=0,
        job="",
        node="",
        scratch=bench.temporary,
        environ=dict(os.environ),
    )
    process = WarmProcess(context, None, name="warm")
    assert process.importing
    while process.importing:
        process.poll()
    assert process.why_not == "its import takes longer than 0.2 s"


STRAYS = """
    import os, signal, subprocess, sys, time
    def train(trial):
        for way in range(3):
            if os.fork() == 0:
                os.setsid()
                if way == 0:
                    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", os.getcwd()])
                if way == 1 and os.fork():
                    os._exit(0)
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                open(f"stray-{os.getpid()}", "w").close()
                time.sleep(600)
        while len([name for name in os.listdir() if name.startswith("stray-")]) < 3:
            time.sleep(0.01)
        time.sleep(600 if trial.id else 0)
        return 1
"""


def test_what_a_fork_leaves_behind_is_killed_and_the_warm_process_stays(task: WarmTask) -> None:
    task.begin(STRAYS)
    assert task.do(0).value == 1.0
    assert len([name for name in os.listdir(task.bench.workdir) if name.startswith("stray-")]) == 3
    assert len(task.processes()) == 2  # the worker and the warm process
    task.leave()
    assert task.processes() == []


def test_nothing_survives_a_killed_worker(task: WarmTask) -> None:
    task.begin("import time\ndef train(trial):\n    print('trains')\n    time.sleep(600)\n", lanes=2)
    numbers = [task.give(trial) for trial in (0, 1)]
    wait_until(lambda: all("\ntrains" in task.log_so_far(number) for number in numbers))
    assert len(task.processes()) == 4
    assert task.worker is not None
    task.worker.kill()
    task.worker.wait()
    wait_until(lambda: task.processes() == [])


LISTENS = """
    import time
    def train(trial):
        step = 0
        while not step or not trial.should_stop:
            step += 1
            trial.report(step, val_error=step)
            with trial.checkpoint(step):
                pass
            if step == 1:
                print("trains")
            time.sleep(0.05)
        print("told", trial.should_stop)
"""


def test_a_fork_is_told_to_stop_by_its_time_limit_by_request_and_with_its_task(task: WarmTask) -> None:
    task.begin(LISTENS, notice_s=PATIENCE_S)
    number = task.give(0, 10_000)
    wait_until(lambda: "\ntrains" in task.log_so_far(number))
    request_stop(task.bench.batch, RunId(0, 0))
    assert task.result(number).outcome is Outcome.STOPPED
    limited = task.do(1, 10_000, time_s=2)  # the import took no time of it
    assert (limited.outcome, limited.interrupted) == (None, Interruption.TIMEOUT)
    number = task.give(2, 10_000)
    wait_until(lambda: "\ntrains" in task.log_so_far(number))
    os.kill(task.pid, signal.SIGTERM)
    told = task.result(number)
    assert task.worker is not None
    assert task.worker.wait(PATIENCE_S) == 0
    assert told.interrupted is Interruption.PREEMPTED
    assert all(FORKED in task.log(number) and "told True" in task.log(number) for number in range(3))
    assert limited.progressed
    assert told.progressed


def test_a_task_that_is_told_to_stop_during_the_import_leaves_in_time(task: WarmTask) -> None:
    task.begin("import time\ntime.sleep(600)\n", grace_s=1.0)
    number = task.give(0)
    wait_until(lambda: "from scratch" in task.log_so_far(number))
    os.kill(task.pid, signal.SIGTERM)
    assert task.result(number).interrupted is Interruption.PREEMPTED
    assert task.worker is not None
    assert task.worker.wait(PATIENCE_S) == 0
    assert task.processes() == []


def test_a_warm_process_that_dies_is_followed_by_another(task: WarmTask) -> None:
    task.begin("def train(trial):\n    return trial.id\n")
    assert task.do(1).value == 1.0
    (warm,) = [pid for pid in task.processes() if pid != task.pid]
    os.kill(warm, signal.SIGKILL)
    assert task.do(2).value == 2.0
    (other,) = [pid for pid in task.processes() if pid != task.pid]
    task.leave()
    assert other != warm
    assert FORKED in task.log(1)


def test_a_run_outlives_the_warm_process(task: WarmTask) -> None:
    task.begin(
        "import os, time\ndef train(trial):\n    print('trains', os.getpid())\n"
        "    while not os.path.exists('go'):\n        time.sleep(0.01)\n    return 4\n"
    )
    number = task.give(0)
    wait_until(lambda: re.search(r"\ntrains \d+\n", task.log_so_far(number)))
    fork = int(task.printed(number)[-1].split()[1])
    for pid in task.processes():
        if pid not in (task.pid, fork):
            os.kill(pid, signal.SIGKILL)
    (task.bench.workdir / "go").touch()
    assert task.result(number).value == 4.0
    task.leave()


@pytest.mark.parametrize("function", ["train.py:train", "train:train"])
def test_code_that_has_changed_is_imported_again(task: WarmTask, function: str) -> None:
    task.bench.code("VALUE = 1\n", "part.py")
    code = task.bench.code("import part\ndef train(trial):\n    return part.VALUE\n")
    task.begin("", function=function.replace("train.py", code))
    assert task.do(0).value == 1.0
    task.bench.code("VALUE = 22\n", "part.py")
    assert task.do(1).value == 22.0
    task.leave()
    assert FORKED in task.log(1)


def test_a_snapshot_is_what_is_imported(task: WarmTask) -> None:
    root, copy = task.bench.workdir, task.bench.workdir / "copy"
    copy.mkdir()
    for folder, value in ((root, 1), (copy, 2)):
        (folder / "part.py").write_text(f"VALUE = {value}\n")
    (copy / "train.py").write_text("def train(trial):\n    import part\n    return part.VALUE\n")
    snapshot = CodeSnapshot(str(root), str(copy), str(root))
    task.begin("", function=f"{copy}/train.py:train", workdir=str(copy), snapshot=snapshot)
    assert [task.do(trial).value for trial in (0, 1)] == [2.0, 2.0]
    task.leave()
    assert FORKED in task.log(1)


def test_each_lane_has_a_process_with_its_own_gpus(task: WarmTask) -> None:
    task.begin(
        """
        import os, time
        SEEN = os.environ["CUDA_VISIBLE_DEVICES"]
        def train(trial):
            open(f"began-{trial.id}", "w").close()
            while not os.path.exists(f"began-{1 - trial.id}"):
                time.sleep(0.01)
            assert SEEN == os.environ["CUDA_VISIBLE_DEVICES"]
            return int(SEEN)
        """,
        gpus=2,
        lanes=2,
        visible="6,7",
    )
    numbers = [task.give(trial) for trial in (0, 1)]
    assert sorted(task.result(number).value or 0 for number in numbers) == [6.0, 7.0]
    task.leave()
    assert all(FORKED in task.log(number) for number in numbers)


def test_a_fork_can_start_workers_of_its_own_in_each_way(task: WarmTask) -> None:
    task.begin(
        """
        import multiprocessing
        def double(number):
            return 2 * number
        def train(trial):
            total = 0
            for method in ("fork", "spawn"):
                with multiprocessing.get_context(method).Pool(2) as pool:
                    total += sum(pool.map(double, range(4)))
            return total
        """
    )
    assert [task.do(trial).value for trial in (0, 1)] == [24.0, 24.0]
    task.leave()
    assert FORKED in task.log(1)
    assert task.processes() == []


def test_what_training_code_imports_can_be_forked_and_gives_the_same_numbers(
    task: WarmTask, tmp_path: Path
) -> None:
    code = """
        import pandas, sklearn.ensemble, torch
        import hpcsweep.training.pytorch, hpcsweep.training.lightning, hpcsweep.training.transformers
        def train(trial):
            torch.manual_seed(trial.seed)
            x = torch.randn(500, 300)
            layer = torch.nn.Linear(300, 300)
            layer(x).square().mean().backward()
            return layer.weight.grad.norm() + (x @ x.T).norm()
    """
    task.begin(code)
    forked = [task.do(trial, seed=trial) for trial in (1, 2)]
    task.leave()
    afresh = WarmTask(Bench(tmp_path / "afresh"))
    afresh.begin(code, warm=False)
    again = afresh.do(2, seed=2)
    afresh.leave()
    assert all(FORKED in task.log(number) for number in (0, 1))
    assert forked[1].value == again.value != forked[0].value
    assert task.printed(1) == afresh.printed(0)


def test_warm_false_and_commands_have_fresh_processes(task: WarmTask) -> None:
    task.begin("def train(trial):\n    return 1\n", warm=False)
    assert task.do(0).value == 1.0
    assert len(task.processes()) == 1
    task.leave()
    assert "warm" not in task.log(0)
