"""Medians of the quality benchmark as a table, and what they are held against."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Final, NamedTuple

from benchmarks.problems import PROBLEMS
from benchmarks.quality_functions import BEFORE

#: Share of the functions on which `tpe` is to be no worse than Optuna's TPE: 7 of 10.
SHARE: Final = 0.7
#: Of the time of Hyperband with random search, what Hyperband with `tpe` may need.
MOST_TIME: Final = 0.6
#: Of the regret of an earlier version, what the same searcher may have in the geometric mean.
MOST_REGRET: Final = 1.15
LEARNING: Final = ("tpe", "gp", "cmaes", "evolution", "auto")


class Table:
    """Values by problem, batch and method; smaller ones are better.

    Attributes:
        problems: In the order in which they were added; `batches` and `methods` likewise.
    """

    def __init__(self) -> None:
        self._values: dict[tuple[str, int, str], list[float]] = defaultdict(list)
        self._cpu_s: dict[str, float] = defaultdict(float)
        self.problems: list[str] = []
        self.batches: list[int] = []
        self.methods: list[str] = []

    def add(self, problem: str, batch: int, method: str, *, value: float | None, cpu_s: float = 0.0) -> None:
        """One sweep came to this value, None for infinity, and cost so much."""
        self._values[problem, batch, method].append(math.inf if value is None else value)
        self._cpu_s[method] += cpu_s
        for item, order in ((problem, self.problems), (method, self.methods)):
            if item not in order:
                order.append(item)
        if batch not in self.batches:
            self.batches.append(batch)

    def median(self, problem: str, batch: int, method: str) -> float | None:
        """Over the seeds; None if it was not measured."""
        values = self._values.get((problem, batch, method))
        return median(values) if values else None

    def seeds(self, problem: str, batch: int, method: str) -> int:
        """How many values there are."""
        return len(self._values.get((problem, batch, method), ()))

    def ratio(self, problem: str, batch: int, method: str, to: str) -> float | None:
        """Of two medians; None if one of them was not measured, or both are infinite."""
        mine, other = self.median(problem, batch, method), self.median(problem, batch, to)
        if mine is None or other is None or mine == other == math.inf:
            return None
        return mine / other if other else (1.0 if mine == 0 else math.inf)

    def cpu_s(self, method: str) -> float:
        """All that its sweeps cost."""
        return self._cpu_s[method]


def print_table(table: Table, *, what: str, baseline: str) -> None:
    """Print the medians by problem, batch and method, with their ratios to those of `baseline`.

    Each row says of how many seeds it is, and a cell that has fewer says so.
    """
    if not table.problems:
        print(f"{what}: not measured\n")
        return
    width = max(18, *(len(method) + 2 for method in table.methods))
    print(f"{what}; in brackets its ratio to {baseline}, and the seeds where they are fewer than the row's")
    for batch in sorted(table.batches):
        heads = "".join(f"{method:>{width}}" for method in table.methods)
        print(f"\n{f'at a time: {batch}':<24} seeds{heads}")
        for problem in table.problems:
            most = max(table.seeds(problem, batch, method) for method in table.methods)
            cells = (_cell(table, problem, batch, method, baseline, most=most) for method in table.methods)
            print(f"{problem:<24} {most:>5}" + "".join(f"{cell:>{width}}" for cell in cells))
        means = (_mean(table, batch, method, baseline) for method in table.methods)
        print(f"{'geometric mean':<30}" + "".join(f"{mean:>{width}}" for mean in means))
    costs = (f"{table.cpu_s(method):.0f}" for method in table.methods)
    print(f"\n{'CPU s in all':<30}" + "".join(f"{cost:>{width}}" for cost in costs) + "\n")


def _cell(table: Table, problem: str, batch: int, method: str, baseline: str, *, most: int) -> str:
    found, ratio = table.median(problem, batch, method), table.ratio(problem, batch, method, baseline)
    if found is None:
        return "-"
    seeds = table.seeds(problem, batch, method)
    fewer = f" [{seeds}]" if seeds < most else ""
    return f"{found:.3g} ({'-' if ratio is None else _format_ratio(ratio)}){fewer}"


def _mean(table: Table, batch: int, method: str, baseline: str) -> str:
    ratios = [table.ratio(problem, batch, method, baseline) for problem in table.problems]
    positive = [ratio for ratio in ratios if ratio]
    if not positive:
        return "-"
    return f"({_format_ratio(_geometric_mean(positive))})"


def _geometric_mean(ratios: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


# --------------------------------------------------------------------------- verdicts


class Verdict(NamedTuple):
    """Whether a figure is reached; None where nothing of it was measured."""

    claim: str
    reached: bool | None
    figures: str

    def __str__(self) -> str:
        """One line."""
        word = {True: "reached", False: "NOT reached", None: "not measured"}[self.reached]
        return f"{self.claim}: {word}" + (f", {self.figures}" if self.figures else "")


def function_verdicts(table: Table, *, ours: Sequence[str], peer: str) -> list[Verdict]:
    """Of the functions; `ours` are all searchers, `peer` is Optuna's TPE."""
    return [
        *(_no_worse(table, batch, "tpe", peer) for batch in sorted(table.batches) if batch in (1, 16)),
        *(_lower_on_smooth(table, batch) for batch in sorted(table.batches)),
        _auto_is_second_at_least(table, [name for name in ours if name != "auto"]),
        *(_beats(table, name, "random") for name in LEARNING),
        *(_no_worse_than_before(table, name) for name in table.methods if name.startswith(BEFORE)),
    ]


def _no_worse_than_before(table: Table, earlier: str) -> Verdict:
    """All functions and batches together."""
    today = earlier.removeprefix(BEFORE)
    ratios = [
        (f"{name}/{batch}", table.ratio(name, batch, today, earlier))
        for batch in sorted(table.batches)
        for name in table.problems
    ]
    found = [(name, ratio) for name, ratio in ratios if ratio]
    claim = f"{today} has at most {MOST_REGRET} of the regret of {earlier}"
    if not found:
        return Verdict(claim, None, "")
    mean = _geometric_mean([ratio for _, ratio in found])
    return Verdict(claim, mean <= MOST_REGRET, f"{mean:.2f} in the geometric mean ({_format_ratios(found)})")


def _no_worse(table: Table, batch: int, method: str, peer: str) -> Verdict:
    ratios = [(name, table.ratio(name, batch, method, peer)) for name in table.problems]
    found = [(name, ratio) for name, ratio in ratios if ratio is not None]
    wins, needed = sum(ratio <= 1 for _, ratio in found), math.ceil(SHARE * len(found))
    return Verdict(
        f"{method} <= {peer} on at least 7 of 10, batch {batch}",
        wins >= needed if found else None,
        f"{wins} of {len(found)} ({_format_ratios(found)})" if found else "",
    )


def _lower_on_smooth(table: Table, batch: int) -> Verdict:
    ratios = [
        (name, table.ratio(name, batch, "gp", "tpe"))
        for name in table.problems
        if name in PROBLEMS and PROBLEMS[name].smooth
    ]
    found = [(name, ratio) for name, ratio in ratios if ratio is not None]
    return Verdict(
        f"gp < tpe on the smooth ones, batch {batch}",
        all(ratio < 1 for _, ratio in found) if found else None,
        _format_ratios(found),
    )


def _auto_is_second_at_least(table: Table, others: Sequence[str]) -> Verdict:
    """At most the second smallest median of the others of ours."""
    worse, count = [], 0
    for batch in sorted(table.batches):
        for name in table.problems:
            mine = table.median(name, batch, "auto")
            medians = [table.median(name, batch, other) for other in others]
            known = sorted(value for value in medians if value is not None)
            if mine is None or len(known) < 2:
                continue
            count += 1
            if mine > known[1]:
                rank = 1 + sum(value < mine for value in known)
                worse.append(f"{name}/{batch} is number {rank}, {mine / known[1]:.2f} of the second")
    return Verdict(
        "auto never worse than the second best of ours",
        not worse if count else None,
        f"{count - len(worse)} of {count}" + (f" ({', '.join(worse)})" if worse else "") if count else "",
    )


def _beats(table: Table, method: str, baseline: str) -> Verdict:
    ratios = [
        (f"{name}/{batch}", table.ratio(name, batch, method, baseline))
        for batch in sorted(table.batches)
        for name in table.problems
    ]
    found = [(name, ratio) for name, ratio in ratios if ratio is not None]
    lost = [(name, ratio) for name, ratio in found if ratio >= 1]
    return Verdict(
        f"{method} beats {baseline}",
        not lost if found else None,
        f"{len(found) - len(lost)} of {len(found)}" + (f" (not {_format_ratios(lost)})" if lost else "")
        if found
        else "",
    )


def curve_verdicts(table: Table) -> list[Verdict]:
    """Of the learning curves, all of them together."""
    return [
        _within(
            table, "random+asha", "random+reference-asha", 1.0, "ASHA no later than the plain reference ASHA"
        ),
        _within(
            table,
            "tpe+hyperband",
            "random+hyperband",
            MOST_TIME,
            f"Hyperband with tpe needs at most {MOST_TIME} of the time of Hyperband with random",
        ),
    ]


def _within(table: Table, method: str, baseline: str, most: float, claim: str) -> Verdict:
    ratios = [
        (name, table.ratio(name, batch, method, baseline))
        for batch in table.batches
        for name in table.problems
    ]
    found = [(name, ratio) for name, ratio in ratios if ratio is not None]
    return Verdict(claim, all(ratio <= most for _, ratio in found) if found else None, _format_ratios(found))


def _format_ratios(ratios: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {_format_ratio(ratio)}" for name, ratio in ratios)


def _format_ratio(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.1g}"
