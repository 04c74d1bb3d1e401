"""Reads the keys of a spec that are no sections: enqueue, warm_start, repeats and stop."""

from __future__ import annotations

from typing import Any, Final

from hpcsweep.core.arrays import np
from hpcsweep.core.configurations import complete_config
from hpcsweep.core.events import Config
from hpcsweep.core.space import Space
from hpcsweep.core.text import format_value
from hpcsweep.errors import SpecError
from hpcsweep.spec.checks import Problems
from hpcsweep.spec.models import STOP_RULE, NamedOptions, read_named

#: Trainings of one configuration at most, as they start together.
MAX_REPEATS: Final = 1000


def read_enqueue(raw: Any, space: Space | None, problems: Problems) -> tuple[Config, ...]:
    """The configurations to try first, as given; each can be completed."""
    if raw is None:
        return ()
    if not isinstance(raw, list):
        problems.add("enqueue", f"must be a list of configurations, got {format_value(raw)}")
        return ()
    found: list[Config] = []
    for index, config in enumerate(raw):
        path = f"enqueue[{index}]"
        if not isinstance(config, dict):
            problems.add(path, f"must be a mapping of parameters to values, got {format_value(config)}")
        elif space is not None:
            try:
                complete_config(space, config, np.random.default_rng(0))
            except SpecError as error:
                for problem in error.problems:
                    problems.add_line(problem, section=path)
            found.append(config)
    return tuple(found)


def read_warm_start(raw: Any, problems: Problems) -> tuple[str, ...]:
    """The results folders of earlier sweeps, as given."""
    if raw is None:
        return ()
    folders = [raw] if isinstance(raw, str) else raw
    if not isinstance(folders, list) or not all(isinstance(folder, str) and folder for folder in folders):
        problems.add("warm_start", f"must be a results folder or a list of them, got {format_value(raw)}")
        return ()
    return tuple(folders)


def read_repeats(raw: Any, problems: Problems) -> int:
    """The number of trainings per configuration."""
    if raw is None:
        return 1
    if not isinstance(raw, int) or isinstance(raw, bool) or raw < 1:
        problems.add("repeats", f"must be an integer >= 1, got {format_value(raw)}")
        return 1
    if raw > MAX_REPEATS:
        advice = "the mean of a few is enough"
        problems.add("repeats", f"must be at most {MAX_REPEATS}, got {format_value(raw)}; {advice}")
        return 1
    return raw


def read_stop(raw: Any, problems: Problems) -> tuple[NamedOptions, ...]:
    """The stopping rules: one by name or mapping, or a list of them."""
    if raw is None:
        return ()
    several = isinstance(raw, list)
    rules = [
        _read_rule(rule, f"stop[{index}]" if several else "stop", problems)
        for index, rule in enumerate(raw if several else [raw])
    ]
    return tuple(rule for rule in rules if rule is not None)


def _read_rule(raw: Any, path: str, problems: Problems) -> NamedOptions | None:
    if not isinstance(raw, str) and not (isinstance(raw, dict) and isinstance(raw.get("name"), str)):
        problems.add(path, f"must be a rule's name or a mapping with a name, got {format_value(raw)}")
        return None
    rule = read_named(raw, path, STOP_RULE, problems)
    if rule is None:
        return None
    try:
        STOP_RULE.load(rule.name)(**rule.options)
    except ValueError as error:
        problems.add_line(str(error), section=path)
        return None
    return rule
