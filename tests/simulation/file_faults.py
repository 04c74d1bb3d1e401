"""File operations of the driver that fail: EACCES, ENOSPC, EIO, ESTALE, alone or several in a row."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from numpy.random import Generator

#: What fails: calls that take a path, and those that take an open file.
_BY_PATH: Final = ("open", "rename", "listdir", "scandir", "unlink", "mkdir", "rmdir", "stat")
_BY_FILE: Final = ("write", "fsync", "ftruncate", "fstat")
_CODES: Final = (errno.EACCES, errno.ENOSPC, errno.EIO, errno.ESTALE)
#: So many operations fail in a row at most: a disk that is full stays so for a while.
_MOST_IN_A_ROW: Final = 4


class FileFaults:
    """Lets operations on files below a folder fail, at points that were drawn beforehand.

    Args:
        rng: Draws them.
        root: Operations on paths elsewhere go well.
        faults: How often; `gap`: after so many operations on average.

    Attributes:
        happened: How many operations have failed.
    """

    def __init__(self, rng: Generator, root: Path, *, faults: int, gap: int) -> None:
        self.happened = 0
        self._rng = rng
        self._root = f"{root}{os.sep}"
        self._left = faults
        self._gap = gap
        self._due = int(rng.geometric(1 / gap))
        self._burst = 0
        self._code = 0
        self._inside = 0

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Until the patch is undone."""
        for name in _BY_PATH:
            patch.setattr(os, name, self._failing(getattr(os, name), by_path=True))
        for name in _BY_FILE:
            patch.setattr(os, name, self._failing(getattr(os, name), by_path=False, cut=name == "write"))
        patch.setattr(io, "open", self._failing(io.open, by_path=True))

    @contextlib.contextmanager
    def driving(self) -> Iterator[None]:
        """What is done in the block is done by the driver."""
        before, self._inside = self._inside, 1
        try:
            yield
        finally:
            self._inside = before

    @contextlib.contextmanager
    def elsewhere(self) -> Iterator[None]:
        """What is done in the block is done by somebody else."""
        before, self._inside = self._inside, 0
        try:
            yield
        finally:
            self._inside = before

    def _strikes(self) -> bool:
        if self._burst:
            self._burst -= 1
            self.happened += 1
            return True
        self._due -= 1
        if self._due or not self._left:
            return False
        self._left -= 1
        self._due = int(self._rng.geometric(1 / self._gap))
        self._burst = int(self._rng.integers(_MOST_IN_A_ROW))
        self._code = int(self._rng.choice(_CODES))
        self.happened += 1
        return True

    def _failing(self, action: Callable[..., Any], *, by_path: bool, cut: bool = False) -> Callable[..., Any]:
        def failing(first: Any, *of: Any, **more: Any) -> Any:
            ours = self._inside and (not by_path or str(first).startswith(self._root))
            if ours and self._strikes():
                if cut and self._rng.random() < 0.5:  # a part of it is written before that
                    action(first, of[0][: len(of[0]) // 2])
                raise OSError(self._code, os.strerror(self._code), str(first))
            return action(first, *of, **more)

        return failing
