"""The last lines of a program's output that say something: what an error message quotes."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hpcsweep import bootstrap
from hpcsweep.store.files import OURS, open_regular

#: Joins the lines of an excerpt.
SEPARATOR: Final = " | "
LINES: Final = 3
_LINE_LENGTH: Final = 300
_TAIL: Final = 64 * 1024

#: Terminal escape sequences, and characters that print nothing.
_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_UNPRINTED: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

#: Lines around errors that say nothing about them; compiled when an excerpt is made, as few workers make one.
_BOILERPLATE: Final = (
    r"Set the environment variable HYDRA_FULL_ERROR=1",
    r"^For debugging consider passing CUDA_LAUNCH_BLOCKING=1",
    r"^Compile with `?TORCH_USE_CUDA_DSA",
    r"^CUDA kernel errors might be asynchronously reported",
    r"^[-=*~#_+.^\s|]+$",  # rules, and the marks below a line of a traceback
    r"^Traceback \(most recent call last\):$",
    r"^During handling of the above exception, another exception occurred:$",
    r"^The above exception was the direct cause of the following exception:$",
    # torchrun, after what a process of its own had said
    r"torch\.?distributed\.elastic|torch/distributed/(run|elastic|launcher)",
    r"ChildFailedError|^Root Cause \(first observed failure\):|^Failures:$|<NO_OTHER_FAILURES>",
    r"^\[\d+\]:$|^(time|host|rank|exitcode) +: |^error_file: <|^traceback : ",
    r"^\S+ FAILED$",
    r"To enable traceback see: https?://",
    r"WARNING:.*(Sending process|Setting OMP_NUM_THREADS)",
    r"Sending process \d+ closing signal",
    # srun, of the exit code that is told anyway
    r"^srun: (error: .*: (task|tasks) .*: Exited with exit code|Terminating|launch/slurm:)",
    r"^slurmstepd: error: \*\*\* STEP",
    r"^(wandb|swanlab): ",
    r"resource_tracker: There appear to be \d+ leaked",
)
#: A progress bar such as `42%|####  | 42/100 [00:01<00:02, 30.1it/s]`.
_PROGRESS: Final = re.compile(r"\d+%\s*\|.*\||\d+/\d+ \[.*(it|s|batch|ex\w*)/(s|it)|^\s*\d+%\s*\S*$")
#: torchrun's prefix of its processes' lines.
_RANK: Final = re.compile(r"^\[(?:rank|default)\d+\]: ?")
_LOCATION: Final = re.compile(r'^\s+File "(.*)", line (\d+), in (.*)')
#: A traceback frame, or its indented code.
_FRAME: Final = re.compile(r'^\s+(File ".*", line \d+|\S)')


def excerpt(text: str, *, lines: int = LINES) -> str:
    """The last informative lines, oldest first, joined by ` | `; empty if there are none.

    Skips blank lines, our own, progress bars, traceback frames and what programs print after any error.
    After a Python exception only its own lines count, and where it was raised, not what was printed before.
    """
    found: list[str] = []
    raw = text.split("\n")
    for index in range(len(raw) - 1, -1, -1):
        # What was overwritten by a carriage return was not to be seen.
        shown = [part for part in raw[index].rstrip("\r").split("\r") if part.strip()]
        line = _plain(shown[-1] if shown else "")
        if found and line.startswith("Traceback (most recent call last)"):
            found.append(raised_at(raw[index + 1 :]))
            break
        if not line.strip() or line.startswith(OURS) or _is_boilerplate(line):
            continue
        if _FRAME.match(line) and _in_traceback(raw, index):
            continue
        found.append(line.strip()[:_LINE_LENGTH])
        if len(found) == lines:
            break
    return SEPARATOR.join(filter(None, reversed(found)))


def raised_at(traceback: Sequence[str], *, only_own: bool = False) -> str:
    """Where the exception was raised, as `train.py:12 in main`: the last frame of the user's own code.

    Without one the last frame of all, or nothing if `only_own`.
    """
    indented = itertools.takewhile(lambda line: not line or line[0].isspace(), map(_plain, traceback))
    frames = [match for line in indented if (match := _LOCATION.match(line)) and match[1][:1] != "<"]
    others = ("site-packages", "/lib/python", f"{bootstrap.PACKAGE}/")
    own = [match for match in frames if not any(folder in match[1] for folder in others)]
    last = (own if own or only_own else frames)[-1:]
    if not last:
        return ""
    file, line, function = last[0].groups()
    within = "" if function == "<module>" else f" in {function}"
    return f"{os.path.basename(file)}:{line}{within}"


def label_excerpt(words: str) -> str:
    """`last line: ...`, or `last lines: ...` where there are several."""
    return f"last line{'s' if SEPARATOR in words else ''}: {words}"


def read_excerpt(path: Path, *, lines: int = LINES) -> str:
    """The excerpt of a file; empty if it cannot be read."""
    try:
        with open(open_regular(path), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            return excerpt(file.read().decode(errors="replace"), lines=lines)
    except OSError:
        return ""


def _plain(line: str) -> str:
    """The visible text of the line, without the rank that torchrun puts before it."""
    return _RANK.sub("", _UNPRINTED.sub("", _ESCAPES.sub("", line)).rstrip())


def _is_boilerplate(line: str) -> bool:
    return bool(_PROGRESS.search(line)) or any(re.search(pattern, line.strip()) for pattern in _BOILERPLATE)


def _in_traceback(lines: list[str], index: int) -> bool:
    """Whether an indented line belongs to a traceback: only indented lines stand between it and the head."""
    for line in map(_plain, reversed(lines[max(0, index - 200) : index])):
        if line.startswith(("Traceback (most recent call last)", "  + Exception Group Traceback")):
            return True
        if line.strip() and not line[0].isspace():
            return False
    return False
