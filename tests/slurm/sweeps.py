"""Sweeps by the command line, as a user runs them, and what their folders hold afterwards."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import hpcsweep
from hpcsweep.core.events import AnyEvent, BatchSubmitted, SweepEnded, SweepStarted
from hpcsweep.simulation.simulate import simulate
from hpcsweep.spec import load_spec
from hpcsweep.store.journal import current_driver
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from tests.driver.sweeps import decided

from .fixture import PrivateSlurm

E = TypeVar("E")

TRAINER = """\
import time

def train(trial):
    for step in trial.steps():
        time.sleep(trial.config["pause"])
        trial.report(step, loss=(trial.config["x"] - 0.3) ** 2 + 1 / step)
    with trial.checkpoint(trial.resource) as folder:
        (folder / "state").write_text(str(trial.resource))
"""
SPEC = """\
name: free
train: {function: trainer.py:train, check: false}
objective: {metric: loss}
space: {x: {type: float, low: 0.0, high: 1.0}, pause: %g}
searcher: random
scheduler: {name: hyperband, max_resource: %d}
resources: {gpus: 1, cpus: 1, time: 10m}
cluster: {name: slurm, max_gpus: %d, reuse: false, poll: 1, grace: 5, settle: 5}
"""
COMMAND = (sys.executable, "-m", "hpcsweep")
#: Where a trainer can be held.
STEPS = "    for step in trial.steps():\n"
HOLD = """\
        while (%s) and os.path.exists(%r) and not trial.told_to_stop:
            time.sleep(0.1)
"""


def write_sweep(
    folder: Path,
    *,
    max_resource: int,
    max_gpus: int,
    pause: float = 0.0,
    trainer: str = TRAINER,
    holds: Mapping[str, str] | None = None,
) -> Path:
    """A sweep whose training waits `pause` seconds at each step.

    What a test does in the middle of it then does happen in the middle, on fast and slow machines: where the
    condition of a hold, in terms of `trial` and `step`, is true, training waits until the test removes the
    file of that name from the folder. It does not wait once it is told to stop.
    """
    folder.mkdir(exist_ok=True)
    if holds:
        assert trainer.count(STEPS) == 1
        trainer = f"import os, time\n{trainer}"
    for name, condition in (holds or {}).items():
        (folder / name).touch()
        trainer = trainer.replace(STEPS, STEPS + HOLD % (condition, str(folder / name)))
    (folder / "trainer.py").write_text(trainer)
    spec = folder / "sweep.yaml"
    spec.write_text(SPEC % (pause, max_resource, max_gpus))
    return spec


def launch(
    spec: Path, *options: str, command: tuple[str, ...] = COMMAND, env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Launch, its output in a pipe."""
    return subprocess.Popen(
        [*command, "launch", str(spec), *options],
        cwd=spec.parent,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout_s: float = 480) -> str:
    """Wait for a launch that is to end well; its output."""
    out, _ = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, out
    return out


def outcome(folder: Path) -> list[tuple[Any, ...]]:
    """Trials, promotions and each run's ending: one entry for each time it was counted."""
    return decided(read_journal(Layout(folder / "results" / "free")).events)


class Undisturbed(NamedTuple):
    """What is decided where nothing goes wrong, how many epochs that trains, and which trial is the best."""

    outcome: list[tuple[Any, ...]]
    epochs: int
    best: int


def undisturbed(folder: Path, *sets: str, max_resource: int) -> Undisturbed:
    """The same of a sweep by `TRAINER`: it is simulated, which costs no process."""
    spec = load_spec(write_sweep(folder, max_resource=max_resource, max_gpus=8), sets)
    root = folder / "results" / "free"
    simulate(spec, lambda config, step, seed: (config["x"] - 0.3) ** 2 + 1 / step, folder=root, compact=False)
    results = hpcsweep.load(root)
    assert results.best is not None
    epochs = (results.runs["resource"] - results.runs["start_resource"]).sum()
    return Undisturbed(outcome(folder), int(epochs), results.best["trial"])


def wait_until(what: str, condition: Callable[[], bool], timeout_s: float = 300) -> None:
    """Look again and again, about a sixth of the time; an error with these words if it does not come.

    After a look that took long, since the machine was busy, the next one is soon all the same.
    """
    end = time.monotonic() + timeout_s
    began = time.monotonic()
    while not condition():
        now = time.monotonic()
        assert now < end, f"{what}: not within {timeout_s:g} s"
        time.sleep(min(max(0.2, 5 * (now - began)), 2.0))
        began = time.monotonic()


@contextmanager
def sampled(look: Callable[[], E]) -> Iterator[list[E]]:
    """What is seen at each look; one follows another until the block ends."""
    samples: list[E] = []
    over = threading.Event()

    def look_on() -> None:
        while not over.wait(0.3):
            samples.append(look())

    thread = threading.Thread(target=look_on)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def gpus_held(slurm: PrivateSlurm) -> Counter[str]:
    """GPUs that running tasks hold in each partition of a cluster with accounts.

    A completing task is over: the throttle of its array gives its place away at that moment.
    """
    held = Counter[str]()
    text = slurm.run("squeue", "-h", "-r", "--states=RUNNING", "-O", "partition:20,tres-alloc:200")
    for line in text.splitlines():
        held[line.split()[0]] += sum(map(int, re.findall(r"gres/gpu=(\d+)", line)))
    return held


def drives(root: Path, process: subprocess.Popen[str]) -> bool:
    """Whether this process is the driver of the sweep in a results folder."""
    driver = current_driver(read_journal(Layout(root)))  # of a folder that may be just about to be made
    return driver is not None and driver.pid == process.pid


class Sweep:
    """A sweep of its own folder on a private cluster; leaving it ends its drivers.

    Args:
        slurm: Where it runs.
        folder: For the spec, the trainer and the results; made here.
        sets: What `launch` is told by `--set`.
        sweep: As for `write_sweep`.
    """

    def __init__(self, slurm: PrivateSlurm, folder: Path, *sets: str, **sweep: Any) -> None:
        self.slurm = slurm
        self.folder = folder
        self.root = folder / "results" / "free"
        self.env = slurm.env
        self._options = [word for each in sets for word in ("--set", each)]
        self._spec = write_sweep(folder, **({"max_resource": 9, "max_gpus": 8} | sweep))
        self._drivers: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Sweep:
        return self

    def __exit__(self, *_: object) -> None:
        for driver in self._drivers:
            with driver:
                driver.kill()

    def put_before(self, program: str, script: str) -> None:
        """Have a shell script take the program's place; `$real` is the true one.

        What only asks, `sbatch --test-only`, goes there at once.
        """
        real = subprocess.run(["which", program], check=True, capture_output=True, text=True).stdout.strip()
        wrapper = self.folder / "wrappers" / program
        wrapper.parent.mkdir(exist_ok=True)
        asks = '[[ " $* " == *" --test-only "* ]] && exec "$real" "$@"'
        wrapper.write_text(f"#!/bin/bash\nreal={real}\n{asks}\n{script}")
        wrapper.chmod(0o755)
        self.env["PATH"] = f"{wrapper.parent}:{self.slurm.env['PATH']}"

    def release(self, hold: str) -> None:
        """Let training go on that waits there."""
        (self.folder / hold).unlink()

    def launch(self, *options: str, command: tuple[str, ...] = COMMAND) -> subprocess.Popen[str]:
        """Begin it, or carry it on."""
        driver = launch(self._spec, *self._options, *options, command=command, env=self.env)
        self._drivers.append(driver)
        return driver

    def finish(self, timeout_s: float = 480) -> str:
        """Launch, and see it to its end."""
        return finish(self.launch(), timeout_s)

    def ends_by_itself(self, timeout_s: float = 300) -> None:
        """Wait for the end that its jobs bring about; an error with what they said if it does not come."""
        log = self.root / "ticks.log"
        try:
            wait_until("the sweep ends by itself", lambda: bool(self.of_kind(SweepEnded)), timeout_s)
        except AssertionError as error:
            said = log.read_text() if log.exists() else ""
            queue = "\n".join(map(str, self.slurm.squeue()))
            raise AssertionError(f"{error}\n{self.told('status')}\n{said}\n{queue}") from error
        assert self.of_kind(SweepEnded)[0].reason == "all trials are done", self.told("status")

    def ends(self, driver: subprocess.Popen[str], timeout_s: float = 300) -> dict[str, Any]:
        """Wait for the driver, however it leaves the sweep; what `status` says then."""
        out, _ = driver.communicate(timeout=timeout_s)
        assert driver.returncode in (0, 1), out
        return self.status()

    @property
    def events(self) -> list[AnyEvent]:
        """The journal, as far as it is written."""
        return read_journal(Layout(self.root)).events

    def of_kind(self, kind: type[E]) -> list[E]:
        """The journal's events of this kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def runs(self) -> Any:
        """The table of runs."""
        return hpcsweep.load(self.root).runs

    def status(self) -> dict[str, Any]:
        """What `status --json` prints."""
        return dict(json.loads(self.told("status", "--json")))

    def told(self, *words: str) -> str:
        """What another command prints about the sweep."""
        argv = [*COMMAND, words[0], str(self.root), *words[1:]]
        done = subprocess.run(
            argv, env=self.env, check=True, capture_output=True, text=True, timeout=120, cwd=self.folder
        )
        return done.stdout

    def plan(self) -> str:
        """What `plan` prints of it."""
        argv = [*COMMAND, "plan", str(self._spec), *self._options]
        done = subprocess.run(
            argv, env=self.env, check=True, capture_output=True, text=True, timeout=120, cwd=self.folder
        )
        return done.stdout

    def epochs(self) -> list[tuple[int, int]]:
        """Each epoch that was trained, as the trainer wrote it down: trial and step."""
        file = self.folder / "epochs"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(int(trial), int(step)) for trial, step in (line.split() for line in lines)]

    def arrays(self) -> set[tuple[str, str]]:
        """Name and job id of every array of the sweep that the controller remembers."""
        sweep = self.of_kind(SweepStarted)[0].sweep
        return {(row.name, row.job) for row in self.slurm.squeue() if sweep in row.name}

    def submitted(self) -> set[tuple[str, str]]:
        """Name and job id of every array that the journal knows."""
        return {(event.batch, event.job) for event in self.of_kind(BatchSubmitted)}
