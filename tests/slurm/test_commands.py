"""Parameters arrive on other nodes as they are: in each style of arguments, and in config files."""

from __future__ import annotations

import base64
import configparser
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from typer.testing import CliRunner

from hpcsweep.cli import app

from .fixture import PrivateSlurm
from .sweeps import finish, launch

PROGRAM = """\
import base64, json, sys
seen = [argument.encode("utf-8", "surrogateescape") for argument in sys.argv[1:]]
if seen[0].startswith(b"config="):
    seen = [open(seen[0].removeprefix(b"config="), "rb").read()]
print("seen", json.dumps([base64.b64encode(each).decode() for each in seen]))
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
BETAS = "[0.9,0.999]"
ARGUMENTS = {
    "{args:--name=value}": [
        "--optimizer.name=adam",
        f"--optimizer.betas={BETAS}",
        f"--text={HOSTILE}",
        "--amp=False",
    ],
    "{args:name=value}": [
        "optimizer.name=adam",
        f"optimizer.betas={BETAS}",
        f"text={HOSTILE}",
        "amp=false",
    ],
    "{args:-name value}": [
        *("-optimizer.name", "adam"),
        *("-optimizer.betas", BETAS),
        *("-text", HOSTILE),
        "-no-amp",
    ],
    "{args}": ["--optimizer.name", "adam", "--optimizer.betas", BETAS, "--text", HOSTILE, "--no-amp"],
}
CONFIG: dict[str, Any] = {
    "optimizer": {"lr": 1e-4, "name": "adam", "betas": [0.9, 0.999]},
    "text": HOSTILE,
    "bare": None,
    "amp": False,
}
WITHOUT_NULL = {key: value for key, value in CONFIG.items() if value is not None}
FILES: dict[str, tuple[str, Callable[[str], Any], Any]] = {
    "json": ('{"optimizer": {"lr": 1e-4, "name": "sgd"}}', json.loads, CONFIG),
    "yaml": ("optimizer: {lr: 1.0e-4, name: sgd}\n", yaml.safe_load, CONFIG),
    "toml": ('[optimizer]\nlr = 1e-4\nname = "sgd"\n', tomllib.loads, WITHOUT_NULL),
}
INI = "[optimizer]\nlr = 1e-4\nname = sgd\n"


@pytest.fixture
def sweeps(slurm: PrivateSlurm, tmp_path: Path) -> Callable[[dict[str, str]], dict[str, list[str]]]:
    """Launches sweeps of these specs at the same time; what the program of each has seen."""
    (tmp_path / "show.py").write_text(PROGRAM)

    def run(specs: dict[str, str]) -> dict[str, list[str]]:
        launched = []
        for name, text in specs.items():
            (tmp_path / f"{name}.yaml").write_text(text)
            launched.append(launch(tmp_path / f"{name}.yaml", "--results", str(tmp_path / name)))
        for process in launched:
            finish(process)
        return {name: _seen(tmp_path / name) for name in specs}

    return run


def test_arguments_of_each_style_arrive_as_they_are(
    sweeps: Callable[[dict[str, str]], dict[str, list[str]]],
) -> None:
    specs = {}
    for number, template in enumerate(ARGUMENTS):
        command = f"{{python}} show.py {template} {{resume_from?--resume {{resume_from}}}} {{resource}}"
        flags = "  flags: no-" if "=" not in template else ""
        specs[f"style{number}"] = SPEC % (json.dumps(command), flags, json.dumps(HOSTILE))
    expected = [[*arguments, "2"] for arguments in ARGUMENTS.values()]
    assert list(sweeps(specs).values()) == expected


def test_config_files_of_each_format_arrive_as_they_are(
    sweeps: Callable[[dict[str, str]], dict[str, list[str]]], tmp_path: Path
) -> None:
    command = json.dumps("{python} show.py config={config_file} {resource}")
    specs = {}
    for suffix, (base, _, _) in FILES.items():
        (tmp_path / f"base.{suffix}").write_text(base)
        specs[suffix] = SPEC % (command, f"  config: base.{suffix}", json.dumps(HOSTILE))
    # Everything is text there, in sections, and a line break would end a value.
    (tmp_path / "base.ini").write_text(INI)
    ini = SPEC % (command, "  config: base.ini", json.dumps('a b\' "$HOME" é'))
    specs["ini"] = "".join(
        line.replace("  text:", "  other.text:")
        for line in ini.splitlines(keepends=True)
        if not line.startswith(("  bare:", "  amp:", "  optimizer.betas:"))
    )
    seen = sweeps(specs)
    for suffix, (_, parse, expected) in FILES.items():
        assert parse(*seen[suffix]) == expected, suffix
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(*seen["ini"])
    assert {name: dict(parser[name]) for name in parser.sections()} == {
        "optimizer": {"lr": "1e-4", "name": "adam"},
        "other": {"text": 'a b\' "$HOME" é'},
    }


def _seen(folder: Path) -> list[str]:
    lines = CliRunner().invoke(app, ["logs", str(folder), "0"]).stdout.splitlines()
    (printed,) = [line.removeprefix("seen ") for line in lines if line.startswith("seen ")]
    return [base64.b64decode(each).decode() for each in json.loads(printed)]
