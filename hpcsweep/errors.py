"""The tree of errors, whose messages say where, what was expected and how to fix it; findings of checks."""

from __future__ import annotations

import enum

import msgspec


class HpcsweepError(Exception):
    """Base of every error that hpcsweep raises on purpose."""


class SpecError(HpcsweepError):
    """The sweep file, a `--set` override or a request is wrong; nothing was created.

    Args:
        problems: One line for each problem, for example
            `sweeps/lr.yaml: space.lr.low: must be > 0 on a log scale, got 0`.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class TrainerError(SpecError):
    """The training code cannot be found, imported or called."""


class FigureError(HpcsweepError):
    """A figure does not apply to this sweep; the message says why."""


class SweepFailed(HpcsweepError):
    """A sweep that was launched from Python has ended or paused without any value."""


class FolderError(HpcsweepError):
    """The results folder cannot be used: not writable, of another sweep, or not a sweep."""


class FolderUnavailable(FolderError):
    """The file system does not let the folder be read or written now; nothing is lost, it may pass."""


class JournalError(FolderError):
    """The journal is damaged; the message names file and line."""


class NewerFormatError(FolderError):
    """A file of the results folder was written by a newer hpcsweep, in a format that this one cannot read."""


class HeldError(HpcsweepError):
    """Another driver is at work on this folder; the message says who and where."""


class SupersededError(HpcsweepError):
    """A newer driver took over: what this one still writes does not count."""


class ClusterError(HpcsweepError):
    """The cluster did not do what was asked."""


class ClusterUnavailable(ClusterError):
    """The cluster did not answer: nothing is known, so nothing may be concluded."""


class SubmitRefused(ClusterError):
    """The submission was refused for certain; the message holds the cluster's own words."""


class SubmitLimited(SubmitRefused):
    """A submit limit was reached: refused for certain, but it may be accepted later or in pieces."""


class SubmitUncertain(ClusterError):
    """The submission may or may not have been accepted: look the batch up by its name.

    Args:
        message: The cluster's own words.
        refused: The program ended by itself and named no job, and not for lack of an answer.
    """

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class CheckpointError(HpcsweepError):
    """A checkpoint is missing, incomplete or damaged."""


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
