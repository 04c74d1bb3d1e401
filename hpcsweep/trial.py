"""The trial as training code sees it: configuration, steps, reports and checkpoints.

A training function gets a `Trial` as its argument; a script calls `current_trial()`:

    def train(trial):
        model = build(trial.config)
        if trial.resume_from:
            load(model, trial.resume_from / "model.pt")
        for step in trial.steps():                 # first unfinished step .. resource
            error = train_one_epoch(model)
            trial.report(step, val_error=error)
            with trial.checkpoint(step) as folder:
                save(model, folder / "model.pt")

Steps count from 1; after step `n` the trial has been trained for resource `n`. Other languages find the
same in the environment and report with `python -m hpcsweep.trial --step 3 val_error=0.12 [--checkpoint]`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from hpcsweep.errors import HpcsweepError
from hpcsweep.store import checkpoints
from hpcsweep.store.files import make_dirs, retry_once
from hpcsweep.store.layout import TrialLayout
from hpcsweep.store.run_files import (
    MetricsWriter,
    RunFile,
    check_metric_name,
    check_step,
    read_run_file,
    to_number,
)
from hpcsweep.store.stop_agreement import StopAgreement

#: The first that holds a number is this process's rank. Launchers come before
#: SLURM_PROCID, which is 0 in every process that mpirun or torchrun started inside one Slurm task.
_RANK_VARIABLES = ("RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")


class Parameters(dict[str, Any]):
    """A configuration: a dict whose KeyError names the parameters there are."""

    def __missing__(self, name: str) -> Any:
        raise KeyError(
            f"this trial has no parameter {name!r}; it has {', '.join(self) or 'none'}. A parameter that is "
            f"not active in a configuration is absent: use config.get({name!r}, default)"
        )


class Trial:
    """One run of one configuration.

    Attributes:
        id: The trial's number in the sweep.
        config: Its parameters by name; inactive ones are absent.
        resource: The last step to train.
        rung: The rung of its bracket that this run is for, from 0.
        bracket: Its bracket.
        seed: For this trial's random numbers; the same in each of its runs.
        attempt: Which submission of this run it is, from 0; a requeue by the cluster keeps it.
        resume_from: Folder of the checkpoint to resume from; None: from scratch.
        start: Step of that checkpoint, 0 from scratch.
        checkpoint_dir: Working folder; what is in it when training ends well becomes the checkpoint of
            the last step, unless `checkpoint` made that one. None outside a sweep.
        rank: Of this process in a multi-process training. Only rank 0 reports and checkpoints.
        metric: Name of the objective, the first one of several. None outside a sweep: any name will do.
        metrics: Names of all objectives.
    """

    def __init__(self, run: RunFile, *, rank: int) -> None:
        self.id = run.trial
        self.config: dict[str, Any] = Parameters(run.config)
        self.resource = run.resource
        self.rung = run.rung
        self.bracket = run.bracket
        self.seed = run.seed
        self.attempt = run.attempt
        self.resume_from = Path(run.resume_from) if run.resume_from else None
        self.start = run.start
        self.checkpoint_dir: Path | None = Path(run.checkpoint_dir) if run.checkpoint_dir else None
        self.rank = rank
        self.metric: str | None = run.metric
        self.metrics: tuple[str, ...] = run.metrics or (run.metric,)
        self._run = run
        self._stop_seen = False
        self._yielded: int | None = None
        self._reported: int | None = None
        self._metrics: MetricsWriter | None = None
        self._agreement: StopAgreement | None = None
        if run.ranks > 1:
            path = Path(run.agreed_file)
            self._agreement = StopAgreement(path, rank=rank, told=lambda: self.told_to_stop)

    def __repr__(self) -> str:
        return f"<Trial {self.id} rung {self.rung}: steps {self.start + 1}..{self.resource}, {self.config}>"

    @property
    def output_dir(self) -> Path | None:
        """A folder of the trial's own, which stays for all its runs; None where there is none."""
        if not self._run.output_dir:
            return None
        folder = Path(self._run.output_dir)
        make_dirs(folder)
        return folder

    @property
    def should_stop(self) -> bool:
        """Whether to checkpoint and leave now: the job is preempted, out of time or cancelled.

        Once true it stays true. With `train.launcher` all processes of the run call it equally often, and for
        all of them it becomes true at the same call.
        """
        return self.told_to_stop if self._agreement is None else self._agreement.leaves_now()

    @property
    def told_to_stop(self) -> bool:
        """As `should_stop`, but of several processes of a run one may know it before another."""
        if not self._stop_seen and self._run.stop_file:
            self._stop_seen = os.path.exists(self._run.stop_file)
        return self._stop_seen

    def steps(self) -> Iterator[int]:
        """The steps left to train, `start + 1` to `resource`; ends early when told to stop.

        With `train.launcher` it ends for all processes of the run after the same step, which is the one after
        that in which they are told.
        """
        self._yielded = self.start
        for step in range(self.start + 1, self.resource + 1):
            agreed = self._agreement
            if self.told_to_stop if agreed is None else agreed.leaves_before(step):
                return
            self._yielded = step
            yield step

    def report(self, step: int, **metrics: float) -> None:
        """Record the metrics of one step; they are in the results folder when this returns.

        Values are numbers with a `float()` or `.item()`, NaN and infinities included. A step may be
        reported several times: the last value of each metric counts. Steps beyond `resource` are recorded,
        but do not count for this run's value.

        Raises:
            TypeError: The step is not an integer, or a metric is not a number.
            ValueError: The step is negative, or there is no metric.
        """
        self._record(step, metrics)

    def _record(self, step: int, metrics: Mapping[Any, object]) -> None:
        step = check_step(step)
        if not metrics:
            raise ValueError(
                f"report({step}): name at least one metric, as in report({step}, val_error=0.12)"
            )
        values = {check_metric_name(name): to_number(name, value) for name, value in metrics.items()}
        if self.rank == 0:
            self._reported = max(step, self._reported or 0)
            self._write(step, values)

    def _write(self, step: int, values: dict[str, float]) -> None:
        if self._metrics is None:
            self._metrics = MetricsWriter(Path(self._run.metrics_file))
        writer = self._metrics
        retry_once(lambda: writer.write(step, values))

    @contextlib.contextmanager
    def checkpoint(self, step: int) -> Iterator[Path]:
        """Give an empty folder; when the block ends it is the checkpoint of `step`, complete and durable.

        If the block raises or anything is killed, the checkpoint is absent and the previous one is used.
        Older checkpoints are removed. On any rank but 0 the folder is discarded: gather the state on rank
        0.

        Raises:
            TypeError: The step is not an integer.
            ValueError: The step is negative.
        """
        step = check_step(step)
        if self.rank != 0:
            with _scratch() as folder:
                yield folder
            return
        layout = TrialLayout(Path(self._run.trial_folder))
        with checkpoints.new_checkpoint(layout, step, owner=self._run.owner) as folder:
            yield folder
        checkpoints.prune(layout, keep=self._run.keep_checkpoints, steps=self._run.keep_steps)

    def finish(self, returned: object) -> None:
        """Report what a training function returned: a number, a dict of them, or one for each objective.

        The step is the last one that `steps()` gave, or `resource` if it was not used.

        Raises:
            TypeError: It returned something else.
            ValueError: It returned an empty dict, or not as many numbers as there are objectives.
        """
        if isinstance(returned, Mapping):
            self._record(self._last_step(), returned)
        elif isinstance(returned, tuple | list) and self._run.metrics:
            if len(returned) != len(self._run.metrics):
                expected = f"a number for each objective: {', '.join(self._run.metrics)}"
                raise ValueError(f"training returned {len(returned)} values; expected {expected}")
            self._record(self._last_step(), dict(zip(self._run.metrics, returned, strict=True)))
        elif returned is not None:
            self._record(self._last_step(), {self._run.metric: returned})

    def _last_step(self) -> int:
        if self._yielded is not None:
            return max(self._yielded, self.start)
        if self.told_to_stop:  # it left early by itself: how far it came only its reports say
            return self._reported if self._reported is not None else self.start
        return self.resource


class StandaloneTrial(Trial):
    """A trial outside any sweep: prints reports, and keeps checkpoints in a local folder or not at all."""

    def __init__(self, run: RunFile, *, rank: int) -> None:
        super().__init__(run, rank=rank)
        self.metric, self.metrics = None, ()

    def _write(self, step: int, values: dict[str, float]) -> None:
        print(f"step {step}: " + ", ".join(f"{name}={value:g}" for name, value in values.items()), flush=True)

    @contextlib.contextmanager
    def checkpoint(self, step: int) -> Iterator[Path]:
        """As in a sweep if there is a folder; else a folder that is discarded."""
        if self._run.trial_folder:
            with super().checkpoint(step) as folder:
                yield folder
        else:
            check_step(step)
            with _scratch() as folder:
                yield folder


def current_trial(
    config: Mapping[str, Any] | None = None,
    /,
    *,
    resource: int = 1,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    **parameters: Any,
) -> Trial:
    """The trial that this process was started for; the same object each time.

    Outside a sweep it is a stand-alone trial made of the arguments, so that a script also runs by hand;
    inside a sweep they are ignored.

    Args:
        config: Parameters of the stand-alone trial; more as keywords, as in `current_trial(lr=0.1)`.
        resource: How many steps it trains.
        seed: Its seed.
        folder: Where it keeps its checkpoints, and finds them again; None: nowhere.
        **parameters: Parameters by name.
    """
    global _current
    path = os.environ.get("HPCSWEEP_RUN")
    if not path:
        return _standalone({**(config or {}), **parameters}, resource=resource, seed=seed, folder=folder)
    if _current is None or _current[0] != path:
        trial = Trial(read_run_file(path), rank=current_rank(os.environ))
        _listen(trial)
        _current = path, trial
    return _current[1]


_current: tuple[str, Trial] | None = None


def current_rank(environ: Mapping[str, str]) -> int:
    """Rank of this process in a multi-process training, 0 if it is alone."""
    for name in _RANK_VARIABLES:
        if environ.get(name, "").isdecimal():
            return int(environ[name])
    return 0


def _standalone(
    config: dict[str, Any], *, resource: int, seed: int, folder: str | os.PathLike[str] | None
) -> StandaloneTrial:
    checkpoint = None
    if folder is not None:
        layout = TrialLayout(Path(folder).absolute())
        make_dirs(layout.checkpoints)
        checkpoint = checkpoints.newest(layout, at_most=resource)
    run = RunFile(
        trial=0,
        rung=0,
        bracket=0,
        resource=resource,
        attempt=0,
        restart=0,
        seed=seed,
        config=config,
        start=checkpoint.step if checkpoint else 0,
        resume_from=str(checkpoint.path) if checkpoint else None,
        checkpoint_dir="",
        stop_file="",
        trial_folder=str(Path(folder).absolute()) if folder is not None else "",
        output_dir=str(TrialLayout(Path(folder).absolute()).output) if folder is not None else "",
        metrics_file="",
        metric="value",
    )
    return StandaloneTrial(run, rank=current_rank(os.environ))


def _listen(trial: Trial) -> None:
    """Make SIGUSR2 and SIGTERM set the stop flag instead of killing this process.

    Only if nobody else handles them, and only in this process: what it forks (a data loader's workers) dies
    of SIGTERM as usual, since its parent may have no other way to end it.
    """
    if threading.current_thread() is not threading.main_thread():
        return

    def raise_flag(signum: int, frame: FrameType | None) -> None:
        trial._stop_seen = True
        with contextlib.suppress(OSError):  # the file tells the other processes of this training
            os.close(os.open(trial._run.stop_file, os.O_WRONLY | os.O_CREAT, 0o644))

    taken = [n for n in (signal.SIGUSR2, signal.SIGTERM) if signal.getsignal(n) is signal.SIG_DFL]
    for signum in taken:
        signal.signal(signum, raise_flag)

    # Python forgets a signal that comes to a forked process before its handlers are put back, so
    # none may come until then.
    masks = threading.local()

    def hold() -> None:
        masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, taken)

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

    def restore() -> None:
        for signum in taken:
            if signal.getsignal(signum) is raise_flag:
                signal.signal(signum, signal.SIG_DFL)
        release()

    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=restore)


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="hpcsweep-checkpoint-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(arguments: list[str]) -> int:
    """Report from any language: `--step 3 val_error=0.12 [--checkpoint]`; 2 for wrong arguments."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m hpcsweep.trial",
        description="Report the metrics of one step of the present trial, and keep its checkpoint.",
    )
    parser.add_argument("--step", type=int, required=True, help="the step just finished, counted from 1")
    parser.add_argument(
        "--checkpoint",
        action="store_true",
        help="move the present content of $HPCSWEEP_CHECKPOINT_DIR into the checkpoint of this step",
    )
    parser.add_argument("metrics", nargs="*", metavar="NAME=NUMBER")
    request = parser.parse_args(arguments)
    values: dict[str, float] = {}
    for text in request.metrics:
        name, equals, number = text.partition("=")
        try:
            values[name] = float(number)
        except ValueError:
            equals = ""
        if not (name and equals):
            parser.error(f"{text!r} is not NAME=NUMBER, as in val_error=0.12")
    if not (values or request.checkpoint):
        parser.error("nothing to do: give NAME=NUMBER, --checkpoint or both")
    try:
        trial = current_trial()
        if values:
            trial._record(request.step, values)
        if request.checkpoint:
            _commit_working_folder(trial, request.step)
    except (HpcsweepError, OSError, ValueError, TypeError) as error:
        print(f"hpcsweep.trial: {error}", file=sys.stderr)
        return 2
    return 0


def _commit_working_folder(trial: Trial, step: int) -> None:
    """Make the content of the working folder the checkpoint of `step`; the folder is empty again."""
    folder = trial.checkpoint_dir
    if folder is None or trial.rank != 0:
        return
    layout = TrialLayout(Path(trial._run.trial_folder))
    checkpoints.commit(layout, check_step(step), folder)
    make_dirs(folder)
    checkpoints.prune(layout, keep=trial._run.keep_checkpoints, steps=trial._run.keep_steps)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
