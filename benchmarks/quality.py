"""How good the searchers are: `python -m benchmarks.quality`.

Functions: each searcher searches the ten functions of `benchmarks.problems` in batches. Shown is the
median regret over the seeds, and in brackets its ratio to that of random search in the same batches.
Optuna's samplers do the same by Optuna's own ask and tell, with their defaults: `TPESampler`, and with
`--optuna` those of a Gaussian process and of CMA-ES.

`--functions held-out`: those of `benchmarks.held_out`, on which nothing was tuned. `--functions wide`: some
of them in 30 dimensions; give them `--evaluations 400`.

Learning curves (`--part curves`): scheduler and searcher train with 32 workers in virtual time, until a
value is within the best 0.1 % of what random configurations end with. Shown is the median of the
seconds that it takes, and in brackets its ratio to random search with fifo.

Full trainings (`--part trainings`): the same with more curves, until such a value is reached at the full
resource. Shown is the time in full trainings of the median configuration; with curves of equal duration
none takes less than one.

Several objectives (`--part objectives`): the median hypervolume after 100 and 200 evaluations of the problems
in `benchmarks.front_problems`, beside Optuna's samplers for several objectives and, where Ax is installed
(`pip install ax-platform`), beside `ax`.

Rungs with several objectives (`--part rungs`): the share of the best hypervolume over time, on the learning
curves of `benchmarks.quality_front_curves`.

`before:gp` is the searcher `gp` of an earlier version, whose files are in the folder `--before`, for example
by `git worktree add ../earlier v0.1.0`.

Priors (`--part priors`): the functions with good and with wrong priors, beside the same searcher without;
soon, and after all evaluations.

A figure that is not reached is printed so. All of it takes long; `--save FILE` keeps each result as soon
as it is there, and `--load FILE` takes those that are kept in place of computing them, so that it can
be done in pieces. Each row says of how many seeds it is.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec

from benchmarks.front_problems import FRONTS
from benchmarks.held_out import HELD_OUT, WIDE
from benchmarks.problems import PROBLEMS
from benchmarks.quality_ax import AX, AX_INSTALLED
from benchmarks.quality_curves import (
    ANY_RESOURCE,
    CURVES,
    METHODS,
    TRAININGS,
    WORKERS,
    full_training,
    time_to_target,
)
from benchmarks.quality_front_curves import FRONT_CURVES, print_shares, shares
from benchmarks.quality_front_curves import METHODS as FRONT_METHODS
from benchmarks.quality_fronts import (
    CHECKED,
    FRONT_SEARCHERS,
    PEERS,
    SINGLE,
    Cell,
    checked_within,
    hypervolumes,
    print_fronts,
)
from benchmarks.quality_functions import BEFORE, OPTUNA, regret
from benchmarks.quality_priors import BELIEFS, SEARCHERS, SOON, prior_verdicts
from benchmarks.quality_verdicts import Table, Verdict, curve_verdicts, function_verdicts, print_table

OURS: Final = ("random", "sobol", "tpe", "gp", "cmaes", "evolution", "auto")
EVALUATIONS: Final = 160
FUNCTIONS: Final = (*PROBLEMS, *HELD_OUT, *WIDE)
OPTUNA_TPE: Final = f"{OPTUNA}TPESampler"
OPTUNA_SLOW: Final = (f"{OPTUNA}GPSampler", f"{OPTUNA}CmaEsSampler")


class Task(msgspec.Struct, frozen=True):
    """One sweep.

    Attributes:
        method: Searcher or sampler; for learning curves searcher and scheduler.
        batch: Configurations at a time; for learning curves the workers.
        evaluations: Of the function; for learning curves 0, they go on until the target is reached.
        full: Of learning curves, whether the target is to be reached at the full resource.
    """

    problem: str
    method: str
    batch: int
    evaluations: int
    seed: int
    full: bool = False


class Result(msgspec.Struct, frozen=True):
    """What came of it.

    Attributes:
        value: Regret, hypervolume, or virtual seconds to the target; None if that was never reached.
        cpu_s: What it cost to find out.
        checked: Hypervolumes after each of `checked_within` its evaluations; with rungs, shares over time.
    """

    task: Task
    value: float | None
    cpu_s: float
    checked: tuple[float, ...] = ()


def run_task(task: Task) -> Result:
    """Do one sweep."""
    start = time.process_time()
    method = task.method
    value: float | None
    checked: tuple[float, ...] = ()
    if task.problem in FRONTS:
        checked = hypervolumes(
            task.problem, method, batch=task.batch, evaluations=task.evaluations, seed=task.seed
        )
        value = checked[-1]
    elif task.problem in FRONT_CURVES:
        checked = shares(task.problem, method, seed=task.seed)
        value = checked[-1]
    elif task.problem in FUNCTIONS:
        value = regret(task.problem, method, batch=task.batch, evaluations=task.evaluations, seed=task.seed)
    else:
        value = time_to_target(task.problem, method, seed=task.seed, full=task.full)
    cpu_s = time.process_time() - start
    return Result(task, None if value == float("inf") else value, cpu_s, checked)


def run_tasks(
    tasks: Sequence[Task], *, load: Sequence[Path], save: Path | None, jobs: int, before: Path | None = None
) -> Iterator[Result]:
    """The result of each task, those that are kept first; new ones are saved as they come.

    With 0 `jobs` only those that are kept.
    """
    known = {
        found.task: found
        for path in load
        for found in map(msgspec.json.Decoder(Result).decode, path.read_bytes().splitlines())
    }
    yield from (known[task] for task in tasks if task in known)
    left = [task for task in tasks if task not in known] if jobs else []
    earlier = [task for task in left if task.method.startswith(BEFORE)]
    if earlier and before is None:
        raise SystemExit(f"--before: {earlier[0].method} needs the folder of an earlier version")
    if not AX_INSTALLED and any(task.method == AX for task in left):
        raise SystemExit("ax: Ax is not installed; pip install ax-platform")
    for threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(threads, "1")  # the processes below are the parallel ones
    if today := [task for task in left if task not in earlier]:
        pool = ProcessPoolExecutor(min(jobs, len(today)), mp_context=get_context("spawn"))
        yield from _run_all(today, run_task, pool, save=save)
    if earlier and before is not None:
        run = partial(run_earlier, before=before)
        yield from _run_all(earlier, run, ThreadPoolExecutor(jobs), save=save)


def run_earlier(task: Task, *, before: Path) -> Result:
    """Do one sweep over a function with an earlier version, in a process that imports what it needs alone."""
    numbers = (str(number) for number in (task.batch, task.evaluations, task.seed))
    sweep = (task.problem, task.method.removeprefix(BEFORE), *numbers)
    with TemporaryDirectory() as folder:
        (Path(folder) / "hpcsweep").symlink_to(before.resolve() / "hpcsweep")
        (Path(folder) / "benchmarks").symlink_to(Path(__file__).resolve().parent)
        command = [sys.executable, "-m", "benchmarks.quality_functions", *sweep]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True)
    value, cpu_s = map(float, done.stdout.split())
    return Result(task, value, cpu_s)


def measured(tasks: Sequence[Task], options: argparse.Namespace) -> Iterator[Result]:
    """The result of each task, as `options` say."""
    return run_tasks(tasks, load=options.load, save=options.save, jobs=options.jobs, before=options.before)


def _run_all(
    tasks: Sequence[Task], run: Callable[[Task], Result], pool: Executor, *, save: Path | None
) -> Iterator[Result]:
    with pool:
        futures = [pool.submit(run, task) for task in tasks]
        try:
            for count, future in enumerate(as_completed(futures), start=1):
                found = future.result()
                if save is not None:
                    with save.open("ab") as file:
                        file.write(msgspec.json.encode(found) + b"\n")
                if sys.stderr.isatty():
                    print(f"\r{count} of {len(tasks)} sweeps", end="", file=sys.stderr, flush=True)
                yield found
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def able(searchers: Sequence[str], *unable: str) -> list[str]:
    """Those of `searchers` whose names do not begin with one of `unable`."""
    return [name for name in searchers if not name.startswith(unable)]


def function_tasks(options: argparse.Namespace) -> list[Task]:
    """All sweeps over functions; seed by seed, so that a piece of them is a piece of each."""
    methods = able(options.searchers or [*OURS, OPTUNA_TPE], AX)
    methods += [name for name in OPTUNA_SLOW if options.optuna and name not in methods]
    return [
        Task(function, method, batch, options.evaluations or EVALUATIONS, seed)
        for seed in range(options.seeds)
        for function in options.functions
        for batch in options.batches
        for method in methods
    ]


def curve_tasks(options: argparse.Namespace, *, full: bool) -> list[Task]:
    """All sweeps over learning curves."""
    searchers = options.searchers or ["random", "tpe"]
    known = TRAININGS if full else METHODS
    methods = [method for method in known if method.partition("+")[0] in searchers]
    return [
        Task(curves, method, WORKERS, 0, seed, full)
        for seed in range(options.seeds)
        for curves in (CURVES if full else ANY_RESOURCE)
        for method in methods
    ]


def prior_searchers(options: argparse.Namespace) -> list[str]:
    """Those that make use of priors."""
    return able(options.searchers or SEARCHERS, "sobol", OPTUNA, AX)


def prior_tasks(options: argparse.Namespace) -> list[Task]:
    """The functions with and without priors, seed by seed."""
    late = options.evaluations or EVALUATIONS
    return [
        Task(function, f"{searcher}{belief}", batch, evaluations, seed)
        for seed in range(options.seeds)
        for function in options.functions
        for batch in options.batches
        for evaluations in sorted({min(SOON, late), late})
        for searcher in prior_searchers(options)
        for belief in ("", *(f"+{belief}" for belief in BELIEFS))
    ]


def print_priors(options: argparse.Namespace) -> bool:
    """Print a table for each searcher; whether all figures are reached."""
    tasks = prior_tasks(options)
    by_task = {result.task: result for result in measured(tasks, options)}
    reached = True
    for searcher in prior_searchers(options):
        table = Table()
        for task in tasks:
            if task in by_task and task.method.partition("+")[0] == searcher:
                one, problem = by_task[task], f"{task.problem} after {task.evaluations}"
                table.add(problem, task.batch, task.method, value=one.value, cpu_s=one.cpu_s)
        print_table(table, what="Median regret", baseline=searcher)
        counts = sorted({task.evaluations for task in tasks})
        soon, late = (f" after {n}" for n in (counts[0], counts[-1]))
        reached = print_verdicts(prior_verdicts(table, searcher, soon=soon, late=late)) and reached
    return reached


def front_tasks(options: argparse.Namespace) -> list[Task]:
    """All sweeps with several objectives; Ax is a peer by itself where it is installed."""
    peers = PEERS if AX_INSTALLED else able(PEERS, AX)
    methods = able(options.searchers or [*FRONT_SEARCHERS, *peers], *SINGLE, BEFORE)
    return [
        Task(problem, method, batch, options.evaluations or CHECKED[-1], seed)
        for seed in range(options.seeds)
        for problem in FRONTS
        for batch in options.batches
        for method in methods
    ]


def print_functions(options: argparse.Namespace) -> bool:
    """Print the table of functions and what it is held against; whether all figures are reached."""
    table = measured_table(function_tasks(options), options)
    what = f"Median regret after {options.evaluations or EVALUATIONS} evaluations"
    print_table(table, what=what, baseline="random")
    return print_verdicts(function_verdicts(table, ours=OURS, peer=OPTUNA_TPE))


def print_curves(options: argparse.Namespace) -> bool:
    """Print the seconds to a good value at any resource; whether all figures are reached."""
    table = measured_table(curve_tasks(options, full=False), options)
    what = "Median virtual seconds to the best 0.1 % at any resource"
    print_table(table, what=what, baseline="random+fifo")
    return print_verdicts(curve_verdicts(table))


def print_trainings(options: argparse.Namespace) -> bool:
    """Print the full trainings to a good value at the full resource, of which nothing is asked."""
    table = measured_table(curve_tasks(options, full=True), options)
    what = "Median of the full trainings that the best 0.1 % takes"
    print_table(table, what=what, baseline="tpe+asha")
    return True


def measured_table(tasks: Sequence[Task], options: argparse.Namespace) -> Table:
    """The value of each task; at the full resource in full trainings."""
    table = Table()
    by_task = {result.task: result for result in measured(tasks, options)}
    for one in (by_task[task] for task in tasks if task in by_task):
        task, value = one.task, one.value
        if task.full and value is not None:
            value /= full_training(task.problem, task.seed)
        table.add(task.problem, task.batch, task.method, value=value, cpu_s=one.cpu_s)
    return table


def print_verdicts(verdicts: Sequence[Verdict]) -> bool:
    """Whether none of the figures that were measured is missed."""
    for verdict in verdicts:
        print(verdict)
    return all(verdict.reached is not False for verdict in verdicts)


def print_objectives(options: argparse.Namespace) -> bool:
    """Print the table of several objectives; whether its figure is reached."""
    tasks = front_tasks(options)
    values: dict[Cell, list[float]] = {
        Cell(task.problem, task.batch, evaluations, task.method): []
        for task in tasks
        for evaluations in checked_within(task.evaluations)
    }
    for found in measured(tasks, options):
        task = found.task
        for evaluations, hypervolume in zip(checked_within(task.evaluations), found.checked, strict=True):
            values[Cell(task.problem, task.batch, evaluations, task.method)].append(hypervolume)
    return print_fronts(values)


def print_rungs(options: argparse.Namespace) -> bool:
    """Print the table of learning curves with several objectives; whether its figure is reached."""
    tasks = [
        Task(problem, method, WORKERS, 0, seed)
        for seed in range(options.seeds)
        for problem in FRONT_CURVES
        for method in FRONT_METHODS
        if options.searchers is None or method.partition("+")[0] in options.searchers
    ]
    found: dict[tuple[str, str], list[tuple[float, ...]]] = {
        (task.problem, task.method): [] for task in tasks
    }
    for one in measured(tasks, options):
        found[one.task.problem, one.task.method].append(one.checked)
    return print_shares(found)


PARTS: Final = {
    "functions": print_functions,
    "curves": print_curves,
    "trainings": print_trainings,
    "priors": print_priors,
    "objectives": print_objectives,
    "rungs": print_rungs,
}


def main() -> int:
    """Print tables and verdicts; 1 if a figure that was measured is not reached."""
    options = argument_parser().parse_args()
    parts = list(PARTS) if options.part == "all" else [options.part]
    reached = [PARTS[part](options) for part in parts]
    return 0 if all(reached) else 1


def argument_parser() -> argparse.ArgumentParser:
    """What may be chosen."""

    def split_list(text: str) -> list[str]:
        return [item for item in text.split(",") if item]

    def searchers(text: str) -> list[str]:
        for name in split_list(text):
            if name.removeprefix(BEFORE) not in OURS and not name.startswith(OPTUNA) and name != AX:
                raise argparse.ArgumentTypeError(f"unknown {name!r}; there are {', '.join((*OURS, AX))}")
        return split_list(text)

    def batches(text: str) -> list[int]:
        return [int(item) for item in split_list(text)]

    groups = {"held-out": HELD_OUT, "wide": WIDE}

    def functions(text: str) -> list[str]:
        if text in groups:
            return list(groups[text])
        if unknown := [name for name in split_list(text) if name not in FUNCTIONS]:
            raise argparse.ArgumentTypeError(f"unknown {unknown[0]!r}; there are {', '.join(FUNCTIONS)}")
        return split_list(text)

    known: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__, **known)
    parser.add_argument(
        "--part",
        choices=(*PARTS, "all"),
        default="functions",
    )
    parser.add_argument("--seeds", type=int, default=20, help="so many sweeps of each kind, from seed 0")
    parser.add_argument(
        "--searchers",
        type=searchers,
        help=f"some of {', '.join(OURS)}, {OPTUNA}NAME for a sampler of Optuna, {AX} for Ax (with several "
        f"objectives only), {BEFORE}NAME for an earlier version (of functions only), with commas between",
    )
    parser.add_argument(
        "--functions",
        type=functions,
        default=list(PROBLEMS),
        help=f"{', '.join(PROBLEMS)} (the default), held-out for {', '.join(HELD_OUT)}, "
        f"wide for {', '.join(WIDE)}",
    )
    parser.add_argument("--batches", type=batches, default=[1, 16, 81], help="configurations at a time")
    parser.add_argument(
        "--evaluations",
        type=int,
        help=f"in one sweep, {EVALUATIONS} of a function and {CHECKED[-1]} of several objectives by default",
    )
    parser.add_argument("--optuna", action="store_true", help="Optuna's GPSampler and CmaEsSampler as well")
    parser.add_argument("--before", type=Path, metavar="DIR", help="files of an earlier version")
    parser.add_argument("--jobs", type=int, default=1, help="processes; 0 prints what is loaded")
    parser.add_argument("--save", type=Path, metavar="FILE", help="append each new result, a JSON line")
    parser.add_argument("--load", type=Path, nargs="+", default=[], metavar="FILE", help="results to take")
    return parser


if __name__ == "__main__":
    sys.exit(main())
