"""What a Slurm site allows, has and takes away, as findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from hpcsweep.cluster.slurm.site import Node, Partition, SlurmSite
from hpcsweep.core.findings import Finding, failure, good, warning
from hpcsweep.core.text import plural
from hpcsweep.store.batch import Program

#: After TERM training code may take so long to checkpoint, and the worker a moment more to say so.
NOTICE_S: Final = Program(workdir="", metric="").grace_s + 2
#: Without accounting, how a task ended is known only for so long.
SHORT_AGE_S: Final = 60


def site_findings(site: SlurmSite, *, partition: str | None) -> Iterator[Finding]:
    """Findings about the site.

    Args:
        site: As Slurm describes it.
        partition: Where the sweep asks to run; None leaves it to the site.
    """
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
    words = f"TERM comes {_time(notice)} before KILL (KillWait), and squeue shows jobs"
    words += f" for {_time(shown)} after their end (MinJobAge)"
    if notice is not None and notice < NOTICE_S:
        advice = (
            f"training code gets {NOTICE_S:g} s where it may: write checkpoints often, or a run that is "
            "preempted loses what came after the last one"
        )
        return warning("ends of jobs", words, advice)
    if shown is not None and shown < SHORT_AGE_S and not site.accounting:
        advice = "without accounting either, tasks that end without a result are taken for lost and repeated"
        return warning("ends of jobs", words, advice)
    return good("ends of jobs", words)


def _accounts(site: SlurmSite) -> Iterator[Finding]:
    if not (site.accounting and site.enforces):
        yield good("accounts", "Slurm enforces no limits of accounts and QOS here")
        return
    if not site.associations:
        yield warning("accounts", "Slurm's database shows no account of yours", "ask the admins for one")
        return
    for one in site.associations:
        limits = [f"{one.max_submit} jobs of yours"] if one.max_submit is not None else []
        limits += [f"{one.group_submit} jobs of the account"] if one.group_submit is not None else []
        limits += [f"jobs of {_time(one.max_time_s)}"] if one.max_time_s is not None else []
        where = f" in {one.partition}" if one.partition else ""
        mark = " (default)" if one.default else ""
        yield good("accounts", f"{one.account}{mark}{where}: {_at_most(limits)}")
    used = {one.qos for one in site.associations} | {one.qos for one in site.partitions}
    for qos in site.qos:
        limits = [f"{qos.max_submit} jobs of yours"] if qos.max_submit is not None else []
        limits += [f"{qos.account_submit} of an account"] if qos.account_submit is not None else []
        limits += [f"{qos.group_submit} of all"] if qos.group_submit is not None else []
        limits += [f"jobs of {_time(qos.max_time_s)}"] if qos.max_time_s is not None else []
        if qos.name in used and limits:
            yield good("QOS", f"{qos.name}: {_at_most(limits)}")


def _at_most(limits: Sequence[str]) -> str:
    return f"at most {', '.join(limits)}" if limits else "no limits of its own"


def _partitions(site: SlurmSite, wanted: str | None) -> Iterator[Finding]:
    """A line for each partition with GPUs and for those that the sweep names; one for all others."""
    names = wanted.split(",") if wanted else []
    others = []
    unseen = []
    for one in site.partitions:
        nodes = site.nodes_of(one.name)
        if not nodes and one.total_nodes != 0:
            unseen.append(one.name + (" (default)" if one.default else ""))
        elif one.name in names or any(node.gpus for node in nodes):
            yield _partition(one, nodes, whole=one.exclusive or site.whole_nodes)
        else:
            others.append(one.name + (" (default)" if one.default else ""))
    if unseen:
        words = f"the nodes of {', '.join(unseen)} are not shown to you, so their GPUs are not known"
        yield warning("partitions", words, "ask the admins (PrivateData=nodes?); Slurm judges what fits")
    if others:
        yield good("partitions", f"without GPUs: {', '.join(others)}")
    if not names and not any(one.default for one in site.partitions):
        yield warning("partitions", "none is the default", "name one in the spec, as cluster.partition")


def _partition(one: Partition, nodes: Sequence[Node], *, whole: bool) -> Finding:
    kinds = Counter(_gpus(node) for node in nodes)
    what = ", ".join(f"{plural(number, 'node')} of {kind}" for kind, number in sorted(kinds.items()))
    longest = "of any length" if one.max_time_s is None else f"of at most {_time(one.max_time_s)}"
    usual = one.default_time_s if one.default_time_s is not None else one.max_time_s
    words = f"{one.name}{' (default)' if one.default else ''}: {what or 'no nodes'}; jobs {longest}"
    words += f", of {_time(usual)} unless they say" if usual is not None else ""
    words += "; each job gets whole nodes" if whole else ""
    up = sum(node.up for node in nodes)
    if one.state != "UP":
        return warning(
            "partition", f"{words}; it is {one.state}", "nothing starts there until the admins open it"
        )
    if up == 0:
        return warning("partition", f"{words}; no node is up", "ask the admins, or take another one")
    return good("partition", f"{words}; {'all' if up == len(nodes) else up} up")


def _gpus(node: Node) -> str:
    parts = [f"{n} {kind}" if kind else plural(n, "GPU") for kind, n in sorted(node.gpus.items())]
    return " and ".join(parts) or "no GPUs"


def _preemption(site: SlurmSite) -> Iterator[Finding]:
    if site.preempts == "qos":
        yield good("preemption", "jobs of some QOS give way to those of others (preempt/qos)")
    if site.preempts != "partition_prio":
        return
    for one in site.partitions:
        nodes = {node.name for node in site.nodes_of(one.name)}
        above = [
            other.name
            for other in site.partitions
            if other.tier > one.tier and not nodes.isdisjoint(node.name for node in site.nodes_of(other.name))
        ]
        if not above or one.preempt_mode == "OFF":
            continue
        words = f"jobs in {one.name} give way to those in {', '.join(above)} ({one.preempt_mode})"
        words += f", GraceTime {_time(one.grace_s)}"
        if one.grace_s and not site.warns_preempted:
            advice = (
                "the worker is not told of it: ask the admins for PreemptParameters=send_user_signal,"
                " or write checkpoints often"
            )
            yield warning("preemption", words, advice)
        else:
            yield good("preemption", words)


def _time(seconds: int | None) -> str:
    """For example `90 s`, `30 min`, `24 h`."""
    if seconds is None:
        return "an unknown time"
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
