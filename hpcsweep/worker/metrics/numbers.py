"""Numbers and steps as programs write them."""

from __future__ import annotations

import math
import re
from typing import Final

_NUMBER: Final = r"[-+]?(?:\d[\d_]*(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|inf(?:inity)?|nan)"
_TYPE: Final = r"(?:\w+\.)*(?:tensor|(?:device)?array|variable|scalar|decimal|u?int\d*|b?float\d*)"
#: `tensor(0.43, device='cuda:0')`, `np.float64(0.43)`, `array([0.43])`. A match of `\S+` may end anywhere
#: behind the number, so what follows it need not be whole; several numbers in brackets are no number.
_WRAPPED: Final = re.compile(
    rf"{_TYPE}\(\s*(?:({_NUMBER})\s*(?:[,)].*)?|\[+\s*({_NUMBER})\s*(?:\].*)?)"
    rf"|<tf\.Tensor: shape=\(\), .*numpy=({_NUMBER})>?",
    re.IGNORECASE | re.DOTALL,
)
#: A comma groups thousands where nothing else can be meant: `1,234.5` and `1,234,567`, but not `1,234`.
_GROUPED: Final = re.compile(r"[-+]?[1-9]\d{0,2}(?:,\d{3}(?=[.,]))+(?:,\d{3}|\.\d+)(?:[eE][-+]?\d+)?")
_OF: Final = re.compile(r"(\d+)\s*/\s*\d+")
#: Terminal colours.
ESCAPES: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
#: A step is a whole number; sums of fractions of an epoch miss it by a little.
_NEARLY: Final = 1e-6


def parse_number(text: str) -> float | None:
    """The number; None if it is none, or could mean more than one.

    Around it there may be brackets, quotes, colours, punctuation and the name of a type.
    """
    text = ESCAPES.sub("", text).strip().replace("\N{MINUS SIGN}", "-")
    wrapped = _WRAPPED.fullmatch(text)
    if wrapped is not None:
        text = next(filter(None, wrapped.groups()))
    bare = text.lstrip("([{'\"").rstrip(",;:)]}%'\"")
    if _GROUPED.fullmatch(bare):
        bare = bare.replace(",", "")
    for candidate in (bare, bare.removesuffix(".")):
        try:
            return float(candidate)
        except ValueError:
            continue
    return None


def parse_step(text: str) -> int | None:
    """The step, a whole number from 0 on, perhaps as `3/10`; None if it is none."""
    bare = ESCAPES.sub("", text).strip().lstrip("([{").rstrip(",;:)]}")
    of = _OF.fullmatch(bare)
    number = parse_number(of[1] if of else text)
    return None if number is None else whole_step(number)


def whole_step(number: float) -> int | None:
    """The number as a step; None if it is negative or not whole."""
    if not math.isfinite(number) or abs(number - round(number)) > _NEARLY or round(number) < 0:
        return None
    return round(number)
