"""Modules that are imported when a test uses them: collecting the tests loads no torch."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import pytest

#: Names of the modules that were imported when all tests had been collected.
MODULES_AFTER_COLLECTION = pytest.StashKey[frozenset[str]]()


class LazyModule(ModuleType):
    """Imports the module of its name at the first use of a public attribute.

    Private ones are absent: pytest asks every object in a test module for `__test__` and the like.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)
