"""One task of a simulated site: its stand-in training, and the files that a worker would leave."""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import msgspec

from hpcsweep.cluster.simulated.backend import SimulatedOptions
from hpcsweep.cluster.simulated.clock import VirtualClock
from hpcsweep.cluster.simulated.faults import FaultSampler
from hpcsweep.core.events import CheckpointSizes, Config, Interruption, Outcome
from hpcsweep.store.batch import Header, ManifestRun, Program, Result
from hpcsweep.store.files import make_dirs
from hpcsweep.store.layout import BatchLayout, Layout
from hpcsweep.store.run_files import MetricsWriter

_encode = msgspec.json.Encoder().encode


class ArrayContext(msgspec.Struct, frozen=True):
    """What the tasks of one array share.

    Attributes:
        reports: Whether metrics are written while a run goes on.
        unreported: Tasks of which a result is missing, or not visible yet.
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
        self, shared: ArrayContext, index: int, runs: list[ManifestRun], ended: Callable[[Task], None]
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

    @property
    def draws(self) -> tuple[int, ...]:
        """By what chance knows the task."""
        first = self.runs[0]
        return first.trial, first.rung, first.attempt

    def start(self, node: int, name: str, *, ends: float = math.inf) -> None:
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
        self._begin(self._todo.popleft())

    def _begin(self, n: int) -> Training:
        training = self._shared.trainings.begin(self.runs[n], self._shared.clock.time())
        self._going[n] = training
        self._shared.clock.at(training.ends, functools.partial(self._end, n, training))
        if self._shared.reports:
            self._expect_report(n, training)
        return training

    def _end(self, n: int, training: Training) -> bool:
        if self._going.get(n) is not training:
            return False  # it was interrupted before
        now = self._shared.clock.time()
        if self._shared.reports and not self._report(n, training, training.step(now)):
            return True
        values: tuple[float, ...] = ()
        message = training.failure
        if not message:
            values, message = self._shared.trainings.values(training.run, self._shared.header.program)
        self._finish(n, training, values, message)
        return True

    def _finish(self, n: int, training: Training, values: tuple[float, ...], message: str) -> None:
        """Write its result, with no values if it has failed."""
        step = self._shared.trainings.leave(training, self._shared.clock.time())
        result = self._result(n, training, step=step, message=message)
        outcome = Outcome.COMPLETED if values else Outcome.FAILED
        several = values if self._shared.header.program.objectives else ()
        value = values[0] if values else None
        self._write(n, msgspec.structs.replace(result, outcome=outcome, value=value, values=several))
        self._settled.add(n)
        self._run_ended(n)

    def _run_ended(self, n: int) -> None:
        del self._going[n]
        if n in self._writers:
            self._writers.pop(n).close()
        self._go_on()

    def _go_on(self) -> None:
        """A run has ended: the next one begins, or the task leaves."""
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
        run, program = training.run, self._shared.header.program
        for step in range(training.reported + 1, up_to + 1):
            try:
                values = self._shared.trainings.measure(run, step, program.measured.metrics)
            except Exception as error:
                self._finish(n, training, (), error_message(error))
                return False
            if n not in self._writers:
                trial = Layout.of_batch(self._shared.files.root).trial(run.trial)
                self._writers[n] = MetricsWriter(trial.metrics(run.rung, run.attempt, self.restart))
            self._writers[n].write(step, dict(zip(program.measured.metrics, values, strict=True)))
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
            unit_seconds=training.unit_s if step > training.start + 1 else 0.0,
            checkpoints=self._shared.trainings.sizes(step),
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


#: Configuration, step >= 1 and the trial's seed -> the objective after that step, NaN if it diverged.
#: With several objectives their values in the order of the spec, or a mapping by metric.
Curve: TypeAlias = Callable[[Config, int, int], float | Sequence[float] | Mapping[str, float]]
#: Configuration -> seconds for each unit of resource.
UnitSeconds: TypeAlias = Callable[[Config], float]

#: Steps are counted from times that were added up: a hair less than a step is a step.
_HAIR = 1e-9


class Training(msgspec.Struct):
    """One start of a run.

    Attributes:
        began: Unix seconds. `ready`: when its first unit begins. `ends`: when it ends, if nothing
            interrupts it.
        start: Step of the checkpoint that it goes on from.
        unit_s: Seconds for each unit.
        failure: Why it fails at its end, empty if it does not.
        reported: The last step whose metrics are written.
    """

    run: ManifestRun
    began: float
    ready: float
    ends: float
    start: int
    unit_s: float
    failure: str = ""
    reported: int = 0

    def step(self, now: float) -> int:
        """The last step that is done by then."""
        if now >= self.ends and not self.failure:
            return self.run.resource
        units = (now - self.ready) / self.unit_s if self.unit_s else 0.0
        return min(self.run.resource, self.start + max(0, math.floor(units + _HAIR)))


class TrainingModel:
    """All trainings of a site: they share the checkpoints of the trials, `reached` from the start."""

    def __init__(
        self,
        options: SimulatedOptions,
        *,
        curve: Curve,
        unit_seconds: UnitSeconds,
        faults: FaultSampler,
        reached: Mapping[int, int],
    ) -> None:
        self._options = options
        self._curve = curve
        self._unit_seconds = unit_seconds
        self._faults = faults
        self._reached = dict(reached)

    def begin(self, run: ManifestRun, now: float) -> Training:
        """Start it from the trial's newest checkpoint, or from that of the trial that it is a clone of."""
        faults = self._faults.run(run)
        start = self._reached.get(run.trial, run.parent_step)
        unit_s = self._unit_seconds(run.config) * faults.factor
        ready = now + self._options.startup
        share = 1.0 if faults.fails_after is None else faults.fails_after
        ends = ready + max(0, run.resource - start) * unit_s * share
        failure = "" if faults.fails_after is None else "simulated failure"
        return Training(run, now, ready, ends, start, unit_s, failure, start)

    def leave(self, training: Training, now: float) -> int:
        """The training ends now, in whatever way: the step of the trial's newest checkpoint."""
        done = training.step(now)
        every = self._options.checkpoint_every
        newest = done if done >= training.run.resource else max(training.start, done - done % every)
        if newest:
            self._reached[training.run.trial] = newest
        return newest

    def sizes(self, step: int) -> CheckpointSizes:
        """What a trial keeps that has its newest checkpoint at this step."""
        size = (self._options.checkpoint_size or 0) if step else 0
        return CheckpointSizes(size, int(size > 0), size, int(size > 0))

    def measure(self, run: ManifestRun, step: int, metrics: Sequence[str]) -> tuple[float, ...]:
        """The objectives after that step; ValueError where the curve has others."""
        found = self._curve(run.config, step, run.seed)
        if isinstance(found, Mapping):
            missing = [metric for metric in metrics if metric not in found]
            if missing:
                raise ValueError(f"the curve gave no {missing[0]!r} but {', '.join(map(repr, found))}")
            found = [found[metric] for metric in metrics]
        values = tuple(map(float, found)) if isinstance(found, Iterable) else (float(found),)
        if len(values) != len(metrics):
            raise ValueError(f"the curve gave {len(values)} values for {len(metrics)} objectives")
        return values

    def values(self, run: ManifestRun, program: Program) -> tuple[tuple[float, ...], str]:
        """The objectives of the whole run, or none and why."""
        objectives = program.measured
        at_best = any(each.at == "best" for each in objectives)
        first = run.parent_step + 1 if at_best else run.resource
        steps = range(first, run.resource + 1)
        try:
            rows = [self.measure(run, step, objectives.metrics) for step in steps]
        except Exception as error:
            return (), error_message(error)
        values = []
        for objective, column in zip(objectives, zip(*rows, strict=True), strict=True):
            counted = column if objective.at == "best" else column[-1:]
            finite = [value for value in counted if math.isfinite(value)]
            if not finite:
                return (), f"metric {objective.metric!r} is {column[-1]} at step {run.resource}"
            values.append(max(finite) if objective.mode == "max" else min(finite))
        return tuple(values), ""


def error_message(error: Exception) -> str:
    """As the last line of a traceback has it."""
    return f"{type(error).__name__}: {error}"
