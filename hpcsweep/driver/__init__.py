"""The driver: one tick after another over the seams. Knows no spec and no concrete cluster."""

from __future__ import annotations

from hpcsweep.driver.compaction import SubprocessCompactor
from hpcsweep.driver.config import DriverConfig, Growth, HostTask
from hpcsweep.driver.effects import Compactor
from hpcsweep.driver.loop import Driver

__all__ = ["Compactor", "Driver", "DriverConfig", "Growth", "HostTask", "SubprocessCompactor"]
