"""What `status --watch` shows, and how keys change it: the sweep, its failures, one trial, or the keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from rich.text import Text

from hpcsweep.cli.colours import CHOSEN, QUIET
from hpcsweep.cli.dashboard import draw, failure_lines, interruption_lines
from hpcsweep.cli.panels import Line, Pick, plain
from hpcsweep.cli.progress import Plan
from hpcsweep.cli.rung_bars import Glyphs
from hpcsweep.core.text import plural
from hpcsweep.views.snapshot import StatusSnapshot

#: Failures that are listed.
MOST_FAILURES: Final = 1000
#: Below so many lines there is none for the keys.
_HINT_FROM: Final = 6

HELP: Final = (
    ("up, down, k, j", "choose a trial among those that are shown; scroll"),
    ("Enter", "open it: why it was promoted or dropped, its curve, its log"),
    ("Escape, Backspace", "back"),
    ("f", "all failures"),
    ("Page Up, Page Down", "a page at a time; Home and End: the first, the last"),
    ("?", "these keys"),
    ("q", "quit; the sweep goes on"),
)


class Room(NamedTuple):
    """Columns and lines of the terminal, and the characters that it can show."""

    width: int
    height: int
    glyphs: Glyphs


#: Lines about a trial that fit so many columns.
TrialLines = Callable[[int, StatusSnapshot, Room], Sequence[Text]]


class Page(Protocol):
    """One of the things that can be shown."""

    hint: str

    def draw(self, view: StatusSnapshot, plan: Plan | None, room: Room) -> list[Text]:
        """The lines of it that fit."""

    def press(self, key: str) -> None:
        """Take note of a key that moves within it."""

    def chosen(self) -> int | None:
        """The trial that Enter opens."""


class SweepPage:
    """The whole sweep; the trials of some of its lines can be chosen."""

    hint = "arrows choose, Enter opens a trial, f failures, ? help, q quit"

    def __init__(self) -> None:
        self._picks: list[Pick] = []
        self._chosen: Pick | None = None
        self._at = 0

    def draw(self, view: StatusSnapshot, plan: Plan | None, room: Room) -> list[Text]:
        """The dashboard."""
        drawing = draw(
            view, plan, width=room.width, height=room.height, glyphs=room.glyphs, chosen=self._chosen
        )
        self._picks = list(dict.fromkeys(drawing.picks))
        if self._chosen is not None and self._chosen not in self._picks:
            # It has left the view: the line that is now where it was, so that arrows go on from there.
            self._chosen = self._picks[min(self._at, len(self._picks) - 1)] if self._picks else None
            if self._chosen is not None:
                return self.draw(view, plan, room)
        if self._chosen is not None:
            self._at = self._picks.index(self._chosen)
        return drawing.lines

    def press(self, key: str) -> None:
        """Choose another line."""
        if not self._picks:
            return
        last = len(self._picks) - 1
        if self._chosen is None:
            self._at = last if key in ("up", "end") else 0
        else:
            at = self._picks.index(self._chosen) if self._chosen in self._picks else self._at
            self._at = _moved(at, key, last=last, page=last)
        self._chosen = self._picks[self._at]

    def chosen(self) -> int | None:
        """The first one where none was chosen."""
        pick = self._chosen or next(iter(self._picks), None)
        return None if pick is None else pick.trial


class FailuresPage:
    """All failures, the newest first, and the last interruptions."""

    hint = "arrows choose, Enter opens a trial, Escape back, ? help, q quit"

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._at = self._top = 0
        self._page = 1

    def draw(self, view: StatusSnapshot, plan: Plan | None, room: Room) -> list[Text]:
        """So many of them as fit, around the chosen one."""
        progress = view.progress
        failures = progress.newest_failures(MOST_FAILURES)
        self._lines = [*failure_lines(failures), *interruption_lines(progress.interruptions)]
        interrupted = plural(progress.state.interrupted.total(), "interruption")
        head = f"{plural(len(failures), 'failed run')}, {interrupted}: the newest first"
        self._page = max(1, room.height - 2)
        self._at = max(0, min(self._at, len(self._lines) - 1))
        self._top = max(self._at - self._page + 1, min(self._top, self._at))
        shown = []
        for index, line in enumerate(self._lines[self._top :][: self._page], start=self._top):
            if index == self._at:
                line.text.stylize(CHOSEN)
            shown.append(line.text)
        return _fitted([plain(head, "bold"), Text(), *shown], room)

    def press(self, key: str) -> None:
        """Choose another one."""
        self._at = _moved(self._at, key, last=len(self._lines) - 1, page=self._page)

    def chosen(self) -> int | None:
        """None where there is no failure."""
        pick = self._lines[self._at].pick if self._lines else None
        return None if pick is None else pick.trial


class TextPage:
    """Lines to scroll through."""

    hint = "arrows scroll, Escape back, ? help, q quit"

    def __init__(self, lines: Callable[[StatusSnapshot, Room], Sequence[Text]]) -> None:
        self._lines = lines
        self._top = 0
        self._length = 0
        self._page = 1

    def draw(self, view: StatusSnapshot, plan: Plan | None, room: Room) -> list[Text]:
        """From the line on to which was scrolled."""
        lines = self._lines(view, room)
        self._length, self._page = len(lines), room.height
        self._top = max(0, min(self._top, self._length - self._page))
        return _fitted(list(lines[self._top :]), room)

    def press(self, key: str) -> None:
        """Scroll."""
        self._top = _moved(self._top, key, last=max(0, self._length - self._page), page=self._page)

    def chosen(self) -> int | None:
        """Nothing can be opened."""
        return None


class Screen:
    """Pages, one over the other.

    Args:
        trial: The lines about a trial.
        keys: Whether keys come; else nothing is said of them.
    """

    def __init__(self, trial: TrialLines, *, keys: bool) -> None:
        self._trial = trial
        self._keys = keys
        self._pages: list[Page] = [SweepPage()]
        self._failures, self._help = FailuresPage(), TextPage(_help)
        self.quitting = False

    @property
    def at_home(self) -> bool:
        """Whether the sweep itself is shown."""
        return len(self._pages) == 1

    def press(self, key: str) -> None:
        """Do what the key is for; others do nothing."""
        page = self._pages[-1]
        match key:
            case "q":
                self.quitting = True
            case "escape" | "back":
                if not self.at_home:
                    self._pages.pop()
            case "f":
                self._open(self._failures)
            case "?":
                self._open(self._help)
            case "enter":
                trial = page.chosen()
                if trial is not None:
                    self._pages.append(TextPage(lambda view, room: self._trial(trial, view, room)))
            case "up" | "down" | "k" | "j" | "page up" | "page down" | "home" | "end" | "g" | "G":
                page.press({"k": "up", "j": "down", "g": "home", "G": "end"}.get(key, key))

    def _open(self, page: Page) -> None:
        """Over the others, unless it is open already: then those over it are closed."""
        if page in self._pages:
            del self._pages[self._pages.index(page) + 1 :]
        else:
            self._pages.append(page)

    def draw(self, view: StatusSnapshot, plan: Plan | None, room: Room) -> list[Text]:
        """The uppermost page, and below it which keys there are."""
        page = self._pages[-1]
        if not self._keys or room.height < _HINT_FROM:
            return page.draw(view, plan, room)
        lines = page.draw(view, plan, room._replace(height=room.height - 1))
        blank = [Text()] * (room.height - 1 - len(lines))
        return _fitted([*lines, *blank, plain(page.hint, QUIET)], room)


def _help(_: StatusSnapshot, __: Room) -> list[Text]:
    lines = [plain("Keys", "bold"), Text()]
    return lines + [Text.assemble((f"{keys:<20}", "bold"), what) for keys, what in HELP]


def _moved(at: int, key: str, *, last: int, page: int) -> int:
    """Where a key leads, between 0 and `last`."""
    steps = {"up": -1, "down": 1, "page up": -page, "page down": page, "home": -last, "end": last}
    return max(0, min(last, at + steps.get(key, 0)))


def _fitted(lines: list[Text], room: Room) -> list[Text]:
    for line in lines[: room.height]:
        line.no_wrap = True
        line.truncate(room.width, overflow="ellipsis")
    return lines[: room.height]
