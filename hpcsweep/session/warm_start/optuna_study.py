"""A study of Optuna, from its journal or SQLite file. Imports Optuna, which knows all of its formats."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcsweep.core.text import plural
from hpcsweep.errors import SpecError
from hpcsweep.session.warm_start.earlier import Earlier, Rungs, by_our_names
from hpcsweep.spec import SweepSpec

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial


def read(spec: SweepSpec, path: Path, part: str, key: str) -> Iterator[Earlier]:
    """Each trial; `part` names one of several studies. See `Reader`.

    A step of a study that counts from 0 is one more here. A pruned trial counts with its last value.
    """
    try:
        import optuna
    except ImportError as error:
        needed = "reading it needs Optuna: pip install 'hpcsweep[optuna]'"
        raise SpecError(f"{key}: {path} is a study of Optuna; {needed}") from error
    with tempfile.TemporaryDirectory(prefix="hpcsweep-") as scratch:
        try:
            study = _study(_storage(path, Path(scratch)), part, f"{key}: {path}")
            trials = study.get_trials(deepcopy=False)
        except SpecError:
            raise
        except Exception as error:  # of any kind: Optuna's, SQLAlchemy's, those of a damaged journal
            said = " ".join(str(error).split()) or type(error).__name__
            raise SpecError(f"{key}: {path}: Optuna {optuna.__version__} cannot read it: {said}") from error
    rungs = Rungs(spec)
    order = _order(study, spec, f"{key}: the study {study.study_name!r} in {path}")
    offset = int(any(0 in trial.intermediate_values for trial in trials))
    for trial in trials:
        yield _earlier(trial, spec, rungs, offset=offset, order=order)


def _storage(path: Path, scratch: Path) -> BaseStorage:
    """The file's storage. That of SQLite is a copy: it may have to be brought up to date."""
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    with path.open("rb") as file:
        if not file.read(16).startswith(b"SQLite"):
            return JournalStorage(JournalFileBackend(str(path)))
    copy = scratch / "study.db"
    for suffix in ("", "-wal", "-shm"):
        if (beside := path.with_name(path.name + suffix)).exists():
            shutil.copyfile(beside, copy.with_name(copy.name + suffix))
    url = f"sqlite:///{copy}"
    before = logging.root.manager.disable
    logging.disable(logging.INFO)  # what alembic tells of each step, on standard error
    try:
        RDBStorage(url, skip_compatibility_check=True).upgrade()
    finally:
        logging.disable(before)
    return RDBStorage(url)


def _study(storage: BaseStorage, name: str, where: str) -> optuna.Study:
    import optuna

    names = [study.study_name for study in storage.get_all_studies()]
    if not names:
        raise SpecError(f"{where}: holds no study of Optuna")
    if not name and len(names) > 1:
        raise SpecError(f"{where}: holds {len(names)} studies, name one: {', '.join('#' + n for n in names)}")
    if name and name not in names:
        raise SpecError(f"{where}: holds no study {name!r}; there are {', '.join(names)}")
    return optuna.load_study(study_name=name or names[0], storage=storage)


def _order(study: optuna.Study, spec: SweepSpec, where: str) -> list[int]:
    """Where the values of a trial have each of our objectives: by its name where the study names several."""
    names, ours = study.metric_names, spec.objectives
    if len(study.directions) != len(ours):
        raise SpecError(f"{where}: has {plural(len(study.directions), 'objective')}, this sweep {len(ours)}")
    order = list(range(len(ours)))
    if names is not None and len(ours) > 1:
        if set(names) != set(ours.metrics):
            known, wanted = (", ".join(map(repr, each)) for each in (names, ours.metrics))
            raise SpecError(f"{where}: measured {known}, this sweep measures {wanted}")
        order = [names.index(metric) for metric in ours.metrics]
    for objective, at in zip(ours, order, strict=True):
        mode = "min" if study.directions[at].name == "MINIMIZE" else "max"
        if mode != objective.mode:
            of = f"for {objective.metric} " if len(ours) > 1 else ""
            raise SpecError(f"{where}: has mode {mode} {of}".rstrip() + f", this sweep {objective.mode}")
    return order


def _earlier(
    trial: FrozenTrial, spec: SweepSpec, rungs: Rungs, *, offset: int, order: Sequence[int]
) -> Earlier:
    config: dict[str, Any] = by_our_names(spec.space, trial.params)
    one = len(order) == 1  # Optuna has no reports of several
    reports = {step + offset: [value] for step, value in trial.intermediate_values.items() if one}
    match trial.state.name:
        case "COMPLETE":
            return rungs.earlier(config, reports, final=[trial.values[at] for at in order])
        case "FAIL":
            return rungs.earlier(config, reports, failed=True)
        case "PRUNED":
            return rungs.earlier(config, reports, why="pruned before it reported a value")
    return Earlier(config, (), "no result yet")
