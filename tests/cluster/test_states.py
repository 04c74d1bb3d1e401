"""The table of Slurm's states is total, and no word is taken for more than it says."""

from __future__ import annotations

import pytest

from hpcsweep.cluster.slurm.rows import BLOCK_KINDS, STATES, block_kind_of, cancelled_by, phase_of
from hpcsweep.core.cluster_protocol import BlockKind, Phase

#: squeue(1), JOB STATE CODES, of 22.05.
COMPACT_22_05 = {
    "BF": "BOOT_FAIL",
    "CA": "CANCELLED",
    "CD": "COMPLETED",
    "CF": "CONFIGURING",
    "CG": "COMPLETING",
    "DL": "DEADLINE",
    "F": "FAILED",
    "NF": "NODE_FAIL",
    "OOM": "OUT_OF_MEMORY",
    "PD": "PENDING",
    "PR": "PREEMPTED",
    "R": "RUNNING",
    "RD": "RESV_DEL_HOLD",
    "RF": "REQUEUE_FED",
    "RH": "REQUEUE_HOLD",
    "RQ": "REQUEUED",
    "RS": "RESIZING",
    "RV": "REVOKED",
    "SI": "SIGNALING",
    "SE": "SPECIAL_EXIT",
    "SO": "STAGE_OUT",
    "ST": "STOPPED",
    "S": "SUSPENDED",
    "TO": "TIMEOUT",
}
LATER = ["LAUNCH_FAILED", "RECONFIG_FAIL", "POWER_UP_NODE", "EXPEDITING"]

PHASES = {
    Phase.PENDING: {
        "PENDING",
        "REQUEUED",
        "REQUEUE_FED",
        "REQUEUE_HOLD",
        "RESV_DEL_HOLD",
        "SPECIAL_EXIT",
        "LAUNCH_FAILED",
        "RECONFIG_FAIL",
        "EXPEDITING",
    },
    Phase.RUNNING: {
        "RUNNING",
        "SUSPENDED",
        "COMPLETING",
        "CONFIGURING",
        "POWER_UP_NODE",
        "RESIZING",
        "SIGNALING",
        "STAGE_OUT",
        "STOPPED",
        "REVOKED",
    },
    Phase.COMPLETED: {"COMPLETED"},
    Phase.FAILED: {"FAILED"},
    Phase.OUT_OF_MEMORY: {"OUT_OF_MEMORY"},
    Phase.TIMEOUT: {"TIMEOUT", "DEADLINE"},
    Phase.PREEMPTED: {"PREEMPTED"},
    Phase.NODE_FAIL: {"NODE_FAIL", "BOOT_FAIL"},
    Phase.CANCELLED: {"CANCELLED"},
    Phase.UNKNOWN: set(),
}


def test_each_state_has_exactly_the_phase_of_the_table() -> None:
    by_phase = {phase: {word for word in STATES if phase_of(word) is phase} for phase in Phase}
    assert by_phase == PHASES


@pytest.mark.parametrize(("compact", "long"), list(COMPACT_22_05.items()))
def test_compact_word_means_the_same_as_the_long_one(compact: str, long: str) -> None:
    assert STATES[long][0] == compact
    assert phase_of(compact) is phase_of(long) is not Phase.UNKNOWN


def test_table_holds_every_state_of_every_version_and_nothing_else() -> None:
    assert set(STATES) == {*COMPACT_22_05.values(), *LATER}


@pytest.mark.parametrize(
    ("word", "phase"),
    [
        ("CANCELLED by 1000", Phase.CANCELLED),
        ("CANCELLED+", Phase.CANCELLED),
        ("running", Phase.RUNNING),
        (" COMPLETED \n", Phase.COMPLETED),
    ],
)
def test_sacct_s_ways_of_writing_are_understood(word: str, phase: Phase) -> None:
    assert phase_of(word) is phase


@pytest.mark.parametrize("word", ["", " ", "?", "COMPLETE", "NOT_COMPLETED", "FAILED_SOMEHOW", "OUT_OF_ME+"])
def test_a_word_that_is_not_in_the_table_is_unknown_and_so_active(word: str) -> None:
    assert phase_of(word) is Phase.UNKNOWN
    assert phase_of(word).active


@pytest.mark.parametrize(
    ("state", "user"),
    [("CANCELLED by 1000", 1000), ("CANCELLED+ by 0", 0), ("CANCELLED", None), ("FAILED by 1000", None)],
)
def test_user_id_of_who_cancelled_is_read_as_sacct_writes_it(state: str, user: int | None) -> None:
    assert cancelled_by(state) == user


def test_each_reason_of_the_table_is_found_by_its_own_words_whatever_comes_after() -> None:
    assert {reason: block_kind_of(reason) for reason in BLOCK_KINDS} == BLOCK_KINDS
    assert block_kind_of("job requeued in held state due to exit 5") is BlockKind.HELD
    assert block_kind_of("launch_failed_requeued_held") is BlockKind.HELD


@pytest.mark.parametrize(
    "reason",
    [
        "AssocMaxNodePerJobLimit",
        "QOSMaxGRESPerJob",
        "QOSMaxCpuPerNode",
        "AssocGrpCPUMinutesLimit",
        "QOSGrpGRESMinutes",
        "AssocGrpWallLimit",
    ],
)
def test_limit_on_a_job_or_on_minutes_is_somebody_else_s_to_raise(reason: str) -> None:
    assert block_kind_of(reason) is BlockKind.BLOCKED


@pytest.mark.parametrize("reason", ["AssocGrpGRES", "QOSGrpCpuLimit", "AssocGrpNodeLimit", "QOSGrpJobsLimit"])
def test_limit_of_a_group_passes_as_jobs_end(reason: str) -> None:
    assert block_kind_of(reason) is BlockKind.LIMITED


@pytest.mark.parametrize(
    "reason",
    [
        "QOSMinGRES",
        "QOSMinCpuNotSatisfied",
        "ReqNodeNotAvail",
        "ReqNodeNotAvail, UnavailableNodes:n1",
        "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
        "Nodes_required_for_job_are_DOWN,_DRAINED_or_reserved",
        "PartitionConfig",
        "MaxPoweredNodes",
        "NodeDown",
        "FrontEndDown",
        "QOSUsageThreshold",
        "site: your project is over budget, see https://example.org",
        "A word of Slurm 27.11",
    ],
)
def test_whatever_is_not_listed_as_harmless_is_to_be_told(reason: str) -> None:
    assert block_kind_of(reason) is BlockKind.UNKNOWN


@pytest.mark.parametrize(
    "reason",
    [
        "",
        "None",
        "Priority",
        "Resources",
        "JobArrayTaskLimit",
        "Dependency",
        "BeginTime",
        "Licenses",
        "Reservation",
        "Cleaning",
        "QOSMaxCpuPerUserLimit",
        "QOSMaxJobsPerUserLimit",
        "AssocMaxJobsLimit",
        "QOSMaxGRESPerUser",
    ],
)
def test_task_that_need_only_wait_for_its_turn_is_not_hindered(reason: str) -> None:
    assert block_kind_of(reason) is None
