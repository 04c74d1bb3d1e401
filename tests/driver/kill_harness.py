"""Kill a driver with SIGKILL at every point, launch again, compare. Run as a process of its own.

`python -m tests.driver.kill_harness FOLDER` prints one JSON object: the number of points, and for
each one at which the outcome differed from the undisturbed sweep, how. A point is before and after
each file operation of the store and each submission. It forks, so it starts no threads.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hpcsweep.driver.compacting as compacting
from hpcsweep import load
from hpcsweep.core.events import AnyEvent, Compacted, TrialCreated
from hpcsweep.core.protocols import LiveBatch
from hpcsweep.report.logs import Logs, attempt_logs
from hpcsweep.report.metrics import metrics_table
from hpcsweep.store.layout import Layout
from hpcsweep.store.segments import read_journal
from tests.doubles import FolderCluster, quadratic
from tests.driver.sweeps import decided, drive

#: All that the store does to files goes through these.
OPERATIONS = (
    "open write fsync rename replace unlink rmdir mkdir makedirs utime link".split()  # noqa: SIM905
)
#: Parts are made and merged so often that the small sweep does it several times.
COMPACT_AT = 20
compacting.MERGE_ABOVE = 2  # type: ignore[misc]


class Killer:
    """Counts points and kills this process at one of them."""

    def __init__(self, at: int | None) -> None:
        self.at = at
        self.count = 0

    def point(self, _: str) -> None:
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1

    def around(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.point("before")
            result = operation(*args, **kwargs)
            self.point("after")
            return result

        return wrapped


def session(folder: Path, at: int | None) -> int:
    """One driver session; the number of points that it passed."""
    killer = Killer(at)
    cluster = FolderCluster(
        folder / "controller", objective=some_fail, per_poll=3, point=killer.point, reports=True
    )
    before = {name: getattr(os, name) for name in OPERATIONS}
    run = cluster.run

    def unwatched(batch: LiveBatch, task: int) -> None:  # a worker's doing, not the driver's
        now = {name: getattr(os, name) for name in OPERATIONS}
        for name in OPERATIONS:
            setattr(os, name, before[name])
        run(batch, task)
        for name in OPERATIONS:
            setattr(os, name, now[name])

    cluster.run = unwatched  # type: ignore[method-assign]
    for name in OPERATIONS:
        setattr(os, name, killer.around(before[name]))
    try:
        drive(folder / "results", cluster, compact=True, compact_at=COMPACT_AT)
    finally:
        for name in OPERATIONS:
            setattr(os, name, before[name])
    return killer.count


def some_fail(config: dict[str, Any], resource: int) -> float | None:
    return None if config["x"] > 0.9 else quadratic(config, resource)


def forked(folder: Path, at: int | None) -> bool:
    """A session in a process of its own; True if it ended by itself, and left what came of the sweep."""
    pid = os.fork()
    if pid == 0:
        try:
            points = session(folder, at)
            (folder / "outcome.json").write_text(json.dumps({"points": points} | outcome(folder)))
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


def outcome(folder: Path) -> dict[str, Any]:
    """All that must be the same however often the driver was killed."""
    cluster = FolderCluster(folder / "controller")
    trained = Counter(cluster.trained())
    layout = Layout(folder / "results")
    events = read_journal(layout).events
    results = load(layout.root)
    return {
        "decided": decided(events),
        "trained": sorted(trained.elements()),
        "trials": results.trials.to_csv(),
        "runs": results.runs.to_csv(),
        "metrics": results.metrics.to_csv(),
        "replayed": metrics_table(layout, events).to_pandas().to_csv() == results.metrics.to_csv(),
        "logs": printed(layout, events),
        "kinds": sorted(dict.fromkeys(path.name.partition("-")[0] for path in layout.compacted.iterdir())),
        "raw": sorted(path.name for path in layout.trials.rglob("*") if path.is_file()),
        "batches": [path.name for path in layout.batches.iterdir()],
        "compactions": sum(isinstance(event, Compacted) for event in events) > 2,
    }


def printed(layout: Layout, events: list[AnyEvent]) -> list[tuple[int, int, str]]:
    """What each run has printed, wherever that is by now."""
    logs = Logs(layout, events)
    trials = sum(isinstance(event, TrialCreated) for event in events)
    return [
        (trial, each.rung, (logs.read(each)[1] or b"").decode())
        for trial in range(trials)
        for each in attempt_logs(events, layout, trial)
    ]


def main(root: Path) -> dict[str, Any]:
    root.mkdir(exist_ok=True)
    reference = root / "reference"
    forked(reference, None)
    expected = json.loads((reference / "outcome.json").read_text())
    points = expected.pop("points")
    differing: dict[str, str] = {}

    def compare(folder: Path, what: str) -> None:
        found = json.loads((folder / "outcome.json").read_text())
        for key, value in expected.items():
            if found[key] != value:
                differing[what] = f"{key} differs"

    for at in range(points):
        folder = root / str(at)
        if forked(folder, at):
            differing[str(at)] = "was not killed"
        forked(folder, None)
        compare(folder, str(at))
        shutil.rmtree(folder)
    chosen = random.Random(0)
    for number in range(20):  # killed again and again
        folder = root / f"many-{number}"
        while not forked(folder, chosen.randrange(points // 3)):
            pass
        compare(folder, f"many-{number}")
    reported = {key: expected[key] for key in ("kinds", "raw", "batches", "replayed", "compactions")}
    return {"points": points, "runs": len(expected["trained"]), "differing": differing} | reported


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
