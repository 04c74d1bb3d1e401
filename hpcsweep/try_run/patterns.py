"""Patterns proposed from lines that a program printed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from hpcsweep.init.names import is_step, metric_name, rank

_NUMBER: Final = re.compile(r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.])|\b(?:nan|inf)\b")
_SEPARATORS: Final = re.compile(r"[,;|()\[\]{}\t]| - ")
#: What the logging module puts before a message.
_LEVEL: Final = re.compile(r"^.*\b(?:DEBUG|INFO|WARNING|ERROR)\b[\]:\s|-]*")
_SPECIAL: Final = re.compile(r"([.^$*+?{}\[\]\\|()])")


class Candidate(NamedTuple):
    """A pattern, the metrics that it finds, and a line in which it does."""

    pattern: str
    metrics: tuple[str, ...]
    line: str


def propose_pattern(lines: Sequence[str], metric: str) -> Candidate | None:
    """The best pattern for a metric among printed lines: one with its name, else with one that is fit.

    None where no line has a number with the name of a metric.
    """
    found = [candidate for line in reversed(lines) if (candidate := _candidate(line)) is not None]

    def fitness(candidate: Candidate) -> tuple[bool, bool, tuple[int, int, int]]:
        best = min(map(rank, candidate.metrics))
        return (metric not in candidate.metrics, "(?P<step>" not in candidate.pattern, best)

    return min(found, key=fitness, default=None)


def numbers_seen(lines: Sequence[str]) -> str:
    """The last line with a number; empty if there is none."""
    return next((line for line in reversed(lines) if _NUMBER.search(line)), "")


def _candidate(line: str) -> Candidate | None:
    """The pattern of one line, from its first named number to its last."""
    groups: list[tuple[re.Match[str], str]] = []
    at = 0
    for match in _NUMBER.finditer(line):
        label = _SEPARATORS.split(line[at : match.start()].rstrip(" :=\t'\""))[-1].strip(" '\"/")
        at = match.end()
        names = {name for _, name in groups}
        if is_step(label) and "step" not in names and match[0].isdigit():
            groups.append((match, "step"))
        elif (name := metric_name(label)) and name not in names:
            groups.append((match, name))
        else:
            groups.append((match, ""))
    metrics = tuple(name for _, name in groups if name not in ("", "step"))
    if not metrics:
        return None
    first = next(index for index, (_, name) in enumerate(groups) if name)
    last = max(index for index, (_, name) in enumerate(groups) if name)
    begin = groups[first - 1][0].end() if first else 0
    parts: list[str] = []
    for match, name in groups[first : last + 1]:
        parts.append(_literal(line[begin : match.start()], first=not parts))
        parts.append(r"(?P<step>\d+)" if name == "step" else rf"(?P<{name}>\S+)" if name else r"\S+")
        begin = match.end()
    after = line[begin:].partition(" ")[0]
    parts.append(_literal(after, first=False) if after[:1] in ",;|)]}%" and after else "")
    return Candidate("".join(parts), metrics, line)


def _literal(text: str, *, first: bool) -> str:
    """Text as a pattern; of a long beginning only its end."""
    if first:
        text = _LEVEL.sub("", text).lstrip()
        text = text[-40:].partition(" ")[2] if len(text) > 40 else text
    return re.sub(r"\s+", r"\\s+", _SPECIAL.sub(r"\\\1", text))
