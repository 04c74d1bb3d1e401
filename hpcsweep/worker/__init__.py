"""What runs inside an array task; imports nothing heavy, so that a task starts in a fraction of a second."""

from hpcsweep.bootstrap import import_msgspec

import_msgspec()
