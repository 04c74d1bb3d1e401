"""Waiting for what other processes do: tests hang no longer than this, and no machine is too slow for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

#: How long a test waits for what is certain to come, before it fails. It is never what a test measures.
PATIENCE_S: Final = 300.0


def wait_until(condition: Callable[[], object], *, what: Callable[[], str] | str = "it never came") -> None:
    """Return as soon as the condition holds; fail with what is said then if it never does."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(0.01)
