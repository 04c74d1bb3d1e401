"""What a sweep starts with: configurations to try first, earlier results, rules that stop trials."""

from __future__ import annotations

from typing import Any, Final

from numpy.random import default_rng

from hpcsweep.core.completion import complete_config
from hpcsweep.core.domains import format_value
from hpcsweep.core.events import Config
from hpcsweep.core.space import Space
from hpcsweep.errors import SpecError
from hpcsweep.options import options_model
from hpcsweep.schedulers.stopping_rules import STOP_RULES
from hpcsweep.spec.models import NamedOptions
from hpcsweep.spec.problems import Problems

#: Trainings of one configuration at most: they start together.
MAX_REPEATS: Final = 1000


def read_enqueue(raw: Any, space: Space | None, problems: Problems) -> tuple[Config, ...]:
    """Configurations as they are given, perhaps in part; each can be completed."""
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
                complete_config(space, config, default_rng(0))
            except SpecError as error:
                for problem in error.problems:
                    name, _, rest = problem.partition(": ")
                    problems.add(f"{path}.{name}", rest)
            found.append(config)
    return tuple(found)


def read_warm_start(raw: Any, problems: Problems) -> tuple[str, ...]:
    """Results folders as they are given."""
    if raw is None:
        return ()
    folders = [raw] if isinstance(raw, str) else raw
    if not isinstance(folders, list) or not all(isinstance(folder, str) and folder for folder in folders):
        problems.add("warm_start", f"must be a results folder or a list of them, got {format_value(raw)}")
        return ()
    return tuple(folders)


def read_repeats(raw: Any, problems: Problems) -> int:
    """How often each configuration is trained."""
    if raw is None:
        return 1
    if not isinstance(raw, int) or isinstance(raw, bool) or raw < 1:
        problems.add("repeats", f"must be an integer >= 1, got {format_value(raw)}")
        return 1
    if raw > MAX_REPEATS:
        advice = "the mean of a few tells configurations apart"
        problems.add("repeats", f"must be at most {MAX_REPEATS}, got {format_value(raw)}; {advice}")
        return 1
    return raw


def read_stop(raw: Any, problems: Problems) -> tuple[NamedOptions, ...]:
    """The rules: one by its name or as a mapping with a name, or a list of such."""
    if raw is None:
        return ()
    several = isinstance(raw, list)
    rules = [
        _rule(rule, f"stop[{index}]" if several else "stop", problems)
        for index, rule in enumerate(raw if several else [raw])
    ]
    return tuple(rule for rule in rules if rule is not None)


def _rule(raw: Any, path: str, problems: Problems) -> NamedOptions | None:
    options = {"name": raw} if isinstance(raw, str) else raw
    if not isinstance(options, dict) or not isinstance(options.get("name"), str):
        problems.add(path, f"must be a rule's name or a mapping with a name, got {format_value(raw)}")
        return None
    name = options["name"]
    if name not in STOP_RULES:
        expected = " or ".join(repr(known) for known in STOP_RULES)
        problems.add(f"{path}.name", f"must be {expected}, got {name!r}")
        return None
    rest = {str(key): value for key, value in options.items() if key != "name"}
    model = problems.validated(
        options_model(STOP_RULES[name], ("minimise",)), rest, path=path, also_known=("name",)
    )
    if model is None:
        return None
    try:
        STOP_RULES[name](**model.model_dump())
    except ValueError as error:
        option, _, rest_of_it = str(error).partition(": ")
        problems.add(f"{path}.{option}", rest_of_it)
        return None
    return NamedOptions(name=name, options=model.model_dump())
