"""Reads and checks where the metrics of a sweep come from, before anything runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hpcsweep.core.text import format_value, near_name, suggest_name
from hpcsweep.spec.checks import Problems
from hpcsweep.spec.models import Cluster, MetricsFile, Objective, Train
from hpcsweep.spec.resources import RunNeeds
from hpcsweep.worker.metrics.files import KINDS, guess_kind, placeholders
from hpcsweep.worker.template import PLACEHOLDERS

#: Placeholders whose values no two trials share.
_OWN: Final = ("output_dir", "checkpoint_dir", "trial")


def read_metrics(raw: Any, problems: Problems) -> Any:
    """The section `train` as it is, with the files of its metrics read; wrong ones are left out."""
    if not isinstance(raw, Mapping) or not isinstance(metrics := raw.get("metrics"), Mapping | list):
        return raw
    entries = metrics if isinstance(metrics, list) else [metrics]
    read: list[Any] = []
    for index, entry in enumerate(entries):
        path = f"train.metrics[{index}]" if isinstance(metrics, list) else "train.metrics"
        if isinstance(entry, Mapping):
            found = problems.validated(MetricsFile, entry, path=path)
            read += [] if found is None else [found]
        elif isinstance(entry, str):
            read.append(entry)
        else:
            expected = "must be a regular expression, or a mapping with a file"
            problems.add(path, f"{expected}, got {format_value(entry)}")
    return {**raw, "metrics": read}


def check_metrics(
    train: Train,
    objectives: Sequence[Objective],
    problems: Problems,
    *,
    parameters: tuple[str, ...] = (),
    apart: bool = True,
) -> None:
    """Check that patterns and files are well-formed, and that the objectives are among what they find.

    `apart`: trials run one after another, so that they may write the same file.
    """
    names: dict[str, None] = {}
    before, any_name = problems.count, False
    for index, entry in enumerate(train.metrics):
        path = f"train.metrics[{index}]" if len(train.metrics) > 1 else "train.metrics"
        if isinstance(entry, str):
            names |= dict.fromkeys(_pattern_names(entry, path, problems))
        else:
            _check_file(entry, path, problems, parameters=parameters, apart=apart)
            names |= dict.fromkeys(entry.values)
            any_name = any_name or not entry.values
    if not names or any_name or problems.count > before or train.command is None:
        return
    for index, objective in enumerate(objectives):
        if objective.metric not in names:
            known = ", ".join(map(repr, names))
            near = near_name(objective.metric, names)
            hint = f"did you mean {near!r}?" if near else "name one of these, or a group like the objective"
            wrong = f"{objective.metric!r} is not among the metrics of train.metrics, {known}"
            path = f"objective[{index}].metric" if len(objectives) > 1 else "objective.metric"
            problems.add(path, f"{wrong}; {hint}")


def runs_apart(cluster: Cluster, needs: Sequence[RunNeeds]) -> bool:
    """Whether a sweep whose runs need that has one at a time."""
    gpus = min(run.needs.gpus for run in needs)
    alone = bool(gpus and cluster.max_gpus is not None and cluster.max_gpus < 2 * gpus)
    slots = cluster.name == "local" and getattr(cluster, "slots", None) == 1
    return cluster.concurrent == 1 and bool(cluster.max_tasks == 1 or alone or slots)


def _check_file(
    entry: MetricsFile, path: str, problems: Problems, *, parameters: tuple[str, ...], apart: bool
) -> None:
    if entry.kind is not None and entry.kind not in KINDS:
        problems.add(f"{path}.kind", suggest_name(entry.kind, list(KINDS), kind=f"kind {entry.kind!r}"))
    elif entry.kind is None and guess_kind(entry.file) is None:
        problems.add(
            f"{path}.kind",
            f"missing; {entry.file!r} does not say its kind; expected one of: {', '.join(KINDS)}",
        )
    known = [*parameters, *PLACEHOLDERS]
    used = placeholders(entry.file)
    for name in used:
        if name not in known:
            problems.add(f"{path}.file", suggest_name(name, known, kind=f"placeholder {{{name}}}"))
    if not apart and not used.intersection(_OWN):
        problems.add(
            f"{path}.file",
            f"{entry.file!r} is the same for trials that run at the same time: have the program write into "
            "{output_dir}, and begin the path with it, or set cluster.max_tasks: 1",
        )
    for name in entry.values:
        if name in ("", "step"):
            problems.add(f"{path}.values", f"a metric cannot be called {name!r}")


def _pattern_names(pattern: str, path: str, problems: Problems) -> list[str]:
    """The metrics of a regular expression; none after adding a problem."""
    try:
        groups = re.compile(pattern).groupindex
    except (re.error, OverflowError, RecursionError) as error:
        problems.add(path, f"must be a regular expression, got {format_value(pattern)}: {error}")
        return []
    names = [name for name in groups if name != "step"]
    if not names:
        expected = "must have a group named like its metric, as in 'loss=(?P<loss>\\S+)'"
        problems.add(path, f"{expected}, got {format_value(pattern)}")
    return names
