"""One attempt at one run: starts its process, watches it, and classifies its end."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from hpcsweep.core.events import Outcome
from hpcsweep.errors import TrainerError
from hpcsweep.store import checkpoints
from hpcsweep.store.batch import ManifestRun, Result
from hpcsweep.store.layout import Layout
from hpcsweep.store.run_files import MetricsWriter, Suggestions
from hpcsweep.worker.command import TaskContext
from hpcsweep.worker.exits import MOST_CLASHES, outcome_of_ranks, port_was_taken, process_exit
from hpcsweep.worker.launch import Launch
from hpcsweep.worker.outcome import (
    ObjectiveReading,
    ProcessExit,
    RunOutcome,
    classify,
    classify_start_failure,
    classify_worker_error,
    read_objective,
)
from hpcsweep.worker.output import Output
from hpcsweep.worker.process import Child, RunLog, oom_kills
from hpcsweep.worker.results import make_result
from hpcsweep.worker.usage import UsageMeter
from hpcsweep.worker.warm import FutureChild, WarmProcess
from hpcsweep.worker.watching import Watcher

#: Between SIGTERM and SIGKILL at the end of the grace period. With the default grace of 25 s both
#: fit into Slurm's KillWait of 30 s, with time left to write the result.
TERM_S = 2.0
#: How long a program that has reported all there is to report, and saves nothing, may take to end.
END_S = 10.0
#: How long after its child the worker may get a signal meant for both.
LINGER_S = 1.0

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


class Attempt:
    """A run in progress: call `begin`, then `advance` after every event until there is a `result`.

    `time_s` is its time limit, of which it is told like Slurm tells a task. `warm` is what its process is
    forked from where that can be.
    """

    def __init__(
        self,
        context: TaskContext,
        run: ManifestRun,
        *,
        log: Path,
        devices: Sequence[str] | None,
        time_s: float | None = None,
        warm: WarmProcess | None = None,
    ) -> None:
        layout = Layout.of_batch(context.batch.root)
        self.run = run
        self.result: Result | None = None
        self._context = context
        self._program = context.header.program
        self._devices = devices
        self._warm = warm
        self._trial = layout.trial(run.trial)
        parent = layout.trial(run.parent) if run.parent is not None else None
        self._newest = functools.partial(
            checkpoints.newest_of_line, self._trial, parent, parent_step=run.parent_step
        )
        limit = self._program.log_limit_mib
        self._log = RunLog(log, limit=None if limit is None else limit << 20)
        self._start_clock, self._start_time = time.monotonic(), time.time()
        self._checkpoint: checkpoints.Checkpoint | None = None
        self._launch: Launch | None = None
        self._child: Child | None = None
        self._output = Output(self._log)
        self._watcher: Watcher | None = None
        self._kept = False  # what the program left made a new checkpoint
        self._meter: UsageMeter | None = None
        self._over_memory = ""  # how its processes held more than they may, for which they were ended
        self._peak_mib, self._unit_seconds = 0, 0.0
        self._metrics = MetricsWriter(self._trial.metrics(run.rung, run.attempt, context.restart))
        self._oom_kills = oom_kills()
        self._signal: signal.Signals | None = None
        #: When `advance` must be called at the latest, on the monotonic clock.
        self.deadline: float | None = None
        self._warn_at: float | None = None  # when the run is told that its time limit is near
        if time_s is not None:
            self._warn_at = self._start_clock + max(time_s / 2, time_s - self._program.notice_s)
        self._terminated = self._ended_at_resource = False  # the latter: it was told to end for that
        self._reading: ObjectiveReading | None = None
        self._stopped = False  # by request, while its task goes on
        self._suggestions: Suggestions | None = None
        self._clashes = 0  # starts of its ranks that found their port taken
        self._ignored_s = 0.0  # how long it went on after it was told to end at its resource

    def begin(self) -> None:
        """Start the process, or set the result at once if nothing is left to do."""
        checkpoints.remove_leftovers(self._trial)
        self._checkpoint = self._newest(at_most=self.run.resource)
        if self._checkpoint is not None and self._checkpoint.step == self.run.resource:
            # An earlier attempt was killed between its last checkpoint and its result.
            reading, resource = self._read_objective(), self.run.resource
            if reading.complete:
                self._finish(classify(ProcessExit(0), reading, resource=resource, reached=resource))
                return
        if not self._program.resumes:
            self._checkpoint = None
        self._prepare()

    def forward_signal(self, signum: signal.Signals) -> None:
        """Tell training to stop: the stop file first, then the signal, then a time limit."""
        if self._child is None or self._launch is None:
            return
        self._launch.stop_file.touch()
        seconds = self._program.notice_s if signum is signal.SIGUSR2 else self._program.grace_s
        deadline = time.monotonic() + seconds
        if self._signal is None:
            self._signal = signum
            self.deadline = deadline
            self._log.note(f"{signum.name}: training is told to stop, it has {seconds:g} s")
        elif not self._terminated and self.deadline is not None:  # SIGTERM may cut a notice short
            self.deadline = min(self.deadline, deadline)
        self._child.forward_signal(signum)

    def stop(self) -> None:
        """End the run for good, with the grace period to leave."""
        self._stopped = True
        self.forward_signal(signal.SIGTERM)

    def advance(self) -> None:
        """Process what has happened; sets `result` once the run has ended."""
        if self._child is None:
            return
        if self._launch is not None and isinstance(self._child, FutureChild):
            self._start(self._launch)
            if self._child is None:
                return
        self._output.drain(self._feed)
        if self._watcher is not None:
            self._watcher.advance()
            going_on = not (self._child.exited or self._signal or self._ended_at_resource)
            if going_on and self._watcher.should_end(self._program.grace_s):
                self._end_at_resource()
        if self._exceeds_memory(self._child):
            self._end()
            return
        if self._warn_at is not None and time.monotonic() >= self._warn_at:
            self._warn_at = None
            if self._signal is None and not self._child.exited:
                self._log.note("its time limit is near")
                self.forward_signal(signal.SIGUSR2)
        if self._child.exited and not self._keeps_waiting(self._child):
            self._end()
        elif self.deadline is not None and time.monotonic() >= self.deadline:
            self._escalate()

    def _end_at_resource(self) -> None:
        """Have the program end: there is nothing more to come of it."""
        assert self._launch is not None
        assert self._child is not None
        self._ended_at_resource = True
        self._launch.stop_file.touch()
        seconds = min(END_S, self._program.grace_s)
        self.deadline = time.monotonic() + seconds
        self._log.note(f"step {self.run.resource} is reported: training is told to end, it has {seconds:g} s")
        self._child.forward_signal(signal.SIGTERM)

    def _exceeds_memory(self, child: Child) -> bool:
        """Measure its processes, if that is due; whether they hold more memory than they may."""
        if self._meter is None or child.exited:
            return False
        held_mib, limit_mib = self._meter.sample(), self._context.header.mem_limit_mib
        exceeds = held_mib is not None and self._signal is None
        if exceeds:
            self._over_memory = f"its processes held {held_mib} MiB, more than the {limit_mib} MiB of the run"
            self._log.note(f"{self._over_memory}: they are ended")
        return exceeds

    @property
    def output(self) -> int | None:
        """Descriptor that is readable when the process prints."""
        return self._output.descriptor

    @property
    def wake_at(self) -> float | None:
        """When `advance` is to be called beside `deadline`, on the monotonic clock."""
        parts = [part.wake_at for part in (self._watcher, self._meter) if part is not None]
        return min((at for at in (self._warn_at, *parts) if at is not None), default=None)

    @property
    def _start_step(self) -> int:
        return self._checkpoint.step if self._checkpoint else 0

    def _prepare(self) -> None:
        run = self.run
        self._launch = Launch(
            self._context,
            run,
            trial=self._trial,
            checkpoint=self._checkpoint,
            metrics_file=self._metrics.path,
            devices=self._devices,
            warm=self._warm,
            log=self._log.path,
            clashes=self._clashes,
        )
        self._log.begin()
        source = f"from step {self._start_step}" if self._checkpoint else "from scratch"
        self._log.note(
            f"{time.strftime('%Y-%m-%d %H:%M:%S')} trial {run.trial} rung {run.rung} attempt {run.attempt}"
            f".{self._context.restart} on {self._context.node}: {source} to step {run.resource}"
        )
        self._launch.put_back()
        self._watcher = Watcher(
            run,
            self._program,
            self._launch,
            trial=self._trial,
            start=self._start_step,
            metrics=self._metrics,
            processes=lambda: self._child.processes if self._child is not None else (),
            note=self._log.note,
        )
        self._child = FutureChild()
        self._start(self._launch)

    def _start(self, launch: Launch) -> None:
        """Start the process, if that can be done yet."""
        if not launch.ready:
            return
        write_end = self._output.open()
        try:
            child = launch.start(write_end)
        except (TrainerError, OSError, ValueError) as error:
            self._fail_start(launch.explain(error))
            return
        finally:
            os.close(write_end)
        if child is None:
            self._output.close()
            return
        self._child = child
        limit_mib = self._context.header.mem_limit_mib
        members = (lambda: child.processes) if launch.has_ranks else None
        self._meter = UsageMeter(child.pid, self._metrics.path, limit_mib=limit_mib, members=members)
        for line in filter(None, (launch.how, launch.command and f"command: {launch.command}")):
            self._log.note(line)

    def _fail_start(self, text: str) -> None:
        self._child = None
        outcome = classify_start_failure(text, workdir=self._program.workdir)
        self._log.note(outcome.message)
        self._output.close()
        self._clean_up()
        self._finish(outcome)

    def _keeps_waiting(self, child: Child) -> bool:
        """Whether to wait although the child has ended.

        Its descendants may still use the grace period: a shell dies of SIGTERM at once, while the training
        that it started writes its checkpoint. And a signal that we did not get may reach us a moment later.
        """
        if self._signal is None and self.deadline is None and child.exit_signal in _STOP_SIGNALS:
            self.deadline = time.monotonic() + LINGER_S
        if self.deadline is None or time.monotonic() >= self.deadline:
            return False
        return (self._signal is None and not self._ended_at_resource) or bool(child.running)

    def _escalate(self) -> None:
        """The grace period is over: SIGTERM to the whole group, and a moment later the end."""
        assert self._child is not None
        if (self._signal is not None or self._ended_at_resource) and not self._terminated:
            self._terminated = True
            if self._signal is None and self._child.running:
                self._ignored_s = min(END_S, self._program.grace_s)
            self.deadline = time.monotonic() + TERM_S
            self._child.terminate()
        else:
            self._end()

    def _feed(self, data: bytes) -> None:
        if self._watcher is not None:
            self._watcher.feed(data)

    def _end(self) -> None:
        assert self._child is not None
        assert self._launch is not None
        returncode = self._child.kill_all()
        if self._meter is not None:
            peak_mib = self._meter.peak_mib(at_least_kib=self._child.max_rss_kib)
            self._peak_mib = max(self._peak_mib, peak_mib, self._launch.peak_mib_elsewhere)
        self._output.finish(self._feed)
        if self._watcher is not None:
            self._watcher.finish(whole=returncode == 0 and self._signal is None)
        self._child = None
        self.deadline = None
        self._metrics.sync_and_close()
        reading = self._read_objective()
        if self._watcher is not None:
            reading = reading.with_problem(self._watcher.problem())
        reported, at_end = reading.fresh or reading.complete, self._start_step == self.run.resource
        if returncode == 0 and at_end and not reported and self._signal is None:
            self._checkpoint = self._newest(at_most=self.run.resource - 1)
            self._start_again("the last step's metrics were lost with an earlier attempt: trained again")
            return
        if self._meter is not None and reading.own is not None:
            self._unit_seconds = self._meter.unit_seconds(reading.own[1])
        ended = process_exit(
            returncode,
            self._launch,
            self._log,
            program=self._program,
            signum=self._signal,
            ended_by_us=self._ended_at_resource,
            oom_kills_before=self._oom_kills,
            alone=self._context.header.lanes == 1,
            over_memory=self._over_memory,
        )
        clashed = port_was_taken(ended, self._launch, self._log)
        if clashed and self._signal is None and self._clashes < MOST_CLASHES:
            self._clashes += 1
            self._start_again("somebody else had taken the port of its ranks: they are started again")
            return
        reached = min(max(reading.reached, self._start_step), self.run.resource)
        outcome = classify(ended, reading, resource=self.run.resource, reached=reached)
        outcome = outcome_of_ranks(outcome, ended, self._launch, port_taken=clashed)
        if self._watcher is not None:
            self._kept = self._watcher.keep(outcome, reached=reached, exited_well=returncode == 0)
        self._clean_up()
        self._finish(outcome, reached=reached)

    def _start_again(self, why: str) -> None:
        self._log.note(why)
        self._clean_up()
        self._prepare()

    def _read_objective(self) -> ObjectiveReading:
        self._reading = read_objective(
            self._trial,
            self.run,
            self._program,
            restart=self._context.restart,
            start=self._start_step,
            seen=self._watcher.seen() if self._watcher is not None else (),
        )
        return self._reading

    def _clean_up(self) -> None:
        if self._launch is not None:
            self._suggestions = self._launch.suggestions
            self._launch.clean_up()

    def abandon(self, error: Exception) -> None:
        """End the run after the worker itself failed (a full disk, say)."""
        with contextlib.suppress(Exception):
            if self._child is not None:
                self._child.kill_all()
                self._child = None
        with contextlib.suppress(Exception):
            if self._watcher is not None:
                self._watcher.close()
        with contextlib.suppress(Exception):
            self._output.close()
            self._log.finish()
        self._finish(classify_worker_error(error, self._trial.root))

    def _finish(self, outcome: RunOutcome, *, reached: int = 0) -> None:
        seconds = time.monotonic() - self._start_clock
        if self._stopped and outcome.outcome is not Outcome.COMPLETED:
            outcome = RunOutcome(Outcome.STOPPED, message=f"stopped at step {reached} of {self.run.resource}")
        self.result = make_result(
            self._context,
            self.run,
            outcome,
            self._reading,
            trial=self._trial,
            start=self._start_step,
            reached=reached,
            kept=self._kept,
            told_to_stop=self._signal is not None,
            ignored_s=self._ignored_s,
            suggestions=self._suggestions,
            started=self._start_time,
            seconds=seconds,
            peak_mib=self._peak_mib,
            unit_seconds=self._unit_seconds,
        )
        with contextlib.suppress(OSError):
            if self.result.warning:
                self._log.note(f"warning: {self.result.warning}")
            self._log.note(outcome.summary(self._program.measured.metrics, seconds=seconds))
            self._log.close()
