"""The page of one sweep: its sections in their order."""

from __future__ import annotations

import base64
import hashlib
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import jinja2
from markupsafe import Markup

from hpcsweep.core.text import sanitize_lines
from hpcsweep.errors import FolderError
from hpcsweep.html.contour import contour
from hpcsweep.html.curves import curves
from hpcsweep.html.encoding import figure_json
from hpcsweep.html.failures import failures
from hpcsweep.html.gpu_time import gpu_time
from hpcsweep.html.importance import importance
from hpcsweep.html.parallel import parallel
from hpcsweep.html.pareto import pareto
from hpcsweep.html.progress import progress
from hpcsweep.html.provenance import provenance
from hpcsweep.html.rungs import rungs
from hpcsweep.html.sections import Figure, Section, Table
from hpcsweep.html.slices import slices
from hpcsweep.html.summary import summary
from hpcsweep.store.files import STDOUT, make_dirs, write_output
from hpcsweep.views.pareto import Mode
from hpcsweep.views.results import Results

Maker: TypeAlias = Callable[[Results], Section | None]

#: From top to bottom; one that has nothing to say gives None.
SECTIONS: Final[tuple[Maker, ...]] = (
    summary,
    progress,
    curves,
    rungs,
    importance,
    slices,
    contour,
    parallel,
    pareto,
    failures,
    gpu_time,
    provenance,
)


def page(results: Results, *, modes: Mapping[str, Mode] = MappingProxyType({})) -> str:
    """The whole page of a sweep as HTML."""
    if results.folder.state.started is None:
        return render(results.name, [summary(results)])
    makers = (partial(make, modes=modes) if make is pareto else make for make in SECTIONS)
    sections = [section for make in makers if (section := make(results)) is not None]
    return render(results.name, sections)


_HERE: Final = Path(__file__).parent


def render(title: str, sections: Sequence[Section]) -> str:
    """One page: the sections in their order, links to them, and plotly where there is a figure.

    All text is escaped, that in figures too (see `encoding`). The page forbids itself any request, and
    any script but its own.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_sanitise,
    )
    environment.filters |= {"cell": _cell, "figure_json": _figure_json, "numeric": _numeric}
    environment.globals["kind"] = lambda block: type(block).__name__.lower()
    drawn = any(isinstance(block, Figure) for section in sections for block in section.blocks)
    scripts = {
        "theme": Markup(_read("theme.js")),
        "page": Markup(_read("page.js")),
        "plotly": Markup(_plotly()) if drawn else Markup(""),
    }
    return environment.get_template("page.html").render(
        title=title,
        sections=sections,
        style=Markup(style_sheet() + "\n" + _read("page.css")),
        policy=_policy(scripts.values()),
        **scripts,
    )


def _sanitise(value: Any) -> Any:
    """Text of others cannot change the direction of the page's text."""
    return sanitize_lines(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs()).replace("</script", r"<\/script")


def _policy(scripts: Any) -> str:
    """What the page may do: run these scripts, no others; load nothing.

    plotly makes functions from text for what it draws by WebGL.
    """
    hashes = (hashlib.sha256(script.encode()).digest() for script in scripts if script)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src 'unsafe-eval' {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _figure_json(figure: Figure) -> Markup:
    return Markup(figure_json(figure))


def _numeric(table: Table) -> frozenset[int]:
    """Columns with numbers, and with nothing else but gaps: they are set to the right."""
    columns = (list(column) for column in zip(*table.rows, strict=True))
    return frozenset(at for at, cells in enumerate(columns) if _all_numbers(cells))


def _all_numbers(cells: Sequence[object]) -> bool:
    known = [cell for cell in cells if cell is not None]
    return bool(known) and all(isinstance(cell, numbers.Real) for cell in known)


def _cell(value: object) -> str:
    """Numbers of 6 digits; a dash where there is nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def write_page(target: Path, html: str, *, hint: str = "") -> None:
    """Write the page; see `write_output`. Folders above a new file are made.

    Args:
        target: The file, or what else `--output` may name.
        html: A lone surrogate in it becomes `?`.
        hint: Ends the message of an error.

    Raises:
        FolderError: It cannot be written.
    """
    if target != STDOUT:
        try:
            make_dirs(target.parent)
        except OSError as error:
            raise FolderError(f"{target}: cannot be written: {error.strerror}{hint}") from error
    write_output(target, html.encode(errors="replace"), hint=hint)


#: Categories after Okabe and Ito, distinct for colour-blind readers. Every colour has enough contrast against
#: the page: text 4.5 to 1, what is drawn 3 to 1.
LIGHT: Final[Mapping[str, str]] = {
    "page": "#ffffff",
    "surface": "#f4f6f8",
    "border": "#d5dae1",
    "text": "#1b1f24",
    "quiet": "#59626d",
    "link": "#005f99",
    "warning": "#fff3dc",
    "mark": "#e4f1fb",
    "1": "#0072b2",
    "2": "#c65500",
    "3": "#00875f",
    "4": "#b4518a",
    "5": "#a36c00",
    "6": "#2389bf",
    "7": "#7a6a00",
    "8": "#3b3f46",
    "good": "#00875f",
    "bad": "#c23b00",
    "muted": "#868e99",
}
DARK: Final[Mapping[str, str]] = {
    "page": "#14171b",
    "surface": "#1e2329",
    "border": "#3a424c",
    "text": "#e6e9ed",
    "quiet": "#a7b0bb",
    "link": "#7cc4f2",
    "warning": "#3b2f14",
    "mark": "#173349",
    "1": "#4fa8de",
    "2": "#f07f32",
    "3": "#2dbe94",
    "4": "#de95be",
    "5": "#e6a817",
    "6": "#9ad1f2",
    "7": "#f0e442",
    "8": "#c9ced6",
    "good": "#2dbe94",
    "bad": "#f5713d",
    "muted": "#7d8793",
}


def style_sheet() -> str:
    """Both themes as custom properties: `--text`, `--1`."""
    themes = {":root": ("light", LIGHT), ':root[data-theme="dark"]': ("dark", DARK)}
    return "\n".join(
        f"{where} {{ color-scheme: {name}; " + " ".join(f"--{k}: {v};" for k, v in colours.items()) + " }"
        for where, (name, colours) in themes.items()
    )
