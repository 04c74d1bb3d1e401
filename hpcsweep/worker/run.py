"""One attempt at one run: start its process, watch it, and say what became of it."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from hpcsweep.core.events import Interruption, Outcome
from hpcsweep.errors import CheckpointError, NewerFormatError, TrainerError
from hpcsweep.store import checkpoints
from hpcsweep.store.batch import ManifestRun, Result
from hpcsweep.store.files import make_dirs
from hpcsweep.store.layout import Layout
from hpcsweep.store.metrics import MetricsWriter
from hpcsweep.store.run_file import RunFile
from hpcsweep.worker.command import line_ending_problem, program_arguments, unrunnable_reason
from hpcsweep.worker.entrypoint import ChildError
from hpcsweep.worker.environment import TaskContext, run_environment
from hpcsweep.worker.objective import ObjectiveReading, read_objective
from hpcsweep.worker.outcome import ProcessExit, RunOutcome, classify, classify_worker_error
from hpcsweep.worker.output import RunLog, StdoutMetrics
from hpcsweep.worker.process import Child, oom_kills

#: Between SIGTERM and SIGKILL at the end of the grace period. With the default grace of 25 s both
#: fit into Slurm's KillWait of 30 s, with time left to write the result.
TERM_S = 2.0
#: How much later than its child the worker may get a signal meant for both.
LINGER_S = 1.0

#: Pieces of 64 KiB that are read of a program's output before anything else is looked at.
_MOST_READS = 64

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


class Attempt:
    """A run that is under way.

    Life: `begin`, then `advance` whenever something may have happened, until there is a `result`.
    """

    def __init__(
        self, context: TaskContext, run: ManifestRun, *, log: Path, devices: Sequence[str] | None
    ) -> None:
        layout = Layout.of_batch(context.batch.root)
        self.run = run
        self.result: Result | None = None
        self._context = context
        self._program = context.header.program
        self._devices = devices
        self._trial = layout.trial(run.trial)
        self._parent = layout.trial(run.parent) if run.parent is not None else None
        limit = self._program.log_limit_mib
        self._log = RunLog(log, limit=None if limit is None else limit << 20)
        self._folder = context.scratch / f"{run.trial}-{run.rung}-{run.attempt}"
        self._began, self._began_at = time.monotonic(), time.time()
        self._checkpoint: checkpoints.Checkpoint | None = None
        self._file: RunFile | None = None
        self._argv: list[str] = []
        self._child: Child | None = None
        self._pipe: int | None = None
        self._printed: StdoutMetrics | None = None
        self._metrics = MetricsWriter(self._trial.metrics(run.rung, run.attempt, context.restart))
        self._oom_kills = oom_kills()
        self._signal: signal.Signals | None = None
        self._deadline: float | None = None
        self._terminated = False
        #: Nobody wants the run any more, while its task goes on.
        self._stopped = False

    # ------------------------------------------------------------------ from outside

    @property
    def output(self) -> int | None:
        """Descriptor that has something to read when the process prints, where we read along."""
        return self._pipe

    @property
    def deadline(self) -> float | None:
        """When `advance` must be called at the latest, on the monotonic clock."""
        return self._deadline

    def begin(self) -> None:
        """Start the process, or give the result at once where nothing is left to do."""
        checkpoints.remove_leftovers(self._trial)
        self._checkpoint = self._newest(self.run.resource)
        if self._checkpoint is not None and self._checkpoint.step == self.run.resource:
            # An earlier attempt was killed between its last checkpoint and its result.
            measured = self._measure()
            if measured.complete:
                self._finish(
                    classify(ProcessExit(0), measured, resource=self.run.resource, reached=self.run.resource)
                )
                return
        self._launch()

    def forward_signal(self, signum: signal.Signals) -> None:
        """Pass on that the task must stop: the flag first, then the signal, then a time limit."""
        if self._child is None or self._file is None:
            return
        Path(self._file.stop_file).touch()
        early = signum is signal.SIGUSR2
        seconds = self._program.notice_s if early else self._program.grace_s
        deadline = time.monotonic() + seconds
        if self._signal is None:
            self._signal = signum
            self._deadline = deadline
            self._log.note(f"{signum.name}: training is told to stop, it has {seconds:g} s")
        elif not self._terminated and self._deadline is not None:  # SIGTERM may cut a notice short
            self._deadline = min(self._deadline, deadline)
        self._child.forward_signal(signum)

    def stop(self) -> None:
        """End the run for good, as a cancelled task is ended: it has the grace period to leave."""
        self._stopped = True
        self.forward_signal(signal.SIGTERM)

    def advance(self) -> None:
        """Take note of what has happened; sets `result` once the run has ended."""
        if self._child is None:
            return
        self._drain()
        if self._child.exited and not self._is_worth_waiting(self._child):
            self._end()
        elif self._deadline is not None and time.monotonic() >= self._deadline:
            self._escalate()

    # ------------------------------------------------------------------ start

    def _newest(self, at_most: int) -> checkpoints.Checkpoint | None:
        own = checkpoints.newest(self._trial, at_most=at_most)
        if own is None and self._parent is not None:
            return checkpoints.newest(self._parent, at_most=min(at_most, self.run.parent_step))
        return own

    @property
    def _start_step(self) -> int:
        return self._checkpoint.step if self._checkpoint else 0

    def _launch(self) -> None:
        run, program = self.run, self._program
        shutil.rmtree(self._folder, ignore_errors=True)
        os.makedirs(self._folder, mode=0o700)
        file = RunFile(
            trial=run.trial,
            rung=run.rung,
            bracket=run.bracket,
            resource=run.resource,
            attempt=run.attempt,
            restart=self._context.restart,
            seed=run.seed,
            config=run.config,
            start=self._start_step,
            resume_from=str(self._checkpoint.path) if self._checkpoint else None,
            checkpoint_dir=str(
                self._trial.checkpoints / f".work-{run.rung}-{run.attempt}-{self._context.restart}"
            ),
            stop_file=str(self._folder / "stop"),
            trial_folder=str(self._trial.root),
            metrics_file=str(self._metrics.path),
            metric=program.metric,
            keep_checkpoints=program.keep_checkpoints,
            keep_steps=run.keep,
        )
        self._file = file
        checkpoints.remove(Path(file.checkpoint_dir))
        make_dirs(Path(file.checkpoint_dir))
        run_file = self._folder / "run.json"
        run_file.write_bytes(msgspec.json.encode(file))
        source = f"from step {self._start_step}" if self._checkpoint else "from scratch"
        self._log.note(
            f"{time.strftime('%Y-%m-%d %H:%M:%S')} trial {run.trial} rung {run.rung} attempt {run.attempt}"
            f".{self._context.restart} on {self._context.node}: {source} to step {run.resource}"
        )
        environ = run_environment(
            self._context.environ,
            file,
            program,
            run_file=run_file,
            devices=self._devices,
            python=sys.executable,
            modules=self._context.modules,
        )
        try:
            self._argv = program_arguments(program, file, ending=self._ending_file, python=sys.executable)
            self._child = self._spawn(self._argv, environ)
        except (TrainerError, OSError, ValueError) as error:
            self._settle_failed_start(error, environ)

    def _spawn(self, argv: list[str], environ: Mapping[str, str]) -> Child:
        self._pipe, output = os.pipe()
        os.set_blocking(self._pipe, False)
        if self._program.metrics:
            self._printed = StdoutMetrics(
                self._program.metrics, start=self._start_step, report=self._metrics.write
            )
        try:
            return Child(argv, env=environ, mark="HPCSWEEP_RUN", cwd=self._program.workdir, output=output)
        finally:
            os.close(output)

    def _settle_failed_start(self, error: Exception, environ: Mapping[str, str]) -> None:
        what = self._program.command or self._program.function
        workdir = self._program.workdir
        text = str(error)
        if not isinstance(error, TrainerError):
            wrong = unrunnable_reason(self._argv, workdir=workdir, environ=environ) if self._argv else ""
            text = f"{what}: cannot be started: {wrong or error}"
        verdict = RunOutcome(Outcome.FAILED, message=text)
        if not os.path.isdir(workdir):  # moved, or not mounted here: no fault of the configuration
            text = f"the worker: there is no working directory {workdir}"
            verdict = RunOutcome(interrupted=Interruption.WORKER_DIED, message=text)
        self._log.note(text)
        self._drop_pipe()
        self._clean_up()
        self._finish(verdict)

    # ------------------------------------------------------------------ end

    def _is_worth_waiting(self, child: Child) -> bool:
        """Whether more may come after the child has ended.

        Told to stop, what it left behind may still use the grace period: a shell dies of SIGTERM
        at once, while the training that it started makes its checkpoint. And a child that died of
        a signal that nobody told us of may have got it a moment before we do: Slurm signals all
        processes of a task one after another.
        """
        if self._signal is None and self._deadline is None and child.exit_signal in _STOP_SIGNALS:
            self._deadline = time.monotonic() + LINGER_S
        if self._deadline is None or time.monotonic() >= self._deadline:
            return False
        return self._signal is None or bool(child.running)

    def _escalate(self) -> None:
        """The grace period is over: SIGTERM for everybody, and a moment later the end."""
        assert self._child is not None
        if self._signal is not None and not self._terminated:
            self._terminated = True
            self._deadline = time.monotonic() + TERM_S
            self._child.terminate()
        else:
            self._end()

    def _drain(self) -> None:
        """Copy what was printed into the log, and look for metrics in it.

        A program that prints without end is left for a moment, so that signals and limits have their turn.
        """
        for _ in range(_MOST_READS):
            if self._pipe is None:
                return
            try:
                data = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                return
            if not data:
                self._drop_pipe()
                return
            self._log.write(data)
            if self._printed is not None:
                self._printed.feed(data)

    def _drop_pipe(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None

    def _end(self) -> None:
        assert self._child is not None
        assert self._file is not None
        returncode = self._child.kill_all()
        while self._pipe is not None and select.select([self._pipe], [], [], 0)[0]:
            self._drain()
        self._drop_pipe()
        self._log.finish()
        if self._printed is not None:
            self._printed.finish()
        self._child = None
        self._deadline = None
        self._metrics.sync_and_close()
        measured = self._measure()
        if self._printed is not None:
            measured = measured.with_stdout_problem(self._printed.problem(self._program.metric))
        if self._lost_last_report(returncode, measured.fresh or measured.complete):
            self._checkpoint = self._newest(self.run.resource - 1)
            self._log.note("the last step's metrics were lost with an earlier attempt: it is trained again")
            self._launch()
            return
        ended = self._exit_of(returncode)
        reached = min(max(measured.reached, self._start_step), self.run.resource)
        verdict = classify(ended, measured, resource=self.run.resource, reached=reached)
        if returncode == 0 and (verdict.value is not None or verdict.interrupted is not None):
            self._keep_working_folder(self.run.resource if verdict.value is not None else reached)
        self._clean_up()
        self._finish(verdict, reached=reached)

    def _lost_last_report(self, returncode: int, reported: bool) -> bool:
        """Whether the checkpoint is of the last step but its report is missing."""
        at_end = self._start_step == self.run.resource
        return returncode == 0 and at_end and not reported and self._signal is None

    def _exit_of(self, returncode: int) -> ProcessExit:
        failure = ChildError((), "")
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            failure = msgspec.json.decode(self._ending_file.read_bytes(), type=ChildError)
        before, after = self._oom_kills, oom_kills()
        return ProcessExit(
            returncode,
            signal=self._signal.name if self._signal else None,
            types=failure.types,
            message=failure.message or (self._last_words() if returncode else ""),
            oom_kills=after - before if before is not None and after is not None else 0,
            alone=self._context.header.lanes == 1,
        )

    def _last_words(self) -> str:
        """What the program printed last, and what is known to be wrong with it."""
        words = self._log.excerpt()
        workdir = self._program.workdir
        hint = line_ending_problem(self._argv, words, workdir=workdir) if self._program.command else ""
        return "; ".join(filter(None, [words, hint]))

    def _keep_working_folder(self, step: int) -> None:
        """Make what the program left in its working folder the checkpoint of `step`."""
        assert self._file is not None
        folder = Path(self._file.checkpoint_dir)
        newest = checkpoints.newest(self._trial, at_most=step)
        if step == 0 or (newest is not None and newest.step == step):
            return
        try:
            if any(name != checkpoints.MANIFEST for name in os.listdir(folder)):
                checkpoints.commit(self._trial, step, folder)
                checkpoints.prune(self._trial, keep=self._program.keep_checkpoints, steps=self.run.keep)
        except (OSError, CheckpointError) as error:
            self._log.note(f"the checkpoint of step {step} could not be kept: {error}")

    def _measure(self) -> ObjectiveReading:
        return read_objective(
            self._trial, self.run, self._program, restart=self._context.restart, start=self._start_step
        )

    @property
    def _ending_file(self) -> Path:
        return self._folder / "ending.json"

    def _clean_up(self) -> None:
        if self._file is not None:
            checkpoints.remove(Path(self._file.checkpoint_dir))
        shutil.rmtree(self._folder, ignore_errors=True)

    def abandon(self, error: Exception) -> None:
        """End the run after the worker itself failed at it (a full disk, say): nobody's fault but ours.

        Where it is barred from files of the trial, training code has done that.
        """
        with contextlib.suppress(Exception):
            if self._child is not None:
                self._child.kill_all()
                self._child = None
        with contextlib.suppress(Exception):
            self._drop_pipe()
            self._log.finish()
        self._finish(classify_worker_error(error, self._trial.root))

    def _finish(self, verdict: RunOutcome, *, reached: int = 0) -> None:
        seconds = time.monotonic() - self._began
        if self._stopped and verdict.outcome is not Outcome.COMPLETED:
            verdict = RunOutcome(Outcome.STOPPED, message=f"stopped at step {reached} of {self.run.resource}")
        if verdict.outcome is Outcome.COMPLETED:  # an attempt killed before this left two, perhaps
            with contextlib.suppress(OSError, NewerFormatError):
                checkpoints.prune(self._trial, keep=self._program.keep_checkpoints, steps=self.run.keep)
        newest = None
        with contextlib.suppress(OSError, NewerFormatError):
            newest = checkpoints.newest(self._trial, at_most=self.run.resource)
        context, header = self._context, self._context.header
        self.result = Result(
            trial=self.run.trial,
            rung=self.run.rung,
            attempt=self.run.attempt,
            restart=context.restart,
            task=context.task,
            outcome=verdict.outcome,
            interrupted=verdict.interrupted,
            value=verdict.value,
            step=max(reached, newest.step if newest else 0),
            start=self._start_step,
            progressed=newest is not None and newest.step > self._start_step,
            seconds=seconds,
            gpu_seconds=seconds * header.gpus / header.lanes,
            started=self._began_at,
            node=context.node,
            job=context.job,
            message=verdict.message,
            failure=verdict.failure,
        )
        kind = verdict.outcome or verdict.interrupted
        detail = verdict.message or f"{self._program.metric}={verdict.value}"
        with contextlib.suppress(OSError):
            self._log.note(f"{kind.value if kind else ''} after {seconds:.1f} s: {detail}")
            self._log.close()
