"""What all tests start from."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import sys
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import pytest

from hpcsweep.bootstrap import collect_seldom
from tests import effort
from tests.lazy import MODULES_AFTER_COLLECTION

# Tests start some thousand processes, and one that compiles what it imports costs twice as much.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# As our own programs do: what imports and the collection of tests make is no garbage.
collect_seldom()

#: Tests that one worker of pytest-xdist runs, since they share a cluster, a browser or slow imports.
GROUPS = {
    # Three at a time, of about the same length. Each waits for two thirds of its time: together they leave
    # cores to others, and what they wait for still comes in time.
    "slurm/test_survival": "slurm that waits",
    "slurm/test_accounting": "slurm with accounts",
    "slurm/test_programs": "slurm that waits",
    "slurm/test_detached_faults": "slurm that waits",
    "slurm/test_reuse_faults": "slurm that waits",
    "slurm/test_reuse": "slurm with accounts",
    "slurm/test_adapter": "slurm with accounts",
    "slurm/test_pools": "slurm with accounts",
    "slurm/test_shapes": "slurm with accounts",
    "slurm/": "slurm",
    "html/test_page_browser": "browser",
    "html/test_trials_browser": "browser",
    "training/": "training",
}
#: What takes longest, or waits for processes, begins first: no core is to be idle at the end.
FIRST = (
    *GROUPS,
    "driver/test_kill",
    "docs/",
    "simulation/test_faults",
    "cluster/test_local_sweeps",
    "test_readme",
    "store/test_checkpoints",
    "sweeps/",
    "worker/",
)

#: Where tests write, if it has room: of what a sweep costs on a disk, a quarter is the file system.
MEMORY = "/dev/shm"
ROOM_BYTES = 4 * 1024**3


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--exhaustive",
        action="store_true",
        help="try many more seeds, fault schedules and generated examples",
    )


def pytest_configure(config: pytest.Config) -> None:
    effort.exhaustive = config.getoption("--exhaustive")
    # Tests kill processes, never the machine: nothing need reach the disk.
    setattr(os, "fsync", lambda fd: None)  # noqa: B010
    # Threads of several workers would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if config.option.basetemp is None and has_room(MEMORY):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)
    # A shell starts what it puts in the background with SIGINT ignored.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def has_room(folder: str) -> bool:
    """Whether all that tests leave fits into a folder, and programs in it can be started."""
    try:
        system = os.statvfs(folder)
    except OSError:
        return False
    return system.f_bavail * system.f_frsize >= ROOM_BYTES and not system.f_flag & os.ST_NOEXEC


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Two workers more than cores: many tests wait for other processes, those of Slurm most of their time."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None  # as pytest-xdist reads it
    return len(os.sched_getaffinity(0)) + 2


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Tests of a real cluster go before the others: most of them wait, and the longest wait in a row."""
    if "PYTEST_XDIST_WORKER" in os.environ and os.geteuid() == 0:
        os.setpriority(os.PRIO_PROCESS, 0, 0 if item.get_closest_marker("slurm") else 5)
    return (yield)


def first_that_starts(test: str, starts: Iterable[str]) -> str | None:
    return next((start for start in starts if test.startswith(f"tests/{start}")), None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One test after the other to whichever worker is free, in the order of collection, but whole groups."""
    from xdist.scheduler import LoadScopeScheduling

    class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            start = first_that_starts(nodeid, GROUPS)
            return nodeid if start is None else GROUPS[start]

    if config.option.dist != "load":
        return None
    config.option.loadscopereorder = False
    return GroupScheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Each worker of pytest-xdist imports the tests from another one on: what one compiles serves all."""
    worker = getattr(session.config, "workerinput", None)
    tests = Path(__file__).parent
    if worker is not None and [Path(word).resolve() for word in session.config.args] == [tests]:
        modules = sorted(tests.rglob("test_*.py"))
        first = int(worker["workerid"].removeprefix("gw")) * len(modules) // worker["workercount"]
        for path in [*modules[first:], *modules[:first]]:
            with contextlib.suppress(Exception, pytest.skip.Exception):  # the collection says what is wrong
                importlib.import_module(".".join(path.relative_to(tests.parent).with_suffix("").parts))
    return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def position(item: pytest.Item) -> int:
        start = first_that_starts(item.nodeid, FIRST)
        return len(FIRST) if start is None else FIRST.index(start)

    items.sort(key=position)


def pytest_collection_finish(session: pytest.Session) -> None:
    session.config.stash[MODULES_AFTER_COLLECTION] = frozenset(sys.modules)
    gc.freeze()
