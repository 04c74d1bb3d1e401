"""A server of sweeps in a thread of the tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpcsweep.cli.list_ import share_done
from hpcsweep.core.events import AnyEvent, SweepStarted
from hpcsweep.server.http import SweepServer
from hpcsweep.server.library import Library
from tests.cli import test_list
from tests.views.folders import identity

SPACE = {"x": {"type": "float", "low": 0.0, "high": 1.0, "log": False}}
#: Those of a sweep in a list, with all that a report needs to know of it.
EVENTS: list[AnyEvent] = [SweepStarted("cafe01", "lr", 100.0, identity(space=SPACE)), *test_list.EVENTS[1:]]


@contextmanager
def serving(*folders: Path, every: float = 60.0) -> Iterator[SweepServer]:
    """One on a free port, for as long as it is needed."""
    with SweepServer(Library(folders, share_done=share_done, every=every)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
