"""What the local cluster starts for each task: claim the task, then be its worker.

`python -m hpcsweep.cluster.local.task BATCH_FOLDER TASK DEVICES SECONDS`, and perhaps the worker's
`--setup-failed STATUS LINE`. The claim is created exclusively by the process that it names. So a
driver that was killed between starting this process and noting it finds it again, and of two processes
started for one task only one works.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from hpcsweep.bootstrap import use_utf8
from hpcsweep.cluster.task_environment import set_alarm
from hpcsweep.store.files import open_new
from hpcsweep.store.layout import BatchLayout
from hpcsweep.store.process_id import ProcessId


class TaskLock(msgspec.Struct, frozen=True):
    """Who works on a task, and on which devices (empty on CPU slots)."""

    owner: ProcessId
    devices: list[str]


def claim_path(batch: BatchLayout, task: int) -> Path:
    return batch.claims / f"{task}.json"


def main() -> int:
    """Claim the task and work on it; leave at once if somebody else has it."""
    folder, task, devices, seconds = sys.argv[1:5]
    claim = TaskLock(ProcessId.me(), [device for device in devices.split(",") if device])
    path = claim_path(BatchLayout(Path(folder)), int(task))
    try:
        fd = open_new(path)
    except FileExistsError:
        return 0
    with os.fdopen(fd, "wb") as file:
        file.write(msgspec.json.encode(claim))
    from hpcsweep.worker.__main__ import main as work

    set_alarm(float(seconds))
    return work([folder, *sys.argv[5:]])


if __name__ == "__main__":
    use_utf8()
    sys.exit(main())
