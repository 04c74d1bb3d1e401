"""A part of the space in which every trial fails is said, whatever the rest of the sweep gives."""

from __future__ import annotations

from typing import Any

import pytest

from hpcsweep.core.events import (
    AnyEvent,
    BatchClosed,
    Outcome,
    SweepEnded,
    SweepOutcome,
    SweepStarted,
    TrialCreated,
)
from hpcsweep.core.state import SweepState
from hpcsweep.html.attempts import failures
from hpcsweep.html.sections import Text
from hpcsweep.views.branches import failed_branches
from hpcsweep.views.folder import ResultsFolder
from tests.views.folders import finished, identity, planned, written

SPACE: dict[str, Any] = {
    "optimizer": {"type": "choice", "values": ["sgd", "adam"]},
    "depth": {"type": "ordinal", "values": [1, 2, None]},
    "beta": {"type": "float", "low": 0.0, "high": 1.0, "when": {"optimizer": ["adam"]}},
    "warm": {"type": "int", "low": 0, "high": 9, "when": {"depth": [2]}},
}
WORDS = "exit code 1: error: unrecognized arguments: --optimizer.momentum="


def events(*trials: tuple[dict[str, Any], bool]) -> list[AnyEvent]:
    """A sweep of trials that succeed or fail."""
    found: list[AnyEvent] = [SweepStarted("cafe01", "s", 1.0, identity(space=SPACE))]
    found += [TrialCreated(number, config, 0, 10) for number, (config, _) in enumerate(trials)]
    found += planned("a", *((number, 0) for number in range(len(trials))))
    for number, (_, good) in enumerate(trials):
        ended = {} if good else {"outcome": Outcome.FAILED, "value": None, "message": WORDS}
        found.append(finished(number, **ended))
    return [*found, BatchClosed("a"), SweepEnded(999.0, SweepOutcome.FINISHED, "all trials are done")]


def adam(depth: int | None = 1, *, good: bool = False) -> tuple[dict[str, Any], bool]:
    return {"optimizer": "adam", "depth": depth, "beta": 0.5}, good


def sgd(depth: int | None = 1, *, good: bool = True) -> tuple[dict[str, Any], bool]:
    return {"optimizer": "sgd", "depth": depth, **({"warm": 1} if depth == 2 else {})}, good


@pytest.mark.parametrize(
    ("trials", "told"),
    [
        ([adam(), adam(2), adam(None), sgd()], [f"every trial with optimizer=adam failed (3 of 3): {WORDS}"]),
        ([adam(), adam(), sgd(), sgd()], []),
        ([adam(), adam(), adam(good=True), sgd()], []),
        ([adam(), adam(), adam(), sgd(good=False)], []),
        (
            [*[sgd(2, good=False)] * 3, sgd(1), adam(2, good=True)],
            [f"every trial with an active warm failed (3 of 3): {WORDS}"],
        ),
        (
            [sgd(None, good=False)] * 3 + [sgd(1), adam(2, good=True)],
            [f"every trial with depth=null failed (3 of 3): {WORDS}"],
        ),
    ],
)
def test_a_branch_of_which_every_trial_failed_is_found(
    trials: list[tuple[dict[str, Any], bool]], told: list[str]
) -> None:
    assert failed_branches(SweepState.replay(events(*trials))) == told


def test_status_and_the_report_say_so(tmp_path: Any) -> None:
    results = written(tmp_path, events(adam(), adam(), adam(), sgd()))
    words = f"very trial with optimizer=adam failed (3 of 3): {WORDS}"
    assert ResultsFolder(tmp_path).status(now=1000.0)["warnings"] == [f"warning: e{words}"]
    section = failures(results)
    assert section is not None
    assert section.blocks[0] == Text(f"E{words}")
