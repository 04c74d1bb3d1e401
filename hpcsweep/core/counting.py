"""Numbers of things, in words. Pure."""

from __future__ import annotations


def plural(number: int, noun: str) -> str:
    """`1 trial`, `2,000 trials`; the noun is a regular one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
