"""How long the command line and the worker take to start: `python -m benchmarks.startup`.

A login node and thousands of array tasks start on a slow shared filesystem: each module that is
imported costs. `python -c pass` and each command are run in turn, many times; the figures are
medians of wall time, and the ratio is the median over the turns.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

#: To be reached by `--help`: within so many times a bare interpreter.
MOST_TIMES_BARE = 10.0
HEAVY = ("numpy", "pandas", "torch")

BARE = ("-c", "pass")
#: Runs `--help` to its end, and then tells on standard error what it has imported.
_HELP = (
    "import contextlib, io, runpy, sys; sys.argv = ['hpcsweep', '--help']\n"
    "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
    "    runpy.run_module('hpcsweep', run_name='__main__')\n"
)
_TELL = "import sys; print(*sys.modules, file=sys.stderr)"


class Command(NamedTuple):
    """Something that is started.

    Attributes:
        arguments: Of the interpreter.
        program: The same as a program, after which the imported modules can be looked at.
        most: Times a bare interpreter, to be reached; None where nothing is promised.
    """

    name: str
    arguments: tuple[str, ...]
    program: str
    most: float | None = None


def import_command(module: str, *names: str) -> Command:
    """The import of one module, or of these names of it."""
    statement = f"from {module} import {', '.join(names)}" if names else f"import {module}"
    return Command(statement, ("-c", statement), statement)


COMMANDS = (
    Command("python -m hpcsweep --help", ("-m", "hpcsweep", "--help"), _HELP, MOST_TIMES_BARE),
    import_command("hpcsweep.worker.__main__"),
    import_command("hpcsweep.trial"),
    import_command("hpcsweep", "Trial"),
    import_command("hpcsweep"),
)


def seconds(arguments: Sequence[str]) -> float:
    """Wall time of one start of the interpreter."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def modules(program: str) -> set[str]:
    """All modules that are loaded after the program has run."""
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\n{_TELL}"], check=True, stderr=subprocess.PIPE, text=True
    )
    return set(done.stderr.split())


def print_timing(command: Command, times: int) -> bool:
    """Measure and print one command; whether what is promised of it is reached."""
    bare, own = [], []
    for _ in range(times):
        bare.append(seconds(BARE))
        own.append(seconds(command.arguments))
    ratio = statistics.median(mine / base for mine, base in zip(own, bare, strict=True))
    loaded = modules(command.program)
    heavy = [name for name in HEAVY if name in loaded]
    print(
        f"{command.name:<36} {1000 * statistics.median(own):>7.0f} {1000 * statistics.median(bare):>7.0f} "
        f"{ratio:>7.1f} {len(loaded):>8}  {', '.join(heavy) or '-'}"
    )
    reached = True
    if command.most is not None:
        reached = ratio <= command.most
        print(f"  at most {command.most:g} times a bare python: {'reached' if reached else 'NOT REACHED'}")
    print(f"  none of {', '.join(HEAVY)}: {'NOT REACHED' if heavy else 'reached'}", flush=True)
    return reached and not heavy


def main() -> int:
    """Print the table; 1 if something is not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--times", type=int, default=15, help="starts of each command")
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, msgspec {msgspec.__version__}; milliseconds")
    print(f"{'':<36} {'median':>7} {'bare':>7} {'ratio':>7} {'modules':>8}  heavy ones among them")
    for command in COMMANDS:  # files into the page cache, byte code written
        seconds(command.arguments)
    reached = [print_timing(command, options.times) for command in COMMANDS]
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
