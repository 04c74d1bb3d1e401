"""`stop`: ask a sweep to end."""

from __future__ import annotations

import time
from pathlib import Path

import typer

from hpcsweep.cli.exits import errors_exit
from hpcsweep.cli.waiting import turn
from hpcsweep.clock import SystemClock
from hpcsweep.core.state import SweepState
from hpcsweep.errors import FolderError, HeldError
from hpcsweep.report.folder import Folder
from hpcsweep.spec import load_spec
from hpcsweep.store.control import Request, put_request
from hpcsweep.store.owner import Owner
from hpcsweep.sweep import choose_place, open_sweep

#: How long the command itself sees to the end of the jobs where no driver is at work.
PATIENCE_S = 60.0


def stop(path: Path) -> None:
    """Leave the request; where no driver is at work, cancel the jobs from here."""
    with errors_exit():
        folder = Folder(path)
        if folder.state.ended is not None:
            typer.echo(f"{path}: has ended already ({folder.sweep_state})")
            return
        me = Owner.me()
        put_request(folder.layout, Request("stop", time.time(), f"{me.user}@{me.host}"))
        try:
            ended = _drive(folder)
        except HeldError as error:
            typer.echo(f"asked to stop: {error}")
            return
        rest = "its jobs are cancelled; `launch` or `stop` again sees to the rest"
        typer.echo("stopped" if ended else rest)


def _drive(folder: Folder) -> bool:
    """Tick until the sweep has ended; False if that takes too long."""
    if not folder.layout.spec.exists():
        raise FolderError(f"{folder.layout.spec}: is missing; stop the sweep with `launch SPEC`")
    spec = load_spec(folder.layout.spec, [])
    deadline = time.monotonic() + PATIENCE_S
    place = choose_place(spec, state=folder.state)
    root = folder.layout.root
    with turn(root, folder.state, SystemClock()) as journal:
        if journal is not None and SweepState.replay(journal.events).ended is not None:
            return True  # by a tick of its jobs
        with open_sweep(spec, root, place, journal=journal) as driver:
            while driver.state.ended is None and time.monotonic() < deadline:
                driver.tick()
                if driver.state.ended is None:
                    time.sleep(min(place.cluster.poll_s[0], 2.0))
            driver.leave()
            return driver.state.ended is not None
