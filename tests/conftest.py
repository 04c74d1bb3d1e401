"""What all tests start from."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Have Ctrl-C mean something: a shell starts what it puts in the background with SIGINT ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
