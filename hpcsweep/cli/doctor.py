"""`doctor`: check this site. Exits with 0 unless a check fails."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import typer

from hpcsweep.cli.exit_codes import DONE, INTERRUPTED, NO_VALUE, errors_exit, prefix_errors
from hpcsweep.cli.sanitize import json_text
from hpcsweep.doctor.checks import Doctor
from hpcsweep.errors import Finding, Level
from hpcsweep.session.preparation import validate
from hpcsweep.spec import load_spec

QUESTION: Final = "Submit one small test job (1 CPU, 5 minutes at most) to check a compute node?"


def doctor(
    spec_path: Path | None,
    *,
    results: Path | None,
    overrides: Sequence[str],
    canary: bool | None,
    wait_s: float,
    json: bool,
) -> None:
    """Print the findings as they come, or all of them as one JSON object.

    Raises:
        typer.Exit: Always: 0, or 1 where there is a failure.
    """
    with errors_exit():
        spec = None if spec_path is None else load_spec(spec_path, overrides)
        if spec_path is not None and spec is not None:
            with prefix_errors(spec_path):
                validate(spec)
        checks = Doctor(spec, spec_path, results=results, overrides=overrides)
        found: list[Finding] = []
        try:
            with (
                _interruptible(),
                contextlib.closing(_findings(checks, canary, wait_s, json)) as findings,
            ):
                for finding in findings:
                    found.append(finding)
                    if not json:
                        typer.echo(finding)
        except KeyboardInterrupt:
            typer.echo("\nhpcsweep: interrupted; the test job and its files are removed", err=True)
            raise typer.Exit(INTERRUPTED) from None
        if json:
            typer.echo(json_text({"findings": found}))
        raise typer.Exit(NO_VALUE if any(each.level is Level.FAILURE for each in found) else DONE)


def _findings(
    checks: Doctor, canary: bool | None, wait_s: float, json: bool
) -> Generator[Finding, None, None]:
    yield from checks.findings()
    if not checks.can_probe:
        return
    if canary is None and not json and sys.stdin.isatty():
        canary = typer.confirm(QUESTION, default=False)
    if canary:
        yield from checks.probe_findings(wait_s=wait_s)
    else:
        yield checks.no_probe()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """TERM and HUP act like Ctrl-C: the test job is removed."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
