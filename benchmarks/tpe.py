"""How long `tpe` takes to propose: `OMP_NUM_THREADS=1 python -m benchmarks.tpe`.

On one core, with 8 mixed parameters: 256 configurations at once with 500 and with 10,000 results and 64
pending, and one at a time as the results come in, at 4,000. CPU time, which other
programs on the machine do not change much; the median of several calls.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Final

from numpy.random import default_rng

from benchmarks.problems import PROBLEMS
from hpcsweep.core.history import History
from hpcsweep.searchers.random import config_key
from hpcsweep.searchers.tpe import TPE

BATCH: Final = 256
PENDING: Final = 64
#: Results, and seconds for a batch to be reached with them.
BATCHES: Final = {500: 0.7, 10_000: 3.0}
CALLS: Final = 5
#: One at a time: results at the end, asks that are timed there, and milliseconds to be reached.
TRIALS: Final = 4_000
LAST: Final = 200
MOST_MS: Final = 5.0


def mixed_history(results: int, pending: int) -> History:
    """Random configurations of the mixed problem, `pending` of them without a value."""
    problem = PROBLEMS["mixed"]
    configs = problem.space.sample(results + pending, default_rng(1))
    values = [problem.value(config) if i < results else None for i, config in enumerate(configs)]
    return History(problem.space, configs=configs, values=values, resources=[1] * len(configs))


def batch_s(results: int) -> tuple[float, int]:
    """Median seconds of a batch by a new searcher, and how many of it are distinct and new."""
    known = mixed_history(results, PENDING)
    taken: list[float] = []
    new = BATCH
    for call in range(CALLS):
        searcher = TPE()
        start = time.process_time()
        batch = searcher.ask(BATCH, known, default_rng(call))
        taken.append(time.process_time() - start)
        new = min(new, len({config_key(c) for c in batch} - {config_key(c) for c in known.configs}))
    return statistics.median(taken), new


def single_ms() -> float:
    """Median milliseconds of an ask for one, at the end of a sweep that asks one at a time."""
    problem, searcher = PROBLEMS["mixed"], TPE()
    known = mixed_history(TRIALS - LAST, 0)
    taken: list[float] = []
    for _ in range(LAST):
        start = time.process_time()
        (config,) = searcher.ask(1, known, default_rng([0, known.proposed]))
        taken.append(time.process_time() - start)
        known.observe(known.add(config), problem.value(config), 1)
    return 1e3 * statistics.median(taken)


def print_timing(name: str, took: float, most: float, unit: str) -> bool:
    """Print one figure; whether it is reached."""
    reached = took <= most
    verdict = "reached" if reached else "NOT REACHED"
    print(f"{name:<52} {took:>7.2f} {unit:<2}  at most {most:g} {unit}: {verdict}", flush=True)
    return reached


def main() -> int:
    """Print the figures; 1 if one is not reached."""
    reached: list[bool] = []
    for results, most in BATCHES.items():
        took, new = batch_s(results)
        reached.append(
            print_timing(f"{BATCH} configurations, {results} results, {PENDING} pending", took, most, "s")
        )
        reached.append(new == BATCH)
        print(f"  {new} of {BATCH} are distinct and new")
    reached.append(print_timing(f"one at a time, {TRIALS} results", single_ms(), MOST_MS, "ms"))
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
