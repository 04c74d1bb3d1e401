"""Kill a driver with SIGKILL at every point, launch again, compare. Run as a process of its own.

`python -m tests.driver.kill_harness FOLDER SWEEP STRIDE` prints one JSON object: the number of points, and
for each one at which the outcome differed from the undisturbed sweep, how. A point is before and after
each submission and before each file operation of the store, which is after the one that went before.
It forks, so it starts no threads.

SIGKILL leaves the files as they are, so one undisturbed session copies its folder at each point, and what is
launched again finds the copy in its place. Points with equal files are one. Then 20 sweeps are really killed,
again and again. With a STRIDE of 3 only a third of all that is tried.

The sweep is `whole`, of 22 runs, or `compacted`, of 6 runs that are compacted bit by bit meanwhile, and
whose checkpoints are removed as they become useless. In `reused` and `reused-compacted` tasks keep their
GPUs and do run after run. In `shaped` and `reused-shaped` runs need one or two GPUs, by their configuration;
in the latter the cluster has two pools.
"""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pandas  # noqa: F401 -- once, and not in every process anew
import pyarrow.parquet  # noqa: F401

from hpcsweep import load
from hpcsweep.core.cluster_protocol import Pool, TaskResources
from hpcsweep.core.events import AnyEvent, TrialCreated
from hpcsweep.core.expressions import Expression
from hpcsweep.core.run_resources import RunResources
from hpcsweep.driver import compaction
from hpcsweep.schedulers.synchronous import Hyperband
from hpcsweep.store.batch import Result
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from hpcsweep.views.folder import LogReader, attempt_logs
from hpcsweep.views.tables import metrics_table
from tests.compacted import batch_files
from tests.doubles import FolderCluster, quadratic
from tests.driver.sweeps import decided, drive

#: All that the store does to files goes through these.
OPERATIONS = (
    "open write fsync rename replace unlink rmdir mkdir makedirs utime link".split()  # noqa: SIM905
)
#: Opening a file to read it changes nothing; folders are opened to be synced.
_NOT_READING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_DIRECTORY
SHAPED: Final[dict[str, Any]] = {
    "max_gpus": 4,
    "shape": TaskResources(gpus=2, time_s=600),
    "smallest": TaskResources(gpus=1, time_s=600),
    "resources": RunResources(gpus=Expression("1 if x < 0.4 else 2"), time_s=Expression("600 * (rung + 1)")),
}
#: So often that a small sweep is compacted several times.
COMPACT_AT = 6
MERGE_ABOVE = 1


class Killer:
    """Counts points, and kills this process at one of them or copies the sweep's folder at each.

    Args:
        folder: Of the sweep.
        at: Where to kill; None: nowhere.
        copies: Gets the copies, each named by its first point; None: there are none.
    """

    def __init__(self, folder: Path, at: int | None, copies: Path | None) -> None:
        self.count = 0
        self._folder = folder
        self._at = at
        self._copies = copies
        self._last: object = None

    def point(self, _: str) -> None:
        if self.count == self._at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._copies is not None:
            files = unwatched(content)(self._folder)
            if files != self._last:
                unwatched(copy)(self._folder, self._copies / str(self.count))
                self._last = files
        self.count += 1

    def around(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if operation.__name__ != "open" or args[1] & _NOT_READING:
                self.point("before")
            return operation(*args, **kwargs)

        return wrapped


#: Options of `session` by what is in the name of a sweep.
KINDS: Final = {"compact": "compacted", "reuse": "reused", "shaped": "shaped"}
#: What they do; nothing need reach the disk, since a process is killed and not the machine.
BEFORE: Final = {name: getattr(os, name) for name in OPERATIONS} | {"fsync": lambda fd: None}


def unwatched(work: Callable[..., Any]) -> Callable[..., Any]:
    """The same without points: it is not the driver that does it."""

    def wrapped(*args: Any) -> Any:
        now = {name: getattr(os, name) for name in OPERATIONS}
        for name in OPERATIONS:
            setattr(os, name, BEFORE[name])
        done = work(*args)
        for name in OPERATIONS:
            setattr(os, name, now[name])
        return done

    return wrapped


def content(folder: Path) -> dict[str, bytes | str]:
    """Everything in the folder: the content of files, the target of links."""
    found: dict[str, bytes | str] = {}
    for root, folders, files in os.walk(folder):
        found |= {os.path.join(root, name): "" for name in folders}
        for name in files:
            path = os.path.join(root, name)
            found[path] = os.readlink(path) if os.path.islink(path) else Path(path).read_bytes()
    return found


def copy(folder: Path, target: Path) -> None:
    shutil.copytree(folder, target, symlinks=True)


def session(
    folder: Path,
    at: int | None,
    *,
    compact: bool,
    reuse: bool,
    shaped: bool,
    copies: Path | None = None,
) -> int:
    """One driver session; the number of points that it passed."""
    killer = Killer(folder, at, copies)
    cluster = FolderCluster(
        folder / "controller",
        objective=some_fail,
        per_poll=3,
        point=killer.point,
        reports=True,
        checkpoints=compact,
    )
    if shaped and reuse:
        cluster.pools = (Pool("a", max_gpus=2), Pool("b", max_gpus=3, preemptible=True))
    cluster.run = unwatched(cluster.run)  # type: ignore[method-assign]
    cluster.go_on = unwatched(cluster.go_on)  # type: ignore[method-assign]
    for name in OPERATIONS:
        setattr(os, name, killer.around(BEFORE[name]))
    try:
        drive(
            folder / "results",
            cluster,
            scheduler=Hyperband(max_resource=3 if compact else 9),
            compact=compact,
            compact_at=COMPACT_AT,
            idle_s=60.0 if reuse else None,
            **(SHAPED if shaped else {}),
        )
    finally:
        for name in OPERATIONS:
            setattr(os, name, BEFORE[name])
    return killer.count


def some_fail(config: dict[str, Any], resource: int) -> float | None:
    return None if config["x"] > 0.9 else quadratic(config, resource)


class Trial:
    """Sessions in processes of their own.

    Args:
        folder: Of one sweep.
        options: Of `session`.
    """

    def __init__(self, folder: Path, **options: bool) -> None:
        self._folder = folder
        self._options = options

    def session(self, at: int | None, *, copies: Path | None = None) -> bool:
        """True if it ended by itself, and left what came of the sweep."""
        pid = os.fork()
        if pid == 0:
            try:
                points = session(self._folder, at, copies=copies, **self._options)
                found = {"points": points} | outcome(self._folder)
                (self._folder / "outcome.json").write_text(json.dumps(found))
            except BaseException as error:
                print(f"point {at}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            return False
        if os.waitstatus_to_exitcode(status) != 0:
            raise SystemExit(f"a session at point {at} failed by itself")
        return True

    @property
    def outcome(self) -> dict[str, Any]:
        """All that must be the same however often the driver was killed, and the number of points."""
        found: dict[str, Any] = json.loads((self._folder / "outcome.json").read_text())
        return found


def outcome(folder: Path) -> dict[str, Any]:
    """What came of the sweep, read from its folder."""
    layout = Layout(folder / "results")
    events = read_journal(layout).events
    results = load(layout.root)
    metrics = results.metrics.to_csv()
    assert metrics_table(layout, events).to_pandas().to_csv() == metrics, "the tables tell something else"
    return {
        "decided": decided(events),
        "trained": sorted(FolderCluster(folder / "controller").trained()),
        "trials": results.trials.to_csv(),
        "runs": results.runs.to_csv(),
        "metrics": metrics,
        "logs": printed(layout, events),
        "results": printed_report(layout),
        "raw": sorted(path.name for path in layout.trials.rglob("metrics-*") if path.is_file()),
        "checkpoints": sorted(
            str(path.relative_to(layout.trials))
            for path in layout.trials.rglob("*")
            if "checkpoints" in str(path) and path.is_file()
        ),
        "starts": FolderCluster(folder / "controller").starts() if layout.compacted.exists() else [],
        "parts": sorted(kinds(layout)),
    }


def printed(layout: Layout, events: list[AnyEvent]) -> list[tuple[int, int, str]]:
    """What each run has printed, wherever that is by now."""
    logs = LogReader(layout, events)
    trials = sum(isinstance(event, TrialCreated) for event in events)
    return [
        (trial, each.rung, (logs.read(each)[1] or b"").decode())
        for trial in range(trials)
        for each in attempt_logs(events, layout, trial)
    ]


def printed_report(layout: Layout) -> list[tuple[int, int, float | None]]:
    """Trial, rung and value of every result file, wherever it is by now."""
    found = [data for name, data in batch_files(layout.root).items() if "/results/" in name]
    results = (msgspec.json.decode(data, type=Result) for data in found)
    return sorted((result.trial, result.rung, result.value) for result in results)


def kinds(layout: Layout) -> set[str]:
    """What there is of parts: complete ones only, and nothing that is still to be removed."""
    if not layout.compacted.exists():
        return set()
    return {path.name.partition("-")[0] for path in layout.compacted.iterdir()}


def main(root: Path, sweep: str, stride: int) -> dict[str, Any]:
    os.fsync = BEFORE["fsync"]
    gc.freeze()
    gc.disable()
    root.mkdir(exist_ok=True)
    options = {name: key in sweep for name, key in KINDS.items()}
    compaction.MERGE_ABOVE = MERGE_ABOVE  # type: ignore[misc]
    sweep_folder, copies = root / "sweep", root / "copies"
    copies.mkdir()
    undisturbed = Trial(sweep_folder, **options)
    undisturbed.session(None, copies=copies)
    expected = undisturbed.outcome
    points = expected.pop("points")
    differing: dict[str, str] = {}

    def compare(trial: Trial, what: str) -> None:
        found = trial.outcome
        for key, value in expected.items():
            if found[key] != value:
                differing[what] = f"{key} differs: {found[key]}"

    lefts = sorted(copies.iterdir(), key=lambda path: int(path.name))
    for left in lefts[::stride]:
        shutil.rmtree(sweep_folder)
        left.rename(sweep_folder)
        undisturbed.session(None)
        compare(undisturbed, left.name)
    chosen = random.Random(0)
    for number in range(20 // stride):  # killed again and again
        trial = Trial(root / f"many-{number}", **options)
        while not trial.session(chosen.randrange(points // 3)):
            pass
        compare(trial, f"many-{number}")
    found = {key: expected[key] for key in ("raw", "parts", "checkpoints", "starts")}
    return {"points": points, "runs": len(expected["trained"]), "differing": differing} | found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
