"""`python -m hpcsweep.cluster.pbs.task SECONDS BATCH_FOLDER`: the worker of a subjob of PBS.

PBS sends no signal before the time limit, so the task wakes itself after so many seconds (0: never). A job
that is no array is task 0. PBS runs no task a second time (`-r n`).
"""

from __future__ import annotations

import os
import sys

from hpcsweep.cluster.task_environment import run_in_task, set_alarm, task_variables


def main(arguments: list[str]) -> None:
    seconds, *rest = arguments
    set_alarm(float(seconds))
    variables = task_variables(
        task=os.environ.get("PBS_ARRAY_INDEX") or 0, restart=0, job=os.environ.get("PBS_JOBID", "")
    )
    run_in_task(rest, variables)


if __name__ == "__main__":
    main(sys.argv[1:])
