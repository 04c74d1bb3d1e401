"""`python -m hpcsweep`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    from hpcsweep.bootstrap import collect_seldom, use_utf8

    use_utf8()
    collect_seldom()
    try:
        from hpcsweep.cli import app
    except ModuleNotFoundError as error:
        print(
            f"hpcsweep: this Python ({sys.executable}) lacks {error.name}, which the command line needs: "
            "python -m pip install hpcsweep",
            file=sys.stderr,
        )
        sys.exit(2)
    app(prog_name="hpcsweep")


if __name__ == "__main__":
    main()
