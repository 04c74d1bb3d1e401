"""Priors: where the best value of a parameter is believed to be, before anything was measured.

A prior is a density on the unit interval of its parameter. For a number or an ordered value it is a normal
distribution truncated to the range, for a choice a weight for each value. What a sweep measures takes its
place: draws come from it ever more seldom (`draw_probability`), and an acquisition is multiplied by it to an
ever smaller power (`exponent`; Hvarfner et al. 2022, piBO, eq. 4).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, Final, TypeAlias

import msgspec

from hpcsweep.core.arrays import Floats, Generator, Ints, np
from hpcsweep.core.domains import Choice, Domain, Float, Int, InvalidDomain, Ordinal
from hpcsweep.core.text import format_value, json_key

#: Configurations after which half of the draws are of a prior, and results up to which an acquisition is
#: multiplied by all of it (beta of piBO).
STRENGTH: Final = 20
#: Observations from which on it counts whether they agree with a prior.
LEAST: Final = 5
#: They agree in full where their ranks have this correlation with the logarithm of its density. Good priors
#: have 0.5 to 0.9.
AGREES: Final = 0.5
#: Share of an even density that a prior is mixed with where it weighs an acquisition.
DOUBT: Final = 0.1
#: The two keys of a prior that is a normal distribution.
KEYS: Final = ("center", "sigma")
_NORMAL: Final = NormalDist()


class Normal(msgspec.Struct, frozen=True):
    """The best value is near `center`.

    Attributes:
        sigma: Standard deviation: on a log scale in powers of ten, of an ordinal in places of the list, else
            in the unit of the parameter.
    """

    center: Any
    sigma: float


class Weights(msgspec.Struct, frozen=True):
    """How probable each value of a list is, in the list's order; they need not sum to 1."""

    weights: tuple[float, ...]


Prior: TypeAlias = Normal | Weights


def read_prior(raw: Any, domain: Float | Int | Ordinal | Choice) -> Prior:
    """The prior as a spec has it: `{center: 3e-4, sigma: 0.5}`, `{adam: 3, sgd: 1}`, or the weights in order.

    Raises:
        InvalidDomain: It makes no sense for this domain.
    """
    match domain:
        case Choice():
            return Weights(_read_weights(raw, domain))
        case Ordinal() if not (isinstance(raw, Mapping) and set(raw) & set(KEYS)):
            return Weights(_read_weights(raw, domain))
        case Float() | Int() | Ordinal():
            return _read_normal(raw, domain)


def _read_normal(raw: Any, domain: Float | Int | Ordinal) -> Normal:
    if not isinstance(raw, Mapping) or set(raw) != set(KEYS):
        raise InvalidDomain([("prior", f"must be {{center: VALUE, sigma: WIDTH}}, got {format_value(raw)}")])
    center, sigma = raw["center"], raw["sigma"]
    problems = []
    # A whole number may be believed to lie between two others.
    within = Float(domain.low, domain.high) if isinstance(domain, Float | Int) else domain
    if (problem := within.problem(center)) is not None:
        problems.append(("prior.center", problem))
    if not _is_positive(sigma):
        problems.append(("prior.sigma", f"must be a number > 0, got {format_value(sigma)}"))
    if problems:
        raise InvalidDomain(problems)
    return Normal(center, float(sigma))


def _read_weights(raw: Any, domain: Choice | Ordinal) -> tuple[float, ...]:
    """A weight for each value; one that a mapping leaves out weighs 1."""
    problems: list[tuple[str, str]] = []
    weights: list[Any] = [1.0] * domain.size
    if isinstance(raw, Mapping) and raw:
        # A mapping of JSON has texts for keys, whatever the values are.
        places = {json_key(str(value)): place for place, value in enumerate(domain.values)}
        places |= {json_key(value): place for place, value in enumerate(domain.values)}
        for key, weight in raw.items():
            place = places.get(json_key(key))
            if place is None:
                problems.append((f"prior.{key}", domain.problem(key) or "must be a value of the list"))
            else:
                weights[place] = weight
    elif isinstance(raw, Sequence) and not isinstance(raw, str) and len(raw) == domain.size:
        weights = list(raw)
    else:
        expected = "must map values to weights, or list a weight for each value"
        problems.append(("prior", f"{expected} ({domain.size}), got {format_value(raw)}"))
    for value, weight in zip(domain.values, weights, strict=True):
        if not _is_positive(weight):
            problems.append(
                ("prior", f"weight of {format_value(value)}: must be > 0, got {format_value(weight)}")
            )
    if problems:
        raise InvalidDomain(problems)
    return tuple(float(weight) for weight in weights)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def prior_to_yaml(prior: Prior) -> Any:
    """What `read_prior` reads, JSON-able."""
    match prior:
        case Normal(center, sigma):
            return {"center": center, "sigma": sigma}
        case Weights(weights):
            return list(weights)


def describe_prior(prior: Prior, domain: Domain) -> str:
    """In a few words, for `plan`."""
    match prior, domain:
        case Normal(center, sigma), Float(log=True) | Int(log=True):
            return f"around {format_value(center)}, within a factor of {10**sigma:.3g}"
        case Normal(center, sigma), Ordinal():
            return f"around {format_value(center)}, {sigma:g} places up or down"
        case Normal(center, sigma), _:
            return f"around {format_value(center)}, {sigma:g} up or down"
        case Weights(weights), Choice(values) | Ordinal(values):
            shares = sorted(zip(weights, values, strict=True), key=lambda pair: -pair[0])
            shown = [f"{format_value(value)} {weight / sum(weights):.0%}" for weight, value in shares[:5]]
            return ", ".join(shown) + (", ..." if len(shares) > 5 else "")
    raise AssertionError(prior)


def draw_probability(known: Any) -> Any:
    """How probably a configuration is drawn from the prior when so many are known, else from the domains."""
    return STRENGTH / (STRENGTH + known)


def exponent(results: int) -> float:
    """The power of the prior that an acquisition is multiplied by, after so many results; 1 at most."""
    return min(1.0, STRENGTH / max(1, results))


class _Column:
    """The prior of one dimension of the unit cube, as a density on [0, 1]; 1 is that of no prior.

    Attributes:
        mode: Where it is highest.
    """

    def __init__(self, prior: Prior, domain: Float | Int | Ordinal | Choice) -> None:
        if isinstance(prior, Weights):
            shares = np.array(prior.weights) / sum(prior.weights)
            self._ends: Floats | None = np.concatenate([[0.0], np.cumsum(shares)])
            self._ends[-1] = 1.0
            self._logs = np.log(shares * len(shares))
            self.mode = (float(np.argmax(shares)) + 0.5) / len(shares)
            return
        self._ends = None
        self.mode = self._center = _position(prior.center, domain)
        self._sigma = prior.sigma / span(domain)
        self._below = _NORMAL.cdf(-self._center / self._sigma)
        self._mass = _NORMAL.cdf((1 - self._center) / self._sigma) - self._below

    def quantiles(self, unit: Floats) -> Floats:
        """Positions `(n,)` that have the prior's distribution where those given are uniform."""
        if self._ends is not None:
            cells = len(self._logs)
            cell = np.minimum(np.searchsorted(self._ends, unit, side="right") - 1, cells - 1)
            within = (unit - self._ends[cell]) / np.diff(self._ends)[cell]
            return np.asarray((cell + np.clip(within, 0.0, 1 - 1e-9)) / cells, dtype=float)
        shares = np.clip(self._below + unit * self._mass, 1e-300, 1 - 1e-16)
        found = [self._center + self._sigma * _NORMAL.inv_cdf(share) for share in shares.tolist()]
        return np.clip(found, 0.0, 1.0)

    def log_density(self, unit: Floats) -> Floats:
        """Its logarithm at positions `(n,)`; that of no prior, 0, where they are NaN: inactive."""
        at = np.nan_to_num(unit, nan=0.5)
        if self._ends is not None:
            cells = len(self._logs)
            logs = self._logs[np.minimum((at * cells).astype(np.int64), cells - 1)]
        else:
            z = (at - self._center) / self._sigma
            logs = -0.5 * z**2 - math.log(self._sigma * self._mass * math.sqrt(2 * math.pi))
        return np.where(np.isnan(unit), 0.0, logs)


class Priors:
    """Those of all dimensions of a space; true where there are any.

    Args:
        dimensions: The prior of each column of the unit cube, None without one, and its domain.
    """

    def __init__(self, dimensions: Sequence[tuple[Prior | None, Float | Int | Ordinal | Choice]]) -> None:
        self._width = len(dimensions)
        self._columns = {
            column: _Column(prior, domain)
            for column, (prior, domain) in enumerate(dimensions)
            if prior is not None
        }

    def __bool__(self) -> bool:
        return bool(self._columns)

    def draw(self, n: int, rng: Generator) -> Floats:
        """Positions `(n, d)` in the unit cube; uniform in columns without a prior."""
        unit = rng.random((n, self._width))
        for column, prior in self._columns.items():
            unit[:, column] = prior.quantiles(unit[:, column])
        return unit

    def center(self, column: int, *, otherwise: float) -> float:
        """Where the best value of the column is believed to be, in the unit interval."""
        prior = self._columns.get(column)
        return otherwise if prior is None else prior.mode

    def shares(self, column: int, *, size: int) -> Floats:
        """How probable each of `size` listed values is, `(size,)`."""
        at = (np.arange(size) + 0.5) / size
        prior = self._columns.get(column)
        density = np.ones(size) if prior is None else np.exp(prior.log_density(at))
        return np.asarray(density / density.sum(), dtype=float)

    def log_density(self, unit: Floats) -> Floats:
        """Logarithm of the density at positions `(n, d)`, `(n,)`; a column that is inactive (NaN) adds 0."""
        logs = np.zeros(len(unit))
        for column, prior in self._columns.items():
            logs += prior.log_density(unit[:, column])
        return logs

    def exponent(self, units: Floats, values: Floats, resources: Ints) -> float:
        """The power of the prior that an acquisition is multiplied by, after these observations.

        It falls with their number, and the less those that the prior finds probable are the better ones: to 0
        where they are the worse ones.

        Args:
            units: Their configurations in the unit cube, `(m, d)`.
            values: To be minimised, `(m,)`; NaN for a failure, the worst of all.
            resources: `(m,)`. Values are compared at the one with most of them.
        """
        levels, level = np.unique(resources, return_inverse=True)
        if not self._columns or not len(levels):
            return exponent(len(values))
        rows = np.flatnonzero(level == np.argmax(np.bincount(level)))
        if len(rows) < LEAST:
            return exponent(len(rows))
        believed = self._softened(units[rows])
        ranks = np.argsort(np.argsort(np.nan_to_num(values[rows], nan=np.inf), kind="stable"))
        if not np.ptp(believed):
            return 0.0
        agreement = -float(np.corrcoef(believed, ranks)[0, 1]) / AGREES
        return exponent(len(rows)) * min(1.0, max(0.0, agreement))

    def log_factor(self, unit: Floats, *, power: float) -> Floats:
        """Logarithm `(n,)` of what an acquisition at `(n, d)` is multiplied by."""
        return power * self._softened(unit)

    def log_factors(self, unit: Floats, *, power: float) -> Floats:
        """What each column adds to `log_factor`, `(n, d)`."""
        logs = np.zeros(unit.shape)
        for column in self._columns:
            logs[:, column] = power * self._softened_column(column, unit)
        return logs

    def _softened(self, unit: Floats) -> Floats:
        """Logarithm of the density `(n,)`, that of each column mixed with an even one.

        The tails of a narrow normal distribution that is wrong would outweigh hundreds of results.
        """
        logs = np.zeros(len(unit))
        for column in self._columns:
            logs += self._softened_column(column, unit)
        return logs

    def _softened_column(self, column: int, unit: Floats) -> Floats:
        believed = self._columns[column].log_density(unit[:, column])
        logs: Floats = np.logaddexp(math.log(1 - DOUBT) + believed, math.log(DOUBT))
        return logs


def _position(center: Any, domain: Float | Int | Ordinal | Choice) -> float:
    """Where the center lies in the unit interval; between two cells where it is between two values."""
    match domain:
        case Int(low=low, log=False, step=step):
            return float((center - low) / (step or 1) + 0.5) / domain.size
        case Float(low=low, step=float() as step):
            return float((center - low) / step + 0.5) / (domain.size or 1)
    return float(domain.to_unit([center])[0])


def span(domain: Float | Int | Ordinal | Choice) -> float:
    """The width of the unit interval in the unit of sigma."""
    match domain:
        case Float(low=low, high=high, log=True):
            return math.log10(high / low)
        case Int(low=low, high=high, log=True):
            return math.log10((high + 0.5) / (low - 0.5))
        case Float(low=low, high=high, step=None):
            return high - low
        case Float(step=float() as step):
            return (domain.size or 1) * step
        case Int(step=whole):
            return domain.size * (whole or 1)
    return domain.size or 1
