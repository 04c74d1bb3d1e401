"""What a searcher learns from before the first trial: results of earlier sweeps, of hpcsweep or of others.

`warm_start` names files and folders. `SOURCES` says who reads them; each gives trials as they were, and what
does not fit the space of this sweep is left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

from hpcsweep.core.events import WarmStartLoaded
from hpcsweep.core.text import plural
from hpcsweep.errors import SpecError
from hpcsweep.session.warm_start.earlier import EXPECTED, Reader
from hpcsweep.spec import SweepSpec


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def _is_optuna_journal(path: Path) -> bool:
    with path.open("rb") as file:
        return b'"op_code"' in file.read(4096)


def _is_ray(path: Path) -> bool:
    return path.is_dir() and any(path.glob("*/params.json"))


#: How a source is known, and the module whose `read` reads it; the first that applies.
SOURCES: Final[Sequence[tuple[Callable[[Path], bool], str]]] = (
    (lambda path: path.is_file() and path.suffix.lower() in (".csv", ".tsv"), "csv_table"),
    (lambda path: path.is_file() and (_is_sqlite(path) or _is_optuna_journal(path)), "optuna_study"),
    (lambda path: _is_ray(path), "ray_folder"),
    (lambda path: path.is_dir(), "own_folder"),
)


def load_results(spec: SweepSpec, source: str | Path, *, key: str) -> WarmStartLoaded:
    """The results of the source whose configurations are in this sweep's space.

    Args:
        spec: Of this sweep.
        source: A path; `study.db#NAME` is one of several studies in a file.
        key: Where the spec names it, for messages.

    Raises:
        SpecError: It is nothing that can be read, or it measured something else.
    """
    path, _, part = str(source).partition("#") if not Path(source).exists() else (str(source), "", "")
    try:
        module = next((name for applies, name in SOURCES if applies(Path(path))), None)
    except OSError as error:
        raise SpecError(f"{key}: {path}: cannot be read: {error.strerror}") from error
    if module is None:
        what = path if Path(path).exists() else f"{path}, which does not exist"
        raise SpecError(f"{key}: expected {EXPECTED}, got {what}")
    read: Reader = import_module(f"hpcsweep.session.warm_start.{module}").read
    results, values = [], []
    skipped: Counter[str] = Counter()
    for trial in read(spec, Path(path), part, key):
        if not trial.observations:
            skipped[trial.why or "no result yet"] += 1
            continue
        config = spec.space.canonicalise(trial.config)
        if problems := spec.space.check(config):
            skipped[problems[0].partition(", got ")[0]] += 1
        else:
            results.append((config, tuple(trial.observations)))
            values.append(tuple(trial.values))
    return WarmStartLoaded(
        str(source), tuple(results), dict(skipped), tuple(values) if spec.objectives.several else ()
    )


def describe_warm_start(loaded: Sequence[WarmStartLoaded]) -> list[str]:
    """What was taken over from earlier sweeps, one line for each fact."""
    lines: list[str] = []
    for event in loaded:
        taken, skipped = len(event.results), sum(event.skipped.values())
        nothing = "" if taken else ": nothing to learn from"
        lines.append(
            f"warm start: {taken} of {plural(taken + skipped, 'configuration')} of {event.source}{nothing}"
        )
        lines += [f"  {count} left out: {problem}" for problem, count in event.skipped.items()]
    return lines
