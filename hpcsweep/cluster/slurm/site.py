"""What a Slurm site allows: its configuration, partitions, nodes and accounts, asked for and read."""

from __future__ import annotations

import logging
import math
import os
import pwd
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from hpcsweep.cluster.slurm import programs
from hpcsweep.errors import ClusterUnavailable

#: Between the fields that we ask sinfo for: a character that is in no name.
SEPARATOR: Final = "\x1f"
SINFO_FORMAT: Final = SEPARATOR.join(["%N", "%R", "%c", "%m", "%G", "%f", "%T"])
ASSOCIATION_FORMAT: Final = (
    "DefaultAccount,Account,Partition,MaxSubmitJobs,GrpSubmitJobs,MaxWall,DefaultQOS,QOS"
)
QOS_FORMAT: Final = "Name,Flags,MaxSubmitJobsPU,MaxSubmitJobsPA,GrpSubmitJobs,MaxWall"

#: States of a node, or marks on them, in which Slurm gives it nothing to do.
_AWAY: Final = re.compile(r"down|drain|drng|fail|unk|future|maint|inval|block|reboot", re.IGNORECASE)


class DefaultMemory(msgspec.Struct, frozen=True):
    """MiB that a job gets on each node that asks for none; all of the node where nothing is set.

    Attributes:
        by_gpu: It depends on the GPUs that the job has.
    """

    per_node: int | None = None
    per_cpu: int | None = None
    by_gpu: bool = False

    @property
    def is_set(self) -> bool:
        """Whether it says anything."""
        return self != DefaultMemory()

    @classmethod
    def read(cls, fields: Mapping[str, str]) -> DefaultMemory:
        """From a partition's fields, or the site's."""
        by_gpu = "DefMemPerGPU" in fields or "DefMemPerGPU" in fields.get("JobDefaults", "")
        return cls(
            _leading(fields.get("DefMemPerNode", "")), _leading(fields.get("DefMemPerCPU", "")), by_gpu
        )


class Partition(msgspec.Struct, frozen=True):
    """One partition. None is no limit.

    Attributes:
        default: Jobs go there that name none.
        state: UP, DOWN (takes jobs, starts none), DRAIN or INACTIVE (takes none).
        default_time_s: Time limit of a job that asks for none; None: the longest that is allowed.
        max_cpus: CPUs of one job on one node; `max_mem_mib` likewise.
        qos: Its limits go before those of the job's own QOS; empty if there is none.
        tier: Where partitions may preempt each other, jobs of a higher one preempt those of a lower.
        preempt_mode: What becomes of a preempted job, such as REQUEUE.
        grace_s: So long it goes on after it was chosen.
        exclusive: Jobs there get whole nodes.
        total_nodes: How many nodes it has, those that are not shown to this user with them.
        memory: What a job gets there that asks for none; see `DefaultMemory`.
    """

    name: str
    default: bool = False
    state: str = "UP"
    max_time_s: int | None = None
    default_time_s: int | None = None
    max_cpus: int | None = None
    max_mem_mib: int | None = None
    qos: str = ""
    tier: int = 1
    preempt_mode: str = "OFF"
    grace_s: int = 0
    exclusive: bool = False
    total_nodes: int | None = None
    memory: DefaultMemory | None = None

    @property
    def takes_jobs(self) -> bool:
        return self.state in ("UP", "DOWN")


class Node(msgspec.Struct, frozen=True):
    """One node; `gpus` counts by type, "" for GPUs without one."""

    name: str
    partitions: tuple[str, ...]
    cpus: int
    mem_mib: int
    gpus: Mapping[str, int] = {}
    features: tuple[str, ...] = ()
    state: str = "idle"

    @property
    def up(self) -> bool:
        """Whether it takes jobs, now or when those that run there have ended."""
        # A star: it does not answer.
        return not self.state.endswith("*") and not _AWAY.search(self.state)


class Association(msgspec.Struct, frozen=True):
    """What the user may do by one account. None is no limit.

    Attributes:
        default: It is the account of jobs that name none.
        partition: The only one that it is for; empty if for all.
        group_submit: Jobs at a time, with those of others.
        qos: By default; empty if that is not known.
    """

    account: str
    default: bool = False
    partition: str = ""
    max_submit: int | None = None
    group_submit: int | None = None
    max_time_s: int | None = None
    qos: str = ""


class Qos(msgspec.Struct, frozen=True):
    """One quality of service. None is no limit.

    Attributes:
        max_submit: Jobs of a user at a time; `account_submit` of an account, `group_submit` of all.
        over_partition: Its limits go before those of the partition's QOS.
    """

    name: str
    max_submit: int | None = None
    account_submit: int | None = None
    group_submit: int | None = None
    max_time_s: int | None = None
    over_partition: bool = False


class SlurmSite(msgspec.Struct, frozen=True):
    """What was found out about a site. None is unknown, or no limit.

    Attributes:
        max_array_size: The largest index of an array is one less; 0 means no arrays.
        max_jobs: Jobs of everybody at a time, each array task counted, ended ones for a while too.
        min_job_age_s: Ended jobs are shown for so long.
        kill_wait_s: Between TERM and KILL.
        accounting: Whether there is a database of jobs.
        enforces: Whether the limits of associations and QOS hold.
        preempts: By what jobs may preempt others: partition_prio, qos, or empty if they may not.
        warns_preempted: Whether the signal of `--signal` comes as soon as a job was chosen.
        scrontab: Whether users may have crontabs that Slurm runs.
        whole_nodes: Whether every job gets whole nodes (SelectType=select/linear).
        shares_memory: Whether memory of nodes is given out, so that a job has no more than it asks for.
        memory: What a job gets that asks for none, unless its partition says something else.
    """

    cluster: str = ""
    max_array_size: int | None = None
    max_jobs: int | None = None
    min_job_age_s: int | None = None
    kill_wait_s: int | None = None
    accounting: bool = False
    enforces: bool = False
    preempts: str = ""
    warns_preempted: bool = False
    scrontab: bool = False
    whole_nodes: bool = False
    shares_memory: bool = False
    memory: DefaultMemory = DefaultMemory()
    partitions: tuple[Partition, ...] = ()
    nodes: tuple[Node, ...] = ()
    associations: tuple[Association, ...] = ()
    qos: tuple[Qos, ...] = ()

    def nodes_of(self, partition: str) -> list[Node]:
        """The nodes of a partition."""
        return [node for node in self.nodes if partition in node.partitions]


# --------------------------------------------------------------------------- scontrol and sinfo


def read_config(text: str) -> SlurmSite:
    """The site's configuration, from `scontrol show config`."""
    pairs = (line.partition("=") for line in text.splitlines())
    config = {key.strip(): value.strip() for key, _, value in pairs}
    enforced = config.get("AccountingStorageEnforce", "").split(",")
    return SlurmSite(
        cluster=config.get("ClusterName", ""),
        max_array_size=_leading(config.get("MaxArraySize", "")),
        max_jobs=_leading(config.get("MaxJobCount", "")),
        min_job_age_s=_leading(config.get("MinJobAge", "")),
        kill_wait_s=_leading(config.get("KillWait", "")),
        accounting=config.get("AccountingStorageType", "").endswith("slurmdbd"),
        enforces=not {"limits", "safe", "all"}.isdisjoint(enforced),
        preempts=config.get("PreemptType", "").removeprefix("preempt/").replace("none", ""),
        warns_preempted="send_user_signal" in config.get("PreemptParameters", "").lower().split(","),
        whole_nodes=config.get("SelectType", "") == "select/linear",
        shares_memory="MEMORY" in config.get("SelectTypeParameters", "").upper(),
        memory=DefaultMemory.read(config),
        scrontab="enable" in config.get("ScronParameters", "").lower().split(","),
    )


def read_partitions(text: str) -> tuple[Partition, ...]:
    """The partitions, from `scontrol -a -o show partition`."""
    return tuple(
        Partition(
            name=fields["PartitionName"],
            default=fields.get("Default") == "YES",
            state=fields.get("State", "UP"),
            max_time_s=seconds_of_limit(fields.get("MaxTime", "")),
            default_time_s=seconds_of_limit(fields.get("DefaultTime", "")),
            max_cpus=_leading(fields.get("MaxCPUsPerNode", "")),
            max_mem_mib=_leading(fields.get("MaxMemPerNode", "")),
            qos="" if fields.get("QoS") in (None, "N/A") else fields["QoS"],
            tier=_leading(fields.get("PriorityTier", "")) or 1,
            preempt_mode=fields.get("PreemptMode", "OFF"),
            grace_s=_leading(fields.get("GraceTime", "")) or 0,
            total_nodes=_leading(fields.get("TotalNodes", "")),
            exclusive=fields.get("OverSubscribe", "").upper().startswith("EXCL"),
            memory=memory if (memory := DefaultMemory.read(fields)).is_set else None,
        )
        for line in text.splitlines()
        if "PartitionName" in (fields := dict(re.findall(r"(?<!\S)(\w+)=(\S*)", line)))
    )


def read_nodes(text: str) -> tuple[Node, ...]:
    """The nodes, from sinfo with `SINFO_FORMAT`: a line for each node of each partition."""
    nodes: dict[str, Node] = {}
    for line in text.split("\n"):
        fields = line.split(SEPARATOR)
        if len(fields) != 7:
            continue
        name, partition, cpus, mem, gres, features, state = fields
        known = nodes.get(name)
        nodes[name] = Node(
            name=name,
            partitions=(*known.partitions, partition) if known else (partition,),
            cpus=_leading(cpus) or 0,
            mem_mib=_leading(mem) or 0,
            gpus=gpus_of(gres),
            features=() if features == "(null)" else tuple(features.split(",")),
            state=state,
        )
    return tuple(nodes.values())


def hosts_of(text: str) -> set[str]:
    """The names in a list of nodes as Slurm writes it: `n[1-3,08],login`."""
    names = {""}
    found: set[str] = set()
    for word, numbers, comma in re.findall(r"([^\[,]*)(?:\[([\d,-]*)\])?(,|$)?", text):
        names = {name + word + each for name in names for each in (_numbers(numbers) if numbers else [""])}
        if comma:
            found, names = found | names, {""}
    return (found | names) - {""}


def host_list(names: Iterable[str]) -> str:
    """The names as Slurm writes them: `n[1-3,08],login`."""
    numbers: dict[tuple[str, int], list[int]] = {}
    others: list[str] = []
    for name in dict.fromkeys(names):
        match = re.fullmatch(r"(.*?\D)(\d+)", name)
        if match and "," not in name and "[" not in name:
            width = len(match[2]) if match[2].startswith("0") else 0
            numbers.setdefault((match[1], width), []).append(int(match[2]))
        else:
            others.append(name)
    parts = [_bracketed(prefix, width, found) for (prefix, width), found in numbers.items()]
    return ",".join([*parts, *others])


def _bracketed(prefix: str, width: int, numbers: Sequence[int]) -> str:
    ranges = programs.ranges(numbers, width=width)
    return f"{prefix}[{','.join(ranges)}]" if len(numbers) > 1 else prefix + ranges[0]


def _numbers(ranges: str) -> Iterator[str]:
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        for number in range(int(first), int(last or first) + 1):
            yield str(number).zfill(len(first))


def gpus_of(gres: str) -> dict[str, int]:
    """GPUs by type, from a node's `gpu:a100:4(S:0-1),gpu:v100:2,shard:8`; "" is a GPU without a type."""
    found: dict[str, int] = {}
    for part in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *words = [word for word in part.split(":") if word != "no_consume"]
        if name == "gpu" and words and words[-1].isdecimal():
            kind = words[0] if len(words) == 2 else ""
            found[kind] = found.get(kind, 0) + int(words[-1])
    return found


def seconds_of_limit(text: str) -> int | None:
    """Seconds of a time limit as Slurm writes it, or people: `1-00:00:00`, `90`; None for what is none."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if match is None:
        return None
    days, *parts = match.groups()
    given = [int(part) for part in parts if part is not None]
    if days is not None:  # days-hours[:minutes[:seconds]]
        hours, minutes, seconds = [*given, 0, 0][:3]
        return ((int(days) * 24 + hours) * 60 + minutes) * 60 + seconds
    hours, minutes, seconds = {1: [0, *given, 0], 2: [0, *given], 3: given}[len(given)]
    return (hours * 60 + minutes) * 60 + seconds


# --------------------------------------------------------------------------- sacctmgr


def read_associations(text: str) -> tuple[Association, ...]:
    """The user's associations, from `sacctmgr -nP show user withassoc` with `ASSOCIATION_FORMAT`."""
    return tuple(
        Association(
            account=account,
            default=account == default,
            partition=partition,
            max_submit=_leading(submit),
            group_submit=_leading(group),
            max_time_s=seconds_of_limit(wall),
            qos=qos or (allowed if "," not in allowed else ""),
        )
        for default, account, partition, submit, group, wall, qos, allowed in _rows(text, 8)
        if account
    )


def read_qos(text: str) -> tuple[Qos, ...]:
    """Every QOS, from `sacctmgr -nP show qos` with `QOS_FORMAT`."""
    return tuple(
        Qos(
            name=name,
            max_submit=_leading(user),
            account_submit=_leading(account),
            group_submit=_leading(group),
            max_time_s=seconds_of_limit(wall),
            over_partition="OverPartQOS" in flags.split(","),
        )
        for name, flags, user, account, group, wall in _rows(text, 6)
    )


def _rows(text: str, width: int) -> Iterator[Sequence[str]]:
    rows = (line.split("|") for line in text.splitlines())
    return (row for row in rows if len(row) == width)


def _leading(text: str) -> int | None:
    """The number that the text begins with, as in `300 sec`; None for `UNLIMITED` and the like."""
    match = re.match(r"\d+", text)
    return int(match[0]) if match else None


#: The first question: where the controller is silent, a launch says so soon, and asks again later.
CONFIG_S: Final = 20.0
#: The database may be slow, and nothing waits for it.
SACCTMGR_S: Final = 20.0
_log = logging.getLogger(__name__)


def read_site() -> SlurmSite:
    """What the controller says of the site, and the database if it has limits to say.

    Where there is no database, or it does not answer, accounts and QOS are empty: sbatch then
    tells what they allow.
    """
    site = read_config(_ask("scontrol", "show", "config", timeout_s=CONFIG_S))
    # -a: hidden partitions too.
    site = msgspec.structs.replace(
        site,
        partitions=read_partitions(_ask("scontrol", "-a", "-o", "show", "partition")),
        nodes=_nodes(),
    )
    if not (site.accounting and site.enforces):
        return site
    try:
        where = ["where", f"name={pwd.getpwuid(os.getuid()).pw_name}", f"cluster={site.cluster}"]
        associations = _ask_database("user", "withassoc", *where, f"format={ASSOCIATION_FORMAT}")
        qos = _ask_database("qos", f"format={QOS_FORMAT}")
    except (KeyError, ClusterUnavailable) as error:
        _log.info("going on without the limits of accounts and QOS: %s", error)
        return site
    return msgspec.structs.replace(site, associations=read_associations(associations), qos=read_qos(qos))


def _nodes() -> tuple[Node, ...]:
    try:
        return read_nodes(_ask("sinfo", "-a", "-h", "-N", "-o", SINFO_FORMAT))
    except ClusterUnavailable as error:  # a container may have no sinfo
        _log.warning("going on without knowing the nodes: %s", error)
        return ()


def _ask(*argv: str, timeout_s: float = math.inf) -> str:
    return programs.check_output(argv, timeout_s=min(timeout_s, programs.QUERY_S))


def _ask_database(what: str, *words: str) -> str:
    return programs.check_output(["sacctmgr", "-n", "-P", "show", what, *words], timeout_s=SACCTMGR_S)
