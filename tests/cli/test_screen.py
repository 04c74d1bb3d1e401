"""Keys of `status --watch`: how they are read, what they do, and what is said of a trial."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rich.text import Text

from hpcsweep.cli.colours import CHOSEN
from hpcsweep.cli.keyboard import parse_keys
from hpcsweep.cli.rung_bars import UNICODE
from hpcsweep.cli.screen import Room, Screen
from hpcsweep.cli.trial_view import TrialReader
from hpcsweep.core.events import AnyEvent, BatchPlanned, BatchSubmitted, RunId, TrialCreated
from hpcsweep.store.layout import Layout
from hpcsweep.views.snapshot import StatusSnapshot
from tests.cli.test_watch import HOSTILE, QUEUE, SHOWN, START, STARTED, finished, hyperband, view_of
from tests.html.trade_offs import journal, ran

ROOM, WIDE = Room(80, 24, UNICODE), Room(900, 24, UNICODE)


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q?f", ["q", "?", "f"]),
        (b"\x1b[A\x1bOB\x1b[1;5A\x1b[5~\x1b[6~", ["up", "down", "up", "page up", "page down"]),
        (b"\x1b[H\x1b[F\x1bOH\x1b[4~", ["home", "end", "home", "end"]),
        (b"\r\n\x7f ", ["enter", "enter", "back", "page down"]),
        (b"\x1b", ["escape"]),
        (b"\x1b\x1b[B", ["escape", "down"]),
        (b"\x1bf", ["escape", "f"]),
        (b"\x1b[15~\x1b[200~\x01\x00", []),
        ("ä".encode(), ["Ã", "¤"]),
        (b"\x1b[", ["escape"]),
    ],
)
def test_keys_are_known_by_what_terminals_send(data: bytes, keys: list[str]) -> None:
    assert parse_keys(data, complete=True) == (keys, b"")


@pytest.mark.parametrize("rest", [b"\x1b", b"\x1b[", b"\x1b[1;5", b"\x1bO"])
def test_a_sequence_that_has_not_come_in_full_is_waited_for(rest: bytes) -> None:
    keys, begun = parse_keys(b"j" + rest, complete=False)
    assert (keys, begun) == (["j"], rest)
    whole = begun + (b"B" if rest != b"\x1b" else b"[B")
    assert parse_keys(whole, complete=False) == (["down"], b"")


class Pressed:
    """A screen on which keys are pressed, drawn before each."""

    def __init__(self, view: StatusSnapshot, *, keys: bool = True) -> None:
        self.view = view
        self.opened: list[int] = []
        self.screen = Screen(self._trial, keys=keys)

    def _trial(self, trial: int, view: StatusSnapshot, room: Room) -> list[Text]:
        self.opened.append(trial)
        return [Text(f"trial {trial} line {number}") for number in range(50)]

    def press(self, *keys: str) -> list[str]:
        """What is shown afterwards."""
        for key in keys:
            self.draw()
            self.screen.press(key)
        return [line.plain for line in self.draw()]

    def draw(self) -> list[Text]:
        return self.screen.draw(self.view, None, ROOM)

    @property
    def chosen(self) -> str:
        """The line that stands out."""
        marked = [line.plain for line in self.draw() if any(span.style == CHOSEN for span in line.spans)]
        return marked[0] if marked else ""


@pytest.fixture
def pressed(tmp_path: Path) -> Pressed:
    return Pressed(view_of(tmp_path / "s", hyperband(), QUEUE))


def test_arrows_choose_among_the_trials_that_are_shown_and_enter_opens_one(pressed: Pressed) -> None:
    assert pressed.chosen == ""
    seen = []
    for _ in range(9):
        pressed.press("down")
        found = re.search("^[a-z0-9]+|$", pressed.chosen), re.search("trial ([0-9]+)", pressed.chosen)
        seen.append(tuple(each[each.lastindex or 0] for each in found if each is not None))
    expected = ["best 6", "2nd 7", "3rd 8", "4th 9", "5th 5", "running 10", "running 11", "crashed 4"]
    assert [" ".join(each) for each in seen] == [*expected, "preempted 10"]
    pressed.press("up")
    assert pressed.chosen.startswith("crashed: trial 4")
    assert pressed.press("enter")[0] == "trial 4 line 0"
    assert pressed.press("escape")[0].startswith("lr  running")
    assert pressed.chosen.startswith("crashed: trial 4")
    pressed.press("home", "k")
    assert pressed.chosen.startswith("best        loss 0.11 (trial 6 at step 3)")


def test_enter_opens_the_best_where_nothing_is_chosen_and_nothing_where_there_is_no_trial(
    pressed: Pressed, tmp_path: Path
) -> None:
    pressed.press("enter")
    assert pressed.opened[0] == 6
    empty = Pressed(view_of(tmp_path / "empty", [STARTED]))
    empty.press("down", "enter")
    assert (empty.opened, empty.screen.at_home) == ([], True)


def test_a_choice_stays_with_its_trial_while_the_sweep_goes_on(pressed: Pressed, tmp_path: Path) -> None:
    pressed.press("down", "down")
    assert "trial 7" in pressed.chosen
    # Trial 10 is the best now; trial 7 has moved down by one.
    pressed.view = view_of(tmp_path / "later", [*hyperband(), finished(10, 0.01, at=START + 2300)], QUEUE)
    assert pressed.chosen.startswith("3rd         loss 0.12 (trial 7")
    pressed.press("end")
    assert pressed.chosen.startswith("preempted: trial 10")
    pressed.view = view_of(tmp_path / "before", hyperband()[:-1], QUEUE)  # the line has gone
    assert pressed.chosen.startswith("crashed: trial 4")


def test_f_lists_all_failures_and_help_says_the_keys(tmp_path: Path) -> None:
    events: list[AnyEvent] = [STARTED, *(TrialCreated(trial, {}, 0, 1) for trial in range(40))]
    events += [BatchPlanned("c", START, tuple((RunId(trial, 0),) for trial in range(40)), 1, 9, "slurm")]
    events += [finished(trial, None, at=START + trial, batch="c", message="odd") for trial in range(40)]
    pressed = Pressed(view_of(tmp_path, events, {}))
    shown = pressed.press("f")
    assert shown[0] == "40 failed runs, 0 interruptions: the newest first"
    assert shown[2] == "crashed: trial 39 rung 0: odd"
    assert shown[-1] == "arrows choose, Enter opens a trial, Escape back, ? help, q quit"
    shown = pressed.press("end")
    assert shown[-2] == pressed.chosen == "crashed: trial 0 rung 0: odd"
    assert pressed.press("page up", "up")[2] == "crashed: trial 22 rung 0: odd"
    assert pressed.press("enter")[0] == "trial 22 line 0"
    shown = pressed.press("f", "?")
    assert shown[0] == "Keys"
    assert all(len(line) < 80 and "…" not in line for line in shown)
    assert pressed.press("?", "escape")[0].startswith("40 failed runs")
    assert pressed.press("back", "back")[0].startswith("lr  running")


def test_a_trial_is_scrolled_and_stays_within_its_lines(pressed: Pressed) -> None:
    pressed.press("enter")
    assert pressed.press("down", "down", "up")[0] == "trial 6 line 1"
    assert pressed.press("page down")[0] == "trial 6 line 24"
    assert pressed.press("end", "down")[-2] == "trial 6 line 49"
    assert pressed.press("home")[0] == "trial 6 line 0"


def test_q_quits_and_other_keys_do_nothing(pressed: Pressed) -> None:
    pressed.press("x", "left", "1")
    assert (pressed.screen.quitting, pressed.screen.at_home, pressed.chosen) == (False, True, "")
    pressed.press("enter", "q")
    assert pressed.screen.quitting


def test_without_keys_nothing_is_said_of_them(pressed: Pressed) -> None:
    silent = Pressed(pressed.view, keys=False)
    assert "quit" not in "".join(line.plain for line in silent.draw())


def test_no_terminal_is_too_small_for_any_page(pressed: Pressed) -> None:
    for key in ("x", "f", "?", "enter"):
        pressed.screen.press(key)
        for width in (1, 7, 30):
            for height in range(1, 12):
                drawn = pressed.screen.draw(pressed.view, None, Room(width, height, UNICODE))
                assert len(drawn) <= height
                assert max((line.cell_len for line in drawn), default=0) <= width


# --------------------------------------------------------------------------- a trial


def test_a_trial_is_told_as_by_explain_with_its_curve_and_its_log(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    view = view_of(folder, hyperband(), QUEUE)
    layout = Layout(folder)
    reports = layout.trial(6).metrics(1, 0, 0)
    reports.parent.mkdir(parents=True)
    reports.write_text('{"step": 1, "loss": 0.3}\n{"step": 2, "loss": 0.2}\n{"step": 3, "loss": 0.11}\n')
    log = layout.batch("b").log(2)
    log.parent.mkdir(parents=True)
    log.write_text("epoch 1\r\n\x1b[32m10%\r\x1b[2K100%\x1b[0m\n\x1b]0;title\x07odd\n" * 150)
    reader = TrialReader(folder)
    shown = [line.plain for line in reader.lines(6, view, ROOM)]
    assert shown[0] == "trial 6: lr=0.857143 optimizer=adam"
    assert shown[1].startswith("created in bracket 0 at resource 1, submitted ")
    assert any(line.startswith("it is the best of the sweep: 0.11 at resource 3") for line in shown)
    assert max(map(len, shown)) <= 80
    curve = next(line for line in shown if line.startswith("curve"))
    assert curve.startswith("curve       ███")
    assert curve.endswith("▄▄▁  loss 0.3 at step 1, 0.11 at step 3")
    assert f"  hpcsweep logs {folder} 6" in [line.plain for line in reader.lines(6, view, WIDE)]
    at = shown.index("The end of its log, rung 1")
    assert shown[at + 1 :][-3:] == ["epoch 1", "100%", "?]0;title?odd"]
    assert len(shown[at + 1 :]) == 200


def test_a_trial_has_a_curve_of_each_objective(tmp_path: Path) -> None:
    found = journal([ran(0, 0.3, 60.0), ran(0, 0.2, 70.0, resource=3)], ended=False)
    folder = tmp_path / "s"
    view = view_of(folder, found, QUEUE)
    shown = [line.plain for line in TrialReader(folder).lines(0, view, ROOM)]
    curves = [line for line in shown if line.startswith("curve")]
    assert [line.rpartition("  ")[2] for line in curves] == [
        "error 0.3 at step 1, 0.2 at step 3",
        "speed 60 at step 1, 70 at step 3",
    ]


def test_the_journal_is_read_again_when_the_trial_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    monkeypatch.setattr("hpcsweep.cli.trial_view.explain", lambda *args: read.append(args[2]))
    monkeypatch.setattr("hpcsweep.cli.trial_view.explanation_lines", lambda _: ["told"])
    reader = TrialReader(tmp_path / "s")
    view = view_of(tmp_path / "s", hyperband(), QUEUE)
    for second in range(3):
        assert reader.lines(10, view._replace(at=view.at + second), ROOM)[0].plain == "told"
    later = view_of(tmp_path / "later", [*hyperband(), finished(10, 0.01, at=START + 2300)], QUEUE)
    reader.lines(10, later._replace(at=view.at + 9), ROOM)
    assert read == [10, 10]


def test_text_of_others_is_never_obeyed_and_a_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    events: list[AnyEvent] = [
        STARTED,
        TrialCreated(0, {HOSTILE: HOSTILE}, 0, 1),
        BatchPlanned("c", START, ((RunId(0, 0),),), 1, 9, "slurm"),
        BatchSubmitted("c", "70", START),
        finished(0, None, at=START + 100, batch="c", message=HOSTILE),
    ]
    view = view_of(tmp_path / "s", events, {})
    shown = [line.plain for line in TrialReader(tmp_path / "s").lines(0, view, WIDE)]
    assert all(line.isprintable() for line in shown)
    assert shown[0] == f"trial 0: {SHOWN}={SHOWN}"
    gone = [line.plain for line in TrialReader(tmp_path / "gone").lines(0, view, WIDE)]
    assert gone[1].startswith(f"{tmp_path}/gone: does not exist")
