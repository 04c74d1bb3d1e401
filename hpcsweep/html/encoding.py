"""Figures as JSON for the page's script: short numbers, colours by name, and text that is only text.

plotly reads a subset of HTML in every label (`<b>`, `<a href=...>`, `&lt;`). Names of metrics and
values of configurations must not be read so: here all strings of a figure are escaped, in one place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np

from hpcsweep.core.text import sanitize_lines
from hpcsweep.html.sections import Figure

#: Beyond this, digits are kept as they are: dates in milliseconds, counts.
_LARGE: Final = 1e6
_DIGITS: Final = 7
_COLOUR: Final = re.compile(r"@([1-8]|good|bad|muted)(?:/(0?\.\d+|1|0))?")
#: What a template may hold beside its `%{...}`; nowhere else is anything but text.
_OURS: Final = re.compile(r"&lt;(br|/?b|/?extra)&gt;")
_TEMPLATES: Final = frozenset({"hovertemplate", "texttemplate"})
#: Labels along parallel coordinates: plotly sets them as text, without a look at what is in them.
_VERBATIM: Final = "dimensions.ticktext"
#: No end of a script element, and nothing that HTML would read.
_IN_HTML: Final = str.maketrans(
    {"<": r"\u003c", ">": r"\u003e", "&": r"\u0026", "\u2028": r"\u2028", "\u2029": r"\u2029"}
)


def figure_json(figure: Figure) -> str:
    """Traces, layout and what menus change, fit to stand in a script element of type `application/json`.

    The names in the menus are not among it: the page has them as HTML.
    """
    layout = dict(figure.layout)
    menus = [
        [{"method": button["method"], "args": button["args"]} for button in menu["buttons"]]
        for menu in layout.pop("updatemenus", ())
    ]
    content = {"traces": list(figure.traces), "layout": layout, "menus": menus}
    return for_html(msgspec.json.encode(plain(content)).decode())


def for_html(json: str) -> str:
    """The same JSON, without a character that means something to an HTML parser."""
    return json.translate(_IN_HTML)


def plain(value: Any, key: str = "") -> Any:
    """The value as JSON has it.

    Numbers are rounded to 7 digits where they are below a million; NaN becomes null. A colour of the
    theme, `@1` or `@1/0.2` with its opacity, becomes an object, which no text can be taken for.

    Args:
        value: Of numbers, text, arrays, sequences and mappings.
        key: The nearest name that it stands under.
    """
    match value:
        case str():
            return _colour(value) if _is_colour(key) else _text(value, key)
        case None | bool() | int():
            return value
        case float():
            return _rounded(np.asarray(value)).item()
        case Mapping():
            above = f"{key}." if key == "dimensions" else ""
            return {name: plain(inner, f"{above}{name}") for name, inner in value.items()}
        case list() | tuple():
            return [plain(inner, key) for inner in value]
        case _:  # arrays, series, scalars of numpy
            array = np.asarray(value)
            if array.dtype.kind == "f":
                return _rounded(array).tolist()
            return array.tolist() if array.dtype.kind in "biu" else plain(array.tolist(), key)


def _rounded(array: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[Any]]:
    """Of 7 significant digits. numpy divides by a power of ten, so the text of each number is short."""
    with np.errstate(all="ignore"):
        found = np.asarray(array, dtype=float)
        size = np.abs(found)
        scale = 10.0 ** (_DIGITS - 1 - np.floor(np.log10(size)))
        touched = np.isfinite(scale) & (size < _LARGE) & (scale > 0)
        return np.where(touched, np.round(found * np.where(touched, scale, 1.0)) / scale, found)


def _is_colour(key: str) -> bool:
    return key.endswith(("color", "colors", "colorscale", "colorway"))


def _colour(text: str) -> Any:
    found = _COLOUR.fullmatch(text)
    return {"@": found[1], "opacity": float(found[2] or 1)} if found else text


def _text(text: str, key: str) -> str:
    if key == _VERBATIM:
        return text
    text = sanitize_lines(text)
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", "<br>")
    return _OURS.sub(r"<\1>", escaped) if key in _TEMPLATES else escaped
