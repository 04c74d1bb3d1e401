"""When trials start, go on and stop. One file each; `SCHEDULERS` names them."""

from __future__ import annotations

from typing import Final

#: Name in the spec -> `module:class`, imported when it is used.
SCHEDULERS: Final = {
    "fifo": "hpcsweep.schedulers.fifo:Fifo",
    "halving": "hpcsweep.schedulers.synchronous:Halving",
    "hyperband": "hpcsweep.schedulers.synchronous:Hyperband",
}
