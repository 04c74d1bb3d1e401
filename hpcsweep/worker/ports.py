"""A TCP port for the rendezvous of a run's processes, unlike that of any other run on this machine."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: Below the range from which the kernel gives ports to clients, and above those of services.
_FIRST: Final = 15_000
_LAST: Final = 60_000
_TAKEN: Final = re.compile(r"EADDRINUSE|address already in use", re.IGNORECASE)


class Port:
    """A port that nobody uses, kept from other workers of this machine until it is closed.

    Args:
        name: Of the run: equal names begin their search at the same port.

    Raises:
        OSError: There is none.
    """

    def __init__(self, name: str) -> None:
        # A name in the abstract namespace is the kernel's to give back, however this process ends.
        for number in _candidates(name):
            lock = socket.socket(socket.AF_UNIX)
            try:
                lock.bind(f"\0hpcsweep-port-{number}")
            except OSError:
                lock.close()
                continue
            if is_free(number):
                self.number, self._lock = number, lock
                return
            lock.close()
        raise OSError("no free port for the rendezvous of the run's processes")

    def close(self) -> None:
        """Let others have it."""
        self._lock.close()


def is_free(number: int) -> bool:
    """Whether nobody listens at the port."""
    for family, host in ((socket.AF_INET, ""), (socket.AF_INET6, "::")):
        with contextlib.suppress(OSError):
            probe = socket.socket(family)
            with probe:
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, number))
                except OSError as error:
                    if "in use" in str(error.strerror):
                        return False
                    raise
    return True


def is_taken(message: str) -> bool:
    """Whether a program says that it could not have its port."""
    return _TAKEN.search(message) is not None


def _candidates(name: str) -> Iterator[int]:
    """Each port of the range once, from one on that the name gives."""
    last = _LAST
    with contextlib.suppress(OSError, ValueError):
        first_of_clients = (
            Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0]
        )
        last = min(last, int(first_of_clients)) if int(first_of_clients) > _FIRST + 1000 else last
    size = last - _FIRST
    start = zlib.crc32(name.encode())
    return (_FIRST + (start + step) % size for step in itertools.islice(itertools.count(), size))
