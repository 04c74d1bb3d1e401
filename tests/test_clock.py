"""The real clock: a wall clock that jumps for a while is not followed, one that was set is."""

from __future__ import annotations

import time

import pytest

from hpcsweep.clock import ACCEPT_JUMP_S, SystemClock


class Clocks:
    """The wall clock, off by `off`, and the time that passes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed, self.off = 0.0, 0.0
        monkeypatch.setattr(time, "time", lambda: 1_000_000.0 + self.passed + self.off)
        monkeypatch.setattr(time, "monotonic", lambda: self.passed)


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_jump_of_some_seconds_does_not_show(monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    clocks = Clocks(monkeypatch)
    clock = SystemClock()
    seen = []
    for second in range(30):
        clocks.passed = float(second)
        clocks.off = jump if 10 <= second < 20 else 0.0
        seen.append(clock.time())
    assert seen == [1_000_000.0 + second for second in range(30)]


def test_a_clock_that_was_set_is_believed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks(monkeypatch)
    clock = SystemClock()
    clocks.off = -3600.0
    clocks.passed = 1.0
    assert clock.time() == 1_000_001.0
    clocks.passed += ACCEPT_JUMP_S
    assert clock.time() == 1_000_000.0 + clocks.passed - 3600.0


def test_small_corrections_are_followed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks(monkeypatch)
    clock = SystemClock()
    for second in range(100):
        clocks.passed, clocks.off = float(second), second * 0.5
        assert clock.time() == time.time()
