"""The crontab line that drives a sweep where no job may submit others."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hpcsweep.core.quoting import shell_join, shell_quote

#: Of what a user may have set by hand, what decides which Slurm and which package are found.
_KEPT: Final = ("SLURM_CONF", "PYTHONPATH")


def launch_once(spec: Path | None, *, results: Path, overrides: Sequence[str]) -> str:
    """The crontab line that ticks this sweep every five minutes.

    A login shell, because cron itself knows next to no PATH, and jobs inherit what it knows.
    """
    words = [sys.executable, "-m", "hpcsweep", "launch", "SPEC" if spec is None else str(spec.absolute())]
    words += ["--results", str(results.absolute()), "--once", "--quiet"]
    words += [word for override in overrides for word in ("--set", override)]
    kept = [f"{name}={shell_quote(os.environ[name])}" for name in _KEPT if os.environ.get(name)]
    command = f"cd {shell_quote(os.getcwd())} && {' '.join([*kept, shell_join(words)])}"
    # cron ends the command at a bare % sign.
    return f"*/5 * * * * bash -lc {shlex.quote(command)} >/dev/null".replace("%", r"\%")
