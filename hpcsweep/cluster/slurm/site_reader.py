"""Asking a Slurm site what it allows: few calls, each with a time limit."""

from __future__ import annotations

import logging
import math
import os
import pwd
from collections.abc import Mapping
from typing import Final

import msgspec

from hpcsweep.cluster.slurm import programs
from hpcsweep.cluster.slurm import site as reading
from hpcsweep.cluster.slurm.options import SlurmOptions
from hpcsweep.cluster.slurm.requests import ResourceRequest
from hpcsweep.cluster.slurm.site import SlurmSite
from hpcsweep.core.cluster_protocol import TaskResources
from hpcsweep.errors import ClusterUnavailable

#: The first question: where the controller is silent, a launch says so soon, and asks again later.
CONFIG_S: Final = 20.0
#: The database may be slow, and nothing waits for it.
SACCTMGR_S: Final = 20.0
_log = logging.getLogger(__name__)


def read_site() -> SlurmSite:
    """What the controller says of the site, and the database if it has limits to say.

    Where there is no database, or it does not answer, accounts and QOS are empty: sbatch then
    tells what they allow.

    Raises:
        ClusterUnavailable: The controller did not answer.
    """
    site = reading.read_config(_ask("scontrol", "show", "config", timeout_s=CONFIG_S))
    # -a: hidden partitions too.
    site = msgspec.structs.replace(
        site,
        partitions=reading.read_partitions(_ask("scontrol", "-a", "-o", "show", "partition")),
        nodes=_nodes(),
    )
    if not (site.accounting and site.enforces):
        return site
    try:
        where = ["where", f"name={pwd.getpwuid(os.getuid()).pw_name}", f"cluster={site.cluster}"]
        associations = _ask_database("user", "withassoc", *where, f"format={reading.ASSOCIATION_FORMAT}")
        qos = _ask_database("qos", f"format={reading.QOS_FORMAT}")
    except (KeyError, ClusterUnavailable) as error:
        _log.info("going on without the limits of accounts and QOS: %s", error)
        return site
    return msgspec.structs.replace(
        site, associations=reading.read_associations(associations), qos=reading.read_qos(qos)
    )


def _nodes() -> tuple[reading.Node, ...]:
    try:
        return reading.read_nodes(_ask("sinfo", "-a", "-h", "-N", "-o", reading.SINFO_FORMAT))
    except ClusterUnavailable as error:  # a container may have no sinfo
        _log.warning("going on without knowing the nodes: %s", error)
        return ()


def _ask(*argv: str, timeout_s: float = math.inf) -> str:
    return programs.check_output(argv, timeout_s=min(timeout_s, programs.QUERY_S))


def _ask_database(what: str, *words: str) -> str:
    return programs.check_output(["sacctmgr", "-n", "-P", "show", what, *words], timeout_s=SACCTMGR_S)


def request_from_options(asked: Mapping[str, object], *, gpu_type: str | None) -> ResourceRequest:
    """What a batch with these sbatch options asks for, the user's own defaults counted.

    Args:
        asked: Every option of a batch by its long name.
        gpu_type: None takes any.
    """

    def given(option: str, variable: str) -> str | None:
        return str(asked.get(option) or os.environ.get(variable) or "") or None

    partitions = (given("partition", "SBATCH_PARTITION") or "").split(",")
    return ResourceRequest(
        partitions=tuple(name.strip() for name in partitions if name.strip()),
        account=given("account", "SBATCH_ACCOUNT"),
        qos=given("qos", "SBATCH_QOS"),
        gpu_type=gpu_type,
        constraint=given("constraint", "SBATCH_CONSTRAINT") or "",
        nodelist=given("nodelist", "") or "",
        exclude=given("exclude", "SBATCH_EXCLUDE") or "",
        time_s=reading.seconds_of_limit(os.environ.get("SBATCH_TIMELIMIT", "")),
    )


def without_user_options(shape: TaskResources, options: SlurmOptions) -> TaskResources:
    """The shape less what options of the user's own replace: of that we do not know what it asks for."""
    theirs = {key.lstrip("-").replace("_", "-") for key in options.options}
    return msgspec.structs.replace(
        shape,
        gpus=0 if theirs & {"gres", "gpus", "gpus-per-node", "gpus-per-task"} else shape.gpus,
        cpus=1 if theirs & {"cpus-per-task", "cpus-per-gpu"} else shape.cpus,
        mem_mib=None if theirs & {"mem", "mem-per-cpu", "mem-per-gpu"} else shape.mem_mib,
    )
