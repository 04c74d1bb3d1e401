"""Whether a trainer can be run, found out before anything is submitted.

`python -P -m hpcsweep.worker.check FILE.py:NAME [ROOT COPY]` imports it in a process of its own, so
that what it imports (torch) never enters the driver. The last two are as the child process has them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import traceback

from hpcsweep import bootstrap
from hpcsweep.bootstrap import use_utf8
from hpcsweep.errors import TrainerError
from hpcsweep.store.manifest import Program

#: Importing torch over a busy network filesystem can take a minute.
IMPORT_LIMIT_S = 300.0


def check_trainer(program: Program, python: str) -> None:
    """Make sure that the training function can be imported and called, or the command be built.

    Args:
        program: What the sweep runs.
        python: The interpreter that will run it.

    Raises:
        TrainerError: It cannot; the message is one line.
    """
    from hpcsweep.worker.command import check_template

    for pattern in program.metrics:
        _check_pattern(pattern)
    if program.command is not None:
        check_template(program.command, shell=program.shell, parameters=program.parameters)
    if program.function is not None:
        _check_function(program, program.function, python=python)


def _check_pattern(pattern: str) -> None:
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise TrainerError(f"train.metrics: {pattern!r} is not a regular expression: {error}") from error
    if not set(groups) - {"step"}:
        raise TrainerError(
            f"train.metrics: {pattern!r} names no metric; "
            r"name its group as in 'val_error=(?P<val_error>\S+)'"
        )


def _check_function(program: Program, function: str, *, python: str) -> None:
    workdir = program.workdir
    copied = [program.copied.root, program.copied.code] if program.copied else []
    try:
        done = subprocess.run(
            bootstrap.command(python, "hpcsweep.worker.check", function, *copied),
            cwd=workdir,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=IMPORT_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TrainerError(f"{function}: importing it took longer than {IMPORT_LIMIT_S:.0f} s") from error
    except OSError as error:
        raise TrainerError(
            f"{function}: cannot be imported in {workdir} by {python}: {error.strerror}"
        ) from error
    if done.returncode:
        lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        raise TrainerError(
            lines[-1] if lines else f"{function}: importing it ended with exit {done.returncode}"
        )


def main(function: str, *copied: str) -> int:
    """Import the function; 1 and one line on standard error if it cannot be called."""
    from hpcsweep.worker.load_function import imports_outside_snapshot, load_trainer, search_snapshot

    search_snapshot(*copied)
    try:
        load_trainer(function)
    except TrainerError as error:
        print(error, file=sys.stderr)
        return 1
    except BaseException as error:
        source = function.rpartition(":")[0]
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"{source}: cannot be imported: {text} ({where.filename}:{where.lineno})", file=sys.stderr)
        return 1
    outside = imports_outside_snapshot(*copied)
    if outside:
        print(
            f"{function}: imports {outside[0]}, not its copy in {copied[1]} (train.snapshot: true); put the "
            "folder of that package on PYTHONPATH, then its copy is searched, or set train.snapshot: false",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    use_utf8()
    sys.exit(main(*sys.argv[1:]))
