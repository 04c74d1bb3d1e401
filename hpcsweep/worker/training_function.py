"""Loads the training function, `FILE.py:NAME` or `package.module:NAME`, and checks it before a sweep starts.

`python -P -m hpcsweep.worker.training_function FUNCTION [ROOT COPY]` imports it in a separate process,
so that the driver never imports torch. ROOT and COPY are those of a snapshot.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import hpcsweep
from hpcsweep import bootstrap
from hpcsweep.bootstrap import use_utf8
from hpcsweep.errors import TrainerError
from hpcsweep.store.batch import CodeSnapshot, Program
from hpcsweep.worker.command import snapshot_paths

#: Importing torch over a busy network filesystem can take a minute.
IMPORT_LIMIT_S = 300.0


def check_trainer(program: Program, python: str) -> None:
    """Check that the training function can be imported and called by `python`; a command is not checked.

    Raises:
        TrainerError: It cannot; the message is one line.
    """
    function, workdir = program.function, program.workdir
    if function is None:
        return
    copied = [program.snapshot.root, program.snapshot.code] if program.snapshot else []
    try:
        done = subprocess.run(
            bootstrap.command(python, "hpcsweep.worker.training_function", function, *copied),
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


def load_trainer(function: str) -> Callable[[Any], object]:
    """Import the training function; TrainerError if there is none that is callable with one argument.

    The file's folder, or the working directory for a module, comes first on `sys.path`, as for a script.
    """
    source, colon, name = function.rpartition(":")
    if not (colon and source and name):
        raise TrainerError(f"{function}: write FILE.py:NAME or package.module:NAME")
    bootstrap.importing = True
    try:
        module = _import_file(Path(source)) if source.endswith(".py") else _import_module(source)
    finally:
        bootstrap.importing = False
    trainer: Any = module
    for part in name.split("."):
        if not hasattr(trainer, part):
            raise TrainerError(f"{source}: has no {name!r}{_hint(module, name)}")
        trainer = getattr(trainer, part)
    if not callable(trainer):
        raise TrainerError(f"{source}: {name!r} is not a function but {type(trainer).__name__}")
    try:
        inspect.signature(trainer).bind(None)
    except TypeError as error:
        raise TrainerError(
            f"{source}: {name!r} must be callable with one argument, the trial ({error})"
        ) from error
    except ValueError:
        pass  # a built-in without a signature
    return trainer  # type: ignore[no-any-return]


def search_snapshot(*copied: str) -> None:
    """Search modules in the snapshot, if there is one, instead of the original."""
    if copied:
        root, code = copied
        sys.path[:] = snapshot_paths(sys.path, CodeSnapshot(root, code, ""))


def imports_outside_snapshot(*copied: str) -> list[str]:
    """Files that were imported from the original although there is a snapshot (an editable install can)."""
    if not copied:
        return []
    root, copy = copied
    code = CodeSnapshot(root, copy, "")
    own = str(Path(hpcsweep.__file__).parent)
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return sorted(
        real
        for file in files
        if isinstance(file, str)
        and code.is_original(real := os.path.realpath(file))
        and not real.startswith((f"{os.path.realpath(sys.prefix)}/", f"{os.path.realpath(own)}/"))
    )


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise TrainerError(f"{path}: there is no such file")
    sys.path.insert(0, str(path.parent))
    # Under its plain name, so that spawned data loader workers can unpickle what it defines.
    name = path.stem if path.stem not in sys.modules else f"hpcsweep_trainer_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TrainerError(f"{path}: is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _import_module(name: str) -> ModuleType:
    sys.path.insert(0, os.getcwd())
    return importlib.import_module(name)


def _hint(module: ModuleType, name: str) -> str:
    own = [
        key
        for key, value in vars(module).items()
        if callable(value) and not key.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]
    if near := difflib.get_close_matches(name, own, n=1):
        return f"; did you mean {near[0]!r}?"
    return f"; it defines {', '.join(own)}" if own else "; it defines no function"


if __name__ == "__main__":
    use_utf8()
    sys.exit(main(*sys.argv[1:]))
