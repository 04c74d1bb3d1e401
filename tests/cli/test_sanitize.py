"""What the command line prints is never obeyed by a terminal, and tells no secrets."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from hpcsweep.cli import app
from hpcsweep.cli.terminal import hide, json_text, sanitized_output
from hpcsweep.cli.trial import _coloured
from hpcsweep.store.layout import Layout
from hpcsweep.store.provenance import list_records

EVIL = "\x1b]0;owned\x07\x9b31m\u202eabc\r\x08"
SAFE = "?]0;owned??31m?abc ?"

SPEC = """\
name: lr
train: {function: "trainer.py:train", check: false}
objective: {metric: loss}
space: {x: {type: float, low: 0.0, high: 1.0}}
searcher: random
scheduler: {name: fifo, max_resource: 1}
budget: {trials: 1}
cluster: {name: local, slots: 1, environment: {WANDB_API_KEY: "very secret 1"}}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "trainer.py").write_text("def train(trial):\n    trial.report(1, loss=1.0)\n")
    (tmp_path / "lr.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("err", [False, True])
def test_escape_sequences_and_bidi_characters_are_not_printed(
    capsys: pytest.CaptureFixture[str], err: bool
) -> None:
    with sanitized_output():
        typer.echo(f"one\n\ttwo {EVIL}", err=err)
        print(EVIL, file=sys.stderr if err else sys.stdout)
    out, errors = capsys.readouterr()
    assert (errors if err else out) == f"one\n\ttwo {SAFE}\n{SAFE}\n"


def test_bytes_are_not_changed(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    with sanitized_output():
        sys.stdout.flush()
        sys.stdout.buffer.write(EVIL.encode())
        sys.stdout.buffer.flush()
    assert capsysbinary.readouterr().out == EVIL.encode()


def test_escaped_json_has_the_same_value(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"a": [EVIL, "\U0001d11e\ue000\U000e0001"]}
    with sanitized_output():
        typer.echo(json_text(value))
    out = capsys.readouterr().out
    assert json.loads(out) == value
    assert out.replace("\n", "").isprintable()


def test_wrong_arguments_are_sanitized() -> None:
    for argv in (["status", f"nowhere{EVIL}"], [f"stat{EVIL}"], ["status", "a", EVIL]):
        result = CliRunner().invoke(app, argv)
        assert result.exit_code == 2
        assert not set("\x1b\x07\x9b\u202e\x08") & set(result.output), argv


def test_hidden_values_are_masked_until_the_command_ends(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with sanitized_output():
        hide(["hunter22"])
        typer.echo("the key is hunter22")
    with sanitized_output():
        typer.echo("hunter22")
    assert capsys.readouterr().out == "the key is ***\nhunter22\n"


def test_logs_on_a_terminal_keep_only_colours() -> None:
    log = "\x1b[1;31mred\x1b[0m \x1b]52;c;x\x07\x1b[2J\r 10%\r 20%\r\nend\u202e"
    assert _coloured(log) == ("\x1b[1;31mred\x1b[0m ?]52;c;x??[2J\n 10%\n 20%\nend?\x1b[0m\n")
    assert _coloured("plain\n") == "plain\n"


def test_secrets_are_written_only_where_they_are_needed(here: Path) -> None:
    given = "cluster.environment.HF_TOKEN=another secret 2"
    result = CliRunner().invoke(app, ["launch", "lr.yaml", "--set", given, "--set", "name=[]"])
    assert (result.exit_code, "secret" in result.output) == (2, False)
    for argv in (["plan"], ["launch", "--once"]):
        result = CliRunner().invoke(app, [*argv, "lr.yaml", "--set", given])
        assert result.exit_code in (0, 3), result.output
        assert " secret" not in result.output
    layout = Layout(here / "results" / "lr")
    holders = [
        (str(path.relative_to(layout.root)), oct(path.stat().st_mode & 0o777))
        for path in layout.root.rglob("*")
        if path.is_file() and re.search(rb"(very|another) secret", path.read_bytes())
    ]
    assert holders == [("sweep.yaml", "0o600")]
    assert CliRunner().invoke(app, ["stop", str(layout.root)]).exit_code == 0


def test_the_command_line_is_recorded_without_secrets(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["hpcsweep", "launch", "--set", "a.HF_TOKEN=hunter22"])
    CliRunner().invoke(app, ["launch", "lr.yaml", "--once"])
    CliRunner().invoke(app, ["stop", "results/lr"])
    [(_, record)] = list_records(Layout(here / "results" / "lr"))
    assert record.argv == ("hpcsweep", "launch", "--set", "a.HF_TOKEN=***")


def test_variable_without_a_value_must_be_set_and_is_inherited(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["launch", "lr.yaml", "--once", "--set", "cluster.environment={MY_TOKEN: null}"]
    result = CliRunner().invoke(app, argv)
    assert result.exit_code == 2
    assert result.output == (
        "hpcsweep: lr.yaml: cluster.environment.MY_TOKEN: null takes it from the environment of `launch`, "
        "where it is not set; export MY_TOKEN first\n"
    )
    monkeypatch.setenv("MY_TOKEN", "hunter22")
    assert CliRunner().invoke(app, argv).exit_code == 3
    CliRunner().invoke(app, ["stop", "results/lr"])
    texts = [path.read_bytes() for path in (here / "results").rglob("*") if path.is_file()]
    assert not any(b"hunter22" in text for text in texts)
    assert os.stat("results/lr/sweep.yaml").st_mode & 0o777 == 0o644


def test_stream_without_a_close_is_wrapped() -> None:
    with sanitized_output():
        assert not isinstance(sys.stdout, io.TextIOWrapper)
        assert sys.stdout.encoding
