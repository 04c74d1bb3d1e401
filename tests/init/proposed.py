"""Scripts as people write them, with the specs that `init` proposes: `python -m tests.init.proposed`."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from hpcsweep.cli import app

HERE = Path(__file__).parent
SCRIPTS = HERE / "scripts"
SPECS = HERE / "specs"

#: The scripts, from the folder of scripts.
NAMES = sorted(
    path.relative_to(SCRIPTS).as_posix()
    for path in SCRIPTS.rglob("*")
    if path.is_file() and path.suffix not in (".yaml", ".pyc")
)


def stored(name: str) -> Path:
    """Where the spec of a script is kept."""
    return SPECS / f"{Path(name).name}.yaml"


def proposed(name: str) -> str:
    """The spec that `init` prints for a script."""
    done = CliRunner().invoke(app, ["init", str(SCRIPTS / name), "-o", "-"])
    assert done.exit_code == 0, done.output
    return done.output


def main() -> None:
    """Keep what is written now."""
    SPECS.mkdir(exist_ok=True)
    for name in NAMES:
        stored(name).write_text(proposed(name), encoding="utf-8")


if __name__ == "__main__":
    main()
