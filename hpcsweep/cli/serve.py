"""`serve`: all sweeps below some folders in a browser."""

from __future__ import annotations

import getpass
import os
import socket
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

import typer

from hpcsweep.cli.list_ import share_done
from hpcsweep.cli.terminal import errors_exit
from hpcsweep.core.text import plural, shell_join
from hpcsweep.errors import SpecError
from hpcsweep.server.http import LOOPBACK, SweepServer
from hpcsweep.server.library import Library


def serve(folders: Sequence[Path], *, port: int, every: float) -> None:
    """Print the address, then serve until Ctrl-C."""
    with errors_exit():
        library = Library(folders, share_done=share_done, every=every)
        try:
            server = SweepServer(library, port=port)
        except OSError as error:
            raise SpecError(f"--port {port}: {error.strerror}; without it a free one is taken") from None
        with server:
            typer.echo(server.url)
            where = " and ".join(map(str, folders))
            typer.echo(
                f"{plural(len(library), 'sweep')} below {where}, for whoever has this address; Ctrl-C ends it"
            )
            tunnel = tunnel_command(server.server_port, user=_user(), environ=os.environ)
            typer.echo(f"to open it on another machine, first run there: {tunnel}")
            if _others_can_read(sys.stdout):
                typer.echo("note: others can read this file, and so the address in it: chmod 600 it")
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                typer.echo("\nended")


def tunnel_command(port: int, *, user: str, environ: Mapping[str, str]) -> str:
    """The command that makes this machine's port one of the machine where it is run.

    A compute node is reached by way of the one that its job was submitted from.
    """
    via = environ.get("SLURM_SUBMIT_HOST")
    jump = ["-J", f"{user}@{via}"] if via and via != socket.gethostname() else []
    forward = ["-N", "-L", f"{port}:{LOOPBACK}:{port}"]
    return shell_join(["ssh", *jump, *forward, f"{user}@{socket.gethostname()}"])


def _others_can_read(stream: TextIO) -> bool:
    """Whether what is printed goes into a file that others can read; its folder may still keep them out."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(mode) and bool(mode & (stat.S_IRGRP | stat.S_IROTH))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container without an entry for the user
        return "USER"
