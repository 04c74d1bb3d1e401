"""`Sweep`: a sweep from Python, by the same spec, folder and journal as from the command line.

This module is imported by training code as well, whose jobs load no more than it: whatever reads a spec or
drives a sweep is imported where it is used.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Unpack

from hpcsweep import bootstrap
from hpcsweep.api.data import merged, moved, objects_of
from hpcsweep.api.function import default_name, function_name, train_section
from hpcsweep.api.objects import Budget, Objective, Resources, Retries, Store, Train
from hpcsweep.api.parts import (
    AnyCluster,
    Part,
    Scheduler,
    Searcher,
    StoppingRule,
    plain,
    python,
)
from hpcsweep.api.running import printing, refuse_in_a_job, tell_outcome
from hpcsweep.api.submitit import SubmititParameters, submitit_sections
from hpcsweep.errors import SpecError

if TYPE_CHECKING:
    from hpcsweep.core.protocols import SchedulerPlan
    from hpcsweep.spec import SweepSpec
    from hpcsweep.trial import Trial
    from hpcsweep.views.results import Results

#: What messages call a sweep that is of no file.
SOURCE: Final = "hs.Sweep"


class Plan:
    """What a sweep would do and cost.

    Attributes:
        text: As `hpcsweep plan` prints it; `print(plan)` shows it.
        scheduler: Brackets, rungs and numbers of trials.
        wall_s: Seconds from the first run to the last, waits in the queue left out; None while unknown.
    """

    def __init__(self, text: str, scheduler: SchedulerPlan, wall_s: float | None = None) -> None:
        self.text = text
        self.scheduler = scheduler
        self.wall_s = wall_s

    def __repr__(self) -> str:
        return self.text


def _objectives(given: Any) -> Any:
    """What was given, with an `Objective` in the place of each mere name."""
    if isinstance(given, str):
        return Objective(given)
    return [_objectives(each) for each in given] if isinstance(given, list | tuple) else given


class Sweep:
    """A search, from Python. Each argument is the key of a sweep file with the same name.

    Paths are relative to the working directory, where training code runs, too. Nothing is written or
    submitted before `launch`. What a file says as text, a mapping or a list may be given as that as well.

    Args:
        train: A function of a module that takes a `Trial`; or a command with placeholders such as `{lr}`,
            as text or as a list of its arguments; or `Train(...)`. None: you train what `ask` gives.
        space: The parameters by name: `Float(...)` and its like. A list is a choice, any other value a
            constant.
        objective: The metric to minimise, or `Objective(...)`; or a list of several.
        constraints: Expressions over parameters that every configuration must satisfy.
        searcher: Proposes configurations; a name or an object such as `TPE(seed=1)`.
        scheduler: Decides which trials start, go on and stop; such as `Hyperband(max_resource=27)`.
        stop: Rules that stop running trials early.
        repeats: Trainings of each configuration.
        enqueue: Configurations to try first.
        warm_start: Earlier results that the searcher learns from: results folders, those of Ray Tune, studies
            of Optuna (journal or SQLite file), CSV files.
        resources: Resources of one run.
        cluster: Where it runs: `Slurm(...)`, `PBS(...)`, `Local(...)`, or `Cluster(...)` for whichever is
            there.
        budget: Limits of the whole sweep.
        retries: How often a failed or interrupted run is repeated.
        store: Limits of what it keeps on disk.
        name: Its name. Default: that of the training code.
        folder: The results folder. Default: `results/<name>`.
        **submitit: Submitit's parameters, such as `timeout_min=60, gpus_per_node=1, slurm_partition="gpu"`.

    Raises:
        SpecError: It is not valid; lists all problems.
    """

    def __init__(
        self,
        train: Callable[..., object] | str | Sequence[str] | Train | Mapping[str, Any] | None,
        space: Mapping[str, Any],
        objective: str | Objective | Mapping[str, Any] | Sequence[str | Objective | Mapping[str, Any]],
        *,
        constraints: Sequence[str] = (),
        searcher: str | Searcher | Mapping[str, Any] = "auto",
        scheduler: str | Scheduler | Mapping[str, Any] = "fifo",
        stop: str | StoppingRule | Mapping[str, Any] | Sequence[str | StoppingRule | Mapping[str, Any]] = (),
        repeats: int = 1,
        enqueue: Sequence[Mapping[str, Any]] = (),
        warm_start: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
        resources: Resources | Mapping[str, Any] | None = None,
        cluster: str | AnyCluster | Mapping[str, Any] | None = None,
        budget: Budget | Mapping[str, Any] | None = None,
        retries: Retries | Mapping[str, Any] | None = None,
        store: Store | Mapping[str, Any] | None = None,
        name: str | None = None,
        folder: str | os.PathLike[str] | None = None,
        **submitit: Unpack[SubmititParameters],
    ) -> None:
        required = {
            "train": train,
            "objective": _objectives(objective),
            "space": space,
        }
        given = {
            "constraints": list(constraints),
            "searcher": searcher,
            "scheduler": scheduler,
            "stop": stop,
            "repeats": repeats,
            "enqueue": list(enqueue),
            "warm_start": warm_start,
            "resources": resources,
            "cluster": {"name": cluster} if isinstance(cluster, str) else cluster,
            "budget": budget,
            "retries": retries,
            "store": store,
        }
        defaults = {"searcher": "auto", "scheduler": "fifo", "repeats": 1}
        self._given = required | {
            key: value
            for key, value in given.items()
            if value is not None and value not in ((), []) and value != defaults.get(key)
        }
        self._submitit: Mapping[str, Any] = submitit
        self._name = name
        self._folder = None if folder is None else Path(folder)
        self._base = Path.cwd()
        self._source = SOURCE
        if not bootstrap.importing:  # a job that imports this needs none of it
            _ = self.spec

    @classmethod
    def from_yaml(
        cls,
        path: str | os.PathLike[str],
        *,
        overrides: Sequence[str] = (),
        folder: str | os.PathLike[str] | None = None,
    ) -> Sweep:
        """The sweep of a sweep file, as `hpcsweep launch` would start it.

        Args:
            path: The file.
            overrides: `key.path=value` texts, as after `--set`.
            folder: The results folder. Default: `results/<name>`.

        Raises:
            SpecError: It is not valid; lists all problems.
        """
        from hpcsweep.spec.load import load_spec
        from hpcsweep.spec.yaml_io import apply_overrides, read_yaml

        path = Path(path)
        spec = load_spec(path, overrides)
        data = read_yaml(path)
        apply_overrides(data, overrides)
        sweep = cls.__new__(cls)
        sweep._name = data.pop("name", None) or spec.name
        sweep._given = objects_of(data)
        sweep._submitit = {}
        sweep._folder = None if folder is None else Path(folder)
        sweep._base = Path(os.path.abspath(path)).parent
        sweep._source = str(path)
        sweep.__dict__["spec"] = spec
        return sweep

    # ------------------------------------------------------------------ the spec

    @cached_property
    def _data(self) -> dict[str, Any]:
        """The spec as YAML has it, without what is the default anyway."""
        train = self._given.get("train")
        section: dict[str, Any] = {}
        if not isinstance(train, Part | Mapping):
            section = train_section(train)
        else:
            for key, value in plain(train).items():
                code = key in ("function", "command") and not isinstance(value, str)
                section |= train_section(value) if code else {key: value}
        more = submitit_sections(self._submitit, others=list(inspect.signature(Sweep).parameters)[:-1])
        data = merged({**plain(self._given), "train": section}, more)
        name = data.pop("name", None)
        return {"name": self._name or name or default_name(section), **data}

    @cached_property
    def spec(self) -> SweepSpec:
        """The valid spec with all defaults, and with absolute paths."""
        from hpcsweep.spec.load import read_spec

        try:
            data = self._data
        except SpecError as error:
            raise type(error)(*(f"{self._source}: {problem}" for problem in error.problems)) from None
        return read_spec(data, source=self._source, folder=self._base)

    @property
    def name(self) -> str:
        """Of the sweep, its jobs and its results folder."""
        return self.spec.name

    @property
    def folder(self) -> Path:
        """The results folder."""
        return Path("results") / self.spec.name if self._folder is None else self._folder

    def to_yaml(self, path: str | os.PathLike[str] | None = None) -> str:
        """The sweep as the text of a sweep file, which is written to `path` where that is given.

        Paths become relative to the file where they lie in its folder, else absolute.

        Raises:
            SpecError: It is not valid.
        """
        from hpcsweep.spec.load import KEYS
        from hpcsweep.spec.yaml_io import dump_yaml

        folder = self._base if path is None else Path(os.path.abspath(path)).parent
        data = moved(self._data, self.spec, base=self._base, folder=folder)
        text = dump_yaml({key: data[key] for key in KEYS if key in data})
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sweep) and self.spec == other.spec

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """The expression that makes it, after `import hpcsweep as hs`."""
        given = dict(self._given)
        train, space, objective = (given.pop(key) for key in ("train", "space", "objective"))
        if callable(train):
            train = function_name(train)
        first = [python(train), python(space), python(objective)]
        more = {**given, "name": self._name, "folder": self._folder and str(self._folder), **self._submitit}
        named = [f"{key}={python(value)}" for key, value in more.items() if value is not None]
        return "hs.Sweep(\n" + "".join(f"    {argument},\n" for argument in [*first, *named]) + ")"

    # ------------------------------------------------------------------ what it does

    def plan(self, *, seconds_per_step: float | None = None, startup: float = 0.0) -> Plan:
        """What the sweep would do and cost, as `hpcsweep plan` shows it. Submits nothing.

        Args:
            seconds_per_step: What a step of training takes, for the wall time; else earlier runs or limits
                tell.
            startup: Seconds that each run takes beside its steps.

        Raises:
            SpecError: It cannot run.
        """
        from hpcsweep.cli.plan import print_plan
        from hpcsweep.cli.plan_time import StatedPace
        from hpcsweep.session.session import Session

        refuse_in_a_job("plan", self.folder)
        out = io.StringIO()
        with contextlib.redirect_stdout(out), printing(self.spec):
            pace = None if seconds_per_step is None else StatedPace(seconds_per_step, startup)
            found = print_plan(Session(self.spec, self.folder), self._source, pace=pace)
        return Plan(out.getvalue(), *found)

    def launch(self, *, detach: bool = False, once: bool = False, quiet: bool = False) -> Results:
        """Start the sweep, or carry it on, and stay with it until it ends.

        Ctrl-C (KeyboardInterrupt) leaves its jobs running; `launch` again carries on, also in another
        process, and so does `hpcsweep launch` with the same spec and folder.

        Args:
            detach: Submit and return at once: from here on the jobs drive the sweep.
            once: Return after one tick.
            quiet: Print nothing.

        Returns:
            The results so far.

        Raises:
            SpecError: It is not valid, or cannot run; nothing was submitted.
            FolderError: The results folder cannot be used, or is of another sweep.
            ClusterError: The cluster did not do what was asked.
            SweepFailed: It has ended or paused without any value.
        """
        from hpcsweep.cli.launch import Interrupted, Mode, check_and_drive, tell_slow
        from hpcsweep.session.session import Session
        from hpcsweep.session.target import tell_slow_programs

        refuse_in_a_job("launch", self.folder)
        if self._given["train"] is None:
            raise SpecError(f"{self._source}: launch: the sweep has no training code: ask for its runs")
        mode: Mode = "detach" if detach else "once" if once else "stay"
        session = Session.for_launch(self.spec, self.folder)
        try:
            with printing(self.spec), tell_slow_programs(tell_slow):
                state = check_and_drive(session, self._source, mode=mode, quiet=quiet)
                tell_outcome(session, state, quiet=quiet, detach=detach)
        except Interrupted as interrupted:
            if not quiet:
                print("\nInterrupted; jobs keep running: launch() again carries on", file=sys.stderr)
            raise interrupted.plain() from None
        return self.results()

    def ask(self, n: int = 1) -> list[Trial]:
        """Up to `n` runs to do with a launcher of your own: promotions first, then new configurations.

        Each is a `Trial`, with `config`, `resource`, and `resume_from` where it made a checkpoint before; it
        may report, make checkpoints, and look at `should_stop`, in this process or, by its number, in
        another one. `tell` says how it ended. An empty list: nothing can be started before more is told, or
        the sweep has ended (`done`). The first call starts the sweep; nothing of it is lost by a kill.

        Args:
            n: How many more than are out already.

        Raises:
            SpecError: It is not valid.
            FolderError: The results folder cannot be used, or is of another sweep.
            HeldError: Another process drives the sweep, also after a while.
        """
        from hpcsweep.api.ask import ask

        refuse_in_a_job("ask", self.folder)
        return ask(self.spec, self.folder, n)

    def asked(self) -> list[Trial]:
        """The runs that `ask` gave, in whichever process, and that were not told yet."""
        from hpcsweep.api.ask import outstanding
        from hpcsweep.session.preparation import check_folder

        state = check_folder(self.spec, self.folder)
        return [] if state is None else [each.trial() for each in outstanding(self.folder, state)]

    def tell(
        self,
        trial: Trial | int,
        value: float | Sequence[float] | Mapping[str, float] | None = None,
        *,
        error: str = "",
        interrupted: bool = False,
    ) -> None:
        """Say how a run that was asked for has ended.

        Args:
            trial: The one that `ask` gave, or its number.
            value: The objective, one number for each of several, or metrics by name, at the run's resource.
                None: it has reported.
            error: Why it failed, where it did.
            interrupted: It did not get to its end, for no fault of its own: it is handed out again.

        Raises:
            SpecError: It was not asked for, or was told already; or a value is missing.
        """
        from hpcsweep.api.ask import tell

        tell(self.spec, self.folder, trial, value, error=error, interrupted=interrupted)

    @property
    def done(self) -> bool:
        """Whether the sweep has ended."""
        from hpcsweep.session.preparation import check_folder

        state = check_folder(self.spec, self.folder)
        return state is not None and state.ended is not None

    def status(self) -> dict[str, Any]:
        """How the sweep stands: what `hpcsweep status --json` prints.

        Raises:
            FolderError: It was not launched yet.
        """
        from hpcsweep.cli.status import read_status

        return read_status(self.folder)[2]

    def results(self) -> Results:
        """The results so far; see `load`.

        Raises:
            FolderError: It was not launched yet.
        """
        from hpcsweep.views.results import load

        return load(self.folder)
