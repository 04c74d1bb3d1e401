"""Colours of what is drawn on a terminal: readable on white and on black, for nobody knows which it is.

The sixteen colours that have names are the user's own; yellow, cyan and dim text vanish on many a white
background. These are of the palette of 256, and have a contrast of at least 4 to 1 against both. Whatever
they say is also said by a word or a character; NO_COLOR switches them off.
"""

from __future__ import annotations

from typing import Final

GOOD: Final = "color(28)"
BAD: Final = "color(161)"
WARNING: Final = "color(130)"
ACTIVE: Final = "color(31)"
QUIET: Final = "color(243)"
#: Of the line that is chosen: whatever its colours are, the other way round.
CHOSEN: Final = "reverse"
