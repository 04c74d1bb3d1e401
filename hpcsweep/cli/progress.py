"""What `launch` shows while it drives: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import typer

from hpcsweep.cli.format import (
    ENDINGS,
    best_line,
    configuration,
    cost,
    rung_text,
    runs_line,
    state_counts,
    troubles,
)
from hpcsweep.cli.sanitize import raw, sanitize
from hpcsweep.core.counting import plural
from hpcsweep.core.events import AnyEvent, RunFinished, RunRetried
from hpcsweep.core.models import RunStatus
from hpcsweep.core.protocols import Phase
from hpcsweep.views.rungs import RungCounts

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from hpcsweep.driver import Driver

#: A plain line at most so often, however much happens.
PLAIN_S = 2.0
#: Brackets that stay on the terminal although all their runs have ended.
NEWEST_SHOWN = 8


class Progress(Protocol):
    """Takes every event, and the driver after each tick."""

    def event(self, event: AnyEvent) -> None: ...
    def tick(self, driver: Driver) -> None: ...

    def restart(self) -> None:
        """All events come once more."""
        ...


class Quiet:
    """Shows nothing."""

    def event(self, event: AnyEvent) -> None:
        """Nothing to show."""

    def tick(self, driver: Driver) -> None:
        """Nothing to show."""

    def restart(self) -> None:
        """Nothing to show."""


class LogDisplay:
    """A line when something has changed, and one for each trouble when it comes; for logs and pipes."""

    def __init__(self) -> None:
        self._counts = RungCounts()
        self._changed = False
        self._failure: RunFinished | None = None
        self._next = 0.0
        self._troubles: list[str] = []

    def restart(self) -> None:
        self._counts, self._failure = RungCounts(), None

    def event(self, event: AnyEvent) -> None:
        self._counts.apply(event)
        self._changed = True
        if isinstance(event, RunFinished) and event.value is None:
            self._failure = event

    def tick(self, driver: Driver) -> None:
        ended = driver.state.ended is not None
        known = self._troubles
        self._troubles = [*troubles(driver.state, now=time.time()), *driver.skipped_files]
        for trouble in self._troubles:
            if trouble not in known:
                typer.echo(sanitize(f"[{time.strftime('%H:%M:%S')}] {trouble}"))
        if not self._changed or (time.monotonic() < self._next and not ended):
            return
        self._changed = False
        self._next = time.monotonic() + PLAIN_S
        open_rungs = "  ".join(
            f"bracket {bracket}: " + " > ".join(rung_text(count) for count in counts)
            for bracket, counts in self._counts.current().items()
        )
        parts = [
            runs_line(state_counts(driver.state)),
            f"best {best_line(driver.state)}",
            cost(driver.state),
            open_rungs,
        ]
        if self._failure is not None:
            failure, self._failure = self._failure, None
            parts.append(_failure(failure))
        line = " | ".join(part for part in parts if part)
        typer.echo(sanitize(f"[{time.strftime('%H:%M:%S')}] {line}"))


class LiveDisplay:
    """A table of brackets and rungs that is drawn anew after each tick."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._counts = RungCounts()
        self._failures: list[RunFinished] = []

    def restart(self) -> None:
        self._counts, self._failures = RungCounts(), []

    def event(self, event: AnyEvent) -> None:
        self._counts.apply(event)
        if isinstance(event, RunFinished) and event.value is None:
            self._failures = [*self._failures[-2:], event]
        elif isinstance(event, RunRetried):
            self._failures = [run for run in self._failures if run.trial != event.trial]

    def tick(self, driver: Driver) -> None:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        state = driver.state
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("bracket", justify="right")
        table.add_column("rungs (runs x resource)")
        for bracket, counts in self._counts.current(newest=NEWEST_SHOWN).items():
            table.add_row(str(bracket), " > ".join(rung_text(count) for count in counts))
        phases = driver.phases
        under_way = f"{phases[Phase.RUNNING]} running, {phases[Phase.PENDING]} pending"
        lines: list[RenderableType] = [
            table,
            Text(f"{plural(state.counts[RunStatus.COMPLETED], 'run')} completed, {under_way}, {cost(state)}"),
            Text(sanitize(f"best {best_line(state)}"), style="bold"),
        ]
        if state.best is not None:
            lines.append(Text(sanitize(configuration(state.best.config))))
        hints = [*troubles(state, now=time.time()), *driver.skipped_files]
        lines += [Text(sanitize(hint), style="yellow") for hint in hints]
        lines += [Text(sanitize(_failure(run)), style="red") for run in self._failures]
        self._live.update(Group(*lines))


def _failure(run: RunFinished) -> str:
    return f"trial {run.trial} {ENDINGS[run.failure_kind or run.outcome]}: {run.message}"


@contextlib.contextmanager
def progress(*, quiet: bool) -> Iterator[Progress]:
    """The display that fits where standard output goes."""
    if quiet:
        yield Quiet()
    elif sys.stdout.isatty():
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(file=raw(sys.stdout)), refresh_per_second=4) as live:
            yield LiveDisplay(live)
    else:
        yield LogDisplay()
