"""The driver: one tick after another over the seams. Knows no spec and no concrete cluster."""

from __future__ import annotations

from hpcsweep.driver.compactor import ChildCompactor, Compactor
from hpcsweep.driver.driver import Driver
from hpcsweep.driver.settings import Leaving, Settings

__all__ = ["ChildCompactor", "Compactor", "Driver", "Leaving", "Settings"]
