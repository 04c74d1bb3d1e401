"""Slurm as a backend: whether it is here, its cluster, its queue, and what `doctor` says of the site."""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Final

from hpcsweep.cluster.backend import Backend, Connection, Presence, SweepRequest
from hpcsweep.cluster.slurm import programs
from hpcsweep.cluster.slurm.options import SlurmOptions, SlurmSection
from hpcsweep.cluster.slurm.programs import overriding_variables, try_submitting
from hpcsweep.cluster.slurm.queue import SlurmQueue
from hpcsweep.cluster.slurm.site import Association, Node, Partition, SlurmSite, read_site
from hpcsweep.core.text import plural
from hpcsweep.errors import ClusterUnavailable, Finding, Level, failure, good, one_line, warning
from hpcsweep.store.batch import Program

PING_S: Final = 10.0
#: Of programs that are installed where there is no cluster: no slurm.conf, and no controller in the DNS.
_UNCONFIGURED: Final = re.compile(
    r"DNS SRV lookup failed.*Could not establish a configuration source", re.DOTALL
)


class SlurmBackend(Backend):
    title = "Slurm"
    options = SlurmSection
    automatic = True
    reuses = True
    driver_module = "hpcsweep.cluster.slurm.cluster"

    def missing(self) -> str:
        return "" if shutil.which("sbatch") else "no sbatch on the PATH"

    def detect(self) -> tuple[Presence, str]:
        if missing := self.missing():
            return Presence.ABSENT, missing
        try:
            out = programs.check_output(["scontrol", "ping"], timeout_s=PING_S)
        except ClusterUnavailable as error:
            text = str(error)
            if _UNCONFIGURED.search(text):
                return Presence.ABSENT, "sbatch is on the PATH, but no Slurm cluster is configured"
            first = text.splitlines()[0]
            return Presence.SILENT, f"sbatch is on the PATH, but no Slurm controller answers ({first})"
        line = next((line.strip() for line in out.splitlines() if line.rstrip().endswith("UP")), None)
        if line is None:
            return (
                Presence.SILENT,
                f"sbatch is on the PATH, but the Slurm controller is down ({out.strip()})",
            )
        return Presence.ANSWERS, f"a Slurm controller answers ({line})"

    def connect(self, sweep: SweepRequest, options: SlurmSection) -> Connection:
        from hpcsweep.cluster.slurm.cluster import SlurmCluster

        given = dict(options) | sweep.times | ({"python": sweep.python} if sweep.python else {})
        cluster = SlurmCluster(
            SlurmOptions.model_construct(
                **given,
                setup=tuple(sweep.setup),
                environment=sweep.variables,
                inherited=sweep.inherited,
                workdir=sweep.workdir,
                signal_s=sweep.signal_s,
            )
        )
        return Connection(cluster, sweep.task, self.title)

    def check_site(self, options: SlurmSection) -> Generator[Finding, None, bool]:
        pools = [pool.partition for pool in options.pools or () if pool.partition]
        return (yield from check_site(self.detect(), partition=",".join(pools) or options.partition))

    def queue(self) -> SlurmQueue:
        return SlurmQueue()

    def try_submitting(self, script: str, name: str) -> str:
        return try_submitting(script, name)


#: The oldest that the tests run on.
OLDEST: Final = (22, 5)
SLOW_S: Final = 5.0


def check_site(presence: tuple[Presence, str], *, partition: str | None) -> Generator[Finding, None, bool]:
    """Everything that can be known of the site without a job; False at its end if Slurm does not answer."""
    for check in (check_version, lambda: check_controller(*presence)):
        finding = check()
        yield finding
        if finding.level is Level.FAILURE:
            return False
    yield check_accounting()
    yield from check_environment()
    try:
        site = read_site()
    except ClusterUnavailable as error:
        yield failure("limits", one_line(str(error)), "run doctor again when the controller answers")
        return False
    yield from site_findings(site, partition=partition)
    return True


def check_version() -> Finding:
    """Slurm's version."""
    try:
        text = programs.check_output(["sbatch", "--version"], timeout_s=programs.QUERY_S).strip()
    except ClusterUnavailable as error:
        return failure("Slurm", one_line(str(error)), "ask the admins how this host reaches Slurm")
    match = re.search(r"(\d+)\.(\d+)", text)
    if match is None or (int(match[1]), int(match[2])) < OLDEST:
        return warning("Slurm", text, "hpcsweep is tested with 22.05 and later: try a small sweep first")
    return good("Slurm", text)


def check_controller(presence: Presence, text: str) -> Finding:
    """Whether it answers from here, and how long a squeue takes."""
    if presence is not Presence.ANSWERS:
        return failure("controller", one_line(text), "try again later, or ask the admins")
    began = time.monotonic()
    try:
        programs.check_output(["squeue", "--me", "-h"], timeout_s=programs.QUERY_S)
    except ClusterUnavailable as error:
        return failure(
            "controller", one_line(str(error)), "ask the admins: without squeue nothing can be followed"
        )
    seconds = time.monotonic() - began
    text = f"{text}; squeue took {seconds:.2f} s"
    if seconds > SLOW_S:
        return warning(
            "controller", text, "it is busy: set cluster.poll: 120, so that it is asked less often"
        )
    return good("controller", text)


def check_environment() -> Iterator[Finding]:
    """Variables of sbatch that sweeps do not go by."""
    names = sorted(overriding_variables())
    if names:
        text = f"{', '.join(names)} could change what a task holds: not passed on to sbatch"
        yield warning("environment", text, "say what a run needs in the spec: resources, cluster")


def check_accounting() -> Finding:
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


#: After TERM training code may take so long to checkpoint, and the worker a moment more to say so.
NOTICE_S: Final = Program(workdir="", metric="").grace_s + 2
#: Without accounting, how a task ended is known only for so long.
SHORT_AGE_S: Final = 60


def site_findings(site: SlurmSite, *, partition: str | None) -> Iterator[Finding]:
    """Findings about the site."""
    yield _arrays(site)
    yield _ends(site)
    yield from _accounts(site)
    yield from _partitions(site, partition)
    yield from _preemption(site)


def _arrays(site: SlurmSite) -> Finding:
    if site.max_array_size == 0:
        advice = "ask the admins: every rung of a sweep is an array"
        return failure("limits", "this Slurm allows no job arrays (MaxArraySize=0)", advice)
    tasks = "any size" if site.max_array_size is None else f"at most {site.max_array_size} tasks"
    jobs = "" if site.max_jobs is None else f"; {site.max_jobs} jobs of everybody at a time"
    return good("limits", f"arrays of {tasks}{jobs}")


def _ends(site: SlurmSite) -> Finding:
    """What is told of a job before and after its end."""
    shown, notice = site.min_job_age_s, site.kill_wait_s
    text = f"TERM comes {_time(notice)} before KILL (KillWait), and squeue shows jobs"
    text += f" for {_time(shown)} after their end (MinJobAge)"
    if notice is not None and notice < NOTICE_S:
        advice = (
            f"training code gets {NOTICE_S:g} s where it may: write checkpoints often, or a run that is "
            "preempted loses what came after the last one"
        )
        return warning("ends of jobs", text, advice)
    if shown is not None and shown < SHORT_AGE_S and not site.accounting:
        advice = "without accounting either, tasks that end without a result are taken for lost and repeated"
        return warning("ends of jobs", text, advice)
    return good("ends of jobs", text)


def _accounts(site: SlurmSite) -> Iterator[Finding]:
    if not (site.accounting and site.enforces):
        yield good("accounts", "Slurm enforces no limits of accounts and QOS here")
        return
    if not site.associations:
        yield warning("accounts", "Slurm's database shows no account of yours", "ask the admins for one")
        return
    for account in site.associations:
        counts = {"jobs of yours": account.max_submit, "jobs of the account": account.group_submit}
        where = f" in {account.partition}" if account.partition else ""
        limits = _limits(counts, account.max_time_s) or "no limits of its own"
        yield good("accounts", f"{account.account}{_default(account)}{where}: {limits}")
    used = {account.qos for account in site.associations} | {each.qos for each in site.partitions}
    for qos in site.qos:
        counts = {
            "jobs of yours": qos.max_submit,
            "of an account": qos.account_submit,
            "of all": qos.group_submit,
        }
        limits = _limits(counts, qos.max_time_s)
        if qos.name in used and limits:
            yield good("QOS", f"{qos.name}: {limits}")


def _limits(counts: Mapping[str, int | None], time_s: int | None) -> str:
    limits = [f"{count} {what}" for what, count in counts.items() if count is not None]
    limits += [f"jobs of {_time(time_s)}"] if time_s is not None else []
    return f"at most {', '.join(limits)}" if limits else ""


def _default(each: Association | Partition) -> str:
    return " (default)" if each.default else ""


def _partitions(site: SlurmSite, wanted: str | None) -> Iterator[Finding]:
    """A line for each partition with GPUs and for those that the sweep names; one for all others."""
    names = wanted.split(",") if wanted else []
    others = []
    unseen = []
    for partition in site.partitions:
        nodes = site.nodes_of(partition.name)
        if not nodes and partition.total_nodes != 0:
            unseen.append(partition.name + _default(partition))
        elif partition.name in names or any(node.gpus for node in nodes):
            yield _partition(partition, nodes, whole=partition.exclusive or site.whole_nodes)
        else:
            others.append(partition.name + _default(partition))
    if unseen:
        text = f"the nodes of {', '.join(unseen)} are not shown to you, so their GPUs are not known"
        yield warning("partitions", text, "ask the admins (PrivateData=nodes?); Slurm judges what fits")
    if others:
        yield good("partitions", f"without GPUs: {', '.join(others)}")
    if not names and not any(partition.default for partition in site.partitions):
        yield warning("partitions", "none is the default", "name one in the spec, as cluster.partition")


def _partition(partition: Partition, nodes: Sequence[Node], *, whole: bool) -> Finding:
    kinds = Counter(_gpus(node) for node in nodes)
    what = ", ".join(f"{plural(number, 'node')} of {kind}" for kind, number in sorted(kinds.items()))
    longest = "of any length" if partition.max_time_s is None else f"of at most {_time(partition.max_time_s)}"
    usual = partition.default_time_s if partition.default_time_s is not None else partition.max_time_s
    text = f"{partition.name}{_default(partition)}: {what or 'no nodes'}; jobs {longest}"
    text += f", of {_time(usual)} unless they say" if usual is not None else ""
    text += "; each job gets whole nodes" if whole else ""
    up = sum(node.up for node in nodes)
    if partition.state != "UP":
        return warning(
            "partition", f"{text}; it is {partition.state}", "nothing starts there until the admins open it"
        )
    if up == 0:
        return warning("partition", f"{text}; no node is up", "ask the admins, or take another one")
    return good("partition", f"{text}; {'all' if up == len(nodes) else up} up")


def _gpus(node: Node) -> str:
    parts = [f"{n} {kind}" if kind else plural(n, "GPU") for kind, n in sorted(node.gpus.items())]
    return " and ".join(parts) or "no GPUs"


def _preemption(site: SlurmSite) -> Iterator[Finding]:
    if site.preempts == "qos":
        yield good("preemption", "jobs of some QOS give way to those of others (preempt/qos)")
    if site.preempts != "partition_prio":
        return
    for partition in site.partitions:
        nodes = {node.name for node in site.nodes_of(partition.name)}
        above = [
            other.name
            for other in site.partitions
            if other.tier > partition.tier
            and not nodes.isdisjoint(node.name for node in site.nodes_of(other.name))
        ]
        if not above or partition.preempt_mode == "OFF":
            continue
        text = f"jobs in {partition.name} give way to those in {', '.join(above)} ({partition.preempt_mode})"
        text += f", GraceTime {_time(partition.grace_s)}"
        if partition.grace_s and not site.warns_preempted:
            advice = (
                "the worker is not told of it: ask the admins for PreemptParameters=send_user_signal,"
                " or write checkpoints often"
            )
            yield warning("preemption", text, advice)
        else:
            yield good("preemption", text)


def _time(seconds: int | None) -> str:
    """For example `90 s`, `30 min`, `24 h`."""
    if seconds is None:
        return "an unknown time"
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
