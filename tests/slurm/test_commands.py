"""Programs get their parameters on other nodes as they are: as arguments and in a config file."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from hpcsweep.cli import app

from .fixture import PrivateSlurm
from .sweeps import finish, launch

PROGRAM = """\
import json, sys
try:
    with open(sys.argv[1]) as file:
        seen = json.load(file)
except FileNotFoundError:
    seen = None
print("seen", json.dumps([seen, sys.argv[2:]]))
print("error=1")
"""
SPEC = """\
name: commands
train:
  command: %s
  metrics: 'error=(?P<error>\\S+)'
%s
objective: {metric: error}
space:
  optimizer.name: adam
  optimizer.betas: {type: choice, values: [[0.9, 0.999]], format: json}
  text: {type: constant, value: %s}
  bare: {type: constant, value: null}
  nesterov: {type: constant, value: true, when: {optimizer.name: sgd}}
  amp: [false]
searcher: random
scheduler: {name: fifo, max_resource: 2}
budget: {trials: 1}
resources: {cpus: 1, time: 10m}
cluster: {name: slurm, max_tasks: 4, poll: 1, grace: 5, settle: 5}
"""
HOSTILE = 'a b\' "$HOME" \n-x é'


def test_arguments_and_a_config_file_arrive_as_they_are(slurm: PrivateSlurm, tmp_path: Path) -> None:
    (tmp_path / "show.py").write_text(PROGRAM)
    (tmp_path / "base.json").write_text('{"optimizer": {"lr": 1e-4, "name": "sgd"}}')
    cases = {
        "config": (
            "{python} show.py {config_file} {resume_from?--resume {resume_from}} {resource}",
            "  config: base.json",
            [
                {
                    "optimizer": {"lr": 1e-4, "name": "adam", "betas": [0.9, 0.999]},
                    "text": HOSTILE,
                    "bare": None,
                    "amp": False,
                },
                ["2"],
            ],
        ),
        "args": (
            "{python} show.py none {args:--name=value} {resource}",
            "",
            [
                None,
                [
                    "--optimizer.name=adam",
                    "--optimizer.betas=[0.9,0.999]",
                    f"--text={HOSTILE}",
                    "--amp=False",
                    "2",
                ],
            ],
        ),
    }
    launched = []
    for name, (command, more, _) in cases.items():
        spec = tmp_path / f"{name}.yaml"
        spec.write_text(SPEC % (json.dumps(command), more, json.dumps(HOSTILE)))
        launched.append(launch(spec, "--results", str(tmp_path / name)))
    for process in launched:
        finish(process)
    for name, (_, _, expected) in cases.items():
        (printed,) = _logged(tmp_path / name)
        assert json.loads(printed) == expected


def _logged(folder: Path) -> list[str]:
    lines = CliRunner().invoke(app, ["logs", str(folder), "0"]).stdout.splitlines()
    return [line.removeprefix("seen ") for line in lines if line.startswith("seen ")]
