"""An Optuna study in a journal file, for `optuna-dashboard`. Imports Optuna: import it late."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, assert_never

import msgspec
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpcsweep.core.models import Run, RunStatus
from hpcsweep.core.objectives import Objectives
from hpcsweep.core.space import Choice, Ordinal
from hpcsweep.errors import FolderError
from hpcsweep.exports.timeline import TrialTimeline, labels, printable, trial_timelines
from hpcsweep.searchers import optuna_study
from hpcsweep.store.files import is_stdout, write_output
from hpcsweep.views.folder import SIMULATION

if TYPE_CHECKING:
    from hpcsweep.views.results import Results

#: A user attribute of the study, by which an earlier export is known.
_MARK: Final = "hpcsweep"


class _Memory(BaseJournalBackend):
    """Logs in memory: a file backend locks and syncs for each single one."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return self.logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.logs += logs


def write_optuna(results: Results, file: Path) -> int:
    """Write the sweep as one study with all its trials; returns how many.

    An earlier export there is replaced.

    Raises:
        FolderError: There is nothing to write, the file is something else or cannot be written.
    """
    if (file.is_file() or file.is_dir()) and not is_stdout(file) and not _is_ours(file):
        raise FolderError(
            f"{file}: exists, and is no export or was written to by others since: "
            "remove it, or give another file with --output"
        )
    memory = _Memory()
    count = len(study_of(results, JournalStorage(memory)).get_trials(deepcopy=False))
    with tempfile.TemporaryDirectory(prefix="hpcsweep-") as folder:
        partial = Path(folder, "journal.log")
        JournalFileBackend(str(partial)).append_logs(memory.logs)
        data = partial.read_bytes()
    write_output(file, data, hint=": give another place with --output")
    return count


def study_of(results: Results, storage: BaseStorage) -> optuna.Study:
    """The sweep as a new study in the storage.

    Raises:
        FolderError: It has no trials.
    """
    timelines = list(trial_timelines(results))
    with optuna_study.quiet():
        study = optuna.create_study(
            storage=storage,
            study_name=results.name,
            directions=["maximize" if each.mode == "max" else "minimize" for each in results.objectives],
        )
        started = results.folder.state.started
        study.set_user_attr(_MARK, started.sweep if started else "")
        metrics = [printable(metric) for metric in results.objectives.metrics]
        study.set_user_attr("objective", ", ".join(metrics))
        if results.simulated:
            study.set_user_attr("simulated", SIMULATION)
        study.set_metric_names(metrics)
        known = distributions(results)
        top = max(run.resource for timeline in timelines for run in timeline.trial.runs)
        study.add_trials(_trial(timeline, known, results.objectives, top=top) for timeline in timelines)
    return study


def _is_ours(file: Path) -> bool:
    """Whether one export wrote it and nobody wrote to it afterwards."""
    try:
        logs = list(JournalFileBackend(str(file)).read_logs(0))
        marked = any(_MARK in log.get("user_attr", {}) for log in logs)
        return marked and len({log["worker_id"] for log in logs}) == 1
    except (ValueError, TypeError, AttributeError, KeyError, IsADirectoryError):
        return False


# --------------------------------------------------------------------------- parameters


def distributions(results: Results) -> dict[str, BaseDistribution]:
    """Of all parameters that are not constants, with their true values, those of lists too."""
    found = optuna_study.distributions(results.space)
    for parameter in results.space.columns:
        if isinstance(parameter.domain, Ordinal | Choice):
            found[parameter.name] = CategoricalDistribution(tuple(map(_plain, parameter.domain.values)))
    return found


def _plain(value: Any) -> Any:
    """Lists and mappings as JSON text: Optuna's categories hold none."""
    return msgspec.json.encode(value).decode() if isinstance(value, list | tuple | dict) else value


# --------------------------------------------------------------------------- trials


def _trial(
    timeline: TrialTimeline, known: Mapping[str, BaseDistribution], objectives: Objectives, *, top: int
) -> FrozenTrial:
    config = timeline.trial.config
    params = {name: _plain(config[name]) for name in known if name in config}
    state = _state(timeline, top)
    last = timeline.trial.last_completed
    valued = state in (TrialState.COMPLETE, TrialState.PRUNED)
    trial = create_trial(
        state=state,
        values=_values(last, objectives) if last and valued else None,
        params=params,
        distributions={name: known[name] for name in params},
        intermediate_values=_intermediate(timeline, objectives[0].metric),
        user_attrs=_attributes(timeline, known, objectives.metrics),
        system_attrs=_constraints(last, objectives),
    )
    trial.datetime_start = datetime.fromtimestamp(timeline.began)
    if state.is_finished():
        assert timeline.ended is not None
        trial.datetime_complete = datetime.fromtimestamp(timeline.ended)
    return trial


def _values(run: Run, objectives: Objectives) -> list[float]:
    assert run.value is not None
    return list(run.values) if objectives.has_front else [run.value]


def _constraints(run: Run | None, objectives: Objectives) -> dict[str, Any]:
    """How far each value is beyond its bounds, as Optuna keeps it: more than 0 is infeasible."""
    if run is None or not any(each.bounded for each in objectives):
        return {}
    return {
        "constraints": [each.violation(value) for each, value in zip(objectives, run.values, strict=True)]
    }


def _state(timeline: TrialTimeline, top: int) -> TrialState:
    """`PRUNED` for a trial that was stopped, or that no run brings beyond a lower rung, now at least."""
    run = timeline.trial.runs[-1]
    match run.status:
        case RunStatus.WAITING | RunStatus.SUBMITTED:
            return TrialState.RUNNING
        case RunStatus.FAILED:
            return TrialState.FAIL
        case RunStatus.STOPPED:
            return TrialState.PRUNED
        case RunStatus.COMPLETED:
            return TrialState.COMPLETE if run.resource >= top else TrialState.PRUNED
        case _:
            assert_never(run.status)


def _intermediate(timeline: TrialTimeline, metric: str) -> dict[int, float]:
    """The objective's metric by step; values at the ends of runs where it was not reported."""
    ends = {step: value for step, _, value in timeline.values}
    reported = {
        report.step: report.metrics[metric] for report in timeline.reports if metric in report.metrics
    }
    return dict(sorted((ends | reported).items()))


def _attributes(
    timeline: TrialTimeline, known: Mapping[str, BaseDistribution], objectives: tuple[str, ...]
) -> dict[str, Any]:
    """Constants as `config.NAME`, the newest of the other metrics as `metrics.NAME`, and where it stands."""
    trial = timeline.trial
    run = trial.runs[-1]
    newest: dict[str, float] = {}
    for report in timeline.reports:
        newest |= report.metrics
    for metric in objectives:
        newest.pop(metric, None)
    found: dict[str, Any] = {
        "status": run.status.value,
        "bracket": trial.bracket,
        "rung": run.rung,
        "resource": run.resource,
        "origin": trial.origin,
        "parent": trial.parent,
        "repeat": trial.repeat or None,
        "node": run.node or None,
        "job": run.job or None,
        "attempts": trial.attempts,
        "gpu_seconds": sum(run.gpu_seconds for run in trial.runs),
        "message": printable(run.message) or None,
    }
    found = {name: value for name, value in found.items() if value is not None}
    found |= {f"config.{name}": value for name, value in trial.config.items() if name not in known}
    shown = labels(newest)
    return found | {f"metrics.{shown[name]}": value for name, value in newest.items()}
