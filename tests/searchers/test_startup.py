"""How many proposals come before the model: counted in proposals, whatever the size of the batches."""

from __future__ import annotations

from typing import Any

import pytest
from numpy.random import default_rng

from hpcsweep.core.history import History
from hpcsweep.core.space import Choice, Float, Parameter, Space
from hpcsweep.searchers import make_searcher
from hpcsweep.searchers.evolution import Evolution
from hpcsweep.searchers.gp import GP
from hpcsweep.searchers.tpe import TPE

SPACE = Space(
    (
        Parameter("x", Float(0.0, 1.0)),
        Parameter("y", Float(0.0, 1.0)),
        Parameter("act", Choice(("relu", "gelu"))),
    )
)
SEARCHERS = ("tpe", "gp", "evolution")


@pytest.fixture
def modelled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many proposals were wanted from the model, for each `ask` of it."""
    counts: list[int] = []

    def spy(owner: Any, name: str, factor: int = 1) -> None:
        original = getattr(owner, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            counts.append(arguments[1] // factor)
            return original(*arguments, **named)

        monkeypatch.setattr(owner, name, counted)

    spy(TPE, "_drawn")
    spy(Evolution, "_children", 2)
    spy(GP, "propose")
    return counts


def ask(name: str, n: int, known: History, *, modelled: list[int]) -> int:
    """Propose `n`; gives how many of them came from no model."""
    modelled.clear()
    one = make_searcher(name, seed=0, options={"startup": 10})
    batch = one.ask(n, known, default_rng([0, known.proposed]))
    assert len(batch) == n
    for config in batch:
        known.add(config)
    return n - sum(modelled)


def observe(known: History, indices: range) -> None:
    for index in indices:
        known.observe(index, known.configs[index]["x"] + known.configs[index]["y"], 1)


@pytest.mark.parametrize("name", SEARCHERS)
@pytest.mark.parametrize(
    ("batch", "random"),
    [(1, [1] * 10 + [0, 0]), (8, [8, 2, 0, 0]), (16, [16, 0, 0]), (81, [81, 0])],
)
def test_startup_is_counted_in_proposals(
    name: str, batch: int, random: list[int], modelled: list[int]
) -> None:
    known, found = History(SPACE), []
    for _ in random:
        found.append(ask(name, batch, known, modelled=modelled))
        observe(known, range(known.observed, known.proposed))
    assert found == random


@pytest.mark.parametrize("name", SEARCHERS)
@pytest.mark.parametrize("batch", [8, 16, 81])
def test_the_model_does_not_wait_for_pending_runs(name: str, batch: int, modelled: list[int]) -> None:
    known = History(SPACE)
    assert ask(name, batch, known, modelled=modelled) == batch
    observe(known, range(4))
    assert ask(name, 8, known, modelled=modelled) == max(0, 10 - batch)
    assert ask(name, 1, known, modelled=modelled) == 0


@pytest.mark.parametrize("name", SEARCHERS)
def test_without_two_results_there_is_no_model(name: str, modelled: list[int]) -> None:
    known = History(SPACE)
    ask(name, 16, known, modelled=modelled)
    observe(known, range(1))
    assert ask(name, 4, known, modelled=modelled) == 4
    observe(known, range(1, 2))
    assert ask(name, 4, known, modelled=modelled) == 0


@pytest.mark.parametrize("name", SEARCHERS)
def test_configurations_of_earlier_sweeps_count(name: str, modelled: list[int]) -> None:
    known = History(SPACE)
    for i, config in enumerate(SPACE.sample(7, default_rng(3))):
        known.add_prior(config, [(1, float(i)), (3, float(i))])
    assert ask(name, 8, known, modelled=modelled) == 3
