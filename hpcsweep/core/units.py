"""Sizes of memory and lengths of time as people write them: `16G`, `30m`, `1-12:00:00`. Pure."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any, Final

from hpcsweep.core.text import format_value

_MEMORY: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])(?:i?B)?", re.IGNORECASE)
_MIB_OF: Final = {"K": Decimal(1) / 1024, "M": Decimal(1), "G": Decimal(1024), "T": Decimal(1024**2)}
_CLOCK: Final = re.compile(r"(?:(\d+)-)?(\d+):([0-5]?\d):([0-5]?\d)")
_NUMBER: Final = r"(\d+(?:\.\d+)?)"
_UNITS: Final = re.compile(r"\s*".join(f"(?:{_NUMBER}{unit})?" for unit in "dhms"))
_SECONDS_OF: Final = (86400, 3600, 60, 1)
#: No time is longer: ten years, far below what clocks, dates and Slurm's minutes can hold.
LONGEST_S: Final = 3650 * 86400
LARGEST_MIB: Final = 2**40


def parse_memory(value: Any) -> int:
    """MiB of a text such as `16G`, `500M` or `1.5T`, rounded up, as in Slurm; ValueError without a unit."""
    match = _MEMORY.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"must be a size with its unit such as 500M or 16G, got {format_value(value)}")
    exact = Decimal(match[1]) * _MIB_OF[match[2].upper()]
    if exact > LARGEST_MIB:
        raise ValueError(f"must be at most {format_memory(LARGEST_MIB)}, got {format_value(value)}")
    mib = math.ceil(exact)
    if mib == 0:
        raise ValueError(f"must be > 0, got {format_value(value)}")
    return mib


def format_memory(mib: int) -> str:
    """The shortest text that `parse_memory` takes back exactly."""
    for unit, size in (("T", 1024**2), ("G", 1024)):
        if mib % size == 0:
            return f"{mib // size}{unit}"
    return f"{mib}M"


def parse_size(value: Any) -> int:
    """Bytes of a text such as `16G`, `500M` or `1K`, rounded up; ValueError without a unit."""
    parse_memory(value)
    match = _MEMORY.fullmatch(value.strip())
    assert match is not None  # checked
    return math.ceil(Decimal(match[1]) * _MIB_OF[match[2].upper()] * 1024**2)


def size_text(count: int) -> str:
    """The shortest text that `parse_size` takes back exactly."""
    for unit, size in (("T", 1024**4), ("G", 1024**3), ("M", 1024**2)):
        if count % size == 0:
            return f"{count // size}{unit}"
    return f"{Decimal(count) / 1024:f}K"


def format_size(count: int) -> str:
    """About so many bytes in the units of `parse_size`: `3G`, `2.81G`, `812B`."""
    value, unit = float(count), "B"
    for larger in "KMGTP":
        if value < 1023.5:
            break
        value, unit = value / 1024, larger
    return f"{value:.3g}{unit}" if value < 99.95 else f"{value:.0f}{unit}"


def parse_duration(value: Any) -> float:
    """Seconds of a text such as `90s`, `30m`, `1d12h`, `01:30:00` or `1-12:00:00`."""
    text = value.strip().lower() if isinstance(value, str) else ""
    match = _CLOCK.fullmatch(text) or _UNITS.fullmatch(text)
    if not text or match is None:
        raise ValueError(
            f"must be a time with its unit such as 90s, 30m, 2h or 01:30:00, got {format_value(value)}"
        )
    parts = zip(match.groups(), _SECONDS_OF, strict=True)
    seconds = sum(Decimal(part or 0) * unit for part, unit in parts)
    if seconds > LONGEST_S:
        raise ValueError(f"must be at most {format_duration(LONGEST_S)}, got {format_value(value)}")
    return float(seconds)


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` takes back exactly."""
    if seconds != int(seconds):
        return f"{Decimal(repr(seconds)):f}s"
    rest, text = int(seconds), ""
    for name, unit in zip("dhms", _SECONDS_OF, strict=True):
        count, rest = divmod(rest, unit)
        if count:
            text += f"{count}{name}"
    return text or "0s"
