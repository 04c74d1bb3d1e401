"""Options of sbatch: what is the user's to set, in whatever way it is written."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from hpcsweep.cluster.slurm.cluster import SlurmCluster
from hpcsweep.cluster.slurm.options import (
    OptionValue,
    SlurmOptions,
    canonical,
    gpu_problems,
    gpus_asked,
    script_lines,
    takes_whole_nodes,
)
from hpcsweep.cluster.slurm.programs import overriding_variables
from hpcsweep.core.cluster_protocol import Batch, TaskResources
from hpcsweep.errors import SpecError

from .programs import Programs, changed

ARRAY = "belongs to hpcsweep; see cluster.max_gpus"
GPUS = "belongs to resources.gpus and cluster.gpu_type, by which max_gpus and budgets are counted"
FILES = "belongs to hpcsweep, which reads the logs from its own folder"
NAME = "expected the name of one option, and its value behind the colon, as in `comment: sweep`"
ONE = "a task is one process on each node; use resources.nodes, gpus and cpus for a larger one"


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("array", "0-5", ARRAY),
        ("--array", "0-5", ARRAY),
        ("Array", "0-5", ARRAY),
        ("ARRAY", "0-5", ARRAY),
        ("arra", "0-5%6", f"is short for array, which {ARRAY}"),
        ("ar", "0-5", f"is short for array, which {ARRAY}"),
        ("a", "0-5", f"is short for array, which {ARRAY}"),
        ("-a", "0-5", f"is short for array, which {ARRAY}"),
        ("J", "x", "is short for job-name, which belongs to hpcsweep, which finds its batches by it"),
        ("job_nam", "x", "is short for job-name, which belongs to hpcsweep, which finds its batches by it"),
        ("N", 2, f"is short for nodes, which must be 1: {ONE}"),
        ("nodes", 2, f"must be 1: {ONE}"),
        ("nod", "2-4", "may stand for nodefile or nodelist or nodes: write it in full"),
        ("n", 8, f"is short for ntasks, which must be 1: {ONE}"),
        ("ntasks_per_node", 4, f"must be 1: {ONE}"),
        ("tasks-per-node", 4, f"must be 1: {ONE}"),
        ("o", "x.log", f"is short for output, which {FILES}"),
        ("err", "x.log", f"is short for error, which {FILES}"),
        ("D", "/tmp", "is short for chdir, which belongs to train.workdir"),
        ("requeue", False, "belongs to hpcsweep, which requeues by the budget"),
        ("no-req", True, "is short for no-requeue, which belongs to hpcsweep, which requeues by the budget"),
        ("gpus-per-socket", 1, GPUS),
        ("c", 4, "is short for cpus-per-task, which belongs to resources.cpus"),
        ("cpus-per-gpu", 4, "belongs to resources.cpus"),
        ("mem", "4G", "belongs to resources.mem"),
        ("hetjob", True, ONE),
        ("gres=gpu:4", True, NAME),
        ("comment=x --array", "0-5", NAME),
        ("mail", "END", "may stand for mail-type or mail-user: write it in full"),
        ("Z", True, "sbatch has no such option"),
    ],
)
def test_what_belongs_to_hpcsweep_is_refused_in_every_way_of_writing_it(
    name: str, value: OptionValue, problem: str
) -> None:
    assert canonical({name: value}, key="cluster.options") == ({}, [f"cluster.options.{name}: {problem}"])


@pytest.mark.parametrize(
    "name", ["array", "job-name", "output", "error", "chdir", "requeue", "dependency", "wait"]
)
def test_every_beginning_of_a_refused_name_is_refused_or_ambiguous(name: str) -> None:
    for length in range(1, len(name) + 1):
        values, problems = canonical({"--" + name[:length]: "x"}, key="k")
        assert (values, len(problems)) == ({}, 1) or length == 1, name[:length]


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"comment": "x"}, {"comment": "x"}),
        ({"--mail_type": "END", "L": "matlab:1"}, {"mail-type": "END", "licenses": "matlab:1"}),
        ({"reserv": "maint"}, {"reservation": "maint"}),
        ({"nodes": 1, "ntasks": "1"}, {"nodes": 1, "ntasks": "1"}),
        ({"exclusive": True}, {"exclusive": True}),
        ({"gres": None}, {"gres": None}),
        ({"of-a-plugin-of-the-site": 3}, {"of-a-plugin-of-the-site": 3}),
        ({"mem_per_cpu": "2G"}, {"mem-per-cpu": "2G"}),
    ],
)
def test_what_is_left_to_the_user_is_taken_by_its_long_name(
    given: dict[str, OptionValue], values: dict[str, OptionValue]
) -> None:
    assert canonical(given, key="cluster.options") == (values, [])


def test_option_that_is_given_twice_is_refused() -> None:
    _, problems = canonical({"comment": "x", "comm": "y"}, key="k")
    assert problems == ["k.comm: is given twice, the other time in another way of writing it"]


@pytest.mark.parametrize(
    ("name", "value", "refused"),
    [
        ("cpus-per-task", 2, False),
        ("mem", "2G", False),
        ("time", 30, False),
        ("gres", "lustre:1", False),
        ("gres", "gpu:1", True),
        ("G", 1, True),
        ("exclusive", True, True),
        ("nodes", 2, True),
        ("arra", "0-3", True),
        ("begin", "now", True),
    ],
)
def test_job_that_ticks_may_ask_for_cpus_and_time_but_for_no_gpu(
    name: str, value: OptionValue, refused: bool
) -> None:
    _, problems = canonical({name: value}, key="cluster.tick_options", ticks=True)
    assert bool(problems) is refused


@pytest.mark.parametrize(
    ("name", "value", "gpus"),
    [
        ("gres", "gpu:4", 4),
        ("gres", "gpu", 1),
        ("gres", "gpu:a100", 1),
        ("gres", "gpu:a100:2,lustre:1", 2),
        ("gres", "lustre:1", 0),
        ("gres", "gpu:a100:1,gpu:v100:1", 2),
        ("gpus", 3, 3),
        ("gpus", "a100:2", 2),
        ("gpus-per-node", "a100:2,v100:1", 3),
        ("tres-per-task", "gres/gpu:2", 2),
        ("tres-per-task", "cpu=4,gres/gpu=1", 1),
        ("gpus", True, None),
        ("gpus", "all", None),
    ],
)
def test_gpus_are_counted_in_every_form(name: str, value: OptionValue, gpus: int | None) -> None:
    assert gpus_asked(name, value) == gpus


def test_gpus_in_another_form_must_be_as_many_as_resources_gpus() -> None:
    two = TaskResources(gpus=2, nodes=3)
    assert gpu_problems({"gpus-per-node": 2, "gres": None}, two, where="k.{}".format) == []
    assert gpu_problems({"gpus": 6}, two, where="k.{}".format) == []  # on all nodes together
    problem = f"k.gres: {GPUS}: it must ask for as many, 1, got 'gpu:4'"
    assert gpu_problems({"gres": "gpu:4"}, TaskResources(gpus=1), where="k.{}".format) == [problem]


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({}, ""),
        ({"exclusive": True}, "exclusive"),
        ({"exclusive": ""}, "exclusive"),
        ({"exclusive": "user"}, ""),
        ({"exclusive": False}, ""),
        ({"core-spec": 1}, "core-spec"),
    ],
)
def test_options_that_take_whole_nodes(options: dict[str, OptionValue], option: str) -> None:
    assert takes_whole_nodes(options) == option


def test_lines_of_a_script_are_read_as_sbatch_reads_them() -> None:
    text = """#!/bin/bash
#SBATCH --comment="a b" --exclusive  # why
#SBATCH -N2 -n 4 -HO
#SBATCH --gres gpu:4
# SBATCH --array=0
#SBATCH hetjob

echo
#SBATCH --array=0
"""
    assert [(line.number, line.name, line.value) for line in script_lines(text)] == [
        (2, "comment", "a b"),
        (2, "exclusive", True),
        (3, "N", "2"),
        (3, "n", "4"),
        (3, "H", True),
        (3, "O", True),
        (4, "gres", "gpu:4"),
        (6, "hetjob", True),
    ]


# --------------------------------------------------------------------------- in a cluster


def cluster_with(folder: Path, lines: str, **options: object) -> SlurmCluster:
    (folder / "t.sbatch").write_text(f"#!/bin/bash\n{{{{ header }}}}\n{lines}\n{{{{ command }}}}\n")
    return SlurmCluster(changed(SlurmOptions(template="t.sbatch", spec_dir=folder), **options))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("#SBATCH --arra=0-5", f"is short for array, which {ARRAY}"),
        ("#SBATCH -N 2", f"is short for nodes, which must be 1: {ONE}"),
        ("#SBATCH --output=x.log", FILES),
        ("#SBATCH hetjob", ONE),
        ("#PBS -t 0-5", None),
    ],
)
def test_template_s_own_lines_are_judged_alike(
    programs: Programs, tmp_path: Path, line: str, problem: str | None
) -> None:
    with pytest.raises(SpecError) as error:
        cluster_with(tmp_path, line)
    expected = f"{line}: {problem}" if problem else "sbatch reads #PBS lines as well: remove it"
    assert error.value.problems == (f"{tmp_path}/t.sbatch:3: {expected}",)


def test_gpus_of_the_template_are_counted_against_resources_gpus(
    programs: Programs, tmp_path: Path, batch: Batch
) -> None:
    cluster = cluster_with(tmp_path, "#SBATCH --gpus-per-node=4")
    (problem,) = cluster.problems(TaskResources(gpus=1))
    assert problem.startswith(f"{tmp_path}/t.sbatch: --gpus-per-node: belongs to resources.gpus")
    options = SlurmOptions(options={"G": 4})
    assert (
        SlurmCluster(options)
        .problems(TaskResources(gpus=1))[0]
        .startswith("cluster.options.gpus: belongs to")
    )
    # A spec may be changed while its sweep goes on.
    with pytest.raises(SpecError, match=r"t\.sbatch: --gpus-per-node: "):
        cluster.submit(batch)
    assert programs.calls("sbatch") == []


def test_job_that_ticks_takes_no_node_of_its_own_by_the_template(
    programs: Programs, tmp_path: Path, batch: Batch
) -> None:
    cluster = cluster_with(tmp_path, "#SBATCH --exclusive\n#SBATCH --licenses=x")
    assert "#SBATCH --exclusive\n" in cluster.script(batch)
    script = cluster.tick_script("tick", tmp_path)
    assert "--exclusive" not in script
    assert "#SBATCH --licenses=x\n" in script


def test_variables_that_could_change_what_a_task_holds_are_kept_out(
    cluster: SlurmCluster,
    programs: Programs,
    batch: Batch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changing = (
        "GPUS GPUS_PER_NODE GPUS_PER_SOCKET GPUS_PER_TASK CPUS_PER_GPU GRES EXCLUSIVE ARRAY_INX OVERCOMMIT "
        "CORE_SPEC THREAD_SPEC MEM_PER_GPU TRES_PER_TASK JOB_NAME OUTPUT REQUEUE A_NEW_ONE"
    )
    for name in [*changing.split(), "RESERVATION", "WCKEY"]:
        monkeypatch.setenv(f"SBATCH_{name}", "1")
    programs.put("sbatch", f"env >'{tmp_path}/env'; echo 71")
    cluster.submit(msgspec.structs.replace(batch, shape=TaskResources()))
    seen = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert {name for name in seen if name.startswith("SBATCH_")} == {"SBATCH_RESERVATION", "SBATCH_WCKEY"}
    assert overriding_variables() == {f"SBATCH_{name}" for name in changing.split()}
