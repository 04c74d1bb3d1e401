"""`enqueue`: try a configuration next, before any that the searcher proposes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from numpy.random import default_rng

from hpcsweep.cli.exit_codes import errors_exit
from hpcsweep.core.configurations import complete_config
from hpcsweep.errors import FolderError, SpecError
from hpcsweep.spec import load_spec
from hpcsweep.spec.yaml_io import parse_yaml
from hpcsweep.store.requests import send_request
from hpcsweep.views.folder import ResultsFolder, beyond_budget, count_enqueued


def enqueue(path: Path, values: Sequence[str]) -> None:
    """Leave the request for the sweep's next tick."""
    with errors_exit():
        folder = ResultsFolder(path)
        spec_file = folder.layout.spec
        if not spec_file.exists():
            raise FolderError(f"{spec_file}: is missing; `launch SPEC` writes it")
        config = _configuration(values)
        try:
            spec = load_spec(spec_file)
            complete_config(spec.space, config, default_rng(0))
        except SpecError as error:
            raise SpecError(*(f"enqueue: {problem}" for problem in error.problems)) from None
        send_request(folder.layout, "enqueue", config=config)
        known = [trial.trial for trial in folder.state.trials if trial.config == config]
        if known:
            removed = ", whose checkpoint was removed" if known[-1] in folder.state.without_checkpoint else ""
            typer.echo(f"same configuration as trial {known[-1]}{removed}: it is trained again, from scratch")
        why = beyond_budget(count_enqueued(folder.layout, folder.state), folder.state, spec.budget.trials)
        if why:
            typer.echo(f"enqueued, and waits: {why}")
        elif folder.state.ended is not None:
            typer.echo(f"enqueued; the sweep has {folder.progress.status}: launch it again to run it")
        elif folder.driver is None and folder.state.detached is None:
            typer.echo("enqueued; no driver is at work: launch again to resume")
        else:
            typer.echo("enqueued: it is the next configuration that starts")


def _configuration(values: Sequence[str]) -> dict[str, Any]:
    """`["lr=0.1", "optimizer=adam"]` as a configuration; values are YAML."""
    config: dict[str, Any] = {}
    for value in values:
        name, equals, text = value.partition("=")
        name = name.strip()
        if not equals or not name:
            raise SpecError(f"enqueue {value}: must be name=value")
        if name in config:
            raise SpecError(f"enqueue {value}: {name} must be given once, got it twice")
        config[name] = parse_yaml(text, source=f"enqueue {value}")
    if not config:
        raise SpecError("enqueue: expected name=value, such as lr=0.01; what is missing is drawn at random")
    return config
