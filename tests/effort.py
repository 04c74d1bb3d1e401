"""How many cases a test tries: some by default, many more with `pytest --exhaustive`."""

from __future__ import annotations

from typing import TypeVar

from hypothesis import settings

T = TypeVar("T")

#: Set by the option, before tests are collected.
exhaustive = False


def by_effort(default: T, more: T) -> T:
    """`more` with `--exhaustive`."""
    return more if exhaustive else default


def examples(default: int, more: int) -> settings:
    """Settings of a property test that tries so many examples."""
    return settings(deadline=None, max_examples=by_effort(default, more))
