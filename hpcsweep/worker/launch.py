"""How the process of a run is started: as a fork of a warm process, or afresh."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from hpcsweep.core.text import plural
from hpcsweep.errors import TrainerError
from hpcsweep.store import checkpoints
from hpcsweep.store.batch import ManifestRun, Program
from hpcsweep.store.checkpoints import Checkpoint
from hpcsweep.store.file_states import Source, restore, split_pattern
from hpcsweep.store.files import make_dirs
from hpcsweep.store.layout import TrialLayout
from hpcsweep.store.run_files import RunFile, Suggestions
from hpcsweep.worker.command import (
    RUN_VARIABLE,
    TaskContext,
    command_line,
    modules_folder,
    program_arguments,
    run_variables,
    shared_environment,
    unrunnable_reason,
    write_config_file,
)
from hpcsweep.worker.entrypoint import ChildError
from hpcsweep.worker.ports import Port
from hpcsweep.worker.process import Child
from hpcsweep.worker.ranks import (
    ADDRESS_VARIABLE,
    RankFailure,
    RankPlan,
    Ranks,
    first_failure,
    launcher_arguments,
    lost_ranks,
    measured_mib,
    write_plan,
)
from hpcsweep.worker.warm import WarmProcess


def kept_files(program: Program, trial: int, output: Path) -> Source | None:
    """Where `train.checkpoint.path` finds what a program keeps; None without it."""
    if not program.checkpoint_path:
        return None
    folder, names = split_pattern(program.checkpoint_path)
    plain = {"{output_dir}": os.fspath(output), "{trial}": str(trial)}
    for placeholder, value in plain.items():
        folder = folder.replace(placeholder, value)
        names = names.replace(placeholder, glob.escape(value))
    return Source(Path(program.workdir, folder), names)


class Launch:
    """The start of one run's process, and the files that it is given.

    Args:
        context: Of its task.
        run: What to train.
        trial: The trial's folder.
        checkpoint: Where it goes on from; None: from scratch.
        metrics_file: Where it reports.
        devices: The GPUs that it may see; None: those of the task.
        warm: What it is forked from where that can be.
        log: Of the run.
        clashes: How often its processes could not meet because somebody else had taken their port.

    Attributes:
        checkpoint_dir: Its working folder.
        kept: What it goes on from another time.
        stop_file: Tells it to stop.
        ending: Where its entrypoint writes how the function failed.
        file: What it is told.
        argv: The arguments of a fresh process; empty if the command is wrong.
        how: For the log, once it was started; empty if there was no choice.
    """

    def __init__(
        self,
        context: TaskContext,
        run: ManifestRun,
        *,
        trial: TrialLayout,
        checkpoint: Checkpoint | None,
        metrics_file: Path,
        devices: Sequence[str] | None,
        warm: WarmProcess | None,
        log: Path,
        clashes: int = 0,
    ) -> None:
        program, header = context.header.program, context.header
        self._context = context
        self._log = log
        self._per_node = program.processes or max(1, header.gpus // header.nodes // header.lanes)
        self._port: Port | None = None
        self._plan: RankPlan | None = None
        if program.launcher != "none":
            self._port = Port(f"{context.job}/{run.trial}/{run.rung}/{run.attempt}/{clashes}")
        self._folder = context.scratch / f"{run.trial}-{run.rung}-{run.attempt}"
        if header.nodes > 1:  # in the results folder, which all nodes see
            self._folder = trial.checkpoints / f".run-{run.rung}-{run.attempt}-{context.restart}"
        self.checkpoint_dir = trial.checkpoints / f".work-{run.rung}-{run.attempt}-{context.restart}"
        #: In the results folder, which all nodes of a run see.
        self._config = trial.checkpoints / f".config-{run.rung}-{run.attempt}-{context.restart}"
        self.stop_file = self._folder / "stop"
        self.ending = self._folder / "ending.json"
        self._output = trial.output
        self.kept = kept_files(program, run.trial, trial.output) or Source(self.checkpoint_dir)
        self._checkpoint = checkpoint
        self.argv: list[str] = []
        self.how = ""
        self._program = program
        self._warm = warm
        self.file = RunFile(
            trial=run.trial,
            rung=run.rung,
            bracket=run.bracket,
            resource=run.resource,
            attempt=run.attempt,
            restart=context.restart,
            seed=run.seed,
            config=run.config,
            start=checkpoint.step if checkpoint else 0,
            resume_from=str(checkpoint.path) if checkpoint else None,
            checkpoint_dir=str(self.checkpoint_dir),
            output_dir=str(trial.output),
            stop_file=str(self.stop_file),
            trial_folder=str(trial.root),
            metrics_file=str(metrics_file),
            metric=program.metric,
            metrics=tuple(each.metric for each in program.objectives),
            keep_checkpoints=program.keep_checkpoints,
            keep_steps=run.keep,
            call=program.call,
            max_resource=program.max_resource,
            config_file=str(self._config / program.config.name) if program.config else None,
            suggestion_seed=run.suggestion_seed or run.seed,
            ranks=1 if self._port is None else header.nodes * self._per_node,
            agreed_file=str(self._folder / "agreed"),
        )
        run_file = self._folder / "run.json"
        self._variables = run_variables(self.file, run_file)
        self._remove_folders()
        make_dirs(self.checkpoint_dir)
        os.makedirs(self._folder, mode=0o700)
        modules = context.modules
        if modules is not None and header.nodes > 1:
            modules = modules_folder(self._folder / "python")
        shared = shared_environment(
            context.environ, program, devices=devices, python=sys.executable, modules=modules
        )
        self._environ = shared | self._variables
        if program.has_output:
            make_dirs(trial.output)
        run_file.write_bytes(msgspec.json.encode(self.file))

    @property
    def ready(self) -> bool:
        """Whether the process can be started now: its warm process, if it has one, has ended its import."""
        return self._warm is None or not self._warm.importing

    def start(self, output: int) -> Child | None:
        """The process, which prints to this descriptor; None: the warm process was begun anew, ask `ready`.

        Raises:
            TrainerError: The command is wrong.
            OSError: It cannot be started.
            ValueError: An argument or a variable holds a null byte.
        """
        if self._warm is not None and not self._warm.why_not:
            child = self._warm.fork(self._variables, ending=self.ending, output=output)
            if child is not None:
                self.how = "a fork of the warm process"
                return child
            if not self._warm.why_not:
                return None
        if self._warm is not None:
            self.how = f"a fresh process, not a fork of the warm one: {self._warm.why_not}"
        write_config_file(self._program, self.file)
        self.argv = program_arguments(
            self._program,
            self.file,
            ending=self.ending,
            python=sys.executable,
            resumes=bool(self._program.resume_args) and self._can_resume(),
        )
        cwd = self._program.workdir
        if self._port is not None:
            return self._start_ranks(self._port, output)
        return Child(self.argv, env=self._environ, mark=RUN_VARIABLE, cwd=cwd, output=output)

    def _start_ranks(self, port: Port, output: int) -> Ranks:
        """Start the program as many times as it has ranks, on all nodes."""
        context, program, nodes = self._context, self._program, self._context.header.nodes
        plan = self._plan = RankPlan(
            launcher=program.launcher,
            nodes=nodes,
            per_node=self._per_node,
            address=context.environ.get(ADDRESS_VARIABLE) or ("127.0.0.1" if nodes == 1 else context.node),
            port=port.number,
            argv=tuple(self.argv),
            ending=str(self.ending),
            folder=str(self._folder),
            log=str(self._log),
            log_limit_mib=program.log_limit_mib,
            python=sys.executable,
            mark=f"{RUN_VARIABLE}={self._environ[RUN_VARIABLE]}",
        )
        self.how = f"{plural(plan.size, 'rank')} by {plan.launcher}, at {plan.address}:{plan.port}"
        Path(self.file.agreed_file).touch()
        argv = launcher_arguments(plan, write_plan(plan), context.environ)
        return Ranks(plan, argv, env=self._environ, mark=RUN_VARIABLE, cwd=program.workdir, output=output)

    @property
    def has_ranks(self) -> bool:
        """Whether the program was started several times, or by a launcher."""
        return self._port is not None

    def rank_failure(self) -> RankFailure | None:
        """How the rank failed that did so first; None if none did by itself."""
        return first_failure(self._folder) if self._port is not None else None

    @property
    def lost_ranks(self) -> list[int]:
        """Those of other nodes that are gone without a word."""
        return lost_ranks(self._plan) if self._plan is not None else []

    @property
    def peak_mib_elsewhere(self) -> int:
        """The most memory that the run held on another node; 0 where there is none, or nothing is known."""
        return measured_mib(self._plan) if self._plan is not None else 0

    def put_back(self) -> None:
        """Have the program find what it keeps as it is in the checkpoint that it goes on from.

        What it wrote after that, and may have torn when it was killed, is removed where the folder is its
        trial's own.
        """
        if self._program.checkpoint_path:
            own = self.kept.base == self._output or self._output in self.kept.base.parents
            restore(self.kept, self._checkpoint.path if self._checkpoint else None, remove=own)

    def _can_resume(self) -> bool:
        """Whether there is something to resume from: a checkpoint, or anything in the trial's own folder."""
        if self._checkpoint is not None:
            return True
        own = self._program.has_output and not self._program.checkpoint_path
        return own and any(os.scandir(self._output))

    def explain(self, error: Exception) -> str:
        """The message of an error of `start`."""
        if isinstance(error, TrainerError):
            return str(error)
        reason = unrunnable_reason(self.argv, workdir=self._program.workdir, environ=self._environ)
        return f"{command_line(self.argv) or self._program.function}: cannot be started: {reason or error}"

    @property
    def command(self) -> str:
        """The command as run, for the log; empty for a function."""
        return command_line(self.argv) if self._program.command is not None else ""

    @property
    def failure(self) -> ChildError:
        """How the function failed; empty where it did not, or is none."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode(self.ending.read_bytes(), type=ChildError)
        return ChildError((), "")

    @property
    def suggestions(self) -> Suggestions | None:
        """What the objective told; None where it told nothing."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode(self.file.suggestions_file.read_bytes(), type=Suggestions)
        return None

    def clean_up(self) -> None:
        """Remove what only this start needed."""
        if self._port is not None:
            self._port.close()
        self._remove_folders()

    def _remove_folders(self) -> None:
        checkpoints.remove(self.checkpoint_dir)
        checkpoints.remove(self._config)
        shutil.rmtree(self._folder, ignore_errors=True)
