"""What a page is made of: sections of text, tables and figures. Plain data; `render` makes it HTML.

All text is text: whatever stands in it, `<script>` too, is shown and never run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias


class Text(NamedTuple):
    """A paragraph; `kind` is `plain`, `note` (small print), `warning` or `code` (a command to copy)."""

    text: str
    kind: str = "plain"


class Points(NamedTuple):
    """Sentences, one below the other; `marked` are indices of those that ask for something."""

    lines: Sequence[str]
    marked: frozenset[int] = frozenset()


class KeyValues(NamedTuple):
    """Names and values side by side, such as a configuration."""

    rows: Sequence[tuple[str, str]]


class Table(NamedTuple):
    """A table; columns of numbers are set to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | int | float | None]]
    caption: str  # what it shows, for screen readers too
    marked: frozenset[int] = frozenset()  # indices of rows that stand out


class Figure(NamedTuple):
    """A plotly figure as plain JSON-able data (numpy arrays are welcome as the data of a trace).

    The page gives it fonts, colours of paper, grid and text, and the light or dark theme. Where plotly
    takes a colour (a key that ends with color, colors, colorscale or colorway), one of the theme has a
    name: `@1` .. `@8` (categories), `@low`, `@middle`, `@high` (a scale), `@good`, `@bad`, `@muted`, `@page`
    (the ground), and with an opacity `@1/0.2`.

    Text is shown as it is: no HTML, and a newline begins a new line. Only a `hovertemplate` or
    a `texttemplate` may hold `<br>`, `<b>` and `<extra></extra>`.

    Attributes:
        id: Unique in the page, of letters, digits and `-`.
        traces: As plotly.js takes them.
        layout: As plotly.js takes it; axes need titles. Of `updatemenus` the page makes lists to choose
            from above the figure: each needs a `name`, which stands beside it, its `buttons` (update,
            restyle or relayout, of all traces) and the `active` one, which is how the figure begins.
        caption: One or two sentences: what is seen, and what was left out (thinned curves).
        summary: The same in words with the figures that matter, for who cannot see it.
        height: In pixels.
        width: The least one in pixels: where there is less room, the figure scrolls sideways.
    """

    id: str
    traces: Sequence[dict[str, Any]]
    layout: dict[str, Any]
    caption: str
    summary: str
    height: int = 420
    width: int = 0


class TrialTable(NamedTuple):
    """All trials, to be sorted, filtered and opened; the page's script makes the rows.

    Attributes:
        data: See `hpcsweep.html.trials`.
        total: Trials.
        caption: What it shows, for screen readers too.
        example: What its filter may be given, part by part; a range first.
    """

    data: Mapping[str, Any]
    total: int
    caption: str
    example: Sequence[str]


class SweepRow(NamedTuple):
    """A sweep in a list of sweeps.

    Attributes:
        key: Its address below `report/`, not yet quoted.
        done: The share of its training that is done; None where unknown.
        runs: That have completed.
    """

    name: str
    state: str
    reason: str
    done: float | None
    best: str
    runs: int
    cost: str
    key: str = ""
    folder: str = ""
    updated: str = ""


class SweepList(NamedTuple):
    """Sweeps with links to their reports."""

    rows: Sequence[SweepRow]
    caption: str  # what it shows, for screen readers too


class Alternatives(NamedTuple):
    """Blocks in several versions, of which one is shown: readers choose it from lists above it.

    A figure of a version is drawn when that is chosen. What is chosen in a figure's own menus stays as it is
    where the next version has the same.

    Attributes:
        id: Unique in the page, of letters, digits and `-`.
        names: Of the lists, which stand beside them: `Resource`.
        versions: By what is chosen, one label for each list. Where a combination is missing, the nearest
            choice in the other lists is taken. Figures have an `id` of their own in each.
        shown: What is chosen at first.
    """

    id: str
    names: Sequence[str]
    versions: Mapping[tuple[str, ...], Sequence[Block]]
    shown: tuple[str, ...]

    @property
    def labels(self) -> list[list[str]]:
        """What each list offers, in the order of the versions."""
        return [list(dict.fromkeys(key[at] for key in self.versions)) for at in range(len(self.names))]


Block: TypeAlias = Text | Points | KeyValues | Table | TrialTable | SweepList | Figure | Alternatives


def choice(
    id: str, names: Sequence[str], versions: Mapping[tuple[str, ...], Sequence[Block]], shown: tuple[str, ...]
) -> list[Block]:
    """`Alternatives`; a single version stands by itself, and lists of one label are left out."""
    kept = [at for at in range(len(names)) if len({key[at] for key in versions}) > 1]
    if not kept:
        return list(*versions.values())

    def chosen(key: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(key[at] for at in kept)

    of_kept = {chosen(key): blocks for key, blocks in versions.items()}
    return [Alternatives(id, [names[at] for at in kept], of_kept, chosen(shown))]


def flat(blocks: Iterable[Block]) -> Iterator[Block]:
    """All blocks, those of every version too."""
    for block in blocks:
        if isinstance(block, Alternatives):
            for version in block.versions.values():
                yield from flat(version)
        else:
            yield block


class Section(NamedTuple):
    """One heading with what stands below it; `id` is its anchor."""

    id: str
    title: str
    blocks: Sequence[Block]
