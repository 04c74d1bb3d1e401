"""The colours of a page, light and dark; categories after Okabe and Ito, told apart by colour-blind readers.

Every colour has enough contrast against the page: text 4.5 to 1, what is drawn 3 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

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
