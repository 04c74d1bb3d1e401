"""What the results of a sweep come to, in sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcsweep.views.verdict import verdict
from tests.html.hand_made_sweeps import ENDED, HALVING, Ran, sweep

ONE_RUNG = {"name": "fifo", "max_resource": 9}


def said(folder: Path, runs: list[Ran], **options: Any) -> list[str]:
    results = sweep(folder, runs, ENDED, **options)
    return [each.text for each in verdict(results.folder.progress, results.space)]


def test_without_a_value_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert said(tmp_path, [Ran(0, 9, None)]) == []


def test_the_best_is_named_and_whether_it_was_trained_in_full(tmp_path: Path) -> None:
    assert said(tmp_path, HALVING) == [
        "The best loss is 0.1, of trial 1 at step 9.",
        "It was trained in full.",
    ]


def test_a_best_that_was_not_trained_in_full_is_not_known_in_full(tmp_path: Path) -> None:
    assert said(tmp_path, HALVING[:-1])[1:] == [
        "It was trained up to step 3 of 9: its value in full is not known."
    ]


def test_repeats_give_the_spread_and_who_is_within_noise(tmp_path: Path) -> None:
    # Seven configurations, the repeats of each 0.1 below and above: s is 0.1414, two standard errors 0.283.
    runs = [Ran(2 * c + r, 9, c * 0.1 + 0.1 * (-1) ** r + 1, repeat=r) for c in range(7) for r in (0, 1)]
    # What was dropped at an early step differs more, and does not count.
    runs += [Ran(14 + r, 3, 9.0 * r + 2, repeat=r) for r in (0, 1)]
    errors = "(two standard errors of a difference, 0.28)"
    assert said(tmp_path, runs, repeats=2, scheduler=ONE_RUNG)[:2] == [
        "The best loss is 1 ± 0.1 (standard error of 2 repeats, 0.9 to 1.1), of trial 0 at step 9.",
        f"2 of 6 others at that step are within noise of the best {errors}.",
    ]


def test_single_trainings_have_no_noise_to_compare_with(tmp_path: Path) -> None:
    values = [1.0, 1.004, 2.0, 2.0, 2.0, 2.0, 2.0]
    runs = [Ran(trial, 9, value) for trial, value in enumerate(values)]
    assert said(tmp_path, runs, scheduler=ONE_RUNG)[1] == (
        "1 of 6 others at that step is as good within 1% of the way to the median. "
        "How much is noise is not known: each configuration was trained once."
    )


def test_a_parameter_that_ends_at_its_bound_in_half_of_the_best_is_named(tmp_path: Path) -> None:
    values = [10.0, 9.9, 9.8, 5.0, 4.0, 9.9, 2.0]
    configs = {trial: {"x": value} for trial, value in enumerate(values)}
    runs = [Ran(trial, 9, 1.0 + trial) for trial in range(7)]
    bound = (
        "x is at its upper end (10) in the best and in 4 of the 7 best: a wider range may have better ones."
    )
    assert bound in said(tmp_path / "a", runs, configs=configs, scheduler=ONE_RUNG)
    configs[0] = {"x": 6.0}
    assert bound not in said(tmp_path / "b", runs, configs=configs, scheduler=ONE_RUNG)


def test_whether_it_still_improves_is_told_by_what_was_spent_last(tmp_path: Path) -> None:
    falling = [Ran(trial, 9, 20.0 - trial, 1.0 + trial) for trial in range(12)]
    rising = [Ran(trial, 9, 20.0 + trial, 1.0 + trial) for trial in range(12)]
    improved = (
        "It still improved in the last 25% of the GPU time, from 13 to 9: more trials may find better ones."
    )
    assert said(tmp_path / "a", falling, scheduler=ONE_RUNG)[-1] == improved
    nothing = "Nothing better was found in the last 92% of the GPU time."
    assert said(tmp_path / "b", rising, scheduler=ONE_RUNG)[-1] == nothing
