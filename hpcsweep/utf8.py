"""Text is UTF-8, whatever the locale: file names, what is read and written, and what is printed."""

from __future__ import annotations

import contextlib
import io
import os
import sys


def in_utf8() -> None:
    """Have this process take names and texts for UTF-8; for programs of ours, as their first act.

    In a locale without UTF-8 (LC_ALL=C with PYTHONUTF8=0, Latin-1) a name such as `größe` can be
    neither opened nor printed. Python can be told otherwise only when it starts, so it starts
    again, as the same process; the environment, which training code sees too, stays as it is.
    """
    if not sys.flags.utf8_mode and sys.getfilesystemencoding().lower() not in ("utf-8", "utf8"):
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors="backslashreplace")  # where PYTHONIOENCODING says ascii
