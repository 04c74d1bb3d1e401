"""`serve` on the command line: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpcsweep.cli import app
from hpcsweep.cli.serve import tunnel_command
from tests.cli.test_list import EVENTS, write
from tests.waiting import PATIENCE_S, wait_until


def test_it_prints_its_address_first_serves_it_and_ends_at_ctrl_c(tmp_path: Path) -> None:
    write(tmp_path / "one", EVENTS, age_s=60)
    argv = [sys.executable, "-m", "hpcsweep", "serve", str(tmp_path)]
    log = tmp_path / "serve.log"
    log.touch()
    log.chmod(0o644)
    with log.open("w") as out, subprocess.Popen(argv, stdout=out, stderr=out) as process:
        wait_until(lambda: log.read_text().count("\n") >= 4)
        url = log.read_text().partition("\n")[0]
        address, _, path = url.removeprefix("http://").partition("/")
        token = path.partition("=")[2]
        connection = http.client.HTTPConnection(address)
        connection.request("GET", f"/{path}")
        assert connection.getresponse().status == 303
        shown = (
            Path(f"/proc/{process.pid}/cmdline").read_bytes()
            + Path(f"/proc/{process.pid}/environ").read_bytes()
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0
    rest = log.read_text().partition("\n")[2]
    port = address.partition(":")[2]
    lines = rest.splitlines()
    assert lines[0] == f"1 sweep below {tmp_path}, for whoever has this address; Ctrl-C ends it"
    assert lines[1].startswith("to open it on another machine, first run there: ssh -N -L")
    assert f" {port}:127.0.0.1:{port} " in lines[1]
    assert lines[2:] == [
        "note: others can read this file, and so the address in it: chmod 600 it",
        "",
        "ended",
    ]
    assert token
    assert token not in rest
    assert token.encode() not in shown


def test_a_port_that_is_taken_and_a_folder_that_is_none_are_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = CliRunner().invoke(app, ["serve", str(tmp_path), "--port", str(port)])
    words = f"hpcsweep: --port {port}: Address already in use; without it a free one is taken\n"
    assert (found.exit_code, found.stderr) == (2, words)
    found = CliRunner().invoke(app, ["serve", str(tmp_path / "nowhere")])
    words = f"hpcsweep: {tmp_path}/nowhere: does not exist: expected a folder\n"
    assert (found.exit_code, found.stderr) == (2, words)


@pytest.mark.parametrize(
    ("environ", "options"),
    [
        ({}, "-N"),
        ({"SLURM_SUBMIT_HOST": "login2"}, "-J ada@login2 -N"),
        ({"SLURM_SUBMIT_HOST": "here"}, "-N"),
    ],
)
def test_the_tunnel_goes_by_way_of_the_login_node_where_a_job_serves(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], options: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "here")
    command = tunnel_command(8123, user="ada", environ=environ)
    assert command == f"ssh {options} -L 8123:127.0.0.1:8123 ada@here"
