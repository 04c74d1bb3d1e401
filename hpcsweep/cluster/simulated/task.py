"""One task of a simulated site: its runs, its results and its reports, as a worker would leave them."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from hpcsweep.cluster.simulated.clock import VirtualClock
from hpcsweep.cluster.simulated.faults import FaultSampler
from hpcsweep.cluster.simulated.training import Training, TrainingModel, error_message
from hpcsweep.core.events import Interruption, Outcome
from hpcsweep.store.batch import Header, ManifestRun, Result
from hpcsweep.store.files import make_dirs
from hpcsweep.store.layout import BatchLayout, Layout
from hpcsweep.store.metrics import MetricsWriter

_encode = msgspec.json.Encoder().encode


class ArrayContext(msgspec.Struct, frozen=True):
    """What the tasks of one array share.

    Attributes:
        reports: Whether metrics are written while a run goes on.
        untold: Tasks of which a result is missing, or not visible yet.
    """

    clock: VirtualClock
    faults: FaultSampler
    trainings: TrainingModel
    header: Header
    files: BatchLayout
    job: str
    reports: bool
    unreported: set[int]


class Task:
    """Starts its runs, as many at a time as it has lanes; `ended` is called once all have ended.

    Attributes:
        restart: How often it was started before.
        node: Where it runs; None while it waits.
        began: When it started last, Unix seconds.
    """

    def __init__(
        self, shared: ArrayContext, index: int, runs: Sequence[ManifestRun], ended: Callable[[Task], None]
    ) -> None:
        self.index = index
        self.runs = runs
        self.restart = 0
        self.node: int | None = None
        self.began = 0.0
        self._shared = shared
        self._ended = ended
        self._name = ""
        self._settled: set[int] = set()
        self._todo: deque[int] = deque()
        self._going: dict[int, Training] = {}
        self._writers: dict[int, MetricsWriter] = {}

    def start(self, node: int, name: str) -> None:
        """Begin on this node, unless the batch was abandoned: then it leaves at once."""
        self.node, self._name, self.began = node, name, self._shared.clock.time()
        if self._shared.files.manifest.exists() and not self._shared.files.abandoned_marker.exists():
            self._todo.extend(n for n in range(len(self.runs)) if n not in self._settled)
        for _ in range(self._shared.header.lanes):
            self._begin_next()
        if not self._going:
            self._shared.clock.at(self._shared.clock.time(), self._leave)

    def interrupt(self) -> None:
        """It is told to stop: its runs leave their checkpoints and say so."""
        now = self._shared.clock.time()
        for n, training in self._going.items():
            step = self._shared.trainings.leave(training, now)
            message = f"told to stop at step {step} of {training.run.resource}"
            result = self._result(n, training, step=step, message=message)
            self._write(n, msgspec.structs.replace(result, interrupted=Interruption.PREEMPTED))
        for n in self._todo:
            result = self._result(n, None, message="the task was told to stop before this run began")
            self._write(n, msgspec.structs.replace(result, interrupted=Interruption.PREEMPTED))
        self._clear()

    def vanish(self) -> None:
        """Its node is gone: only checkpoints are left."""
        for training in self._going.values():
            self._shared.trainings.leave(training, self._shared.clock.time())
        self._shared.unreported.add(self.index)
        self._clear()

    def _clear(self) -> None:
        self._going.clear()
        self._todo.clear()
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    # ------------------------------------------------------------------ runs

    def _begin_next(self) -> None:
        if not self._todo:
            return
        n = self._todo.popleft()
        training = self._shared.trainings.begin(self.runs[n], self._shared.clock.time())
        self._going[n] = training
        self._shared.clock.at(training.ends, functools.partial(self._end, n, training))
        if self._shared.reports:
            self._expect_report(n, training)

    def _end(self, n: int, training: Training) -> bool:
        if self._going.get(n) is not training:
            return False  # it was interrupted before
        now = self._shared.clock.time()
        if self._shared.reports and not self._report(n, training, training.step(now)):
            return True
        value, message = None, training.failure
        if not message:
            value, message = self._shared.trainings.value(training.run, self._shared.header.program)
        self._finish(n, training, value, message)
        return True

    def _finish(self, n: int, training: Training, value: float | None, message: str) -> None:
        step = self._shared.trainings.leave(training, self._shared.clock.time())
        result = self._result(n, training, step=step, message=message)
        outcome = Outcome.FAILED if value is None else Outcome.COMPLETED
        self._write(n, msgspec.structs.replace(result, outcome=outcome, value=value))
        self._settled.add(n)
        del self._going[n]
        if n in self._writers:
            self._writers.pop(n).close()
        self._begin_next()
        if not self._going:
            self._leave()

    def _leave(self) -> bool:
        if self.node is None:
            return False  # it was interrupted at this very moment
        self._ended(self)
        return True

    # ------------------------------------------------------------------ what it leaves

    def _expect_report(self, n: int, training: Training) -> None:
        step = training.reported + 1
        if step < training.run.resource:
            when = training.ready + (step - training.start) * training.unit_s
            self._shared.clock.at(when, functools.partial(self._report_next, n, training, step))

    def _report_next(self, n: int, training: Training, step: int) -> bool:
        if self._going.get(n) is not training:
            return False
        if self._report(n, training, step):
            self._expect_report(n, training)
        return True

    def _report(self, n: int, training: Training, up_to: int) -> bool:
        """Write the metrics of the steps that are done; False if the run has failed in one of them."""
        run = training.run
        for step in range(training.reported + 1, up_to + 1):
            try:
                value = self._shared.trainings.objective(run, step)
            except Exception as error:
                self._finish(n, training, None, error_message(error))
                return False
            if n not in self._writers:
                trial = Layout.of_batch(self._shared.files.root).trial(run.trial)
                self._writers[n] = MetricsWriter(trial.metrics(run.rung, run.attempt, self.restart))
            self._writers[n].write(step, {self._shared.header.program.metric: value})
            training.reported = step
        return True

    def _result(self, n: int, training: Training | None, *, message: str, step: int = 0) -> Result:
        run, header = self.runs[n], self._shared.header
        result = Result(
            run.trial,
            run.rung,
            run.attempt,
            restart=self.restart,
            task=self.index,
            step=step,
            node=self._name,
            job=f"{self._shared.job}_{self.index}",
            message=message,
        )
        if training is None:
            return result
        seconds = self._shared.clock.time() - training.began
        return msgspec.structs.replace(
            result,
            start=training.start,
            progressed=step > training.start,
            seconds=seconds,
            gpu_seconds=seconds * header.gpus / header.lanes,
            started=training.began,
        )

    def _write(self, n: int, result: Result) -> None:
        """Plainly: nothing of a simulation need survive a power cut."""
        path, data = self._shared.files.result(self.index, self.restart, n), _encode(result)

        def write() -> bool:
            if not path.parent.exists():  # it comes so late that its batch is compacted
                make_dirs(path.parent)
            path.write_bytes(data)
            return True

        late_s = self._shared.faults.late(self.runs[n], self.restart)
        if late_s:
            self._shared.unreported.add(self.index)
            self._shared.clock.at(self._shared.clock.time() + late_s, write)
        else:
            write()
