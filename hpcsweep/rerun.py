"""`python -m hpcsweep.rerun FOLDER --trial N --output DIR`: train a configuration again, from scratch.

With the sweep's code (its snapshot where there is one), seed, resource and environment, but here,
outside of the sweep, with metrics and checkpoints in a folder of its own.
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
from hpcsweep.core.run_resources import RunContext
from hpcsweep.core.text import shell_join
from hpcsweep.errors import FolderError, HpcsweepError, SpecError
from hpcsweep.session.preparation import running_program
from hpcsweep.session.target import set_variables
from hpcsweep.spec import SweepSpec, load_spec
from hpcsweep.store import checkpoints
from hpcsweep.store.batch import ManifestRun, Program, trial_seed
from hpcsweep.store.files import make_dirs
from hpcsweep.store.layout import TrialLayout
from hpcsweep.store.run_files import MetricsWriter, RunFile, read_reports
from hpcsweep.views.folder import ResultsFolder, check_trial
from hpcsweep.worker.command import placeholder_values, program_arguments, run_environment, write_config_file
from hpcsweep.worker.metrics.program import ProgramMetrics
from hpcsweep.worker.outcome import read_objective

DONE: Final = 0
NO_VALUE: Final = 1
WRONG: Final = 2
INTERRUPTED: Final = 130
#: Interval at which new reports are printed.
POLL_S: Final = 0.5

#: Variables that only code which reports to hpcsweep reads.
_ONLY_FOR_TRIALS: Final = ("HPCSWEEP_RUN", "HPCSWEEP_STOP_FILE")


class RerunPlan(msgspec.Struct, frozen=True):
    """What is trained again, and how."""

    folder: ResultsFolder
    spec: SweepSpec
    program: Program
    trial: Trial
    #: From scratch to the resource of the best value; for a trial named by the user, to that of its
    #: highest rung with a value, else of its last rung.
    run: ManifestRun
    value: float | None  # in the sweep
    values: tuple[float, ...] = ()  # with several objectives

    @property
    def python(self) -> str:
        """The interpreter that runs trials."""
        return self.spec.cluster.python or sys.executable

    @property
    def environment(self) -> dict[str, str]:
        """Variables that the sweep sets."""
        given = set_variables(self.spec.cluster.environment)
        run = RunContext(self.run.config, self.run.resource, rung=self.run.rung)
        return {"OMP_NUM_THREADS": str(self.spec.run_resources.of(run).cpus), **given}

    def run_file(self, output: Path) -> RunFile:
        """The run file for the training code, with all of its files in `output`."""
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
            output_dir=str(trial.output),
            stop_file=str(output / ".stop"),
            trial_folder=str(output),
            metrics_file=str(trial.metrics(run.rung, 0, 0)),
            metric=self.program.metric,
            metrics=tuple(each.metric for each in self.program.objectives),
            keep_checkpoints=self.program.keep_checkpoints,
            call=self.program.call,
            max_resource=self.program.max_resource,
            config_file=str(output / self.program.config.name) if self.program.config else None,
        )


def plan_rerun(folder: ResultsFolder, number: int | None) -> RerunPlan | None:
    """How the trial is trained again, by default the best one; None if no trial has a value yet."""
    state, layout = folder.state, folder.layout
    rung = None
    if number is None:
        if state.best is None:
            return None
        number, rung = state.best.trial, state.best.rung
    check_trial(state, number, argument="--trial")
    if not layout.spec.exists():
        raise FolderError(f"{layout.spec}: is missing: it tells how trials are run; bring it back")
    spec = load_spec(layout.spec, stored=True)
    if spec.train.launcher != "none":
        raise SpecError(
            f"--rerun: a run is several processes (train.launcher: {spec.train.launcher}), which only a task "
            "starts: launch a sweep of another name with this configuration in `enqueue` and budget.trials: 1"
        )
    trial = state.trials[number]
    last = trial.runs[rung] if rung is not None else trial.last_completed or trial.runs[-1]
    run = ManifestRun(
        trial=number,
        rung=last.rung,
        bracket=trial.bracket,
        resource=last.resource,
        attempt=0,
        seed=trial_seed(spec.searcher.seed, number),
        config=trial.config,
    )
    return RerunPlan(folder, spec, running_program(spec, layout), trial, run, last.value, last.values)


def arguments(plan: RerunPlan, output: Path) -> list[str]:
    """The command that trains it by this module, with metrics and checkpoints in `output`."""
    argv = [plan.python, "-P", "-m", "hpcsweep.rerun", str(plan.folder.layout.root)]
    return [*argv, "--trial", str(plan.run.trial), "--output", str(output)]


def shell_command(plan: RerunPlan, output: Path, environ: Mapping[str, str]) -> str:
    """A shell command that trains it: a program that only prints directly, other code by `arguments`."""
    program = plan.program
    direct = program.metrics and not program.metric_files and program.config is None
    if program.command is None or not direct:
        return shell_join(arguments(plan, output))
    file = msgspec.structs.replace(plan.run_file(output), checkpoint_dir=str(output / "checkpoint"))
    searched = {name: environ[name] for name in ("PYTHONPATH",) if name in environ}
    given = run_environment(
        searched | plan.environment, file, program, run_file=output, devices=None, python=plan.python
    )
    left_out = set(_ONLY_FOR_TRIALS) | ({"PYTHONPATH"} if program.snapshot is None else set())
    variables = [f"{name}={value}" for name, value in sorted(given.items()) if name not in left_out]
    argv = program_arguments(program, file, ending=output, python=plan.python)
    folders = [file.checkpoint_dir, *([file.output_dir] if program.has_output else [])]
    parts = [["mkdir", "-p", *folders], ["cd", program.workdir], ["env", *variables, *argv]]
    return " && ".join(shell_join(part) for part in parts)


def train(plan: RerunPlan, output: Path, environ: Mapping[str, str]) -> int:
    """Train, printing reports as they come, then the result; 0 if there is a value, else 1."""
    output = output.absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SpecError(f"--output: expected a new or an empty folder, {output} is not; give another one")
    file, layout, program = plan.run_file(output), TrialLayout(output), plan.program
    make_dirs(Path(file.checkpoint_dir))
    if program.has_output:
        make_dirs(Path(file.output_dir))
    run_file = output / "run.json"
    run_file.write_bytes(msgspec.json.encode(file))
    environ = run_environment(
        {**without_launcher(environ), **plan.environment},
        file,
        program,
        run_file=run_file,
        devices=None,
        python=sys.executable,
    )
    write_config_file(program, file)
    argv = program_arguments(program, file, ending=output / ".ending.json", python=sys.executable)
    writer = MetricsWriter(Path(file.metrics_file))
    values = placeholder_values(program, file, python=sys.executable)
    metrics = ProgramMetrics(program, values, writer.write, start=0, resource=plan.run.resource)
    returncode = _run_training(program, argv, environ, writer.path, metrics)
    writer.close()
    reading = read_objective(layout, plan.run, program, restart=0, start=0, seen=metrics.seen())
    reading = reading.with_problem(metrics.problem())
    _checkpoint_working_folder(Path(file.checkpoint_dir), layout, plan.run.resource)
    for name in (".stop", ".ending.json"):
        (output / name).unlink(missing_ok=True)
    if returncode or reading.value is None:
        problem = f"training ended with exit code {returncode}" if returncode else reading.problem
        print(f"no value: {problem}; its output is in {output}", flush=True)
        return NO_VALUE
    sweep = "" if plan.value is None else f"; in the sweep it was {plan.value:.6g}"
    pairs = zip(program.measured.metrics, reading.values or (reading.value,), strict=True)
    found = ", ".join(f"{metric} {value:.6g}" for metric, value in pairs)
    print(f"{found} at {plan.run.resource}{sweep}")
    newest = checkpoints.newest(layout)
    print(f"metrics: {file.metrics_file}" + (f"\ncheckpoint: {newest.path}" if newest else ""), flush=True)
    return DONE


def _run_training(
    program: Program, argv: list[str], environ: Mapping[str, str], path: Path, metrics: ProgramMetrics
) -> int:
    """Run it to its end, showing the reports in `path` as they come; its exit code."""
    metrics.begin()
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
            _tee_output(child.stdout.fileno(), metrics)
        shown = 0
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(POLL_S)
            if child.returncode is None:
                metrics.poll()
            else:
                metrics.finish(whole=child.returncode == 0)
            if not program.metrics:
                shown = _show_reports(path, shown)
            if child.returncode is not None:
                return child.returncode
    except BaseException:
        child.terminate()
        child.wait()
        raise


def _show_reports(path: Path, shown: int) -> int:
    """Print the reports after the first `shown`; how many there are now."""
    reports = list(read_reports(path))
    for report in reports[shown:]:
        values = " ".join(f"{name}={value:.6g}" for name, value in report.metrics.items())
        print(f"step {report.step}: {values}", flush=True)
    return len(reports)


def _tee_output(output: int, metrics: ProgramMetrics) -> None:
    """Print what the program prints, and parse metrics from it."""
    while data := os.read(output, 1 << 16):
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        metrics.feed(data)
        metrics.poll()


def _checkpoint_working_folder(folder: Path, layout: TrialLayout, step: int) -> None:
    """Make the files in a program's working folder the checkpoint of the last step."""
    if any(folder.iterdir()) and checkpoints.newest(layout, at_most=step) is None:
        checkpoints.commit(layout, step, folder)
    else:
        checkpoints.remove(folder)


def main(arguments: list[str]) -> int:
    """Train; 0 if there is a value, 1 if not, 2 if the arguments are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m hpcsweep.rerun", description="Train a configuration of a sweep again, from scratch."
    )
    parser.add_argument("folder", type=Path, help="the results folder")
    parser.add_argument("--trial", type=int, default=None, help="its number; default: the best")
    parser.add_argument("--output", type=Path, required=True, help="a new folder for metrics and checkpoints")
    request = parser.parse_args(arguments)
    try:
        plan = plan_rerun(ResultsFolder(request.folder), request.trial)
        if plan is None:
            print(f"hpcsweep: {request.folder}: no run has given a value yet", file=sys.stderr)
            return NO_VALUE
        return train(plan, request.output, os.environ)
    except (HpcsweepError, OSError) as error:
        print(f"hpcsweep: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    use_utf8()
    sys.exit(main(sys.argv[1:]))
