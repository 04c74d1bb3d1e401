"""Finds the training function of a sweep by a name that its jobs find again, or says why they could not."""

from __future__ import annotations

import functools
import inspect
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from hpcsweep.errors import SpecError

#: The command of a sweep without training code, whose runs are asked for.
NOTHING: Final = "false"
#: `FILE.py:NAME` and `package.module:NAME`.
_FUNCTION: Final = re.compile(r"\S+\.py:\w+|[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_NOTEBOOK: Final = (
    "write the function into a file, in a notebook with `%%writefile train.py` in the first line of its "
    "cell, and give it as `from train import {name}` or 'train.py:{name}'"
)
_MODULE_LEVEL: Final = "write a function of a module, `def train(trial): ...` at the left margin of a file"


def train_section(train: object) -> dict[str, Any]:
    """The section `train` of a function, or of a command as text or as a list of arguments.

    Raises:
        SpecError: No job can find it again.
    """
    match train:
        case None:
            return {"command": NOTHING, "check": False}
        case str() if _FUNCTION.fullmatch(train.strip()):
            return {"function": train.strip()}
        case str():
            return {"command": train}
        case list() | tuple() if train and all(isinstance(word, str) for word in train):
            return {"command": " ".join(map(_quoted, train))}
        case _ if callable(train):
            return {"function": function_name(train)}
        case _:
            raise SpecError(
                "train: expected a function, 'FILE.py:NAME', a command or a list of its arguments, "
                f"got {type(train).__name__}"
            )


def _quoted(word: str) -> str:
    """For a command that is split like a shell's; placeholders stay readable."""
    return word if re.fullmatch(r"[\w@%+=:,./{}-]+", word) else shlex.quote(word)


def function_name(function: Callable[..., object]) -> str:
    """`FILE.py:NAME` with an absolute path, or `package.module:NAME`.

    Raises:
        SpecError: The function has no such name; says what to do instead.
    """
    name = getattr(function, "__name__", "")
    wrong = _nameless(function, name)
    if wrong:
        raise SpecError(f"train: {wrong}")
    module = sys.modules.get(function.__module__ or "")
    if module is None:
        raise SpecError(f"train: {name} is of no module that a job could import; {_MODULE_LEVEL}")
    file = _file_of(module)
    if file is None:
        where = "was defined here and not in a file" if module.__name__ == "__main__" else "is of no file"
        raise SpecError(f"train: {name} {where}, so that no job can find it; {_NOTEBOOK.format(name=name)}")
    _check_own(module, name, function)
    package = _package_of(module)
    return f"{package}:{name}" if package else f"{file}:{name}"


def _nameless(function: Any, name: str) -> str:
    """Why a job could not find it by a name of its module, whatever that is; empty if it can."""
    if isinstance(function, functools.partial):
        inner = getattr(function.func, "__name__", "train")
        return (
            f"a functools.partial of {inner} has no name by which a job could find it; {_MODULE_LEVEL}, that "
            f"calls {inner} with these arguments, or make them constants of the space"
        )
    if inspect.ismethod(function):
        return f"{name} is a method of an object, which a job does not have; {_MODULE_LEVEL}"
    if name == "<lambda>":
        return f"a lambda has no name by which a job could find it; {_MODULE_LEVEL}"
    if not name or not hasattr(function, "__qualname__"):
        kind = type(function).__name__
        return f"an object of {kind} has no name by which a job could find it; {_MODULE_LEVEL}"
    if "<locals>" in function.__qualname__:
        outer = function.__qualname__.partition(".<locals>")[0]
        return f"{name} is defined within {outer}, where no job can find it; {_MODULE_LEVEL}"
    if "." in function.__qualname__:
        return f"{function.__qualname__} is defined within a class; {_MODULE_LEVEL}"
    return ""


def _check_own(module: ModuleType, name: str, function: object) -> None:
    """Refuse a function whose name means something else in its module, as under a decorator."""
    known = getattr(module, name, None)
    # While the module is imported its later lines, which may name it, have not run yet.
    if known is not None and known is not function and inspect.unwrap(known) is not function:
        raise SpecError(
            f"train: {name} of {module.__name__} is another object than the one given; give that one, or "
            "rename one of them"
        )


def _file_of(module: ModuleType) -> str | None:
    """The file that a job can import the module from; None for those that were typed in."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py") or not os.path.isfile(file):
        return None
    return os.path.realpath(file)


def _package_of(module: ModuleType) -> str:
    """The full name of a module within a package, also of one run by `python -m`; else empty."""
    spec = getattr(module, "__spec__", None)
    name = spec.name if module.__name__ == "__main__" and spec is not None else module.__name__
    name = name.removesuffix(".__main__") if name.endswith(".__main__") and name.count(".") > 1 else name
    return name if "." in name else ""


def default_name(section: dict[str, Any]) -> str:
    """A name for a sweep of this training code: that of its file, or of its program."""
    function, command = section.get("function"), section.get("command")
    if isinstance(function, str):
        source, _, name = function.rpartition(":")
        stem = Path(source).stem if source.endswith(".py") else source.rpartition(".")[2]
        text = stem if stem == name else f"{stem}-{name}"
    else:
        words = _words(str(command or ""))
        scripts = [word for word in words if re.search(r"\.\w{1,3}$", word)] or words
        text = Path(scripts[0]).stem if scripts else "sweep"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:64] or "sweep"


def _words(command: str) -> Sequence[str]:
    try:
        return [word for word in shlex.split(command) if "{" not in word and not word.startswith("-")]
    except ValueError:
        return command.split()
