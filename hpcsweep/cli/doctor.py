"""`doctor`: check this site. Exits with 0 unless a check fails."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import typer

from hpcsweep.cli.terminal import DONE, INTERRUPTED, NO_VALUE, errors_exit, json_text, prefix_errors
from hpcsweep.doctor.checks import Doctor
from hpcsweep.doctor.probe_job import handle_signals
from hpcsweep.errors import Finding, Level
from hpcsweep.session.preparation import validate
from hpcsweep.session.program import check_program
from hpcsweep.spec import load_spec

QUESTION: Final = "Submit one small test job (1 CPU, 5 minutes at most) to check a compute node?"


def doctor(
    spec_path: Path | None,
    *,
    results: Path | None,
    overrides: Sequence[str],
    probe: bool | None,
    wait_s: float,
    json: bool,
) -> None:
    """Print the findings as they come, or all of them as one JSON object."""
    with errors_exit():
        spec = None if spec_path is None else load_spec(spec_path, overrides)
        if spec_path is not None and spec is not None:
            with prefix_errors(spec_path):
                validate(spec, found=check_program(spec).problems)
        checks = Doctor(spec, spec_path, results=results, overrides=overrides)
        found: list[Finding] = []
        try:
            with (
                handle_signals(_interrupt, signal.SIGTERM, signal.SIGHUP),
                contextlib.closing(_findings(checks, probe, wait_s, json)) as findings,
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
    checks: Doctor, probe: bool | None, wait_s: float, json: bool
) -> Generator[Finding, None, None]:
    yield from checks.findings()
    if not checks.can_probe:
        return
    if probe is None and not json and sys.stdin.isatty():
        probe = typer.confirm(QUESTION, default=False)
    if probe:
        yield from checks.probe_findings(wait_s=wait_s)
    else:
        yield checks.no_probe()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """TERM and HUP act like Ctrl-C: the test job is removed."""
    raise KeyboardInterrupt
