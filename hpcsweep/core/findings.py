"""What a check found, as data."""

from __future__ import annotations

import enum

import msgspec


class Level(enum.Enum):
    """How bad it is."""

    GOOD = "good"
    WARNING = "warning"
    FAILURE = "failure"


class Finding(msgspec.Struct, frozen=True):
    """One line of the report.

    Attributes:
        topic: What was looked at, in a word or two.
        words: What was found.
        advice: What to do about it; empty where nothing need be done.
    """

    level: Level
    topic: str
    words: str
    advice: str = ""

    def __str__(self) -> str:
        text = f"{self.level.value:8} {self.topic}: {self.words}"
        return f"{text}; {self.advice}" if self.advice else text


def good(topic: str, words: str) -> Finding:
    """All is well, or a mere fact."""
    return Finding(Level.GOOD, topic, words)


def warning(topic: str, words: str, advice: str) -> Finding:
    """Sweeps run, but something will be worse than it might be."""
    return Finding(Level.WARNING, topic, words, advice)


def failure(topic: str, words: str, advice: str) -> Finding:
    """Sweeps will not run like this."""
    return Finding(Level.FAILURE, topic, words, advice)


def one_line(text: str) -> str:
    """The text's lines in one, so that a program's complaint stays one line of the report."""
    return " / ".join(line.strip() for line in text.splitlines() if line.strip())
