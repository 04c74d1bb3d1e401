"""`python -m hpcsweep.rerun FOLDER --trial N --output DIR`: train a configuration again, from scratch.

As the sweep did it: the same code, its copy where there is one, the same seed, resource and
environment; but here, outside of the sweep, with metrics and checkpoints in a folder of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from hpcsweep.bootstrap import use_utf8
from hpcsweep.cluster.task_environment import without_launcher
from hpcsweep.core.models import Trial
from hpcsweep.core.quoting import shell_join
from hpcsweep.errors import FolderError, HpcsweepError, SpecError
from hpcsweep.session.snapshot import running_program
from hpcsweep.session.target import set_variables
from hpcsweep.spec import SweepSpec, load_spec
from hpcsweep.store import checkpoints
from hpcsweep.store.files import make_dirs
from hpcsweep.store.layout import TrialLayout
from hpcsweep.store.manifest import ManifestRun, Program, trial_seed
from hpcsweep.store.metrics import MetricsWriter, read_reports
from hpcsweep.trial import RunFile
from hpcsweep.views.folder import Folder
from hpcsweep.worker.command import program_arguments
from hpcsweep.worker.environment import run_environment
from hpcsweep.worker.objective import measure
from hpcsweep.worker.stdout_metrics import PrintedMetrics

DONE: Final = 0
NO_VALUE: Final = 1
WRONG: Final = 2
INTERRUPTED: Final = 130
#: New reports are printed so often.
LOOK_S: Final = 0.5

#: Variables that mean something only to who reports to hpcsweep.
_WITHIN: Final = ("HPCSWEEP_RUN", "HPCSWEEP_STOP_FILE")


class Rerun(msgspec.Struct, frozen=True):
    """What is to be trained again.

    Attributes:
        folder: The sweep's.
        spec: As it was launched last.
        program: How it is run here.
        trial: As the sweep knows it.
        run: From scratch to the resource of its best value; of a trial that was asked for to that of its
            highest rung that gave one, else of the one it was on.
        value: What it gave there, None if nothing.
    """

    folder: Folder
    spec: SweepSpec
    program: Program
    trial: Trial
    run: ManifestRun
    value: float | None

    @property
    def python(self) -> str:
        """The interpreter that runs trials."""
        return self.spec.cluster.python or sys.executable

    @property
    def environment(self) -> dict[str, str]:
        """Variables that the sweep sets."""
        given = set_variables(self.spec.cluster.environment)
        return {"OMP_NUM_THREADS": str(self.spec.resources.cpus), **given}

    def run_file(self, output: Path) -> RunFile:
        """What the training code is told, with all of its files in `output`."""
        trial, run = TrialLayout(output), self.run
        return RunFile(
            trial=run.trial,
            rung=run.rung,
            bracket=run.bracket,
            resource=run.resource,
            attempt=0,
            restart=0,
            seed=run.seed,
            config=run.config,
            start=0,
            resume_from=None,
            checkpoint_dir=str(trial.checkpoints / ".work"),
            stop_file=str(output / ".stop"),
            trial_folder=str(output),
            metrics_file=str(trial.metrics(run.rung, 0, 0)),
            metric=self.program.metric,
            keep_checkpoints=self.program.keep_checkpoints,
        )


def rerun_of(folder: Folder, number: int | None) -> Rerun | None:
    """How the trial is trained again, the best one if no number is given; None while there is no value.

    Raises:
        SpecError: There is no such trial.
        FolderError: The folder lacks what is needed for it.
    """
    state, layout = folder.state, folder.layout
    rung = None
    if number is None:
        if state.best is None:
            return None
        number, rung = state.best.trial, state.best.rung
    if not 0 <= number < len(state.trials):
        there = f"one of 0 to {len(state.trials) - 1}" if state.trials else "none, no trial was started yet"
        raise SpecError(f"--trial: expected {there}, got {number}")
    if not layout.spec.exists():
        raise FolderError(f"{layout.spec}: is missing: it says how trials are run; bring it back")
    spec = load_spec(layout.spec)
    trial = state.trials[number]
    told = trial.runs[rung] if rung is not None else trial.last_completed or trial.runs[-1]
    run = ManifestRun(
        trial=number,
        rung=told.rung,
        bracket=trial.bracket,
        resource=told.resource,
        attempt=0,
        seed=trial_seed(spec.searcher.seed, number),
        config=trial.config,
    )
    return Rerun(folder, spec, running_program(spec, layout), trial, run, told.value)


def arguments(rerun: Rerun, output: Path) -> list[str]:
    """What trains it with its metrics and checkpoints in `output`: this very module."""
    argv = [rerun.python, "-P", "-m", "hpcsweep.rerun", str(rerun.folder.layout.root)]
    return [*argv, "--trial", str(rerun.run.trial), "--output", str(output)]


def command_line(rerun: Rerun, output: Path, environ: Mapping[str, str]) -> str:
    """A shell line that trains it.

    For a program that only prints its own command line, in its folder and with the variables that it
    may look at. Whatever reports to hpcsweep needs what it reports to: see `arguments`.
    """
    program = rerun.program
    if program.command is None or not program.metrics:
        return shell_join(arguments(rerun, output))
    file = msgspec.structs.replace(rerun.run_file(output), checkpoint_dir=str(output / "checkpoint"))
    searched = {name: environ[name] for name in ("PYTHONPATH",) if name in environ}
    given = run_environment(
        searched | rerun.environment, file, program, run_file=output, devices=None, python=rerun.python
    )
    left_out = set(_WITHIN) | ({"PYTHONPATH"} if program.copied is None else set())
    variables = [f"{name}={value}" for name, value in sorted(given.items()) if name not in left_out]
    argv = program_arguments(program, file, ending=output, python=rerun.python)
    parts = [["mkdir", "-p", file.checkpoint_dir], ["cd", program.workdir], ["env", *variables, *argv]]
    return " && ".join(shell_join(part) for part in parts)


def train(rerun: Rerun, output: Path, environ: Mapping[str, str]) -> int:
    """Train, print reports as they come and what came of it; 0 if there is a value, else 1.

    Raises:
        SpecError: The output folder holds something.
        OSError: It cannot be written, or the program not be started.
    """
    output = output.absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SpecError(f"--output: expected a new or an empty folder, {output} is not; give another one")
    file, layout, program = rerun.run_file(output), TrialLayout(output), rerun.program
    make_dirs(Path(file.checkpoint_dir))
    told = output / "run.json"
    told.write_bytes(msgspec.json.encode(file))
    environ = run_environment(
        {**without_launcher(environ), **rerun.environment},
        file,
        program,
        run_file=told,
        devices=None,
        python=sys.executable,
    )
    argv = program_arguments(program, file, ending=output / ".ending.json", python=sys.executable)
    returncode, unread = _watched(program, argv, environ, Path(file.metrics_file))
    measured = measure(layout, rerun.run, program, restart=0, start=0).but_printed(unread)
    _keep_working_folder(Path(file.checkpoint_dir), layout, rerun.run.resource)
    for name in (".stop", ".ending.json"):
        (output / name).unlink(missing_ok=True)
    if returncode or measured.value is None:
        ended = f"training ended with exit code {returncode}" if returncode else measured.problem
        print(f"no value: {ended}; what it left is in {output}", flush=True)
        return NO_VALUE
    sweep = "" if rerun.value is None else f"; in the sweep it was {rerun.value:.6g}"
    print(f"{program.metric} {measured.value:.6g} at {rerun.run.resource}{sweep}")
    newest = checkpoints.newest(layout)
    print(f"metrics: {file.metrics_file}" + (f"\ncheckpoint: {newest.path}" if newest else ""), flush=True)
    return DONE


def _watched(program: Program, argv: list[str], environ: Mapping[str, str], metrics: Path) -> tuple[int, str]:
    """Run it to its end; its exit code, and why its metric has no value although it was printed."""
    child = subprocess.Popen(
        argv,
        cwd=program.workdir,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if program.metrics else None,
        stderr=subprocess.STDOUT if program.metrics else None,
    )
    try:
        if child.stdout is not None:
            unread = _read_along(program, child.stdout.fileno(), metrics)
            return child.wait(), unread
        shown = 0
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(LOOK_S)
            reports = list(read_reports(metrics))
            for report in reports[shown:]:
                values = " ".join(f"{name}={value:.6g}" for name, value in report.metrics.items())
                print(f"step {report.step}: {values}", flush=True)
            shown = len(reports)
            if child.returncode is not None:
                return child.returncode, ""
    except BaseException:
        child.terminate()
        child.wait()
        raise


def _read_along(program: Program, output: int, metrics: Path) -> str:
    """Print what the program prints, and look for metrics in it; why the objective could not be read."""
    writer = MetricsWriter(metrics)
    printed = PrintedMetrics(program.metrics, start=0, report=writer.write)
    while data := os.read(output, 1 << 16):
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        printed.feed(data)
    printed.finish()
    writer.close()
    return printed.problem(program.metric)


def _keep_working_folder(folder: Path, layout: TrialLayout, step: int) -> None:
    """Make what a program left in its working folder the checkpoint of the last step."""
    if any(folder.iterdir()) and checkpoints.newest(layout, at_most=step) is None:
        checkpoints.seal(layout, step, folder)
    else:
        checkpoints.remove(folder)


def main(arguments: list[str]) -> int:
    """Train; 0 if it gave a value, 1 if not, 2 if it was asked wrongly."""
    parser = argparse.ArgumentParser(
        prog="python -m hpcsweep.rerun", description="Train a configuration of a sweep again, from scratch."
    )
    parser.add_argument("folder", type=Path, help="the results folder")
    parser.add_argument("--trial", type=int, default=None, help="its number; default: the best")
    parser.add_argument("--output", type=Path, required=True, help="a new folder for metrics and checkpoints")
    request = parser.parse_args(arguments)
    try:
        rerun = rerun_of(Folder(request.folder), request.trial)
        if rerun is None:
            print(f"hpcsweep: {request.folder}: no run has given a value yet", file=sys.stderr)
            return NO_VALUE
        return train(rerun, request.output, os.environ)
    except (HpcsweepError, OSError) as error:
        print(f"hpcsweep: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    use_utf8()
    sys.exit(main(sys.argv[1:]))
