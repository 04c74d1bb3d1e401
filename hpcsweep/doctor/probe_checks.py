"""Runs the test job and turns its report into findings."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, cast

import hpcsweep
from hpcsweep.core.cluster_protocol import BlockKind, Cluster, ProbeCluster
from hpcsweep.doctor.probe import ProbeReport
from hpcsweep.doctor.probe_job import ProbeFailed, ProbeJob, RoundTrip, run_probe
from hpcsweep.errors import ClusterError, Finding, failure, good, one_line, warning

#: Clock differences up to this do not matter.
CLOCK_S: Final = 10.0


def probe_findings(
    cluster: Cluster, name: str, below: Path, *, gpus: int, wait_s: float, crontab_line: str
) -> Iterator[Finding]:
    """Run a test job; nothing of it remains after the last finding.

    Args:
        cluster: A `ProbeCluster`, as the sweep uses it.
        name: The name of its backend.
        below: An existing folder on the filesystem of the results.
        gpus: GPUs of one run of the sweep.
        wait_s: How long it may wait in the queue.
        crontab_line: Drives the sweep on sites whose nodes may not submit.

    Raises:
        ProbeNotRemoved: It could not be removed.
    """
    probe_cluster = cast("ProbeCluster", cluster)
    cron = f"{probe_cluster.crontabs}: {crontab_line}"
    with run_probe(probe_cluster, name, below, gpus=gpus) as job:
        yield from _probe_findings(probe_cluster, job, gpus=gpus, wait_s=wait_s, cron=cron)


def _probe_findings(
    cluster: ProbeCluster, job: ProbeJob, *, gpus: int, wait_s: float, cron: str
) -> Iterator[Finding]:
    began = time.monotonic()
    try:
        job.start()
        report = job.wait_for_report(wait_s=wait_s)
    except ProbeFailed as error:
        yield _failed_finding(error, folder=job.folder)
        return
    except ClusterError as error:
        message = f"could not be submitted: {one_line(str(error))}"
        yield failure("canary", message, "fix this first: sweeps are submitted in the same way")
        return
    seconds = time.monotonic() - began
    yield good("canary", f"ran on {report.node}, and reported {seconds:.0f} s after its submission")
    shown = job.shown_name
    if shown is not None:
        yield name_finding(job.name, shown)
    yield interpreter_finding(report)
    trips = job.measure_trips()
    yield from files_findings(report, trips, grace_s=cluster.grace_s)
    if gpus:
        yield gpus_finding(report, gpus=gpus)
    yield submission_finding(report, cron=cron)
    yield signals_finding(job, trip_s=max((trip.seconds for trip in trips), default=0.0))


def _failed_finding(error: ProbeFailed, *, folder: Path) -> Finding:
    if error.state is not None and error.state.block is BlockKind.IMPOSSIBLE:
        return failure(
            "canary", str(error), "change cluster or resources in the spec: a sweep would wait as long"
        )
    if error.waited:
        advice = "it was cancelled; try again with a longer --wait, or when the queue is shorter"
        return warning("canary", f"test job did not run: {error}", advice)
    see = folder.parent.parent.parent
    advice = f"make sure that nodes see {see}, have cluster.python and start it by the template"
    return failure("canary", str(error), advice)


def name_finding(asked: str, shown: str) -> Finding:
    """Whether jobs keep the names that they were submitted with."""
    if shown == asked:
        return good("job names", "squeue shows jobs by the name that they were submitted with")
    if not shown:
        message = f"asked for {asked}, and squeue shows no name"
    else:
        message = f"asked for {asked}, and squeue shows {shown}"
    advice = "sweeps go by job id and folder, and run all the same; look for their jobs by id or folder (%Z)"
    return warning("job names", f"{message}: this site changes names", advice)


def interpreter_finding(report: ProbeReport) -> Finding:
    message = f"{report.node} has Python {report.python}, hpcsweep {report.version}"
    if report.version == hpcsweep.__version__:
        return good("interpreter", f"{message} as here")
    advice = "install the same version there, or give another cluster.python"
    return failure(
        "interpreter", f"{message} from {report.package}, and here is {hpcsweep.__version__}", advice
    )


def files_findings(report: ProbeReport, trips: Sequence[RoundTrip], *, grace_s: float) -> Iterator[Finding]:
    """Whether both sides see each other's files, how soon, and how far their clocks differ."""
    if not trips:
        message = f"{report.node} wrote its report, but then did not answer within the time"
        yield failure(
            "shared files", message, "run it again; if it stays so, give another folder with --results"
        )
        return
    slowest = max(trip.seconds for trip in trips)
    message = f"a file from here to {report.node} and its answer back took at most {_format_seconds(slowest)}"
    if report.late_s > 1:
        message += f"; one from before the job was seen {_format_seconds(report.late_s)} late"
    if slowest > grace_s:
        advice = f"set cluster.grace: {round(2 * slowest)}, or results are taken for lost that only come late"
        yield failure("shared files", message, advice)
    elif slowest > grace_s / 4:
        yield warning("shared files", message, f"set cluster.grace: {round(4 * slowest)} to be sure")
    else:
        yield good("shared files", message)
    best = min(trips, key=lambda trip: trip.seconds)
    certain = abs(best.ahead_s) - best.seconds / 2
    if certain > CLOCK_S:
        way = "ahead of" if best.ahead_s > 0 else "behind"
        message = f"that of {report.node} is {_format_seconds(abs(best.ahead_s))} {way} this one"
        yield warning("clock", message, "tell the admins; times in reports are off by so much")


def gpus_finding(report: ProbeReport, *, gpus: int) -> Finding:
    visible = None if report.devices is None else [name for name in report.devices.split(",") if name.strip()]
    seen = len(report.gpus) if visible is None else len(visible)
    devices = "is not set" if visible is None else f"is {report.devices!r}"
    listed = ", ".join(report.gpus) or "none"
    message = f"asked for {gpus}; CUDA_VISIBLE_DEVICES {devices}, nvidia-smi lists {listed}"
    if seen < gpus:
        return failure(
            "GPUs on the node", message, "ask the admins how GPUs are asked for; cluster.options passes it on"
        )
    return good("GPUs on the node", message)


def submission_finding(report: ProbeReport, *, cron: str) -> Finding:
    """Whether jobs can drive a sweep, without a process that stays."""
    if not report.submits and not report.drives:
        return good("submitting from nodes", f"{report.node} may submit: `launch --detach` works")
    why = (
        f"{report.node} may not submit ({one_line(report.submits)})"
        if report.submits
        else f"the package cannot be used on {report.node} ({report.drives})"
    )
    advice = f"keep `launch` running under nohup or tmux, or put this into {cron}"
    return warning("submitting from nodes", f"{why}: `launch --detach` will not work here", advice)


def signals_finding(job: ProbeJob, *, trip_s: float) -> Finding:
    """Whether signals before the end reach runs; cancels the test job."""
    lost = []
    try:
        lost += [] if job.passes_warning(trip_s=trip_s) else ["USR2 (before a time limit)"]
        lost += [] if job.passes_termination(trip_s=trip_s) else ["TERM (preemption, scancel)"]
    except ClusterError as error:
        return warning("signals", f"not tried: {one_line(str(error))}", "run doctor again")
    if lost:
        message = (
            f"{' and '.join(lost)} did not reach the worker: runs lose what came after their last checkpoint"
        )
        return warning(
            "signals",
            message,
            "end the template with {{ command }}, or hand signals on as default.sbatch shows",
        )
    return good("signals", "USR2 (before a time limit) and TERM (preemption, scancel) reach the worker")


def _format_seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
