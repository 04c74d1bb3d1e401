"""A study of Optuna, from its journal or SQLite file. Imports Optuna, which knows all of its formats."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    _check_direction(study, spec, f"{key}: the study {study.study_name!r} in {path}")
    offset = int(any(0 in trial.intermediate_values for trial in trials))
    for trial in trials:
        yield _earlier(trial, spec, rungs, offset)


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
    storage = RDBStorage(url, skip_compatibility_check=True)
    storage.upgrade()
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


def _check_direction(study: optuna.Study, spec: SweepSpec, where: str) -> None:
    if len(study.directions) > 1:
        raise SpecError(f"{where}: has {len(study.directions)} objectives, expected one")
    mode = "min" if study.direction.name == "MINIMIZE" else "max"
    if mode != spec.objective.mode:
        raise SpecError(f"{where}: has mode {mode}, this sweep {spec.objective.mode}")


def _earlier(trial: FrozenTrial, spec: SweepSpec, rungs: Rungs, offset: int) -> Earlier:
    config: dict[str, Any] = by_our_names(spec.space, trial.params)
    values = {step + offset: value for step, value in trial.intermediate_values.items()}
    match trial.state.name:
        case "COMPLETE":
            return Earlier(config, rungs.observations(values, final=trial.value))
        case "FAIL":
            return Earlier(config, rungs.observations(values, failed=True))
        case "PRUNED":
            found = rungs.observations(values)
            return Earlier(config, found, "pruned before it reported a value")
    return Earlier(config, (), "no result yet")
