"""Which version of a searcher a sweep began with, and that other proposals are another version."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

import pytest
from numpy.random import default_rng

import hpcsweep.searchers
from hpcsweep.core.events import SweepStarted
from hpcsweep.core.history import History
from hpcsweep.core.priors import Normal
from hpcsweep.core.space import Choice, Int, Ordinal, Parameter, Space
from hpcsweep.searchers import changed_searchers, make_searcher, searcher_version, searcher_versions
from hpcsweep.spec.parameters import space_to_yaml

SPACE = Space(
    (
        Parameter("a", Int(1, 12)),
        Parameter("b", Ordinal((1, 2, 4, 8, 16, 32))),
        Parameter("c", Choice(("p", "q", "r"))),
        Parameter("d", Int(1, 30), {"c": ("p", "q")}),
    )
)
#: The same with what is believed of two of its parameters.
BELIEVED = Space(
    (
        Parameter("a", Int(1, 12), prior=Normal(4, 2.0)),
        *SPACE.parameters[1:3],
        Parameter("d", Int(1, 30), {"c": ("p", "q")}, prior=Normal(25, 3.0)),
    )
)
#: Version and digest of what is proposed in `proposals`. A searcher that proposes something else has a new
#: version in `VERSIONS`, and a new digest here.
PROPOSALS: Final = {
    "random": (1, "da1bc202711e"),
    "grid": (1, "050d95372c35"),
    "sobol": (1, "8eec8c01c17f"),
    "tpe": (2, "56593f8b922f"),
    "gp": (3, "767c2ac8e969"),
    "evolution": (1, "b63497b2e69d"),
}
#: The same of those that make use of priors, in a space that has some, for which `PRIORS` counts.
BELIEVING: Final = {
    "random": (2, "eb7fb88eb33f"),
    "tpe": (3, "2f370228b9e1"),
    "gp": (4, "4adc613231fa"),
    "evolution": (2, "761e5206fae1"),
}


def proposals(name: str, space: Space) -> str:
    """Digest of what a searcher proposes, in batches of 6 and 1."""
    searcher, known = make_searcher(name, seed=1, options={}), History(space)
    for n in (6, 6, 6, 6, 1, 1):
        for config in searcher.ask(n, known, default_rng([0, known.proposed])):
            index = known.add(config)
            if index % 7 != 6:
                value = (config["a"] - 4) ** 2 + config["b"] + len(config) + 0.1 * config.get("d", 0)
                known.observe(index, float("nan") if index % 11 == 10 else value, 1)
    return hashlib.sha256(json.dumps(known.configs).encode()).hexdigest()[:12]


@pytest.mark.parametrize("name", PROPOSALS)
def test_other_proposals_are_another_version(name: str) -> None:
    assert (searcher_version(name), proposals(name, SPACE)) == PROPOSALS[name]


@pytest.mark.parametrize("name", BELIEVING)
def test_other_proposals_with_priors_are_another_version(name: str) -> None:
    assert (searcher_version(name, priors=True), proposals(name, BELIEVED)) == BELIEVING[name]


def identity_of(name: str, space: Space = SPACE) -> dict[str, Any]:
    return {"searcher": {"name": name}, "space": space_to_yaml(space)}


def began(
    name: str, *, space: Space = SPACE, resolved: str = "", versions: dict[str, int] | None = None
) -> SweepStarted:
    identity = identity_of(name, space)
    return SweepStarted(
        "cafe01", "s", 0.0, identity, resolved_searcher=resolved, searcher_versions=versions or {}
    )


def test_versions_are_recorded_of_what_a_sweep_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hpcsweep.searchers, "VERSIONS", {"gp": 2, "tpe": 3})
    assert searcher_versions(identity_of("random")) == {}
    assert searcher_versions(identity_of("auto"), "random") == {}
    assert searcher_versions(identity_of("auto"), "gp") == {"gp": 2, "tpe": 3}
    assert searcher_versions(identity_of("auto"), "tpe") == {"tpe": 3}
    assert searcher_versions(identity_of("auto", BELIEVED), "gp") == {"auto": 2, "gp": 3, "tpe": 4}


def test_a_sweep_says_that_its_searcher_is_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hpcsweep.searchers, "VERSIONS", {"gp": 2})
    assert changed_searchers(began("random")) == []
    assert changed_searchers(began("gp", versions={"gp": 2})) == []
    assert changed_searchers(began("auto", resolved="tpe")) == []
    assert changed_searchers(began("not-installed")) == []
    for old in (began("gp"), began("auto", resolved="gp")):
        (line,) = changed_searchers(old)
        assert line == (
            "the searcher gp has changed since the sweep began (version 1, now 2): new proposals come from "
            "the present version; to keep the old one, continue with the hpcsweep that started the sweep"
        )


def test_a_sweep_with_priors_says_that_these_are_used_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """One without priors, for which nothing has changed, says nothing."""
    monkeypatch.setattr(hpcsweep.searchers, "PRIORS", 1)
    assert changed_searchers(began("random")) == []
    assert changed_searchers(began("random", space=BELIEVED, versions={"random": 2})) == []
    (line,) = changed_searchers(began("random", space=BELIEVED))
    assert line.startswith("the searcher random has changed since the sweep began (version 1, now 2): ")
