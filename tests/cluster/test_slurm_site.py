"""What a site allows, found out through stand-ins for its programs, in few calls."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from hpcsweep.cluster.slurm.cluster import SlurmCluster
from hpcsweep.cluster.slurm.options import SlurmOptions
from hpcsweep.cluster.slurm.site import ASSOCIATION_FORMAT, QOS_FORMAT, SINFO_FORMAT, read_site
from hpcsweep.core.cluster_protocol import Batch, Limits, TaskResources
from hpcsweep.errors import ClusterError, ClusterUnavailable, SpecError

from .programs import Programs, changed

CONFIG = """\
AccountingStorageEnforce = {enforce}
AccountingStorageType   = accounting_storage/{storage}
ClusterName             = private
MaxArraySize            = 1001
MaxJobCount             = 10000
"""
PARTITIONS = """\
PartitionName=gpu Default=YES QoS=N/A DefaultTime=01:00:00 MaxTime=1-00:00:00 Nodes=g[1-2] State=UP
PartitionName=cpu Default=NO QoS=N/A DefaultTime=NONE MaxTime=2-00:00:00 Nodes=c1 State=UP
"""
NODES = (
    ("g1", "gpu", "16", "64000", "gpu:a100:4", "(null)", "idle"),
    ("g2", "gpu", "16", "64000", "gpu:a100:4", "(null)", "mixed"),
    ("c1", "cpu", "64", "64000", "(null)", "(null)", "idle"),
)
#: By what each of the two questions to the database is known.
ACCOUNTS = """\
case "$*" in
  *withassoc*) echo 'lab|lab||20|||normal|normal' ;;
  *) echo 'normal||||50|' ;;
esac
"""
ALL = [
    ["scontrol", "show", "config"],
    ["scontrol", "-a", "-o", "show", "partition"],
    ["sinfo", "-a", "-h", "-N", "-o", SINFO_FORMAT],
]
REFUSED = "allocation failure:"


def put_site(programs: Programs, *, enforce: str = "none", storage: str = "none") -> None:
    """A site of two partitions."""
    config = CONFIG.format(enforce=enforce, storage=storage)
    texts = (
        f"case \"$*\" in\n*config) cat <<'EOF'\n{config}EOF\n;;\n*) cat <<'EOF'\n{PARTITIONS}EOF\n;;\nesac"
    )
    programs.put("scontrol", texts)
    programs.rows(*NODES, program="sinfo")


def test_limits_are_the_site_s_and_asked_once(cluster: SlurmCluster, programs: Programs) -> None:
    put_site(programs)
    expected = Limits(
        array_tasks=1001, queued_tasks=10000, time_s=3600, most_times_s=(86400,), nodes=("g1", "g2")
    )
    assert cluster.limits() == expected
    assert cluster.limits() == expected
    assert programs.calls() == ALL


def test_database_is_asked_twice_and_only_where_its_limits_hold(
    cluster: SlurmCluster, programs: Programs
) -> None:
    put_site(programs, enforce="associations,limits", storage="slurmdbd")
    programs.put("sacctmgr", ACCOUNTS)
    assert cluster.limits().queued_tasks == 20
    show, user = ["sacctmgr", "-n", "-P", "show"], pwd.getpwuid(os.getuid()).pw_name
    assert programs.calls() == [
        *ALL,
        [
            *show,
            "user",
            "withassoc",
            "where",
            f"name={user}",
            "cluster=private",
            f"format={ASSOCIATION_FORMAT}",
        ],
        [*show, "qos", f"format={QOS_FORMAT}"],
    ]


@pytest.mark.parametrize("body", ["exit 1", "sleep 60", "echo; echo 'a banner'"])
def test_database_that_does_not_answer_is_passed_over_in_silence(
    cluster: SlurmCluster,
    programs: Programs,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    body: str,
) -> None:
    monkeypatch.setattr("hpcsweep.cluster.slurm.site.SACCTMGR_S", 0.5)
    put_site(programs, enforce="limits", storage="slurmdbd")
    programs.put("sacctmgr", body)
    assert cluster.limits().queued_tasks == 10000
    assert caplog.records == []


def test_controller_that_does_not_answer_leaves_limits_unknown_and_problems_unsaid(
    cluster: SlurmCluster, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as short:
        short.setattr("hpcsweep.cluster.slurm.programs.QUERY_S", 0.5)
        for body in ["echo 'Unable to contact slurm controller' >&2; exit 1", "sleep 60"]:
            programs.put("scontrol", body)
            with pytest.raises(ClusterUnavailable):
                cluster.limits()
            assert cluster.problems(TaskResources(gpus=99)) == []
    put_site(programs)
    assert cluster.limits().array_tasks == 1001, "a failure is not remembered"


def test_nodes_that_cannot_be_asked_for_are_unknown(cluster: SlurmCluster, programs: Programs) -> None:
    put_site(programs)
    programs.put("sinfo", "exit 1")
    limits = Limits(array_tasks=1001, queued_tasks=10000, time_s=3600, most_times_s=(86400,))
    assert cluster.limits() == limits
    assert read_site().nodes == ()


def test_site_without_arrays_is_an_error(cluster: SlurmCluster, programs: Programs) -> None:
    programs.put("scontrol", "echo 'MaxArraySize = 0'")
    with pytest.raises(ClusterError, match="allows no job arrays"):
        cluster.limits()


@pytest.mark.parametrize(
    ("options", "time_s"),
    [
        (SlurmOptions(), 7200),
        (SlurmOptions(partition="cpu"), 172800),
        (SlurmOptions(options={"partition": "cpu"}), 172800),
    ],
)
def test_user_s_own_defaults_count_where_the_spec_says_nothing(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, options: SlurmOptions, time_s: int
) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "gpu")
    if options == SlurmOptions():
        monkeypatch.setenv("SBATCH_TIMELIMIT", "2:00:00")
    put_site(programs)
    assert SlurmCluster(options).limits().time_s == time_s


# --------------------------------------------------------------------------- what can never run


def test_shape_that_fits_is_tried_once_with_the_script_that_would_be_sent(
    cluster: SlurmCluster, programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_ARRAY_INX", "1-99")
    put_site(programs)
    programs.put(
        "sbatch", f"cat >'{tmp_path}/seen'; env >'{tmp_path}/env'; echo 'sbatch: Job 7 to start' >&2"
    )
    assert cluster.problems(TaskResources(gpus=4, time_s=60)) == []
    assert programs.calls() == [*ALL, ["sbatch", "--test-only"]]
    script = (tmp_path / "seen").read_text()
    assert "#SBATCH --array=0-0%1\n" in script
    assert "#SBATCH --gres=gpu:4\n" in script
    assert "SBATCH_ARRAY_INX" not in (tmp_path / "env").read_text()


def test_shape_that_can_never_run_is_named_with_the_site_s_figures_and_not_tried(
    cluster: SlurmCluster, programs: Programs
) -> None:
    put_site(programs)
    assert cluster.problems(TaskResources(gpus=8, time_s=172800)) == [
        "resources.time: partition gpu allows 1-00:00:00 at most, got 2-00:00:00",
        "resources.gpus: the nodes of partition gpu have 4 GPUs at most, got 8",
    ]
    assert programs.calls() == ALL


def of_sbatch(options: SlurmOptions, monkeypatch: pytest.MonkeyPatch) -> SlurmOptions:
    monkeypatch.setenv("SBATCH_EXPORT", "none")
    return options


def of_the_template(options: SlurmOptions, monkeypatch: pytest.MonkeyPatch) -> SlurmOptions:
    path = options.spec_dir / "site.sbatch"
    path.write_text(
        "#!/bin/bash\n#SBATCH --export=NONE\n{{ header }}\n{{ environment }}\n{{ setup }}\n{{ command }}\n"
    )
    return changed(options, template=path.name)


def of_both_options(options: SlurmOptions, monkeypatch: pytest.MonkeyPatch) -> SlurmOptions:
    export = {"export": "NONE"}
    return changed(options, options=export, tick_options=export)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (of_sbatch, "SBATCH_EXPORT=none"),
        (of_the_template, "--export=NONE"),
        (of_both_options, "--export=NONE"),
    ],
)
def test_variables_to_inherit_that_sbatch_would_not_hand_on_are_named_with_what_keeps_them(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Any, said: str
) -> None:
    put_site(programs)
    programs.put("sbatch", "exit 0")
    options = given(SlurmOptions(inherited=("TOKEN", "OTHER"), spec_dir=tmp_path), monkeypatch)
    assert SlurmCluster(options).problems(TaskResources()) == [
        f"cluster.environment.{name}: null takes it from the environment of `launch`, and {said} keeps it "
        f"from the jobs; give cluster.{key}: {{export: 'TOKEN,OTHER'}}"
        for key in ("options", "tick_options")
        for name in ("TOKEN", "OTHER")
    ]
    export = {"export": "TOKEN,OTHER"}
    mended = changed(options, options=export, tick_options=export)
    assert SlurmCluster(mended).problems(TaskResources()) == []
    assert SlurmCluster(changed(options, inherited=())).problems(TaskResources()) == []


@pytest.mark.parametrize("export", ["ALL", "all,X=1", "OTHER,TOKEN=mine", None])
def test_what_is_handed_on_is_no_problem(programs: Programs, export: str | None) -> None:
    put_site(programs)
    programs.put("sbatch", "exit 0")
    options = SlurmOptions(inherited=("TOKEN",), options={"export": export})
    assert SlurmCluster(options).problems(TaskResources()) == []


def test_what_the_user_s_own_options_ask_for_is_left_to_slurm(programs: Programs) -> None:
    put_site(programs)
    programs.put("sbatch", "exit 0")
    options = SlurmOptions(options={"gres": None, "mem-per-gpu": "1G"})
    assert SlurmCluster(options).problems(TaskResources(gpus=8, mem_mib=9999999)) == []


def test_refusal_that_only_slurm_knows_is_a_problem_in_its_own_words(
    cluster: SlurmCluster, programs: Programs
) -> None:
    put_site(programs)
    words = f"{REFUSED} Invalid account or account/partition combination specified"
    programs.put("sbatch", f"echo 'sbatch: error: ask your PI' >&2; echo '{words}' >&2; exit 1")
    assert cluster.problems(TaskResources()) == [
        f"cluster: Slurm would never take such a task: sbatch: error: ask your PI {words}"
    ]


@pytest.mark.parametrize(
    "words",
    [
        f"sbatch: error: AssocMaxSubmitJobLimit\n{REFUSED} Job violates accounting/QOS policy",
        f"{REFUSED} Resource temporarily unavailable",
        f"{REFUSED} Unable to contact slurm controller (connect failure)",
        f"{REFUSED} Socket timed out on send/recv operation",
        f"{REFUSED} Required node not available (down, drained or reserved)",
        f"{REFUSED} Requested nodes are busy",
    ],
)
def test_refusal_of_the_moment_is_no_problem(cluster: SlurmCluster, programs: Programs, words: str) -> None:
    put_site(programs)
    programs.put("sbatch", f"cat >&2 <<'EOF'\n{words}\nEOF\nexit 1")
    assert cluster.problems(TaskResources()) == []


@pytest.mark.parametrize(
    "body", ["sleep 60", "kill -9 $$", "echo 'Slurm job queue full, sleeping and retrying' >&2; sleep 60"]
)
def test_trial_that_does_not_end_says_nothing(
    cluster: SlurmCluster, programs: Programs, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr("hpcsweep.cluster.slurm.programs.TEST_S", 0.5)
    put_site(programs)
    programs.put("sbatch", body)
    assert cluster.problems(TaskResources()) == []


@pytest.mark.parametrize(("state", "lines"), [("drained", 0), ("mixed", 1)])
def test_configuration_that_slurm_misses_counts_only_while_all_nodes_are_up(
    cluster: SlurmCluster, programs: Programs, state: str, lines: int
) -> None:
    # Of nodes that are down Slurm says the same.
    put_site(programs)
    programs.rows((*NODES[0][:6], state), *NODES[1:], program="sinfo")
    programs.put("sbatch", f"echo '{REFUSED} Requested node configuration is not available' >&2; exit 1")
    assert len(cluster.problems(TaskResources())) == lines


# --------------------------------------------------------------------------- nodes that may be used


def test_nodes_that_may_be_used_are_all_others_left_out(programs: Programs, batch: Batch) -> None:
    put_site(programs)
    one = SlurmCluster(SlurmOptions(nodelist="g1")).script(batch)
    assert "#SBATCH --nodelist=g1\n" in one
    assert "--exclude" not in one
    assert programs.calls() == [], "one node needs no translation"
    both = SlurmCluster(SlurmOptions(nodelist="g[1-2]")).script(batch)
    assert "--nodelist" not in both
    assert "--exclude" not in both, "those are all that there are"
    some = SlurmCluster(SlurmOptions(nodelist="g2,g[7-9]", exclude="g9")).script(batch)
    assert "--nodelist" not in some
    assert "#SBATCH --exclude=g9,g1\n" in some
    assert "#SBATCH --nodes=1\n" in some


def test_nodes_that_the_partition_does_not_have_are_named(programs: Programs) -> None:
    put_site(programs)
    assert SlurmCluster(SlurmOptions(nodelist="x[1-2]")).problems(TaskResources()) == [
        "cluster.nodelist: partition gpu has none of these nodes, got x[1-2]"
    ]


def test_nodes_that_slurm_does_not_show_cannot_be_chosen(programs: Programs, batch: Batch) -> None:
    put_site(programs)
    programs.put("sinfo", "exit 0")
    with pytest.raises(SpecError, match=r"^cluster\.nodelist: Slurm does not show here which nodes"):
        SlurmCluster(SlurmOptions(nodelist="g[1-2]")).script(batch)


SETS = "your environment sets"


def test_refusal_names_the_variables_that_may_be_at_fault(
    cluster: SlurmCluster, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_site(programs)
    words = f"{REFUSED} Invalid feature specification"
    programs.put("sbatch", f"echo '{words}' >&2; exit 1")
    monkeypatch.setenv("SBATCH_CONSTRAINT", "fast")
    monkeypatch.setenv("SBATCH_GPUS", "8")
    assert cluster.problems(TaskResources()) == [
        f"cluster: Slurm would never take such a task: {words}; {SETS} SBATCH_CONSTRAINT=fast"
    ]
    monkeypatch.setenv("SBATCH_PARTITION", "nowhere")
    assert SlurmCluster(SlurmOptions()).problems(TaskResources()) == [
        f"cluster.partition: there is no nowhere; there are gpu, cpu; {SETS} SBATCH_PARTITION=nowhere"
    ]
