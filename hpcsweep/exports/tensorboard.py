"""Event files for TensorBoard: curves, and the table of its hparams plugin. Imports it: import it late."""

from __future__ import annotations

import contextlib
import io
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import (
    DATA_TYPE_BOOL,
    DATA_TYPE_FLOAT64,
    DATA_TYPE_STRING,
    STATUS_FAILURE,
    STATUS_SUCCESS,
    Experiment,
    HParamInfo,
    Interval,
    MetricInfo,
    MetricName,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.summary.writer.record_writer import RecordWriter

from hpcsweep.core.models import RunStatus
from hpcsweep.core.space import Domain, Float, Int, Parameter
from hpcsweep.errors import FolderError
from hpcsweep.exports.timeline import TrialTimeline, labels, printable, trial_timelines
from hpcsweep.store.files import write_atomic
from hpcsweep.views.folder import SIMULATION

if TYPE_CHECKING:
    from hpcsweep.views.results import Results

#: The objective at the end of each run, and the resource there: the last ones are in the table.
VALUE: Final = "sweep/value"
RESOURCE: Final = "sweep/resource"

#: Tags that no metric may have.
_TAKEN: Final = frozenset(
    {
        VALUE,
        RESOURCE,
        metadata.EXPERIMENT_TAG,
        metadata.SESSION_START_INFO_TAG,
        metadata.SESSION_END_INFO_TAG,
    }
)

_OURS: Final = re.compile(r"events\.out\.tfevents\.\d+\.\d+\.hpcsweep\Z")


def write_tensorboard(results: Results, folder: Path) -> int:
    """Write one TensorBoard run for each trial; returns how many.

    What an earlier export wrote there is replaced, whatever else is beside it stays.

    Raises:
        FolderError: There is nothing to write, or the folder holds something else.
        OSError: It cannot be written.
    """
    timelines = list(trial_timelines(results))
    known = _earlier(folder)
    name = f"events.out.tfevents.{int(time.time()):010d}.{os.getpid()}.hpcsweep"
    folder.mkdir(parents=True, exist_ok=True)
    # First of all, so that whatever a kill leaves behind is known as ours.
    write_atomic(folder / name, _file(timelines[0].began, [_experiment(results)]))
    for path in known:
        if path != folder / name:
            _remove(path, folder)
    types = {parameter.name: _type(parameter.domain) for parameter in results.space.parameters}
    tags, values = _tags(results), _value_tags(results)
    for timeline in timelines:
        run = folder / run_name(timeline.trial.trial)
        run.mkdir(exist_ok=True)
        write_atomic(run / name, _file(timeline.began, _events(timeline, types, tags, values)))
    return len(timelines)


def run_name(trial: int) -> str:
    """Of the trial's folder, by which TensorBoard knows it."""
    return f"trial-{trial:05d}"


def _earlier(folder: Path) -> list[Path]:
    """The files of an earlier export; a FolderError if the folder is not empty and holds none."""
    if not folder.exists():
        return []
    if not folder.is_dir():
        raise FolderError(f"{folder}: is a file: give a folder with --output")
    found = [path for path in folder.glob("events.out.tfevents.*") if _OURS.match(path.name)]
    other = None if found else next(folder.iterdir(), None)
    if other is not None:
        raise FolderError(
            f"{folder}: is not empty and holds no earlier export (there is {other.name}): "
            "give a new folder with --output"
        )
    of_trials = folder.glob("trial-*/events.out.tfevents.*")
    return [*found, *(path for path in of_trials if _OURS.match(path.name))]


def _remove(file: Path, folder: Path) -> None:
    """Remove a file, and the folder of its trial if nothing else is in there."""
    file.unlink(missing_ok=True)
    if file.parent != folder:
        with contextlib.suppress(OSError):
            file.parent.rmdir()


# --------------------------------------------------------------------------- events


def _file(at: float, events: Iterable[Event]) -> bytes:
    """The bytes of an event file."""
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    writer.write(Event(wall_time=at, file_version="brain.Event:2").SerializeToString())
    for event in events:
        writer.write(event.SerializeToString())
    return buffer.getvalue()


def _tags(results: Results) -> dict[str, str]:
    """By which tag each metric is shown."""
    names = (str(name) for name in results.metrics.columns if name not in ("trial", "rung", "step"))
    return labels(names, taken={*_TAKEN, *_value_tags(results)})


def _value_tags(results: Results) -> list[str]:
    """By which tag each of several objectives is shown, beside `VALUE`, which is the first one."""
    if not results.objectives.has_front:
        return []
    return [f"{VALUE}/{name}" for name in labels(results.objectives.metrics).values()]


def _events(
    timeline: TrialTimeline, types: Mapping[str, int], tags: Mapping[str, str], values: Sequence[str]
) -> list[Event]:
    first = timeline.trial.trial - timeline.trial.repeat
    start = SessionStartInfo(group_name=run_name(first), start_time_secs=timeline.began)
    for name, value in timeline.trial.config.items():
        _set(start.hparams[name], value, types[name])
    events = [_plugin_event(timeline.began, metadata.SESSION_START_INFO_TAG, session_start_info=start)]
    for report in timeline.reports:
        shown = {tags[name]: value for name, value in report.metrics.items()}
        events.append(_scalars(report.step, report.at, shown))
    for index, (step, at, value) in enumerate(timeline.values):
        own = zip(values, timeline.several[index], strict=True) if timeline.several and values else ()
        events.append(_scalars(step, at, {VALUE: value, RESOURCE: step, **dict(own)}))
    if timeline.ended is not None:
        failed = timeline.trial.runs[-1].status is RunStatus.FAILED
        status = STATUS_FAILURE if failed else STATUS_SUCCESS
        end = SessionEndInfo(status=status, end_time_secs=timeline.ended)
        events.append(_plugin_event(timeline.ended, metadata.SESSION_END_INFO_TAG, session_end_info=end))
    return events


def _scalars(step: int, at: float, metrics: Mapping[str, float]) -> Event:
    values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
    return Event(wall_time=at, step=step, summary=Summary(value=values))


def _plugin_event(at: float, tag: str, **data: Any) -> Event:
    about = metadata.create_summary_metadata(HParamsPluginData(**data))
    value = Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)
    return Event(wall_time=at, summary=Summary(value=[value]))


# --------------------------------------------------------------------------- the table's columns


def _experiment(results: Results) -> Event:
    """Domains of the parameters and names of the metrics, the objective first."""
    started = results.folder.state.started
    at = started.at if started else 0.0
    named = ", ".join(f"{each.mode} {printable(each.metric)}" for each in results.objectives)
    what = (
        f"the first of the objectives, which are {named}"
        if results.objectives.has_front
        else f"the objective, {named}"
    )
    about = f"{results.name}: {VALUE} is {what}"
    experiment = Experiment(
        name=results.name + (" (simulated)" if results.simulated else ""),
        description=about + (f"; simulated {SIMULATION}" if results.simulated else ""),
        time_created_secs=at,
        hparam_infos=[_info(parameter) for parameter in results.space.parameters],
        metric_infos=[
            MetricInfo(name=MetricName(tag=tag))
            for tag in (VALUE, *_value_tags(results), RESOURCE, *_tags(results).values())
        ],
    )
    return _plugin_event(at, metadata.EXPERIMENT_TAG, experiment=experiment)


def _info(parameter: Parameter) -> HParamInfo:
    domain = parameter.domain
    info = HParamInfo(name=parameter.name, type=_type(domain), differs=domain.size != 1)
    if isinstance(domain, Float | Int):
        info.domain_interval.CopyFrom(Interval(min_value=domain.low, max_value=domain.high))
    else:
        for value in domain.points(None):
            _set(info.domain_discrete.values.add(), value, info.type)
    return info


def _type(domain: Domain) -> int:
    """What all values of the domain can be shown as."""
    if isinstance(domain, Float | Int):
        return int(DATA_TYPE_FLOAT64)
    values = domain.points(None)
    if all(isinstance(value, bool) for value in values):
        return int(DATA_TYPE_BOOL)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return int(DATA_TYPE_FLOAT64 if numbers else DATA_TYPE_STRING)


def _set(slot: Any, value: Any, type_: int) -> None:
    """Put a value into a `google.protobuf.Value`; one that is no text into a text as JSON."""
    if type_ == DATA_TYPE_BOOL:
        slot.bool_value = value
    elif type_ == DATA_TYPE_FLOAT64:
        slot.number_value = value
    else:
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        slot.string_value = printable(text)
