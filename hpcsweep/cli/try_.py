"""`try`: run one configuration for a moment, resume it once, and say what to change."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Collection, Iterator, Sequence
from math import inf
from pathlib import Path
from time import monotonic
from typing import Final

import typer

from hpcsweep.cli.launch import tell_slow
from hpcsweep.cli.requests import end_sweep, read_config
from hpcsweep.cli.terminal import DONE, INTERRUPTED, NO_VALUE, errors_exit, hide, prefix_errors
from hpcsweep.core.text import plural, secret_values, shell_quote
from hpcsweep.core.units import parse_duration
from hpcsweep.errors import HpcsweepError, SpecError
from hpcsweep.session.algorithms import make_scheduler
from hpcsweep.session.program import check_program
from hpcsweep.session.session import Session
from hpcsweep.session.target import tell_slow_programs
from hpcsweep.spec import SweepSpec, load_spec
from hpcsweep.store.files import OURS
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.requests import send_request
from hpcsweep.try_run.derived import is_told, middle_config, overrides_to_try, resources_to_try
from hpcsweep.try_run.findings import Advice, advise, resumed, works
from hpcsweep.try_run.observed import COMMAND, Observed, observe
from hpcsweep.views.folder import attempt_logs
from hpcsweep.views.format import config_text, duration, number

#: Printed lines of a run that are shown: the first ones as they come, and the last ones.
_FIRST: Final = 12
_LAST: Final = 10
_MOST_NAMES: Final = 12
_FEW: Final = 3


def try_(
    spec_path: Path,
    values: Sequence[str],
    *,
    cluster: str | None,
    time: str | None,
    overrides: Sequence[str],
    keep: bool,
) -> None:
    """Run, observe, print; the exit code says whether a sweep would find its metric."""
    with errors_exit(), tell_slow_programs(tell_slow):
        spec = load_spec(spec_path, overrides)
        hide(secret_values(spec.cluster.environment))
        try:
            config = middle_config(spec.space, read_config(values, verb="try"))
        except SpecError as error:
            raise SpecError(*(f"try: {problem.removeprefix('try ')}" for problem in error.problems)) from None
        time_s = None if time is None else _seconds(time)
        name = cluster or "local"
        resources = resources_to_try(spec, told=is_told(spec))
        plan = make_scheduler(spec).plan()
        rungs = max((len(bracket.resources) for bracket in plan.brackets), default=1)
        with _folder(spec, local=name == "local", keep=keep) as folder:
            where = "this machine" if name == "local" else name
            heading = [f"{spec_path}, one trial on {where}: {config_text(config)}"]
            runs: list[Observed] = []
            for rung, resource in enumerate(resources):
                made = overrides_to_try(config, resource=resource, overrides=overrides)
                tried = load_spec(spec_path, made)
                how = "to be resumed" if rung else "from scratch"
                heading += ["", f"{rung + 1}. to step {resource}, {how}"]
                session = Session.for_launch(tried, folder, cluster=name)
                _drive(session, spec_path, heading=heading, time_s=time_s)
                heading = []
                runs.append(observe(folder, rung=rung, metrics=spec.objectives.metrics))
                _print_run(spec, runs[-1])
                if rung and runs[-1].value is not None:
                    typer.echo(f"   it {_begun(*runs)}")
                if runs[-1].value is None:
                    break
        found = check_program(spec)
        second = runs[1] if len(runs) > 1 else None
        advice = [
            *(Advice(f"launch refuses it: {problem}") for problem in found.problems),
            *advise(spec, runs[0], second, rungs=rungs),
            *(Advice(f"launch warns: {line}") for line in found.warnings),
        ]
        _print_advice(advice, spec_path)
        _print_end(
            spec, spec_path, works=works(spec, runs[0]), refused=bool(found.problems), found=runs[0].metrics
        )


@contextlib.contextmanager
def _folder(spec: SweepSpec, *, local: bool, keep: bool) -> Iterator[Path]:
    """A results folder for this alone, where the cluster's nodes see it; removed unless it is kept."""
    if local:
        folder = Path(tempfile.mkdtemp(prefix=f"hpcsweep-try-{spec.name}-"))
    else:
        folder = Path("results") / f"try-{spec.name}-{secrets.token_hex(3)}"
    new_parent = not folder.parent.exists()
    try:
        yield folder
    finally:
        if keep:
            typer.echo(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
            if new_parent:
                with contextlib.suppress(OSError):
                    folder.parent.rmdir()


def _seconds(time: str) -> float:
    try:
        return parse_duration(time)
    except ValueError as error:
        raise SpecError(f"--time: {error}") from None


def _drive(session: Session, source: Path, *, heading: Sequence[str], time_s: float | None) -> None:
    """Run the trial to its resource or for a time, and show what it prints below the heading.

    Interrupted, its job ends with it.
    """
    with prefix_errors(source):
        session.validate()
        session.check_target()
    for line in heading:
        typer.echo(line)
    output = _Output(session.layout)
    try:
        with _told_to_end(), session.open(compactor=None) as driver:  # its files are read one by one
            driver.acquire()
            driver.run(lambda _: output.show(time_s))
    except KeyboardInterrupt:
        typer.echo("\nInterrupted; ending its job", err=True)
        with contextlib.suppress(HpcsweepError):
            end_sweep(session.folder)
        raise typer.Exit(INTERRUPTED) from None
    output.finish()


@contextlib.contextmanager
def _told_to_end() -> Iterator[None]:
    """TERM and HUP interrupt like Ctrl-C: nobody else would end the job."""
    numbers = (signal.SIGTERM, signal.SIGHUP) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Output:
    """What a run prints: its first lines as they come, and its last ones at the end."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._old = self._log()
        self._shown = 0
        self._began: float | None = None

    def show(self, time_s: float | None) -> None:
        """Print new lines, as long as they are few; once the run's time is over, have it stopped."""
        log = self._log()
        if self._began is None and log is not None and log != self._old and log.exists():
            self._began = monotonic()
        if self._began is not None and time_s is not None and monotonic() - self._began >= time_s:
            send_request(self._layout, "stop")
            self._began = inf
        for line in self._lines()[self._shown : _FIRST]:
            self._shown += 1
            typer.echo(_line(line))

    def finish(self) -> None:
        """Print the rest, shortened."""
        lines = self._lines()
        rest = lines[self._shown :]
        if len(rest) > _LAST + 1:
            typer.echo(f"   | .. {len(rest) - _LAST} more lines ..")
            rest = rest[-_LAST:]
        for line in rest:
            typer.echo(_line(line))

    def _log(self) -> Path | None:
        """The log of the newest attempt."""
        try:
            return attempt_logs(read_journal(self._layout).events, self._layout, 0)[-1].path
        except SpecError:  # there is none yet
            return None

    def _lines(self) -> list[str]:
        """The command and whole lines of the program itself, of the newest log."""
        log = self._log()
        text = ""
        if log is not None and log != self._old:
            with contextlib.suppress(FileNotFoundError):
                text = log.read_bytes().decode(errors="replace")
        lines = [part.rstrip() for line in text.split("\n")[:-1] for part in line.split("\r")[-1:]]
        return [line for line in lines if line.strip() and (not line.startswith(OURS) or COMMAND in line)]


def _line(line: str) -> str:
    return f"   {line.removeprefix(OURS).strip()}" if line.startswith(OURS) else f"   | {line}"


def _print_run(spec: SweepSpec, run: Observed) -> None:
    if not run.printed:
        typer.echo("   it printed nothing")
    typer.echo(f"   {run.outcome} after {duration(run.seconds)}{f': {run.message}' if run.message else ''}")
    typer.echo(f"   metrics: {_metrics(spec, run) or 'none'}")
    typer.echo(f"   steps: {_steps(run.steps) or 'none'}")
    typer.echo(f"   checkpoints: {_checkpoints(run) or 'none'}")


def _begun(first: Observed, second: Observed) -> str:
    return f"resumed from step {second.start}" if resumed(first, second) else "trained from scratch"


def _metrics(spec: SweepSpec, run: Observed) -> str:
    """`val_loss 0.5 at step 1 (the objective), acc 0.7 at step 1`."""
    wanted = spec.objectives.metrics
    names = sorted(run.metrics, key=lambda name: (name not in wanted, name))
    shown = [
        f"{name} {number(run.metrics[name][0])} at step {run.metrics[name][1]}"
        + ("" if name not in wanted else " (the objective)" if len(wanted) == 1 else " (an objective)")
        for name in names[:_MOST_NAMES]
    ]
    more = len(names) - _MOST_NAMES
    return ", ".join([*shown, *([f"{more} more"] if more > 0 else [])])


def _steps(steps: Sequence[int]) -> str:
    """`1, 2, 3`, of many the ends."""
    shown = list(map(str, steps))
    return ", ".join(shown if len(shown) <= _MOST_NAMES else [*shown[:3], "..", *shown[-2:]])


def _checkpoints(run: Observed) -> str:
    """`step 1 (model.pt)`."""
    return ", ".join(f"step {step} ({_names(names)})" for step, names in run.checkpoints.items())


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return f"{', '.join(names[:_FEW])}{more}" if names else "empty"


def _print_advice(advice: Sequence[Advice], spec_path: Path) -> None:
    if not advice:
        return
    typer.echo("")
    typer.echo(f"{plural(len(advice), 'thing')} to look at in {spec_path}:")
    for each in advice:
        typer.echo(f"- {each.text}")
        for line in each.yaml:
            typer.echo(f"    {line}")


def _print_end(
    spec: SweepSpec, spec_path: Path, *, works: bool, refused: bool, found: Collection[str]
) -> None:
    """Say whether a sweep would find its metrics, and exit; `found`: those that a run had."""
    path = shell_quote(str(spec_path))
    typer.echo("")
    if works and not refused:
        typer.echo(f"a sweep finds {' and '.join(spec.objectives.metrics)}; next: hpcsweep plan {path}")
        raise typer.Exit(DONE)
    missing = [name for name in spec.objectives.metrics if name not in found] or spec.objectives.metrics
    why = "it cannot be launched" if works else f"a sweep would not find {' and '.join(missing)}"
    typer.echo(f"{why}: change that, then again: hpcsweep try {path}")
    raise typer.Exit(NO_VALUE)
