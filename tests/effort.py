"""How many cases a test tries: few by default, more in CI, many more with `pytest --exhaustive`."""

from __future__ import annotations

import os
from typing import Final, TypeVar

from hypothesis import HealthCheck, settings

T = TypeVar("T")

#: Set by `.ci/run`.
IN_CI: Final = os.environ.get("HPCSWEEP_TEST_EFFORT") == "ci"
#: Set by the option, before tests are collected.
exhaustive = False

# A machine with much else to do is slow; that is no fault of a test. In CI examples are the same each time,
# since what a change is judged by must not depend on luck; elsewhere each run tries others.
settings.register_profile(
    "hpcsweep", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=IN_CI
)
settings.load_profile("hpcsweep")


def by_effort(default: T, more: T, *, ci: T | None = None) -> T:
    """`more` with `--exhaustive`; in CI `ci`, which is the default one unless it is given."""
    if exhaustive:
        return more
    return ci if IN_CI and ci is not None else default


def examples(default: int, more: int) -> settings:
    """Settings of a property test that tries so many examples."""
    return settings(max_examples=by_effort(default, more))
