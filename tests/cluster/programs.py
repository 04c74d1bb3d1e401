"""Stand-ins for Slurm's programs on the PATH, and what they print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcsweep.cluster.slurm.options import SlurmOptions
from hpcsweep.core.cluster_protocol import Batch, SubmittedBatch

DISABLED = 'echo "Slurm accounting storage is disabled" >&2; exit 1'

#: Notes its arguments, NUL between them and a line break at the end, then does what it is told.
PROGRAM = """\
#!/bin/bash
printf '%s\\0' "${{0##*/}}" "$@" >>'{calls}'; echo >>'{calls}'
{body}
"""


class Programs:
    """A folder of stand-ins, alone on the PATH but for the shell's own tools."""

    def __init__(self, folder: Path) -> None:
        self._bin = folder / "bin with space"
        self._bin.mkdir()
        self._calls = folder / "calls"
        self.path = f"{self._bin}:/usr/bin:/bin"
        for name in ("sbatch", "squeue", "scontrol", "scancel", "sinfo", "sacctmgr"):
            self.put(name, "echo unexpected >&2; exit 99")
        self.put("sacct", DISABLED)

    def put(self, name: str, body: str) -> None:
        path = self._bin / name
        path.write_text(PROGRAM.format(calls=self._calls, body=body))
        path.chmod(0o755)

    def rows(self, *rows: tuple[str, ...], program: str = "squeue") -> None:
        text = "".join("\x1f".join(row) + "\n" for row in rows)
        self.put(program, f"cat <<'EOF'\n{text}EOF")

    def calls(self, program: str | None = None) -> list[list[str]]:
        text = self._calls.read_text() if self._calls.exists() else ""
        calls = [line.removesuffix("\0").split("\0") for line in text.split("\0\n") if line]
        return [call for call in calls if program in (None, call[0])]


def changed(given: SlurmOptions, /, **changes: Any) -> SlurmOptions:
    """The options with these values in place of theirs."""
    return given.model_copy(update=changes)


def live(batch: Batch, job: str = "70", *, open_tasks: tuple[int, ...] = (0, 1, 2, 3)) -> SubmittedBatch:
    return SubmittedBatch(
        name=batch.name,
        job=job,
        folder=batch.folder,
        tasks=batch.tasks,
        throttle=batch.throttle,
        shape=batch.shape,
        open_tasks=open_tasks,
    )


def row(
    task: str, state: str, *, job: str = "70", own: str = "70", name: str = "s-1", **more: str
) -> tuple[str, ...]:
    """A line of squeue, field by field; what is not given of the last seven is not shown."""
    fields = (more.get("node", ""), more.get("elapsed", "0:00"), more.get("reason", "None"), name)
    last = tuple(
        more.get(key, "") for key in ("user", "submitted", "cpus", "tres", "begins", "folder", "comment")
    )
    return (job, task, own, state, *fields, *(last if any(last) else ()))


def account(
    task: str,
    state: str,
    node: str = "None assigned",
    *,
    elapsed: str = "0",
    name: str = "s-1",
    folder: str = "",
    tres: str = "",
    comment: str = "",
) -> tuple[str, ...]:
    """A line of sacct, field by field."""
    return (task, state, node, elapsed, name, folder, tres, comment)
