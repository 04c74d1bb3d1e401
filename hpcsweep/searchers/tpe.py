"""TPE: configurations that are likelier among the good results than among all others."""

from __future__ import annotations

import math
from collections.abc import Hashable
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.random import Generator

from hpcsweep.core.events import Config
from hpcsweep.core.history import Floats, History, Ints
from hpcsweep.core.objectives import Objectives
from hpcsweep.core.priors import draw_probability
from hpcsweep.core.text import format_value
from hpcsweep.searchers.random import RandomFallback, config_key
from hpcsweep.searchers.ranks import ranks
from hpcsweep.searchers.tpe_columns import ColumnPicker
from hpcsweep.searchers.tpe_density import Columns, ParzenEstimator, Points, normal_cdf

#: Good observations at most.
MOST_GOOD: Final = 25
#: Kernels of the bad density at most, and as many again for pending configurations.
MOST_BAD: Final = 512
#: Results that a model needs.
LEAST_RESULTS: Final = 2
#: Newest observations that count fully.
NEWEST: Final = 25
#: Candidates of one `ask` at most; two for each proposal in any case.
MOST_CANDIDATES: Final = 8192
#: Draws for each candidate at most, where few are new or satisfy the constraints.
MOST_DRAWS: Final = 64


#: Times that proposals by columns are made for those that were not new or not within the constraints.
ROUNDS: Final = 4


class TPE(RandomFallback):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), multivariate as in BOHB (Falkner et al. 2018).

    The best observations make the density l, everything else that was proposed the density g. Each
    proposal is the one of its candidates, drawn from l, where l / g is largest. Kernels: `tpe_density`.

    - The good ones count by rank, with the weights of the CMA-ES (Hansen 2016, eq. 49); bad ones count
      the less the older they are, but for the newest 25.
    - Failures are the worst of all, never good, whatever they had reached at lower resources.
    - With several objectives the good ones are the first by non-dominated sorting, feasible ones before
      others, and each column is chosen by itself (Ozaki et al. 2020, MOTPE; `tpe_columns`).
    - Pending configurations and those just proposed in the same call are bad, so that a batch spreads.
    - Inactive parameters carry no evidence.
    - Where trials are trained to several resources, observations at the largest one that d + 1
      configurations have reached are compared (the one with most if there is none). Configurations
      that are only known at others count as pending: their values cannot be compared, but they have
      been tried. A share of the proposals is random, as long as the sweep goes on: low resources may
      mislead, and at the largest one only those are known that were good at the low ones.
    - Where parameters have priors, some candidates are drawn from these, and l / g is multiplied by their
      density to a power that falls with the number of results (Hvarfner et al. 2022, piBO), and the less
      these agree with it.
    - Of many bad observations a systematic sample, in order of time and by weight, stands for all: it
      estimates the same density, and bandwidths have reached their floor with far fewer.

    Args:
        startup: Random proposals before the first one that is not; more only while there are fewer
            than 2 results. Configurations of earlier sweeps and enqueued ones count.
        good: Share of the observations that are good; at most 25 are.
        candidates: Drawn for each proposal; fewer where thousands are asked for at once.
        random: Share of random proposals where trials are trained to several resources.
        objectives: What is optimised; the history knows.

    Raises:
        ValueError: An option is wrong; the message begins with its name.
    """

    adaptive = True
    uses_priors = True

    def __init__(
        self,
        *,
        startup: int = 10,
        good: float = 0.15,
        candidates: int = 24,
        random: float = 1 / 3,
        objectives: Objectives | None = None,
    ) -> None:
        super().__init__()
        if startup < 1:
            raise ValueError(f"startup: must be at least 1, got {format_value(startup)}")
        if not 0 < good < 1:
            raise ValueError(f"good: must be a share > 0 and < 1, got {format_value(good)}")
        if candidates < 2:
            raise ValueError(f"candidates: must be at least 2, got {format_value(candidates)}")
        if not 0 <= random < 1:
            raise ValueError(f"random: must be a share >= 0 and < 1, got {format_value(random)}")
        self._startup = startup
        self._good = good
        self._candidates = candidates
        self._share = random

    def ask(self, n: int, history: History, rng: Generator) -> list[Config]:
        """`n` configurations, see `core.protocols.Searcher`; random ones before there is a model.

        Raises:
            SpecError: Next to nothing of an infinite space satisfies the constraints.
        """
        first = max(0, self._startup - history.known)
        if n <= first or not history.space.columns or history.observed < LEAST_RESULTS:
            return self.complete([], n, history, rng)
        columns = Columns(history.space)
        values = ranks(history)
        good, bad, largest = self._densities(columns, history, values.copy())
        modelled = n - first
        if not largest or _several_resources(history):
            modelled -= int(rng.binomial(modelled, self._share))
        priors = history.space.priors
        power = priors.exponent(history.X, values, history.resources) if priors else 0.0
        if len(history.objectives) > 1:
            given = self._by_columns(modelled, columns, good, bad, history, rng, power=power)
            return self.complete(given, n, history, rng)
        candidates = self._drawn(modelled, good, history, rng, priors=power > 0) if modelled else []
        if not candidates:
            return self.complete([], n, history, rng)
        unit = history.space.to_unit(candidates)
        points = Points(columns, unit)
        log_good, log_bad = good.log_density(points), bad.log_density(points) + math.log(bad.total)
        if power:
            log_good += priors.log_factor(unit, power=power)
        if modelled == 1:
            chosen = [int(np.argmax(log_good - log_bad))]
        else:
            repulsion = LocalPenalisation(columns, unit, bad.typical_widths())
            chosen = select_batch(modelled, log_good, log_bad, repulsion)
        return self.complete([candidates[index] for index in chosen], n, history, rng)

    def _densities(
        self, columns: Columns, history: History, values: Floats
    ) -> tuple[ParzenEstimator, ParzenEstimator, bool]:
        """The good density, the bad one, and whether they are of the largest resource.

        `values` `(m,)` order the observations; those of trials that failed at last become NaN.
        """
        trials, units = history.trials, history.X
        resources, resource = np.unique(history.resources, return_inverse=True)
        # Of a configuration that was observed twice at a resource the last observation counts.
        pairs = trials * len(resources) + resource
        rows = np.sort(len(pairs) - 1 - np.unique(pairs[::-1], return_index=True)[1])
        values[np.isin(trials, trials[rows[np.isnan(values[rows])]])] = np.nan
        valid = rows[~np.isnan(values[rows])]
        counts = np.bincount(resource[valid], minlength=len(resources))
        enough = np.flatnonzero(counts > len(columns))
        level = enough[-1] if len(enough) else np.argmax(counts)
        rows = rows[resource[rows] == level]
        ranked = rows[np.argsort(values[rows], kind="stable")]  # NaN comes last
        goods = min(math.ceil(self._good * len(ranked)), MOST_GOOD, int(counts[level]))
        bad = ranked[goods:]
        if len(resources) > 1:
            bad = np.append(bad, np.flatnonzero(history.newest & ~np.isin(trials, trials[rows])))
        bad = np.sort(bad)
        pending = history.pending[-MOST_BAD:]
        weights = _by_age(len(bad) + len(pending))
        sampled, sampled_weights = _systematic(weights[: len(bad)], MOST_BAD)
        return (
            ParzenEstimator(columns, units[ranked[:goods]], _weights(history, goods)),
            ParzenEstimator(
                columns,
                np.concatenate([units[bad[sampled]], pending]),
                np.concatenate([sampled_weights, weights[len(bad) :]]),
            ),
            bool(level == len(resources) - 1),
        )

    def _drawn(
        self, n: int, good: ParzenEstimator, history: History, rng: Generator, *, priors: bool
    ) -> list[Config]:
        """Candidates for `n` proposals: distinct, new, within the constraints; some drawn from `priors`."""
        space, seen = history.space, self._seen.keys(history.configs)
        wanted = n * max(2, min(self._candidates, MOST_CANDIDATES // n))
        found: dict[Hashable, Config] = {}
        drawn = 0
        # Where next to nothing is new or fits, one for each proposal must do.
        while len(found) < (wanted if drawn < 4 * wanted else n) and drawn < MOST_DRAWS * wanted:
            rate = (len(found) + 1) / (drawn + 1)
            count = min(math.ceil((wanted - len(found)) / rate), 4 * wanted)
            unit = good.sample(count, rng)
            if space.priors and priors:
                believed = rng.random(count) < draw_probability(history.known)
                unit[believed] = space.priors.draw(int(believed.sum()), rng)
            for config in space.from_unit(unit):
                key = config_key(config)
                if key not in seen and key not in found and space.satisfies_constraints(config):
                    found[key] = config
            drawn += count
        return list(found.values())[:wanted]

    def _by_columns(
        self,
        n: int,
        columns: Columns,
        good: ParzenEstimator,
        bad: ParzenEstimator,
        history: History,
        rng: Generator,
        *,
        power: float,
    ) -> list[Config]:
        """At most `n` proposals, each column of which is chosen by itself: new, within the constraints."""
        space, seen = history.space, self._seen.keys(history.configs)

        def draw(count: int) -> Floats:
            unit = good.sample_marginals(count, rng)
            if power:
                believed = rng.random(count) < draw_probability(history.known)
                unit[believed] = space.priors.draw(int(believed.sum()), rng)
            return unit

        picker = ColumnPicker(
            columns,
            good,
            bad,
            candidates=max(2, min(self._candidates, MOST_CANDIDATES // max(1, n))),
            draw=draw,
            log_factors=(lambda unit: space.priors.log_factors(unit, power=power)) if power else None,
        )
        found: dict[Hashable, Config] = {}
        for _ in range(ROUNDS):
            if len(found) == n:
                break
            besides = space.to_unit(list(found.values()))
            for config in space.from_unit(picker.pick(n - len(found), besides=besides)):
                key = config_key(config)
                if key not in seen and space.satisfies_constraints(config):
                    found[key] = config
        return list(found.values())


def _several_resources(history: History) -> bool:
    """Whether this sweep has results at more than one resource; those of earlier sweeps do not count."""
    own = history.resources[history.trials >= 0]
    return len(own) > 0 and bool((own != own[0]).any())


def _weights(history: History, count: int) -> Floats:
    """Of the good observations: by rank, or all alike where each is another trade-off of objectives."""
    return np.ones(count) if len(history.objectives) > 1 else _by_rank(count)


def _by_rank(count: int) -> Floats:
    """Weights of the best observations, the best first, with a mean of 1 (Hansen 2016, eq. 49)."""
    weights: Floats = math.log(count + 1) - np.log(np.arange(1, count + 1))
    return weights / weights.mean() if count else weights


def _by_age(count: int) -> Floats:
    """Weights of observations, the oldest first: rising to 1, which the newest have all."""
    rising = max(0, count - NEWEST)
    return np.concatenate([np.linspace(1 / max(1, count), 1, rising), np.ones(count - rising)])


def _systematic(weights: Floats, most: int) -> tuple[Ints, Floats]:
    """Indices and weights of at most `most`, spread evenly over the sum of the weights."""
    if len(weights) <= most:
        return np.arange(len(weights)), weights
    total = np.cumsum(weights)
    picked = np.searchsorted(total, (np.arange(most) + 0.5) * total[-1] / most)
    indices, counts = np.unique(picked, return_counts=True)
    return indices, counts * total[-1] / most


#: Probability that the kernel of a configuration just proposed gives a choice any value, its own
#: included. Small: with 0.2 the next ones kept away from its neighbours in other branches too.
MISMATCH: Final = 0.05


class LocalPenalisation:
    """Kernels of candidates, all with the same bandwidths, for those just proposed.

    Cells count by their middles: this is about not proposing the same again, in a loop that must be
    quick. Choices become corners of a simplex, so that one squared distance says all.

    Args:
        columns: Of the space.
        unit: Positions of the candidates `(n, d)`, NaN where inactive.
        widths: Bandwidths `(d,)`.
    """

    def __init__(self, columns: Columns, unit: Floats, widths: Floats) -> None:
        active = ~np.isnan(unit)
        coordinates, owners, constants = [], [], np.zeros_like(unit)
        for column, values in enumerate(columns.choices):
            at = np.where(active[:, column], unit[:, column], 0.5)
            if values:
                same = values * (1 - MISMATCH) + MISMATCH
                constants[:, column] = math.log(same)
                corner = math.sqrt(math.log(same / MISMATCH))
                cell = np.floor(at * values)
                coordinates += [np.where(cell == value, corner, 0.0) for value in range(values)]
                owners += [column] * values
            else:
                width = widths[column]
                inside = normal_cdf((1 - at) / width) - normal_cdf(-at / width)
                constants[:, column] = -np.log(width * inside) - 0.5 * math.log(2 * math.pi)
                coordinates.append(at / width)
                owners.append(column)
        self._active = active.astype(float)
        self._owners = self._active[:, owners]
        self._coordinates = np.stack(coordinates, axis=1)
        self._constants = np.where(active, constants, 0.0)

    def log_kernels(self, centre: int, start: int) -> Floats:
        """Logarithm of the kernel around candidate `centre` at the candidates from `start` on."""
        squares = (self._coordinates[start:] - self._coordinates[centre]) ** 2
        distances = (squares * self._owners[start:]) @ self._owners[centre]
        logs: Floats = self._active[start:] @ self._constants[centre] - 0.5 * distances
        return logs


def select_batch(n: int, log_good: Floats, log_bad: Floats, repulsion: LocalPenalisation) -> list[int]:
    """The candidate with the largest l / g of each of `n` shares; those chosen before count as bad."""
    log_bad = log_bad.copy()
    ends = np.arange(n + 1) * len(log_good) // n
    chosen: list[int] = []
    for start, end in pairwise(ends.tolist()):
        if start == end:
            continue
        best = start + int(np.argmax(log_good[start:end] - log_bad[start:end]))
        chosen.append(best)
        log_bad[end:] = np.logaddexp(log_bad[end:], repulsion.log_kernels(best, end))
    return chosen
