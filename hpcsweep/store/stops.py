"""Which runs of a task are to end while its others go on: an empty file for each in the batch's folder.

A task as a whole is ended by cancelling it on the cluster. One of several runs is not known there: the
driver leaves a file that names it, and the worker looks for such files now and then.
"""

from __future__ import annotations

import os
import re
from typing import Final

from hpcsweep.core.events import RunId
from hpcsweep.store.files import write_atomic
from hpcsweep.store.layout import BatchLayout

_NAME: Final = re.compile(r"stop-(\d{1,9})-(\d{1,4})")


def request_stop(batch: BatchLayout, run: RunId) -> None:
    """Have the worker end this run; may be done again.

    Raises:
        OSError: The folder cannot be written.
    """
    write_atomic(batch.stop(run.trial, run.rung), b"")


def requested_stops(batch: BatchLayout) -> set[RunId]:
    """The runs that are to end; one readdir. None where the folder cannot be read just now."""
    try:
        names = os.listdir(batch.root)
    except OSError:
        return set()
    found = (_NAME.fullmatch(name) for name in names)
    return {RunId(int(match[1]), int(match[2])) for match in found if match}
