"""One thing is singular, in whatever is printed."""

from __future__ import annotations

import pytest

from hpcsweep.core.text import plural
from hpcsweep.views.format import runs_text


@pytest.mark.parametrize(("number", "words"), [(0, "0 trials"), (1, "1 trial"), (2, "2 trials")])
def test_one_is_singular(number: int, words: str) -> None:
    assert plural(number, "trial") == words


def test_one_run_is_no_runs() -> None:
    assert runs_text({"completed": 1, "failed": 2}) == "1 run completed, 2 failed"
    assert runs_text({"completed": 0, "running": 1}) == "0 runs completed, 1 running"
