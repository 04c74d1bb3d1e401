"""Starts our own modules as programs, also with an interpreter that cannot find this package.

`python -P FOLDER/hpcsweep/bootstrap.py [--if-missing] hpcsweep.worker ARGUMENTS`. Nothing is added to
`sys.path` or PYTHONPATH: beside the package a checkout holds `tests` and `benchmarks`, and a job's
PYTHONPATH precedes the modules of every other Python that its training starts.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib.util
import io
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

PACKAGE: Final = os.path.dirname(os.path.abspath(__file__))
_NAME: Final = os.path.basename(PACKAGE)
_INIT: Final = os.path.join(PACKAGE, "__init__.py")
_IF_MISSING: Final = "--if-missing"
#: Whether training code is being imported, for a job or to check it: what it launched, each job would.
importing = False


class _Finder:
    """Finds this package and nothing else; on `sys.meta_path`."""

    package = PACKAGE

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _NAME:
            return None
        return importlib.util.spec_from_file_location(
            fullname, _INIT, submodule_search_locations=[self.package]
        )


def command(python: str, module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this package, whether or not `python` can find it.

    An interpreter other than this one may have an hpcsweep of its own, with its dependencies: that is used.
    """
    other = [] if python == sys.executable else [_IF_MISSING]
    return [python, "-P", os.path.join(PACKAGE, "bootstrap.py"), *other, module, *arguments]


def was_needed() -> bool:
    """Whether this process would not have found the package without help."""
    return any(getattr(finder, "package", None) == PACKAGE for finder in sys.meta_path)


def collect_seldom() -> None:
    """Have garbage collected seldom, and not once more at the end, in a process where no training code runs.

    Of all that imports make nothing is garbage: to look through it takes a quarter of a command's time.
    """
    gc.set_threshold(200_000)
    atexit.register(gc.freeze)


def import_msgspec() -> None:
    """Import msgspec, and for it no typing_extensions: with inspect that is a sixth of a run's start.

    From Python 3.11 on `typing` has all that msgspec takes from there, and msgspec looks there next.
    """
    if sys.modules.keys() & {"msgspec", "typing_extensions"}:
        return
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        with contextlib.suppress(ImportError):  # whoever needs msgspec says so
            importlib.import_module("msgspec")
    finally:
        del sys.modules["typing_extensions"]


def use_utf8() -> None:
    """Make this process read, write and print UTF-8, whatever the locale; the first act of our programs.

    In a locale without UTF-8 (LC_ALL=C with PYTHONUTF8=0, Latin-1) a name such as `größe` can be
    neither opened nor printed. Python takes the setting only at its start, so the process re-executes
    itself; the environment, which training code inherits, stays as it is.
    """
    if not sys.flags.utf8_mode and sys.getfilesystemencoding().lower() not in ("utf-8", "utf8"):
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors="backslashreplace")  # where PYTHONIOENCODING says ascii


def _main(arguments: list[str]) -> None:
    import runpy  # not for the worker

    collect_seldom()
    if_missing = arguments[0] == _IF_MISSING
    module, *rest = arguments[if_missing:]
    found = importlib.util.find_spec(_NAME)
    is_this = found is not None and os.path.realpath(found.origin or "") == os.path.realpath(_INIT)
    if found is None or not (is_this or if_missing):
        sys.meta_path.insert(0, _Finder())
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main(sys.argv[1:])
