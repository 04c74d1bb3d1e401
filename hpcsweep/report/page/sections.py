"""What a page is made of: sections of text, tables and figures. Plain data; `render` makes it HTML.

All text is text: whatever stands in it, `<script>` too, is shown and never run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias


class Text(NamedTuple):
    """A paragraph; `kind` is `plain`, `note` (small print), `warning` or `code` (a command to copy)."""

    text: str
    kind: str = "plain"


class Facts(NamedTuple):
    """Names and values side by side, such as a configuration."""

    rows: Sequence[tuple[str, str]]


class Table(NamedTuple):
    """A table.

    Attributes:
        columns: Headings; `rows` have as many cells each. A cell that is a number is set to the right.
        marked: Indices of the rows that stand out, such as those that were promoted.
        caption: Says what it shows, for screen readers too.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str | int | float | None]]
    caption: str
    marked: frozenset[int] = frozenset()


class Figure(NamedTuple):
    """A plotly figure as plain JSON-able data (numpy arrays are welcome as the data of a trace).

    The page gives it fonts, colours of paper, grid and text, and the light or dark theme; a trace may
    name a colour of the theme as `@1` .. `@8` (categories), `@good`, `@bad`, `@muted`.

    Attributes:
        id: Unique in the page, of letters, digits and `-`.
        traces: As plotly.js takes them.
        layout: As plotly.js takes it; axes need titles.
        caption: One or two sentences: what is seen, and what was left out (thinned curves).
        summary: The same in words with the figures that matter, for who cannot see it.
        height: In pixels.
    """

    id: str
    traces: Sequence[dict[str, Any]]
    layout: dict[str, Any]
    caption: str
    summary: str
    height: int = 420


Block: TypeAlias = Text | Facts | Table | Figure


class Section(NamedTuple):
    """One heading with what stands below it; `id` is its anchor."""

    id: str
    title: str
    blocks: Sequence[Block]
