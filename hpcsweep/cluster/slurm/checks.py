"""What `doctor` says of Slurm: its version, its controller, its accounting, and what the site allows."""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Iterator
from typing import Final

from hpcsweep.cluster.backend import Presence
from hpcsweep.cluster.slurm import programs
from hpcsweep.cluster.slurm.environment import overriding_variables
from hpcsweep.cluster.slurm.site_checks import site_findings
from hpcsweep.cluster.slurm.site_reader import read_site
from hpcsweep.core.findings import Finding, Level, failure, good, one_line, warning
from hpcsweep.errors import ClusterUnavailable

#: The oldest that the tests run on.
OLDEST: Final = (22, 5)
SLOW_S: Final = 5.0


def check_site(presence: tuple[Presence, str], *, partition: str | None) -> Generator[Finding, None, bool]:
    """Everything that can be known of the site without a job; False at its end if Slurm does not answer.

    Args:
        presence: Whether the controller answers, and why (not).
        partition: Where the sweep asks to run; None leaves it to the site.
    """
    for check in (version, lambda: controller(*presence)):
        finding = check()
        yield finding
        if finding.level is Level.FAILURE:
            return False
    yield accounting()
    yield from environment()
    try:
        site = read_site()
    except ClusterUnavailable as error:
        yield failure("limits", one_line(str(error)), "run doctor again when the controller answers")
        return False
    yield from site_findings(site, partition=partition)
    return True


def version() -> Finding:
    """Slurm's version."""
    try:
        words = programs.check_output(["sbatch", "--version"], timeout_s=programs.QUERY_S).strip()
    except ClusterUnavailable as error:
        return failure("Slurm", one_line(str(error)), "ask the admins how this host reaches Slurm")
    match = re.search(r"(\d+)\.(\d+)", words)
    if match is None or (int(match[1]), int(match[2])) < OLDEST:
        return warning("Slurm", words, "hpcsweep is tested with 22.05 and later: try a small sweep first")
    return good("Slurm", words)


def controller(presence: Presence, words: str) -> Finding:
    """Whether it answers from here, and how long a squeue takes."""
    if presence is not Presence.ANSWERS:
        return failure("controller", one_line(words), "try again later, or ask the admins")
    began = time.monotonic()
    try:
        programs.check_output(["squeue", "--me", "-h"], timeout_s=programs.QUERY_S)
    except ClusterUnavailable as error:
        return failure(
            "controller", one_line(str(error)), "ask the admins: without squeue nothing can be followed"
        )
    seconds = time.monotonic() - began
    words = f"{words}; squeue took {seconds:.2f} s"
    if seconds > SLOW_S:
        return warning(
            "controller", words, "it is busy: set cluster.poll: 120, so that it is asked less often"
        )
    return good("controller", words)


def environment() -> Iterator[Finding]:
    """Variables of sbatch that sweeps do not go by."""
    names = sorted(overriding_variables())
    if names:
        words = f"{', '.join(names)} could change what a task holds: not passed on to sbatch"
        yield warning("environment", words, "say what a run needs in the spec: resources, cluster")


def accounting() -> Finding:
    """Whether sacct knows how jobs ended and what they took."""
    argv = ["sacct", "-X", "-n", "-P", "--starttime=now-1hour", "--format=JobID"]
    began = time.monotonic()
    try:
        programs.check_output(argv, timeout_s=programs.QUERY_S)
    except ClusterUnavailable as error:
        advice = "sweeps run without: how a task ended is known only while squeue shows it (MinJobAge)"
        return warning("accounting", one_line(str(error)), advice)
    return good(
        "accounting",
        f"sacct answers in {time.monotonic() - began:.2f} s: ends and costs of jobs are on record",
    )
