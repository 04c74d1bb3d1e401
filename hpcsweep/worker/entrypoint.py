"""The child process of a function: `python -P -m hpcsweep.worker.entrypoint FILE.py:NAME ENDING [ROOT COPY]`.

Imports the function, calls it with the trial, and reports what it returns. After an exception the traceback
is in the log and a one-line summary in the file ENDING. ROOT and COPY are those of a snapshot. If ENDING is
`-`, this is a warm process: see `worker.warm_process`.
"""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from hpcsweep.bootstrap import use_utf8
from hpcsweep.store.excerpts import SEPARATOR, raised_at
from hpcsweep.trial import Trial, current_trial

#: Longer messages are cut; the log has them whole.
MESSAGE_LENGTH: Final = 500
#: In place of ENDING.
WARM: Final = "-"


class ChildError(msgspec.Struct, frozen=True):
    """Content of the file ENDING.

    Attributes:
        types: Names of the exception's type and its bases.
        message: Where it was raised, its type and its message, in one line.
    """

    types: tuple[str, ...]
    message: str


def main(function: str, ending: Path, *copied: str) -> int:
    """Train; 0 if the function returned, 1 if anything raised."""
    trainer: Callable[[Any], object] | None = None
    if str(ending) == WARM:
        from hpcsweep.worker.warm_process import become_run

        trainer, ending = become_run(function, *copied)
    trial = current_trial()  # first of all: from here on signals raise the stop flag
    try:
        if trainer is None:
            from hpcsweep.worker.training_function import load_trainer, search_snapshot

            search_snapshot(*copied)
            trainer = load_trainer(function)
        trial.finish(_call(trainer, trial))
    except Exception as error:
        traceback.print_exc()
        ending.write_bytes(msgspec.json.encode(_failure(error)))
        return 1
    except SystemExit as leaving:
        if isinstance(leaving.code, str):
            ending.write_bytes(msgspec.json.encode(ChildError(("SystemExit",), leaving.code)))
        raise
    return 0


def _call(trainer: Callable[[Any], object], trial: Trial) -> object:
    """Call the function as `train.call` says; what it returned."""
    match trial._run.call:
        case "optuna":
            from hpcsweep.training.optuna import call_objective

            call_objective(trainer, trial)
            return None
        case "ray":
            from hpcsweep.training.ray import call_trainable

            return call_trainable(trainer, trial)
        case _:
            return trainer(trial)


def _failure(error: BaseException) -> ChildError:
    line = traceback.format_exception_only(error)[-1] if not isinstance(error, SyntaxError) else repr(error)
    text = f"{type(error).__name__}: {error}" if str(error) else line
    one_line = " ".join(text.split())[:MESSAGE_LENGTH]
    frames = "".join(traceback.format_tb(error.__traceback__)).splitlines()
    message = SEPARATOR.join(filter(None, [raised_at(frames, only_own=True), one_line]))
    return ChildError(tuple(kind.__name__ for kind in type(error).__mro__), message)


if __name__ == "__main__":
    gc.freeze()  # what is imported by now is no garbage at the end, either
    use_utf8()
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))
