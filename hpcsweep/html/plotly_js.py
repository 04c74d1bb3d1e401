"""The parts of plotly.js that pages draw with.

The package `plotly` ships the whole of plotly.js, of which maps, 3D and forty kinds of traces are three
quarters. `plotly_parts.json` says which parts of one version are needed; of any other version pages get the
whole. `python -m tests.html.plotly_parts` makes it.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Final

PARTS: Final = Path(__file__).with_name("plotly_parts.json")


@cache
def plotly_js() -> str:
    """A script that defines `Plotly`."""
    from plotly.offline import get_plotlyjs

    whole = str(get_plotlyjs())
    known = json.loads(PARTS.read_text(encoding="utf-8"))
    if hashlib.sha256(whole.encode()).hexdigest() != known["sha256"]:
        return whole
    return "".join(whole[start:end] for start, end in known["kept"])
