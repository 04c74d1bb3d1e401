"""Messages of one error are told from those of another, and the first failures from later ones."""

from __future__ import annotations

import pytest

from hpcsweep.core.events import Interruption, Outcome
from hpcsweep.core.outcomes import AT_ONCE_S, FirstErrors, error_key, failed_at_once


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("NameError: name 'x' is not defined", "NameError: name 'x' is not defined"),
        ("CUDA error at 0x7f3a in device 0", "CUDA error at 0x1b in device 3"),
        ("exit code 1: no /scratch/70/a.npy", "exit code 1: no /scratch/71/b.npy"),
        ("loss is -1.5e-3 at step 1", "loss is 12 at step 2"),
        ("exit code 1: lr=adam 0.1 | NameError: x", "exit code 1: lr=sgd 0.2 | NameError: x"),
        ("run 6fa459eaee8a3ca4 is lost", "run 886313e13b8a5372 is lost"),
    ],
)
def test_numbers_addresses_and_paths_do_not_make_another_error(one: str, other: str) -> None:
    assert error_key(one) == error_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("NameError: name 'x' is not defined", "NameError: name 'y' is not defined"),
        ("ValueError: no optimizer adam", "ValueError: no optimizer sgd"),
        ("exit code 1: epoch | A", "exit code 1: epoch | B"),
    ],
)
def test_different_messages_are_different_errors(one: str, other: str) -> None:
    assert error_key(one) != error_key(other)


@pytest.mark.parametrize(
    ("attempt", "failed"),
    [
        ({"outcome": Outcome.FAILED, "seconds": 2.0}, True),
        ({"outcome": Outcome.OUT_OF_MEMORY, "seconds": AT_ONCE_S}, True),
        ({"why": Interruption.TRAINING_ERROR, "seconds": 2.0}, True),
        ({"why": Interruption.WORKER_DIED}, True),
        ({"outcome": Outcome.FAILED, "seconds": AT_ONCE_S + 1}, False),
        ({"outcome": Outcome.COMPLETED, "seconds": 2.0, "valued": True}, False),
        ({"outcome": Outcome.STOPPED, "seconds": 2.0, "valued": True}, False),
        ({"outcome": Outcome.STOPPED}, None),
        ({"outcome": Outcome.LOST}, None),
        ({"why": Interruption.PREEMPTED, "seconds": 2.0}, None),
        ({"why": Interruption.PREEMPTED, "seconds": AT_ONCE_S + 1}, False),
        ({"why": Interruption.NOT_STARTED}, None),
    ],
)
def test_only_quick_failures_show_that_training_fails_at_once(
    attempt: dict[str, object], failed: bool | None
) -> None:
    assert failed_at_once(**attempt) is failed  # type: ignore[arg-type]


def test_each_trial_counts_once_and_another_error_ends_the_count() -> None:
    errors = FirstErrors()
    for trial in (3, 1, 1):
        errors.add(trial, f"no file {trial}", True)
    errors.add(2, "", None)
    assert (list(errors.trials), errors.message, errors.over) == ([3, 1], "no file 1", False)
    errors.add(4, "something else", True)
    assert (list(errors.trials), errors.over) == ([], True)
    errors.add(5, "no file 5", True)
    assert list(errors.trials) == []


def test_a_better_run_ends_the_count_for_good() -> None:
    errors = FirstErrors()
    errors.add(0, "", False)
    for trial in range(9):
        errors.add(trial, "no", True)
    assert (errors.over, errors.trials) == (True, {})
