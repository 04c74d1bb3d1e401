"""The front of a sweep with several objectives as `best` and `status` show it, and its hypervolume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from hpcsweep.cli import app
from hpcsweep.core.objectives import Objectives
from hpcsweep.core.state import SweepState
from hpcsweep.errors import SpecError
from hpcsweep.views.front_history import FrontHistory, front_history
from hpcsweep.views.fronts import by_weights, dominators_of, front_numbers, front_of, read_weights
from hpcsweep.views.progress import SweepProgress
from tests.html.hand_made_sweeps import Ran, sweep
from tests.html.trade_offs import INFEASIBLE, OBJECTIVES, TRADE_OFF, journal, ran, trade_off


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def lines(*arguments: object) -> list[str]:
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    return [line.rstrip() for line in done.output.splitlines()]


def status(folder: Path) -> list[str]:
    """The lines on the front."""
    shown = lines("status", folder)
    begin = next(index for index, line in enumerate(shown) if line.startswith("best: "))
    end = [line.startswith(("crashed", "retry", "not finite")) for line in shown]
    return shown[begin : end.index(True) if True in end else len(shown)]


def history_of(runs: list[Ran], **options: Any) -> FrontHistory:
    found = front_history(SweepProgress.replay(journal(runs, **options)))
    assert found is not None
    return found


def test_best_prints_the_front_and_its_picks(tmp_path: Path) -> None:
    trade_off(tmp_path)
    assert lines("best", tmp_path) == [
        "trial  error  speed  at  configuration",
        "    0    0.1     60   1  x=0",
        "    2    0.2     80   1  x=2",
        "    3    0.2     80   1  x=3",
        "    1    0.3     90   1  x=1",
        "front: 4 of 6 configurations with values",
        "knee, nearest to the best value of each: trial 2",
        "best error: trial 0",
        "best speed: trial 1",
        "infeasible: 1 of 6 configurations with values: 1 with speed below 50",
    ]
    found = json.loads(run("best", "--json", tmp_path).output)
    assert found["front"] == [
        row(0, 0.1, 60.0, "best error"),
        row(2, 0.2, 80.0, "knee"),
        row(3, 0.2, 80.0),
        row(1, 0.3, 90.0, "best speed"),
    ]
    assert (found["trial"], found["values"]) == (2, {"error": 0.2, "speed": 80.0})


def test_the_leaders_are_the_front_its_knee_first_or_the_best_by_their_bounds() -> None:
    state = SweepState.replay(journal(TRADE_OFF))
    assert [best.trial for best in state.leaders(9)] == [2, 0, 3, 1]
    assert [best.trial for best in state.leaders(3)] == [2, 0, 3]
    runs = [ran(0, 20.0), ran(1, 60.0), ran(2, 90.0), ran(3, 70.0)]
    state = SweepState.replay(journal(runs, objective=OBJECTIVES[1:]))
    assert [best.trial for best in state.leaders(9)] == [2, 3, 1, 0]


def row(trial: int, error: float, speed: float, *picks: str) -> dict[str, Any]:
    about = {"trial": trial, "values": {"error": error, "speed": speed}, "resource": 1}
    return about | {"config": {"x": float(trial)}, "picks": list(picks)}


def test_weights_pick_from_the_front(tmp_path: Path) -> None:
    trade_off(tmp_path)
    assert lines("best", tmp_path, "--weights", "error=5,speed=1") == [
        "trial 0: error 0.1, speed 60 at 1",
        "  x: 0.0",
    ]
    found = json.loads(run("best", tmp_path, "--weights", "error=1, speed=9", "--json").output)
    assert (found["trial"], found["values"]) == (1, {"error": 0.3, "speed": 90.0})
    assert len(found["front"]) == 4


def test_a_hollow_of_the_front_can_be_picked() -> None:
    """A weighted sum would take an end of it."""
    state = SweepProgress.replay(journal([ran(0, 0.0, 60.0), ran(1, 0.6, 70.0), ran(2, 1.0, 80.0)])).state
    chosen = by_weights(state, {"error": 1.0, "speed": 1.0})
    assert chosen is not None
    assert chosen.trial == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("eror=1", "--weights eror=1: expected METRIC=WEIGHT; unknown objective; did you mean 'error'?"),
        ("error", "--weights error: expected METRIC=WEIGHT with a weight of at least 0"),
        ("", "--weights : expected METRIC=WEIGHT; unknown objective; expected one of: error, speed"),
        ("error=1", "--weights: needs one for each objective; missing: speed"),
        ("error=-1,speed=1", "--weights error=-1: expected METRIC=WEIGHT with a weight of at least 0"),
        ("error=nan,speed=1", "--weights error=nan: expected METRIC=WEIGHT with a weight of at least 0"),
        ("error=one,speed=1", "--weights error=one: expected METRIC=WEIGHT with a weight of at least 0"),
        ("error=0,speed=0", "--weights: one must be more than 0"),
    ],
)
def test_weights_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_weights(text, Objectives.read(OBJECTIVES))
    assert str(caught.value) == message


def test_weights_need_several_objectives(tmp_path: Path) -> None:
    sweep(tmp_path, [Ran(0, 1, 0.5)])
    message = "hpcsweep: --weights: needs several objectives, and loss is the only one\n"
    for more in ((), ("--rerun",)):
        done = run("best", tmp_path, "--weights", "loss=1", *more)
        assert (done.exit_code, done.stderr) == (2, message)
    assert run("best", tmp_path, "--weights", "loss=1", "-n", "2").exit_code == 2


def test_status_has_front_picks_bounds_and_hypervolume(tmp_path: Path) -> None:
    trade_off(tmp_path, ended=False)
    half, worst = "half of it after 2 min", "for error a tenth beyond the worst so far"
    free = f"{worst}, until there are 20 configurations within bounds"
    assert status(tmp_path) == [
        "best: front of 4, knee error 0.2, speed 80 (trial 2 at step 1)",
        "      x=2",
        "      best error 0.1 (trial 0), best speed 90 (trial 1)",
        "infeasible: 1 of 6 configurations with values: 1 with speed below 50",
        f"hypervolume: 9.2 up to error 0.43, speed 50; {half}, last changed after 4 min of 7 min",
        f"      measured up to the bound of speed; {free}, outliers left out",
    ]
    found = json.loads(run("status", "--json", tmp_path).output)
    assert found["picks"] == {"knee": 2, "best": {"error": 0, "speed": 1}}
    assert found["infeasible"] == {"configurations": 1, "with_values": 6, "beyond": {"speed": 1}}
    assert [each["trial"] for each in found["front"]] == [0, 2, 3, 1]
    volume = found["hypervolume"]
    assert volume["value"] == pytest.approx(9.2)
    assert volume["reference"] == {"error": pytest.approx(0.43), "speed": 50.0}
    assert not volume["reference_settled"]
    assert [(each["seconds"], each["trial"], each["front"]) for each in volume["history"]] == [
        (60.0, 0, 1),
        (120.0, 1, 2),
        (180.0, 2, 3),
        (240.0, 3, 4),
    ]
    assert [each["value"] for each in volume["history"]] == pytest.approx([3.3, 7.2, 9.2, 9.2])


def test_a_sweep_in_which_nobody_keeps_the_bounds(tmp_path: Path) -> None:
    trade_off(tmp_path, INFEASIBLE)
    assert lines("best", tmp_path) == [
        "trial  error  speed  at  configuration",
        "    1    0.4     40   1  x=1",
        "no configuration keeps the bounds; nearest to them: 1 of 3 configurations",
        "knee, nearest to the best value of each: trial 1",
        "best error: trial 1",
        "best speed: trial 1",
        "infeasible: 3 of 3 configurations with values: 3 with speed below 50",
    ]
    shown = status(tmp_path)
    assert shown[0] == "best: none within bounds, the nearest error 0.4, speed 40 (trial 1 at step 1)"
    assert shown[4] == "hypervolume: 0 up to error 0.43, speed 50"
    (only,) = json.loads(run("best", "--json", tmp_path).output)["front"]
    assert only["violation"] == pytest.approx(0.2)


@pytest.mark.parametrize("runs", [[], [ran(0), ran(1)]], ids=["none has begun", "all failed"])
def test_a_sweep_without_values_has_no_front(tmp_path: Path, runs: list[Ran]) -> None:
    trade_off(tmp_path, runs, ended=False)
    done = run("best", tmp_path)
    assert (done.exit_code, done.stderr) == (1, f"hpcsweep: {tmp_path}: no run has given a value yet\n")
    assert status(tmp_path) == ["best: no value yet"]
    found = json.loads(run("status", "--json", tmp_path).output)
    assert (found["front"], found["picks"], found["hypervolume"]) == ([], None, None)


def test_repeats_are_on_the_front_by_their_means(tmp_path: Path) -> None:
    runs = [ran(0, 0.1, 60.0), ran(1, 0.3, 80.0, repeat=1), ran(2, 0.1, 90.0), ran(3, 0.2, 70.0, repeat=1)]
    trade_off(tmp_path, runs, repeats=2)
    assert lines("best", tmp_path)[1:3] == [
        "    2   0.15     80   1  x=2",
        "front: 1 of 2 configurations with values, each the mean of 2 repeats",
    ]


def test_one_objective_with_a_bound_has_no_front(tmp_path: Path) -> None:
    trade_off(tmp_path, [ran(0, 60.0), ran(1, 20.0)], objective=OBJECTIVES[1:])
    assert lines("best", tmp_path) == [
        "trial  speed  at  configuration",
        "    0     60   1  x=0",
        "front: 1 of 2 configurations with values",
        "infeasible: 1 of 2 configurations with values: 1 with speed below 50",
    ]
    assert status(tmp_path) == [
        "best: speed 60 (trial 0 at step 1)",
        "      x=0",
        "infeasible: 1 of 2 configurations with values: 1 with speed below 50",
    ]


def test_trials_are_listed_by_front(tmp_path: Path) -> None:
    trade_off(tmp_path)
    assert lines("trials", tmp_path) == [
        "trial  front  error  speed  at  rung                 status  time   GPU-h  configuration",
        "    2      1    0.2     80   1     0              completed  60 s  0.0333  x=2",
        "    0      1    0.1     60   1     0              completed  60 s  0.0333  x=0",
        "    1      1    0.3     90   1     0              completed  60 s  0.0333  x=1",
        "    3      1    0.2     80   1     0              completed  60 s  0.0333  x=3",
        "    6      2    0.4     70   1     0              completed  60 s  0.0333  x=6",
        "    4      3   0.05     10   1     0  completed, infeasible  60 s  0.0333  x=4",
        "    5      -      -      -   -     -                crashed  60 s  0.0333  x=5",
        "    7      -      -      -   -     -             not finite   0 s       0  x=7",
        "8 of 8 trials, best first",
    ]
    found = json.loads(run("trials", tmp_path, "--where", "speed < 65 and front < 3", "--json").output)
    assert [(each["trial"], each["values"], each["place"]) for each in found] == [
        (0, {"error": 0.1, "speed": 60.0}, 2)
    ]
    assert [each["trial"] for each in json.loads(run("best", tmp_path, "-n", 2, "--json").output)] == [2, 0]


def test_ranks_and_dominators() -> None:
    state = SweepProgress.replay(journal()).state
    assert front_numbers(state) == {0: 1, 1: 1, 2: 1, 3: 1, 6: 2, 4: 3}
    slow, plain = state.newest(4), state.newest(6)
    assert slow is not None
    assert plain is not None
    assert [best.trial for best in dominators_of(state, plain)] == [1, 2, 3]
    assert [best.trial for best in dominators_of(state, slow)] == [0, 1, 2, 3, 6]


def test_the_reference_point_stays_once_there_are_twenty_configurations() -> None:
    early = [ran(trial, 0.5 + trial / 100, 60.0 + trial) for trial in range(20)]
    late = [ran(20, 7.0, 99.0), ran(21, 0.1, 90.0)]
    before, after = history_of(early), history_of([*early, *late])
    assert (before.settled, before.point) == (True, after.point)
    assert [step.value for step in after.steps][: len(before.steps)] == [step.value for step in before.steps]
    assert after.value > before.value
    unsettled = history_of(early[:19])
    assert (unsettled.settled, unsettled.point) != (True, before.point)


def test_the_hypervolume_falls_where_a_value_gets_worse_with_training() -> None:
    runs = [ran(0, 0.1, 60.0), ran(1, 0.2, 60.0), ran(0, 0.3, 60.0, resource=3, minutes=5.0)]
    found = history_of(runs, scheduler={"name": "asha", "max_resource": 3})
    assert [(step.trial, step.size) for step in found.steps] == [(0, 1), (0, 1)]
    assert found.point["error"] == pytest.approx(0.21)
    assert [step.value for step in found.steps] == pytest.approx([1.1, 0.1])


def test_the_front_of_now_is_the_last_of_the_history() -> None:
    progress = SweepProgress.replay(journal([*TRADE_OFF, ran(1, 0.15, 85.0, resource=3, minutes=20.0)]))
    history, front = front_history(progress), front_of(progress.state)
    assert history is not None
    assert front is not None
    assert history.steps[-1].size == len(front.members) == 2
