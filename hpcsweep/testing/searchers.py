"""What every searcher must do, whatever it does between `ask` and its answer, as a pytest base class.

A package with a searcher of its own runs the suite by a subclass whose name begins with `Test`:

    from hpcsweep.testing.searchers import SearcherConformance

    class TestSwarm(SearcherConformance):
        def make_searcher(self, seed):
            return Swarm(seed=seed)
"""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Sequence
from math import isfinite
from typing import Final

import pytest
from numpy.random import default_rng

from hpcsweep.core.events import Config
from hpcsweep.core.expressions import Expression
from hpcsweep.core.history import History
from hpcsweep.core.objectives import DEFAULT, Objectives
from hpcsweep.core.protocols import Searcher
from hpcsweep.core.space import Choice, Constant, Float, Int, Ordinal, Parameter, Space
from hpcsweep.core.text import json_key

INFINITE = Space(
    (
        Parameter("lr", Float(1e-4, 1.0, log=True)),
        Parameter("batch_size", Int(16, 256, log=True)),
        Parameter("optimizer", Choice(("sgd", "adam"))),
        Parameter("momentum", Float(0.0, 0.99), {"optimizer": ("sgd",)}),
        Parameter("epochs", Constant(3)),
    ),
    (Expression("lr < 0.5 or batch_size > 20"), Expression("momentum > 0.1 or lr < 0.1")),
)
FINITE = Space(
    (
        Parameter("width", Int(1, 4)),
        Parameter("act", Choice((None, "relu", [1, 2]))),
        Parameter("slope", Ordinal((1, 2, 3)), {"act": ("relu",)}),
        Parameter("x", Float(0.0, 1.0, step=0.5)),
    ),
    (Expression("width < 4 or x > 0"),),
)
ALL_OF_FINITE = {json_key(config) for config in FINITE.grid()}
#: Name -> a space in which some of the configurations are few.
FEW = {
    "finite branches": Space(
        (
            Parameter("model", Choice(("nearest", "lda", "svm"))),
            Parameter("C", Float(1e-3, 1e3, log=True), {"model": ("svm",)}),
            Parameter("k", Int(1, 3), {"model": ("nearest",)}),
        )
    ),
    "chain of conditions": Space(
        (
            Parameter("depth", Int(1, 6)),
            Parameter("kind", Choice(("a", "b", "c")), {"depth": (2, 3)}),
            Parameter("x", Float(0.0, 1.0, step=0.25), {"kind": ("a", "b")}),
            Parameter("y", Float(0.0, 1.0), {"x": (0.5,), "kind": ("b",)}),
        )
    ),
    "improbable infinite branch": Space(
        (
            Parameter("n", Int(0, 20)),
            Parameter("m", Ordinal((1, 2, 4)), {"n": (0, 1)}),
            Parameter("lr", Float(0.1, 1.0), {"n": (0,), "m": (4,)}),
        )
    ),
    "infinite branch that the constraints exclude": Space(
        (
            Parameter("n", Int(1, 7)),
            Parameter("seed", Constant(3)),
            Parameter("model", Choice(("a", "b", "c"))),
            Parameter("lr", Float(0.1, 1.0), {"model": ("c",)}),
        ),
        (Expression("model != 'c'"),),
    ),
    "one parameter of two values": Space((Parameter("n", Int(4, 5)), Parameter("seed", Constant(3)))),
    "quantised": Space(
        (
            Parameter("dropout", Float(0.0, 0.3, step=0.1)),
            Parameter("layers", Int(1, 3, log=True)),
            Parameter("act", Choice((None, True, 1, "1"))),
        )
    ),
}
#: How many configurations there are where not infinitely many.
COUNTS = {
    "infinite branch that the constraints exclude": 14,
    "one parameter of two values": 2,
    "quantised": 4 * 3 * 4,
}

#: Proposes in a process of its own: reads searchers, each with a space, writes a line of proposals for each.
_ELSEWHERE: Final = """\
import json, pickle, sys
sys.path[:] = json.loads(sys.argv[1])
from hpcsweep.testing.searchers import ask_in_turn
for searcher, space, objectives in pickle.load(sys.stdin.buffer):
    print(json.dumps(ask_in_turn(searcher, space, [7, 1, 5], objectives=objectives)))
"""


def history_of(
    space: Space,
    configs: Sequence[Config],
    values: Sequence[float | None] = (),
    objectives: Objectives = DEFAULT,
) -> History:
    """These configurations were proposed, and have these values; none where nothing is given.

    With several objectives they are those of the first, and the others follow from them.
    """
    history = History(space, configs=configs, objectives=objectives)
    for index, value in enumerate(values):
        if value is not None:
            more = (value, *((3 * value + turn) % 5 for turn, _ in enumerate(objectives[1:])))
            key = objectives.key(value, more) if objectives.several and isfinite(value) else None
            history.observe(index, value, 9, key=key if isinstance(key, tuple) else None)
    return history


def ask_in_turn(
    searcher: Searcher,
    space: Space,
    counts: Sequence[int],
    *,
    seed: int = 0,
    objectives: Objectives = DEFAULT,
) -> list[Config]:
    """All proposals of a sweep that asks for so many at a time, with a result for every second one."""
    configs: list[Config] = []
    for n in counts:
        values = [float(i) if i % 2 else None for i in range(len(configs))]
        history = history_of(space, configs, values, objectives)
        batch = searcher.ask(n, history, default_rng([seed, len(configs)]))
        assert len(batch) <= n
        configs += batch
    return configs


class SearcherConformance:
    """Subclass it and override `make_searcher`.

    Attributes:
        sweeps: How many sweeps the random tests play.
        objectives: What is optimised.
    """

    sweeps = 25
    objectives = DEFAULT

    def make_searcher(self, seed: int) -> Searcher:
        """A fresh searcher, always with the same options."""
        raise NotImplementedError

    def count(self, space: Space, count: int | None) -> int | None:
        """How many of the `count` configurations of the space it can propose; None: without end."""
        return count

    def _in_turn(
        self, searcher: Searcher, space: Space, counts: Sequence[int], *, seed: int = 0
    ) -> list[Config]:
        return ask_in_turn(searcher, space, counts, seed=seed, objectives=self.objectives)

    def _history(
        self, space: Space, configs: Sequence[Config], values: Sequence[float | None] = ()
    ) -> History:
        return history_of(space, configs, values, self.objectives)

    @pytest.mark.parametrize("space", [INFINITE, FINITE], ids=["infinite", "finite"])
    def test_same_history_and_seed_give_the_same_answer(self, space: Space) -> None:
        first = self._in_turn(self.make_searcher(0), space, [7, 1, 5])
        assert first == self._in_turn(self.make_searcher(0), space, [7, 1, 5])
        used = self.make_searcher(0)  # what it was asked before must not matter
        self._in_turn(used, FINITE, [9, 9])
        self._in_turn(used, INFINITE, [9, 9], seed=3)
        assert first == self._in_turn(used, space, [7, 1, 5])

    def test_another_process_gives_the_same_answer(self) -> None:
        spaces = [INFINITE, FINITE]
        done = subprocess.run(
            [sys.executable, "-c", _ELSEWHERE, json.dumps([*sys.path, "."])],
            input=pickle.dumps([(self.make_searcher(0), space, self.objectives) for space in spaces]),
            capture_output=True,
            check=True,
            # Another environment may mean other kernels for linear algebra.
            env={**os.environ, "PYTHONHASHSEED": "123"},
        )
        ours = [self._in_turn(self.make_searcher(0), space, [7, 1, 5]) for space in spaces]
        assert list(map(json.loads, done.stdout.splitlines())) == json.loads(json.dumps(ours))

    def test_proposals_are_valid_whatever_is_asked(self) -> None:
        for seed in range(self.sweeps):
            chance = random.Random(seed)
            space = chance.choice([INFINITE, FINITE])
            counts = [chance.randint(0, 30) for _ in range(chance.randint(0, 4))]
            for config in self._in_turn(self.make_searcher(chance.getrandbits(32)), space, counts, seed=seed):
                assert space.check(config) == []
                assert json.loads(json.dumps(config)) == config
                assert list(config) == [name for name in space.names if name in config]

    def test_any_history_is_accepted(self) -> None:
        for seed in range(self.sweeps):
            chance = random.Random(seed)
            values = [
                chance.choice([None, float("nan"), chance.uniform(-3, 3), 1.0])
                for _ in range(chance.randint(0, 12))
            ]
            configs = FINITE.sample(len(values), default_rng(0))
            known = {json_key(config) for config in configs}
            batch = self.make_searcher(0).ask(5, self._history(FINITE, configs, values), default_rng(0))
            assert len(batch) == 5
            assert not known & {json_key(config) for config in batch}
            configs = INFINITE.sample(len(values), default_rng(0))
            batch = self.make_searcher(0).ask(5, self._history(INFINITE, configs, values), default_rng(0))
            assert len(batch) == 5

    @pytest.mark.parametrize("values", [[float("nan")] * 5, [1.0] * 5, [None] * 5, [1.0]])
    def test_a_history_of_failures_or_of_one_value_is_accepted(self, values: list[float | None]) -> None:
        configs = INFINITE.sample(len(values), default_rng(0))
        batch = self.make_searcher(0).ask(3, self._history(INFINITE, configs, values), default_rng(0))
        assert len(batch) == 3

    @pytest.mark.parametrize("at_a_time", [1, 7, 1000])
    def test_a_finite_space_is_searched_once_and_then_ends(self, at_a_time: int) -> None:
        searcher = self.make_searcher(0)
        configs = self._in_turn(searcher, FINITE, [at_a_time] * (len(ALL_OF_FINITE) // at_a_time + 1))
        assert len(configs) == len(ALL_OF_FINITE)
        assert {json_key(config) for config in configs} == ALL_OF_FINITE
        assert searcher.ask(3, self._history(FINITE, configs), default_rng(9)) == []

    def test_enqueued_configurations_are_not_proposed_again(self) -> None:
        enqueued = FINITE.sample(1, default_rng(77))
        batch = self.make_searcher(0).ask(1000, self._history(FINITE, enqueued), default_rng(0))
        keys = [json_key(config) for config in batch]
        assert len(keys) == len(set(keys))
        assert set(keys) == ALL_OF_FINITE - {json_key(enqueued[0])}

    def test_a_space_without_a_valid_configuration_ends_at_once(self) -> None:
        space = Space(FINITE.parameters, (Expression("width > 9"),))
        searcher = self.make_searcher(0)
        assert searcher.ask(3, self._history(space, []), default_rng(0)) == []
        (problem,) = searcher.problems(space)
        assert problem.startswith("constraints: must leave something of the ")

    def test_a_batch_of_81_is_distinct_on_an_infinite_space(self) -> None:
        space = Space(INFINITE.parameters[:2])
        batch = self.make_searcher(0).ask(81, self._history(space, []), default_rng(0))
        assert len({json_key(config) for config in batch}) == 81

    @pytest.mark.parametrize("ended", [True, False], ids=["ended", "running"])
    @pytest.mark.parametrize("few", FEW)
    def test_nothing_is_proposed_twice_while_something_else_is_left(self, few: str, ended: bool) -> None:
        space = FEW[few]
        count = self.count(space, COUNTS.get(few))
        searcher, known = self.make_searcher(0), self._history(space, [])
        for n in (1, 8, 16, 3, 16, 16, 1):
            left = n if count is None else min(n, count - known.proposed)
            batch = searcher.ask(n, known, default_rng([0, known.proposed]))
            assert len(batch) == left
            assert [problem for config in batch for problem in space.check(config)] == []
            for config in batch:
                index = known.add(config)
                if ended:  # the finite branches are the better ones
                    value = float(len(config)) + index % 5
                    key = (0.0, value, *[-value] * (len(self.objectives) - 1))
                    known.observe(index, value, 1, key=key if self.objectives.several else None)
        assert len(set(map(json_key, known.configs))) == known.proposed == min(61, count or 61)

    @pytest.mark.parametrize("space", [INFINITE, FINITE], ids=["infinite", "finite"])
    def test_asking_for_nothing_gives_nothing(self, space: Space) -> None:
        assert self.make_searcher(0).ask(0, self._history(space, []), default_rng(0)) == []

    def test_proposals_may_be_changed_without_harm(self) -> None:
        searcher = self.make_searcher(0)
        first = searcher.ask(5, self._history(FINITE, []), default_rng(0))
        kept = [dict(config) for config in first]
        for config in first:
            config.clear()
        assert searcher.ask(5, self._history(FINITE, []), default_rng(0)) == kept
