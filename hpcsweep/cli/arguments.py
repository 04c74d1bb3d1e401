"""Arguments and options that several verbs of the command line have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpcsweep.cli.completion import complete_clusters, complete_folders, complete_trials

Spec = Annotated[Path, typer.Argument(metavar="SPEC", help="The sweep file (YAML).")]
Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="The results folder.", autocompletion=complete_folders)
]
Trial = Annotated[
    int, typer.Argument(metavar="TRIAL", help="The trial's number.", autocompletion=complete_trials)
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a value of the spec; may be repeated."),
]
ClusterName = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="NAME",
        help="auto, local or slurm; overrides cluster.name.",
        autocompletion=complete_clusters,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def print_version(value: bool) -> None:
    """Print the version and leave, if asked to."""
    if value:
        from hpcsweep import __version__

        typer.echo(f"hpcsweep {__version__}")
        raise typer.Exit
