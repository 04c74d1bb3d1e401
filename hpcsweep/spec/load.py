"""Reads a sweep file with `--set` overrides into a `SweepSpec`."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

from hpcsweep.cluster.backend import cluster_names, is_cluster
from hpcsweep.core.domains import MAX_LISTED
from hpcsweep.core.objectives import DEFAULT, Objectives
from hpcsweep.core.protocols import LARGEST, Scheduler
from hpcsweep.core.space import Space
from hpcsweep.core.text import format_value, suggest_name
from hpcsweep.errors import SpecError
from hpcsweep.options import Section
from hpcsweep.schedulers import make_scheduler
from hpcsweep.searchers import make_searcher
from hpcsweep.spec import checks
from hpcsweep.spec.checks import Problems
from hpcsweep.spec.command_checks import command_problems
from hpcsweep.spec.metrics import check_metrics, read_metrics, runs_apart
from hpcsweep.spec.models import (
    SCHEDULER,
    SEARCHER,
    Budget,
    Cluster,
    NamedOptions,
    Retries,
    SearcherChoice,
    Store,
    Train,
    cluster_model,
    cluster_problems,
    read_named,
    read_options,
    split_name,
)
from hpcsweep.spec.objectives import check_algorithms, read_objectives
from hpcsweep.spec.parameters import read_space
from hpcsweep.spec.plain_keys import read_enqueue, read_repeats, read_stop, read_warm_start
from hpcsweep.spec.resources import RunNeeds, check_resources, read_resources, rungs_of, sample_needs
from hpcsweep.spec.sweep import SweepSpec
from hpcsweep.spec.yaml_io import apply_overrides, read_yaml

KEYS: Final = (
    "name",
    "train",
    "objective",
    "space",
    "constraints",
    "searcher",
    "scheduler",
    "stop",
    "repeats",
    "enqueue",
    "warm_start",
    "resources",
    "cluster",
    "budget",
    "retries",
    "store",
)
_EXPECTED: Final = {
    "train": "what to run: function or command",
    "objective": "what to search for: metric and mode",
    "space": "the parameters",
}
#: Keys of `cluster:` in earlier versions, and what replaced them.
_REPLACED: Final = {
    "runs_per_task": (
        "was replaced by reuse: a task does run after run until its time is over, and concurrent says how "
        "many at a time; remove the key"
    )
}
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

S = TypeVar("S", bound=Section)


def load_spec(path: Path, overrides: Sequence[str] = (), *, stored: bool = False) -> SweepSpec:
    """The valid spec in a file, with absolute paths.

    Args:
        path: The sweep file; messages show it as given.
        overrides: `key.path=value` texts, the value in YAML.
        stored: It is the one that a results folder keeps, perhaps of an earlier version.

    Raises:
        SpecError: It is not valid; lists all problems.
    """
    data = read_yaml(path)
    if stored:
        _upgrade(data)
    applied = apply_overrides(data, overrides)
    return read_spec(
        data, source=str(path), folder=path.parent, stem=path.stem, overrides=applied, stored=stored
    )


def read_spec(
    data: dict[str, Any],
    *,
    source: str,
    folder: Path,
    stem: str = "",
    overrides: Mapping[str, str] | None = None,
    stored: bool = False,
) -> SweepSpec:
    """The valid spec in the data of a sweep file, with absolute paths.

    Args:
        data: As YAML has it.
        source: Where it comes from, for messages.
        folder: What its paths are relative to.
        stem: Its name where it has none.
        overrides: Key path -> the `--set` text that set it.
        stored: See `load_spec`.

    Raises:
        SpecError: It is not valid; lists all problems.
    """
    problems = Problems(source, overrides or {})
    spec = _read(data, stem=stem, problems=problems, stored=stored)
    problems.raise_if_any()
    assert spec is not None
    return _absolute_paths(spec, Path(os.path.abspath(folder)))


def _upgrade(data: dict[Any, Any]) -> None:
    """Change what an earlier version wrote into what says the same now."""
    cluster = data.get("cluster")
    if isinstance(cluster, dict) and cluster.pop("runs_per_task", 1) != 1:
        cluster.pop("reuse", None)  # tasks that do several runs are given them one after another


def _absolute_paths(spec: SweepSpec, folder: Path) -> SweepSpec:
    """The spec with paths relative to `folder` made absolute."""
    train = {"workdir": os.path.normpath(folder / (spec.train.workdir or ""))}
    if spec.train.config:
        train["config"] = os.path.normpath(folder / spec.train.config)
    file, _, name = (spec.train.function or "").rpartition(":")
    if file.endswith(".py"):
        train["function"] = f"{os.path.normpath(folder / file)}:{name}"
    files = {key: folder / name for key, name in _files(spec.cluster)}
    cluster = {key: str(path) for key, path in files.items() if os.path.isfile(path)}
    return dataclasses.replace(
        spec,
        warm_start=tuple(os.path.normpath(folder / earlier) for earlier in spec.warm_start),
        train=spec.train.model_copy(update=train),
        cluster=spec.cluster.model_copy(update=cluster),
    )


def _files(section: Section) -> Iterator[tuple[str, str]]:
    """Keys of the section that name files, with what they say."""
    for key, field in type(section).model_fields.items():
        schema = field.json_schema_extra
        if isinstance(schema, dict) and schema.get("format") == "path" and getattr(section, key) is not None:
            yield key, getattr(section, key)


def _read(data: dict[Any, Any], *, stem: str, problems: Problems, stored: bool) -> SweepSpec | None:
    for key in data:
        if key not in KEYS:
            problems.add(str(key), suggest_name(str(key), KEYS, kind="key"))
    for key in _EXPECTED:
        if data.get(key) is None:
            problems.add(key, f"missing; expected {_EXPECTED[key]}")
    name = _read_name(data.get("name"), stem, problems)
    train = _section(Train, {**data, "train": read_metrics(data.get("train"), problems)}, "train", problems)
    objectives = read_objectives(data.get("objective"), problems)
    space = None
    if data.get("space") is not None:
        space = read_space(data["space"], data.get("constraints"), problems)
    searcher = _read_searcher(data.get("searcher"), problems)
    scheduler = read_named(data.get("scheduler"), "scheduler", SCHEDULER, problems)
    stop = read_stop(data.get("stop"), problems)
    repeats = read_repeats(data.get("repeats"), problems)
    warm_start = read_warm_start(data.get("warm_start"), problems)
    resources = read_resources(data, problems)
    cluster = _read_cluster(data, problems)
    budget = _section(Budget, data, "budget", problems)
    retries = _section(Retries, data, "retries", problems)
    store = _section(Store, data, "store", problems)

    instance = None if scheduler is None else _make_scheduler(scheduler, problems)
    needs: list[RunNeeds] = []
    if resources is not None:
        runs, plan = resources.of_runs(), None if instance is None else rungs_of(instance)
        if space is None or check_resources(runs, space, plan, problems):
            needs = sample_needs(runs, space, plan)
    if train is not None:
        checks.check_train(train, problems)
        check_metrics(
            train,
            () if stored else objectives,
            problems,
            parameters=() if space is None else space.names,
            apart=stored or cluster is None or not needs or runs_apart(cluster, needs),
        )
        if train.command is not None and space is not None:
            for path, problem in command_problems(train, space):
                problems.add(path, problem)
    optimised = Objectives.read([each.plain() for each in objectives]) if objectives else DEFAULT
    check_algorithms(optimised, searcher=searcher, scheduler=scheduler, stop=stop, problems=problems)
    ends = True  # unless the searcher is valid, so that one mistake is reported once
    enqueue = read_enqueue(data.get("enqueue"), space, problems)
    if space is not None and checks.check_constraints(space, problems) and searcher is not None:
        ends = _searcher_ends(searcher, space, optimised, problems)
    if scheduler is not None and train is not None and not stored:
        checks.check_clones(train, scheduler, problems)
    if scheduler is not None:
        checks.check_early_stopping(scheduler, instance, stop=bool(stop), repeats=repeats, problems=problems)
        if instance is not None and budget is not None and resources is not None:
            checks.check_end(instance, ends=ends, budget=budget, needs=needs, problems=problems)
    if store is not None and train is not None:
        checks.check_store(store, train, problems)
    if cluster is not None:
        if cluster.name != "auto" and not is_cluster(cluster.name):
            known = ["auto", *cluster_names()]
            problems.add("cluster.name", suggest_name(cluster.name, known, kind=f"name {cluster.name!r}"))
        if space is not None:
            for problem in cluster_problems(cluster, space):
                problems.add_line(problem)
        checks.check_cluster(cluster, needs, problems)
        if train is not None and resources is not None:
            checks.check_launcher(train, resources.nodes, needs, cluster, problems)
    if (
        train is None
        or not objectives
        or space is None
        or searcher is None
        or scheduler is None
        or resources is None
        or cluster is None
        or budget is None
        or retries is None
        or store is None
    ):
        return None
    return SweepSpec(
        name=name,
        train=train,
        objective=objectives[0],
        more_objectives=objectives[1:],
        space=space,
        searcher=searcher,
        scheduler=scheduler,
        resources=resources,
        cluster=cluster,
        budget=budget,
        retries=retries,
        store=store,
        stop=stop,
        repeats=repeats,
        enqueue=enqueue,
        warm_start=warm_start,
    )


def _section(model: type[S], data: Mapping[str, Any], key: str, problems: Problems) -> S | None:
    """The section with its defaults; None if it is missing though required, which is already reported."""
    raw = data.get(key)
    if raw is None and key in _EXPECTED:
        return None
    return problems.validated(model, {} if raw is None else raw, path=key)


def _read_cluster(data: Mapping[str, Any], problems: Problems) -> Cluster | None:
    """The section; a section within it is read on its own."""
    raw = data.get("cluster")
    name = raw.get("name") if isinstance(raw, Mapping) else None
    try:
        model = cluster_model(name if isinstance(name, str) else "")
    except SpecError as error:
        problems.add_line(str(error))
        return None
    if not isinstance(raw, Mapping):
        return _section(model, data, "cluster", problems)
    inner = {
        key: kind
        for key, field in model.model_fields.items()
        for kind in get_args(field.annotation)
        if raw.get(key) is not None and isinstance(kind, type) and issubclass(kind, Section)
    }
    others = {key: value for key, value in raw.items() if key not in inner and key not in _REPLACED}
    for key in _REPLACED.keys() & raw.keys():
        problems.add(f"cluster.{key}", _REPLACED[key])
    cluster = problems.validated(model, others, path="cluster")
    sections = {key: problems.validated(kind, raw[key], path=f"cluster.{key}") for key, kind in inner.items()}
    return None if cluster is None else cluster.model_copy(update=sections)


def _read_name(name: Any, stem: str, problems: Problems) -> str:
    given = stem if name is None else name
    if not isinstance(given, str) or _NAME.fullmatch(given) is None:
        expected = "must be 1 to 64 letters, digits, '.', '_' or '-', and begin with a letter or digit"
        source = " from the file's name" if name is None else ""
        problems.add("name", f"{expected}, got {format_value(given)}{source}")
        return ""
    return given


def _read_searcher(raw: Any, problems: Problems) -> SearcherChoice | None:
    named = split_name(raw, "searcher", SEARCHER, problems)
    if named is None:
        return None
    name, given = named
    seed = given.pop("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        problems.add("searcher.seed", f"must be an integer >= 0, got {format_value(seed)}")
        seed = None
    elif seed > LARGEST:
        problems.add("searcher.seed", f"must be at most {LARGEST}, got {format_value(seed)}")
        seed = None
    options = read_options(name, given, "searcher", SEARCHER, problems, other_keys=("seed",))
    if options is None or seed is None or _too_large(options, problems):
        return None
    return SearcherChoice(name=name, seed=seed, options=options)


def _too_large(options: Mapping[str, Any], problems: Problems) -> bool:
    """Whether an option of a searcher asks for more things than fit into memory."""
    before = problems.count
    for key, value in options.items():
        given = (
            {f"{key}.{name}": item for name, item in value.items()}
            if isinstance(value, dict)
            else {key: value}
        )
        for path, count in given.items():
            if isinstance(count, int) and count > MAX_LISTED:
                problems.add(f"searcher.{path}", f"must be at most {MAX_LISTED}, got {format_value(count)}")
    return problems.count > before


def _searcher_ends(
    searcher: SearcherChoice, space: Space, objectives: Objectives, problems: Problems
) -> bool:
    """Whether it runs out of proposals; adds the problems that it has with this space."""
    try:
        instance = make_searcher(
            searcher.name, seed=searcher.seed, options=searcher.options, objectives=objectives
        )
    except ValueError as error:
        wrong = [f"searcher.{error}"]
    else:
        wrong = instance.problems(space) or checks.prior_problems(searcher.name, instance, space)
        if not wrong:
            return instance.is_exhaustible(space)
    for problem in wrong:
        problems.add_line(problem)
    return True


def _make_scheduler(scheduler: NamedOptions, problems: Problems) -> Scheduler | None:
    """The scheduler; None after adding the problems of its options."""
    try:
        return make_scheduler(scheduler.name, options=scheduler.options, minimise=True, space=None, seed=0)
    except ValueError as error:
        problems.add_line(str(error), section="scheduler")
        return None
