"""The training code: checked, and copied where the spec asks for a snapshot."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from hpcsweep.core.events import SweepStarted
from hpcsweep.errors import TrainerError
from hpcsweep.spec import SweepSpec
from hpcsweep.store.batch import Program
from hpcsweep.store.files import wrap_oserror
from hpcsweep.store.journal.writer import Journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.snapshot import copy_code, list_code, use_snapshot
from hpcsweep.worker.training_function import check_trainer


def running_program(spec: SweepSpec, layout: Layout) -> Program:
    """How a trial is run: from the snapshot of the training code where `train.snapshot` asks for one.

    Raises:
        FolderError: There is no snapshot, or what is to be run is not in it.
    """
    return use_snapshot(spec.program(), layout) if spec.train.snapshot else spec.program()


@contextlib.contextmanager
def create_snapshot(spec: SweepSpec, layout: Layout) -> Iterator[Journal]:
    """Copy the training code of a new sweep and check the copy; its journal, held until the block ends.

    If another launch has started the sweep meanwhile, its snapshot stays.

    Raises:
        SpecError: There is too much code, or it cannot be read; nothing was written.
        TrainerError: The copy cannot be imported or called; the sweep has not begun.
        FolderError: The folder cannot be written.
        HeldError: Another driver is at work.
    """
    listing = list_code(spec.program(), layout.root)
    journal = Journal.open(layout)
    try:
        journal.acquire()
        if not any(isinstance(event, SweepStarted) for event in journal.events):
            with wrap_oserror(layout.root):
                copy_code(listing, layout, owner=journal.number, heartbeat=journal.heartbeat)
            check_training_code(spec, layout)
        yield journal
    finally:
        journal.release()


def check_training_code(spec: SweepSpec, layout: Layout | None = None) -> None:
    """Import the trainer in a process of its own, so that no torch enters the driver.

    Args:
        spec: Of the sweep.
        layout: The results folder, which may have a snapshot; None: there is none yet.

    Raises:
        TrainerError: It cannot be imported or called.
        FolderError: See `running_program`.
    """
    program = running_program(spec, layout) if layout else spec.program()
    if not spec.train.check:
        return
    try:
        check_trainer(program, spec.cluster.python or sys.executable)
    except TrainerError as error:
        key = "train.function" if spec.train.function else "train.command"
        raise TrainerError(f"{key}: {error}") from error
