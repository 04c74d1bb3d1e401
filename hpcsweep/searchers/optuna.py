"""Any of Optuna's samplers that can be named, by ask and tell."""

from __future__ import annotations

import inspect
import re
from importlib.util import find_spec
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

from numpy.random import Generator

from hpcsweep.core.events import Config
from hpcsweep.core.history import History
from hpcsweep.core.objectives import DEFAULT, Objectives
from hpcsweep.core.space import Space
from hpcsweep.core.text import format_value, suggest_name
from hpcsweep.searchers.random import RandomFallback

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from hpcsweep.searchers.optuna_study import Study

#: These need an object, or have no use here: why, and what to do.
LEFT_OUT: Final = {
    "BruteForceSampler": "goes through finite spaces in no order; use searcher: random, which does too",
    "GridSampler": "needs lists of values; use searcher: grid",
    "PartialFixedSampler": "needs another sampler; make the fixed parameters constants of the space",
}
#: These keep in the study what they know beyond parameters and values: generations, a place in a sequence.
REPLAYED: Final = ("CmaEsSampler", "NSGAIISampler", "NSGAIIISampler", "QMCSampler")
#: These do not look at values.
UNLEARNED: Final = ("QMCSampler", "RandomSampler")
#: Arguments that do not work here, and why.
REFUSED: Final = {
    "seed": "is given as searcher.seed",
    "with_margin": "keeps in each trial what the history does not; searcher: cmaes knows whole numbers",
}
#: Packages that Optuna does not bring along.
NEEDS: Final = {"CmaEsSampler": ("cmaes",), "GPSampler": ("scipy", "torch"), "QMCSampler": ("scipy",)}

_TYPES: Final = {
    "int": (int, "an integer"),
    "float": (float, "a number"),
    "bool": (bool, "true or false"),
    "str": (str, "text"),
    "None": (NoneType, "null"),
}


class OptunaSampler(RandomFallback):
    """Asks a sampler of Optuna, one configuration after the other, of a study rebuilt from the history.

    Optuna is told the true values of numbers and the index of listed values; failures as failed and
    pending configurations as running trials; of a configuration its newest value. What breaks a
    constraint or is known already is asked again, and at last drawn at random.

    Each answer depends on the arguments alone: the study is made of the observations in their order,
    and kept for the next call as far as it is their beginning; the sampler is a new one, seeded from
    the generator. Samplers with a memory (`REPLAYED`) are asked again for each observed trial, so
    that CMA-ES has its distribution and NSGA-II its generations. With one trial at a time this is what
    Optuna does. With several it differs in this: a trial belongs to the generation at its first
    observation, not at its proposal.

    Several objectives are the study's directions, and bounds its constraints: how far a trial is beyond
    them in total.

    Args:
        sampler: Name of a class in `optuna.samplers`.
        arguments: Those of the sampler's constructor that are numbers, texts or true and false.
        seed: Of the sequence of `QMCSampler`, and of what samplers with a memory are asked again.
        objectives: What is optimised; not all samplers know what to do with several, or with bounds.
    """

    adaptive = True

    def __init__(
        self,
        *,
        sampler: str = "TPESampler",
        seed: int = 0,
        objectives: Objectives | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__()
        self._objectives = objectives or DEFAULT
        self._name = sampler
        self._arguments = arguments
        self._seed = seed
        self._study: Study | None = None

    def problems(self, space: Space) -> list[str]:
        """Why it cannot search this space, each line beginning with the key path at fault."""
        if find_spec("optuna") is None:
            need = "'optuna' needs Optuna, which is not installed; pip install 'hpcsweep[optuna]'"
            return [f"searcher.name: {need}"]
        return self._sampler_problems() or super().problems(space)

    def ask(self, n: int, history: History, rng: Generator) -> list[Config]:
        """`n` configurations, see `core.protocols.Searcher`.

        Raises:
            SpecError: Next to nothing of an infinite space satisfies the constraints.
        """
        if n <= 0 or not history.space.columns:
            return self.complete([], n, history, rng)
        from hpcsweep.searchers.optuna_study import Study, quiet

        seed = int(rng.integers(2**31))
        with quiet():
            if self._study is None or not self._study.precedes(history):
                again = (lambda: self._sampler(self._seed)) if self._name in REPLAYED else None
                self._study = Study(history.space, replayed=again, objectives=history.objectives)
            self._study.catch_up(history)
            given = self._study.ask(n, history, self._sampler(seed))
        return self.complete(given, n, history, rng)

    def _sampler(self, seed: int) -> BaseSampler:
        import optuna

        cls = getattr(optuna.samplers, self._name)
        supplied: dict[str, Any] = {"seed": seed}
        if self._name == "QMCSampler":  # one sequence for the whole sweep
            supplied = {"seed": self._seed, "independent_sampler": optuna.samplers.RandomSampler(seed)}
        if self._objectives.bounded and _takes_constraints(cls):
            from hpcsweep.searchers.optuna_study import violation_of

            supplied["constraints_func"] = violation_of
        sampler: BaseSampler = cls(**supplied, **self._arguments)
        return sampler

    def _sampler_problems(self) -> list[str]:
        import optuna

        from hpcsweep.searchers.optuna_study import quiet

        if self._name in LEFT_OUT:
            return [f"searcher.sampler: {self._name} {LEFT_OUT[self._name]}"]
        names = [
            name
            for name in optuna.samplers.__all__
            if name.endswith("Sampler") and not name.startswith("Base") and name not in LEFT_OUT
        ]
        if self._name not in names:
            return [f"searcher.sampler: {suggest_name(self._name, names, kind=f'sampler {self._name!r}')}"]
        missing = [package for package in NEEDS.get(self._name, ()) if find_spec(package) is None]
        if missing:
            packages = " ".join(missing)
            return [f"searcher.sampler: {self._name} needs what is not installed; pip install {packages}"]
        problems = self._argument_problems(getattr(optuna.samplers, self._name))
        if problems:
            return problems
        try:
            with quiet():
                sampler = self._sampler(0)
        except (TypeError, ValueError) as error:
            return [f"searcher.sampler: {self._name} refuses its arguments: {error}"]
        return self._objective_problems(sampler)

    def _objective_problems(self, sampler: BaseSampler) -> list[str]:
        """Whether the sampler can search for several objectives, and with bounds."""
        import optuna

        from hpcsweep.searchers.optuna_study import quiet

        head = f"searcher.sampler: {self._name}"
        if self._objectives.has_front:
            directions = [optuna.study.StudyDirection.MINIMIZE] * len(self._objectives)
            try:
                with quiet():
                    _ = optuna.create_study(sampler=sampler, directions=directions).ask().relative_params
            except ValueError:
                takes = "TPESampler or NSGAIISampler"
                return [f"{head} searches for one objective, and there are several; use {takes}"]
        if self._objectives.bounded and self._name not in UNLEARNED and not _takes_constraints(type(sampler)):
            return [f"{head} knows no bounds of objectives; use TPESampler or NSGAIISampler"]
        return []

    def _argument_problems(self, cls: type[BaseSampler]) -> list[str]:
        types = {
            name: re.findall(r"\w+", str(parameter.annotation))
            for name, parameter in inspect.signature(cls).parameters.items()
        }
        plain = [name for name, parts in types.items() if name not in REFUSED and set(parts) <= set(_TYPES)]
        problems = []
        for name, value in self._arguments.items():
            expected = [_TYPES[each] for each in types[name]] if name in plain else []
            if name in REFUSED and name in types:
                problems.append(f"{name}: {REFUSED[name]}")
            elif name not in types:
                problems.append(f"{name}: {suggest_name(name, plain, kind=f'argument of {self._name}')}")
            elif not expected:
                problems.append(f"{name}: is a Python object for {self._name}, leave it out")
            elif not any(_is(value, wanted) for wanted, _ in expected):
                types_text = " or ".join(text for _, text in expected)
                problems.append(f"{name}: must be {types_text}, got {format_value(value)}")
        return [f"searcher.{problem}" for problem in problems]


def _takes_constraints(cls: type[BaseSampler]) -> bool:
    return "constraints_func" in inspect.signature(cls).parameters


def _is(value: Any, wanted: type) -> bool:
    if isinstance(value, bool):
        return wanted is bool
    return isinstance(value, int | float) if wanted is float else isinstance(value, wanted)
