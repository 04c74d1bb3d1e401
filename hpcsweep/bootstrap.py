"""Runs a module of this very package with an interpreter that may not find the package itself.

`python -P FOLDER/hpcsweep/bootstrap.py [--if-missing] hpcsweep.worker ARGUMENTS`. No folder is added to
`sys.path` or PYTHONPATH: beside the package a checkout holds `tests` and `benchmarks`, and what a job
has on PYTHONPATH goes before the modules of every other Python that its training starts.
"""

from __future__ import annotations

import importlib.util
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
    """The command that runs a module of this package, whatever `python` finds by itself.

    An interpreter other than this one may have an hpcsweep of its own, with what that needs: it is used.
    """
    other = [] if python == sys.executable else [_IF_MISSING]
    return [python, "-P", os.path.join(PACKAGE, "bootstrap.py"), *other, module, *arguments]


def was_needed() -> bool:
    """Whether this process would not have found the package without help."""
    return any(getattr(finder, "package", None) == PACKAGE for finder in sys.meta_path)


def _main(arguments: list[str]) -> None:
    import runpy  # not for the worker

    if_missing = arguments[0] == _IF_MISSING
    module, *rest = arguments[if_missing:]
    found = importlib.util.find_spec(_NAME)
    ours = found is not None and os.path.realpath(found.origin or "") == os.path.realpath(_INIT)
    if found is None or not (ours or if_missing):
        sys.meta_path.insert(0, _Finder())
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main(sys.argv[1:])
