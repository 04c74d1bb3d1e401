"""Parameters that a sweep meets on its way: how its space grows by what runs of Optuna objectives suggest.

The space here is that of a sweep's identity, in the long form of the spec: name -> `{type, low, high, ...}`.
A parameter that was added has `added: true`. Pure: the same events give the same space. Domains are loaded
where they are used: a state is also folded where numpy is none of our business, on compute nodes.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from hpcsweep.core.events import Config, ParametersSuggested, SweepStarted
from hpcsweep.core.text import json_key

if TYPE_CHECKING:
    from hpcsweep.core.domains import Domain
    from hpcsweep.core.priors import Prior
    from hpcsweep.core.space import Space

#: A sweep adds so many at most; an objective may make up names without end.
MOST_ADDED: Final = 200
#: Names of parameters; others are drawn in the run and not searched.
NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:[./][A-Za-z0-9_]+)*")

Form = Mapping[str, Any]


def domain_of(form: Form) -> Domain | None:
    """The domain of a float, int or choice parameter in its long form; None if it is none."""
    from hpcsweep.core.domains import Choice, Float, Int, InvalidDomain

    try:
        match form:
            case {"type": "choice", "values": list() | tuple() as values}:
                return Choice(tuple(values))
            case {"type": "float", "low": low, "high": high}:
                return Float(low, high, bool(form.get("log")), form.get("step"))
            case {"type": "int", "low": low, "high": high}:
                return Int(low, high, bool(form.get("log")), form.get("step"))
    except InvalidDomain:
        pass
    return None


def prior_of(form: Form, domain: Domain) -> Prior | None:
    """The prior in the long form of a parameter; None where it has none, or one that makes no sense."""
    from hpcsweep.core.domains import Constant, InvalidDomain
    from hpcsweep.core.priors import read_prior

    try:
        if form.get("prior") is not None and not isinstance(domain, Constant):
            return read_prior(form["prior"], domain)
    except InvalidDomain:
        pass
    return None


def grown(space: Mapping[str, Form], parameters: Mapping[str, Form]) -> dict[str, Form]:
    """The space with parameters that a run suggested; what it cannot hold is left out.

    A parameter that was added before becomes as wide as both; one that the spec has stays as it is.
    """
    after = dict(space)
    taken = {_plain(name) for name in space}
    added = sum(bool(form.get("added")) for form in space.values())
    for name, form in parameters.items():
        if name in after:
            if after[name].get("added"):
                after[name] = _widened(after[name], form)
        elif added < MOST_ADDED and NAME.fullmatch(name) and _plain(name) not in taken:
            if domain_of(form) is None:
                continue
            after[name] = {**_with_valid_prior(form), "added": True}
            taken.add(_plain(name))
            added += 1
    return after


def with_suggested(started: SweepStarted, event: ParametersSuggested) -> SweepStarted:
    """The start of a sweep whose space has grown by the event."""
    space = grown(started.identity.get("space", {}), event.parameters)
    return msgspec.structs.replace(started, identity={**started.identity, "space": space})


def added_parameters(started: SweepStarted | None) -> dict[str, Form]:
    """The parameters by which the space has grown."""
    space = started.identity.get("space", {}) if started is not None else {}
    return {name: form for name, form in space.items() if form.get("added")}


def with_added(space: Space, parameters: Mapping[str, Form]) -> Space:
    """The space with these parameters added; one that it has of itself stays as it is."""
    from hpcsweep.core.space import Parameter, Space

    known = {parameter.name: parameter for parameter in space.parameters}
    for name, form in parameters.items():
        domain = domain_of(form)
        if domain is not None and (name not in known or known[name].added):
            known[name] = Parameter(name, domain, added=True, prior=prior_of(form, domain))
    return Space(tuple(known.values()), space.constraints)


def amended(config: Config, space: Mapping[str, Form], values: Config, unused: Container[str]) -> Config:
    """The configuration with the values of added parameters that the space admits, without unused ones."""
    after = {
        name: value
        for name, value in config.items()
        if name not in unused or not space.get(name, {}).get("added")
    }
    for name, value in values.items():
        domain = domain_of(space[name]) if space.get(name, {}).get("added") else None
        if domain is not None and domain.problem(value) is None:
            after[name] = domain.nearest(value)
    return {name: after[name] for name in [*space, *after] if name in after}


def _plain(name: str) -> str:
    """Names alike in this are one variable in the environment."""
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def _widened(known: Form, form: Form) -> Form:
    """As wide as both; as it was where that is no domain."""
    if known["type"] != form.get("type"):
        return known
    if known["type"] == "choice":
        keys = {json_key(value) for value in known["values"]}
        more = [value for value in form["values"] if json_key(value) not in keys]
        wider = {**known, "values": [*known["values"], *more]}
    elif any(known.get(key) != form.get(key) for key in ("log", "step")) or known.get("step") is not None:
        return known
    else:
        low, high = min(known["low"], form["low"]), max(known["high"], form["high"])
        wider = {**known, "low": low, "high": high}
    return _with_valid_prior(wider) if domain_of(wider) is not None else known


def _with_valid_prior(form: Form) -> Form:
    """Without a prior that its domain does not admit."""
    domain = domain_of(form)
    if domain is not None and prior_of(form, domain) is not None:
        return form
    return {key: value for key, value in form.items() if key != "prior"}
