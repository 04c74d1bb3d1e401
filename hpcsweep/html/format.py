"""How numbers, durations and endings are written on a page."""

from __future__ import annotations

from typing import Final

from hpcsweep.core.events import FailureKind, Interruption, Outcome

#: Endings of which the enum's own name would say too little.
_SAID: Final = {
    Outcome.STOPPED.value: "stopped early",
    Outcome.CANCELLED.value: "cancelled by the user",
    FailureKind.NOT_FINITE.value: "not finite",
    FailureKind.UNREADABLE.value: "unreadable report",
    Interruption.TIMEOUT.value: "timed out",
    Interruption.NODE_FAIL.value: "node failed",
    Interruption.CANCELLED_BY_ADMIN.value: "cancelled by an admin",
    Interruption.TRAINING_ERROR.value: "failed, tried again",
    Interruption.WORKER_DIED.value: "ended without a result",
    Interruption.NOT_STARTED.value: "not begun",
    Interruption.SWEEP_STOPPED.value: "cancelled with the sweep",
}


def ending(value: str) -> str:
    """An `Outcome`, `Failure` or `Interruption` by its value."""
    return _SAID.get(value, value.replace("_", " "))


def number(value: float) -> str:
    """Six digits, as everywhere in hpcsweep."""
    return f"{value:.6g}"


def hours(seconds: float) -> float:
    """Of three digits, and whole from a thousand on."""
    value = seconds / 3600
    return float(round(value) if value >= 1000 else f"{value:.3g}")


def hours_text(seconds: float) -> str:
    """The same for running text, thousands set apart."""
    value = hours(seconds)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """`12 s`, `4.2 min`, `3.5 h`, `6.2 days`."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h" if seconds < 172_800 else f"{seconds / 86400:.3g} days"


def share(part: float, whole: float) -> str:
    """`12%`, `0.4%`, `<0.1%`; of nothing it is 0%."""
    percent = 100 * part / whole if whole else 0.0
    if 0 < percent < 0.1:
        return "<0.1%"
    return f"{percent:.1f}%" if 0 < percent < 10 else f"{percent:.0f}%"


def count(n: int, noun: str) -> str:
    """`1 run`, `2,000 runs`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
