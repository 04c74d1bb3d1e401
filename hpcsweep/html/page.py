"""The page of one sweep as HTML: its sections in their order, and figures as JSON for the page's script.

plotly reads a subset of HTML in every label (`<b>`, `<a href=...>`, `&lt;`). Names of metrics and
values of configurations must not be read so: `plain` escapes all strings of a figure.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import math
import numbers
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from html import unescape
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import jinja2
import msgspec
import numpy as np
from markupsafe import Markup

from hpcsweep.core.text import sanitize_lines
from hpcsweep.errors import FolderError
from hpcsweep.html.attempts import failures, gpu_time
from hpcsweep.html.contour import contour
from hpcsweep.html.curves import curves
from hpcsweep.html.front import front
from hpcsweep.html.importance import importance
from hpcsweep.html.parallel import parallel
from hpcsweep.html.parameters import slices
from hpcsweep.html.pareto import Mode, pareto
from hpcsweep.html.plotly_js import plotly_js
from hpcsweep.html.progress import progress
from hpcsweep.html.rungs import rungs
from hpcsweep.html.sections import Figure, Section, SweepList, Table, TrialTable, flat
from hpcsweep.html.summary import provenance, summary
from hpcsweep.html.timeline import timeline
from hpcsweep.html.trials import trials
from hpcsweep.html.usage import usage
from hpcsweep.store.files import STDOUT, make_dirs, write_output
from hpcsweep.views.format import timestamp
from hpcsweep.views.results import Results

Maker: TypeAlias = Callable[[Results], Section | None]

#: From top to bottom; one that has nothing to say gives None.
SECTIONS: Final[tuple[Maker, ...]] = (
    summary,
    trials,
    progress,
    front,
    curves,
    rungs,
    importance,
    slices,
    contour,
    parallel,
    pareto,
    failures,
    timeline,
    gpu_time,
    usage,
    provenance,
)


def page(
    results: Results,
    *,
    modes: Mapping[str, Mode] = MappingProxyType({}),
    at: float | None = None,
    every: float = 0.0,
    home: str | None = None,
) -> str:
    """The whole page of a sweep as HTML.

    Args:
        results: Of the sweep.
        modes: Directions of metrics beside the objective.
        at: When it is written, Unix seconds; None: it does not say.
        every: It loads itself again after so many seconds, unless the sweep has ended; 0: never.
        home: As in `render`.
    """
    if results.folder.state.started is None:
        return render(results.name, [summary(results)], at=at, every=every, home=home)
    makers = (partial(make, modes=modes) if make is pareto else make for make in SECTIONS)
    sections = [section for make in makers if (section := make(results)) is not None]
    ended = results.folder.state.ended is not None
    return render(results.name, sections, at=at, every=0.0 if ended else every, home=home)


_HERE: Final = Path(__file__).parent


def render(
    title: str,
    sections: Sequence[Section],
    *,
    at: float | None = None,
    every: float = 0.0,
    home: str | None = None,
) -> str:
    """One page; it forbids itself any request, and any script but its own. All text is escaped.

    Args:
        title: Of the page.
        sections: From top to bottom.
        at: When it is written, Unix seconds; None: it does not say.
        every: Seconds after which it loads itself again; 0: never.
        home: Of a page that is served: the address of the list of sweeps; empty: it is that list.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_sanitise,
    )
    environment.filters |= {"cell": _cell, "numeric": _numeric, "address": _address}
    environment.filters |= {"data": data_script, "figure_json": figure_json, "trials_json": trials_json}
    environment.globals["kind"] = lambda block: type(block).__name__.lower()
    kinds = {type(block) for section in sections for block in flat(section.blocks)}
    drawn = Figure in kinds
    plotly = plotly_js() if drawn else ""
    listed = {"trials": TrialTable in kinds, "sweeps": SweepList in kinds}
    used = {"theme": True, "page": True, "live": bool(every), "choices": drawn} | listed
    scripts = {name: Markup(_read(f"{name}.js") if there else "") for name, there in used.items()}
    return environment.get_template("page.html").render(
        title=title,
        sections=sections,
        style=Markup(style_sheet() + "\n" + _read("page.css")),
        every=every,
        home=home,
        written=None if at is None else timestamp(at),
        policy=_policy([*scripts.values(), plotly], served=home is not None and bool(every)),
        plotly=_packed(plotly) if drawn else "",
        **scripts,
    )


def _sanitise(value: Any) -> Any:
    """Text of others cannot change the direction of the page's text."""
    return sanitize_lines(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


@cache
def _packed(text: str) -> Markup:
    """Compressed, as base64: browsers unpack it themselves."""
    return Markup(base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode())


def data_script(text: Markup) -> Markup:
    """A script element with data for the page's scripts, packed where that makes it much smaller."""
    if len(text) < _PACKED:
        return Markup('<script type="application/json">{}</script>').format(text)
    return Markup('<script type="application/gzip">{}</script>').format(_packed.__wrapped__(text))


def _policy(scripts: Iterable[str], *, served: bool) -> str:
    """What the page may do; plotly makes functions from text for what it draws by WebGL.

    A page that is served, and loads itself again, may ask its own server whether that is there.
    """
    hashes = (hashlib.sha256(script.encode()).digest() for script in scripts if script)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes)
    own = "connect-src 'self'; " if served else ""
    return (
        f"default-src 'none'; script-src 'unsafe-eval' {allowed}; style-src 'unsafe-inline'; "
        f"img-src data: blob:; {own}base-uri 'none'; form-action 'none'"
    )


def policy_of(html: str) -> str:
    """The policy that a page of ours gives itself, as a header has it."""
    given = re.search('<meta http-equiv="Content-Security-Policy" content="([^"]*)">', html)
    assert given is not None
    return unescape(given[1])


def _address(key: str) -> str:
    """A path as links have it, whatever its bytes are."""
    return quote(os.fsencode(key))


def _numeric(table: Table) -> frozenset[int]:
    """Columns with numbers or shares, and with nothing else but gaps: they are set to the right."""
    columns = (list(column) for column in zip(*table.rows, strict=True))
    return frozenset(at for at, cells in enumerate(columns) if _all_numbers(cells))


def _all_numbers(cells: Sequence[object]) -> bool:
    known = [cell for cell in cells if cell is not None]
    return bool(known) and all(isinstance(cell, numbers.Real) or _is_number(cell) for cell in known)


def _is_number(cell: object) -> bool:
    """Whether it is a number as text, such as `-0.40` or `<0.1%`."""
    return isinstance(cell, str) and re.fullmatch(r"[<-]?\d+(\.\d+)?%?", cell) is not None


def _cell(value: object) -> str:
    """Numbers of 6 digits; a dash where there is nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def write_page(target: Path, html: str, *, hint: str = "") -> None:
    """Write the page to what `--output` names; folders above a new file are made.

    Raises:
        FolderError: It cannot be written; `hint` ends the message.
    """
    if target != STDOUT:
        try:
            make_dirs(target.parent)
        except OSError as error:
            raise FolderError(f"{target}: cannot be written: {error.strerror}{hint}") from error
    write_output(target, html.encode(errors="replace"), hint=hint)


#: Colours of the light and the dark theme. Categories after Okabe and Ito, distinct for colour-blind
#: readers. All have enough contrast against the page: text 4.5 to 1, what is drawn 3 to 1.
COLOURS: Final[Mapping[str, tuple[str, str]]] = {
    "page": ("#ffffff", "#14171b"),
    "surface": ("#f4f6f8", "#1e2329"),
    "border": ("#d5dae1", "#3a424c"),
    "text": ("#1b1f24", "#e6e9ed"),
    "quiet": ("#59626d", "#a7b0bb"),
    "link": ("#005f99", "#7cc4f2"),
    "warning": ("#fff3dc", "#3b2f14"),
    "mark": ("#e4f1fb", "#173349"),
    "1": ("#0072b2", "#4fa8de"),
    "2": ("#c65500", "#f07f32"),
    "3": ("#00875f", "#2dbe94"),
    "4": ("#b4518a", "#de95be"),
    "5": ("#a36c00", "#e6a817"),
    "6": ("#2389bf", "#9ad1f2"),
    "7": ("#7a6a00", "#f0e442"),
    "8": ("#3b3f46", "#c9ced6"),
    "low": ("#8a94a0", "#6b7683"),
    "middle": ("#3d86b4", "#58a9d8"),
    "high": ("#00466f", "#c9e9fb"),
    "good": ("#00875f", "#2dbe94"),
    "bad": ("#c23b00", "#f5713d"),
    "muted": ("#868e99", "#7d8793"),
}


def style_sheet() -> str:
    """Both themes as custom properties: `--text`, `--1`."""
    lines = []
    for index, (name, selector) in enumerate({"light": ":root", "dark": ':root[data-theme="dark"]'}.items()):
        properties = " ".join(f"--{key}: {colours[index]};" for key, colours in COLOURS.items())
        lines.append(f"{selector} {{ color-scheme: {name}; {properties} }}")
    return "\n".join(lines)


#: Lists of so many entries are written once.
_SHARED: Final = 40
#: Data of so many characters are packed.
_PACKED: Final = 4000
#: Beyond this, digits are kept as they are: dates in milliseconds, counts.
_LARGE: Final = 1e6
_DIGITS: Final = 7
#: So many are shown of a number, here and elsewhere (`hpcsweep.views.format.number`).
_SHOWN: Final = 6
_COLOUR: Final = re.compile(r"@([1-8]|low|middle|high|good|bad|muted|page)(?:/(0?\.\d+|1|0))?")
#: What a template may hold beside its `%{...}`; nowhere else is anything but text.
_OURS: Final = re.compile(r"&lt;(br|/?b|/?extra)&gt;")
_TEMPLATES: Final = frozenset({"hovertemplate", "texttemplate"})
#: Labels along parallel coordinates: plotly sets them as text, without a look at what is in them.
_VERBATIM: Final = "dimensions.ticktext"
#: No end of a script element, and nothing that HTML would read.
_IN_HTML: Final = str.maketrans(
    {"<": r"\u003c", ">": r"\u003e", "&": r"\u0026", "\u2028": r"\u2028", "\u2029": r"\u2029"}
)


def figure_json(figure: Figure) -> Markup:
    """Traces, layout and what menus change, for a script element; names in menus are in the page's HTML."""
    layout = dict(figure.layout)
    menus = [
        [{"method": button["method"], "args": button["args"]} for button in menu["buttons"]]
        for menu in layout.pop("updatemenus", ())
    ]
    content = plain({"traces": list(figure.traces), "layout": layout, "menus": menus})
    traces, shared = _share(content["traces"])
    content |= {"traces": traces} | ({"shared": shared} if shared else {})
    return Markup(msgspec.json.encode(content).decode().translate(_IN_HTML))


def _share(traces: Any) -> tuple[Any, list[msgspec.Raw]]:
    """Long lists that stand in several places once, and `{"$": index}` where they were."""
    times: Counter[bytes] = Counter()
    encode = msgspec.json.encode

    def look(value: Any) -> None:
        match value:
            case dict():
                for inner in value.values():
                    look(inner)
            case list() if len(value) >= _SHARED:
                times[encode(value)] += 1

    def replaced(value: Any) -> Any:
        match value:
            case dict():
                return {name: replaced(inner) for name, inner in value.items()}
            case list() if len(value) >= _SHARED and (at := places.get(encode(value))) is not None:
                return {"$": at}
        return value

    for trace in traces:
        look(trace)
    places = {text: at for at, text in enumerate(text for text, count in times.items() if count > 1)}
    return [replaced(trace) for trace in traces], list(map(msgspec.Raw, places))


def trials_json(table: TrialTable) -> Markup:
    """What the table and the panel of a trial show, for a script element. Configurations are exact."""
    encoded = msgspec.json.encode(table.data, enc_hook=lambda array: _rounded(array, digits=_SHOWN).tolist())
    return Markup(encoded.decode().translate(_IN_HTML))


def plain(value: Any, key: str = "") -> Any:
    """The value as JSON has it; `key` is the nearest name that it stands under.

    Numbers are rounded to 7 digits where they are below a million; NaN becomes null. A colour of the
    theme, `@1` or `@1/0.2` with its opacity, becomes an object, which no text can be taken for.
    """
    match value:
        case str():
            is_colour = key.endswith(("color", "colors", "colorscale", "colorway"))
            return _colour(value) if is_colour else _text(value, key)
        case None | bool() | int():
            return value
        case float():
            return _rounded(np.asarray(value, dtype=float)).item()
        case Mapping():
            above = f"{key}." if key == "dimensions" else ""
            return {name: plain(inner, f"{above}{name}") for name, inner in value.items()}
        case list() | tuple():
            return [plain(inner, key) for inner in value]
        case _:  # arrays, series, scalars of numpy
            array = np.asarray(value)
            return _rounded(array).tolist() if array.dtype.kind in "biuf" else plain(array.tolist(), key)


def _rounded(
    array: np.ndarray[Any, np.dtype[Any]], *, digits: int = _DIGITS
) -> np.ndarray[Any, np.dtype[Any]]:
    """Of so many significant digits. numpy divides by a power of ten, so the text of each number is short."""
    if array.dtype.kind != "f":
        return array
    with np.errstate(all="ignore"):
        exact = np.asarray(array, dtype=float)
        size = np.abs(exact)
        scale = 10.0 ** (digits - 1 - np.floor(np.log10(size)))
        rounds = np.isfinite(scale) & (size < _LARGE) & (scale > 0)
        return np.where(rounds, np.round(exact * np.where(rounds, scale, 1.0)) / scale, exact)


def _colour(text: str) -> Any:
    match = _COLOUR.fullmatch(text)
    return {"@": match[1], "opacity": float(match[2] or 1)} if match else text


def _text(text: str, key: str) -> str:
    if key == _VERBATIM:
        return text
    text = sanitize_lines(text)
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", "<br>")
    return _OURS.sub(r"<\1>", escaped) if key in _TEMPLATES else escaped
