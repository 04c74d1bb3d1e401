"""How a rung is written in one word."""

from __future__ import annotations

from hpcsweep.views.rungs import RungCount


def rung_text(count: RungCount) -> str:
    """For example `27x3` when all are done, `20/27x3 (2 failed, 1 stopped)` while some are not."""
    done = str(count.runs) if count.ended == count.runs else f"{count.ended}/{count.runs}"
    told = [f"{n} {word}" for n, word in ((count.failed, "failed"), (count.stopped, "stopped")) if n]
    return f"{done}x{count.resource}" + (f" ({', '.join(told)})" if told else "")
