"""`FILE.py:NAME` or `package.module:NAME` -> the training function."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import hpcsweep
from hpcsweep.errors import TrainerError
from hpcsweep.store.manifest import CodeSnapshot
from hpcsweep.worker.environment import snapshot_paths


def load_trainer(function: str) -> Callable[[Any], object]:
    """Import the training function; it is callable with one argument.

    A file's folder, and the present folder for a module, come first on `sys.path`, as when Python
    runs a script. Whatever the import raises is passed on as it is.

    Raises:
        TrainerError: There is no such file, or no such callable in it.
    """
    source, colon, name = function.rpartition(":")
    if not (colon and source and name):
        raise TrainerError(f"{function}: write FILE.py:NAME or package.module:NAME")
    module = _import_file(Path(source)) if source.endswith(".py") else _import_module(source)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise TrainerError(f"{source}: has no {name!r}{_hint(module, name)}")
        found = getattr(found, part)
    if not callable(found):
        raise TrainerError(f"{source}: {name!r} is not a function but {type(found).__name__}")
    try:
        inspect.signature(found).bind(None)
    except TypeError as error:
        raise TrainerError(
            f"{source}: {name!r} must be callable with one argument, the trial ({error})"
        ) from error
    except ValueError:
        pass  # a built-in that does not tell its signature
    return found  # type: ignore[no-any-return]


def search_snapshot(*copied: str) -> None:
    """From now on search modules in the copy of the code in place of the original.

    Args:
        *copied: The original's root and the copy; none where there is no copy.
    """
    if copied:
        root, code = copied
        sys.path[:] = snapshot_paths(sys.path, CodeSnapshot(root, code, ""))


def imports_outside_snapshot(*copied: str) -> list[str]:
    """Files that were imported from the original, though there is a copy; arguments as `search_snapshot` has.

    An editable install can do that by a hook of its own.
    """
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
    # Known by its plain name, so that spawned data loader workers can unpickle what it defines.
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
    near = difflib.get_close_matches(name, own, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; it defines {', '.join(own)}" if own else "; it defines no function"
