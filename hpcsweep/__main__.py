"""`python -m hpcsweep`."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from hpcsweep.bootstrap import use_utf8

    use_utf8()
    from hpcsweep.cli import app

    app(prog_name="hpcsweep")


if __name__ == "__main__":
    main()
