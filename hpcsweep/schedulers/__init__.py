"""When trials start, go on and stop. One file each; `SCHEDULERS` names them.

The keyword parameters of a constructor are the options in the spec, but for those that it is given
if it has them: `minimise`, `trials` (how many the budget allows, None if unknown), `ahead`, `space`
and `seed`.
"""

from __future__ import annotations

from typing import Final

#: Name in the spec -> `module:class`, imported when it is used.
SCHEDULERS: Final = {
    "fifo": "hpcsweep.schedulers.fifo:Fifo",
    "halving": "hpcsweep.schedulers.synchronous:Halving",
    "hyperband": "hpcsweep.schedulers.synchronous:Hyperband",
    "asha": "hpcsweep.schedulers.asha:ASHA",
    "pbt": "hpcsweep.schedulers.pbt:PBT",
}
