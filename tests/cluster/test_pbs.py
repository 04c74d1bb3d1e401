"""PBS, with stand-ins for its programs on the PATH that really run the subjobs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpcsweep.cli import app
from hpcsweep.cluster.backend import SweepRequest, find_backend
from hpcsweep.cluster.pbs.backend import PbsSection
from hpcsweep.cluster.pbs.cluster import JobId, PbsCluster, job_id, seconds_of, shown_tasks, task_state
from hpcsweep.core.cluster_protocol import Batch, BlockKind, Cluster, Limits, Phase, TaskResources, TaskState
from hpcsweep.core.events import BatchPlanned
from hpcsweep.core.state import SweepState
from hpcsweep.errors import ClusterUnavailable, SpecError, SubmitLimited, SubmitRefused, SubmitUncertain
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from hpcsweep.testing.clusters import ClusterBench, ClusterConformance

PROGRAMS = ("qsub", "qstat", "qselect", "qdel", "qalter")


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the stand-ins on the PATH; the folder of these."""
    bin_, state = folder / "bin", folder / "pbs"
    bin_.mkdir()
    state.mkdir()
    fake = Path(__file__).parent / "fake_pbs.py"
    for name in PROGRAMS:
        path = bin_ / name
        path.write_text(f'#!/bin/bash\nFAKE_PBS={state} exec {sys.executable} {fake} {name} "$@"\n')
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:/usr/bin:/bin")
    return bin_


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return install(tmp_path, monkeypatch)


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    folder = tmp_path / "batches" / "s-1"
    folder.mkdir(parents=True)
    return Batch("s-1", folder, 4, 2, TaskResources(gpus=1, cpus=8, mem_mib=4096, time_s=5400))


class TestConformance(ClusterConformance):
    @pytest.fixture(autouse=True)
    def _programs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        install(tmp_path, monkeypatch)

    def connect(self, sweep: SweepRequest) -> Cluster:
        return PbsCluster(sweep, PbsSection())

    def test_the_throttle_can_be_raised(self, bench: ClusterBench) -> None:
        live = bench.submit("s-raise-1", tasks=3, throttle=1, waits=True)
        bench.wait(live, lambda phases: phases.count(Phase.RUNNING) == 1)
        bench.cluster.throttle(live, 3)
        bench.wait(live, lambda phases: phases.count(Phase.RUNNING) == 3)
        (bench.root / "go").touch()
        bench.wait(live, lambda phases: phases == [Phase.COMPLETED] * 3)


def test_the_script_asks_for_what_a_task_needs(batch: Batch) -> None:
    sweep = SweepRequest(
        python="/env/bin/python", workdir="/w", environment={"A": "b c", "TOKEN": None}, signal_s=60
    )
    options = PbsSection(queue="gpu", project="p1", directives=("-l place=excl",))
    cluster = PbsCluster(sweep, options)
    text = cluster.script(batch)
    logs = batch.folder / "logs"
    header = [line for line in text.splitlines() if line.startswith("#PBS")]
    assert header == [
        "#PBS -N s-1",
        "#PBS -l select=1:ncpus=8:ngpus=1:mem=4096mb",
        "#PBS -r n",
        "#PBS -j oe",
        "#PBS -k oed",
        f"#PBS -o {logs}/^array_index^.log",
        "#PBS -l walltime=01:30:00",
        "#PBS -J 0-3%2",
        "#PBS -q gpu",
        "#PBS -P p1",
        "#PBS -v TOKEN",
        "#PBS -l place=excl",
    ]
    assert text.splitlines()[-2:] == [
        "cd /w || exit 1",
        f"exec /env/bin/python -P -m hpcsweep.cluster.pbs.task 5340 {batch.folder}",
    ]
    assert "export A='b c'" in text


def test_a_folder_with_a_blank_is_refused() -> None:
    batch = Batch("s-1", Path("/r/my sweep/batches/s-1"), 2, 2, TaskResources())
    with pytest.raises(SpecError, match="a folder with a blank in its name"):
        PbsCluster(SweepRequest(), PbsSection()).script(batch)


def test_a_directive_that_is_no_option_is_a_problem() -> None:
    cluster = PbsCluster(SweepRequest(), PbsSection(directives=("place=excl",)))
    assert cluster.problems(TaskResources()) == [
        "cluster.directives: expected options of qsub such as '-l place=excl', got 'place=excl'"
    ]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("echo 'qsub: Unknown queue' >&2; exit 170", SubmitRefused),
        ("echo 'qsub: would exceed queue max user jobs' >&2; exit 1", SubmitLimited),
        ("echo 'qsub: cannot connect to server fake' >&2; exit 1", SubmitUncertain),
        ("echo hello", SubmitUncertain),
    ],
)
def test_a_refusal_is_told_from_a_reply_that_is_lost(
    programs: Path, batch: Batch, body: str, error: type[Exception]
) -> None:
    (programs / "qsub").write_text(f"#!/bin/bash\n{body}\n")
    with pytest.raises(error):
        PbsCluster(SweepRequest(), PbsSection()).submit(batch)
    assert (batch.folder / "script.sbatch").exists()


def test_a_qstat_that_fails_says_nothing(programs: Path, batch: Batch) -> None:
    cluster = PbsCluster(SweepRequest(), PbsSection())
    bench = ClusterBench(batch.folder.parent.parent, cluster, timeout_s=1, advance=lambda _: None)
    live = bench.submit("s-2", tasks=1)
    (programs / "qstat").write_text("#!/bin/bash\necho 'qstat: cannot connect to server' >&2; exit 2\n")
    assert cluster.poll([live]) is None
    assert cluster.poll_error == "qstat: qstat: cannot connect to server"


def test_limits_are_those_of_the_server(programs: Path) -> None:
    assert PbsCluster(SweepRequest(), PbsSection()).limits() == Limits(array_tasks=50)


@pytest.mark.parametrize(
    ("job", "state"),
    [
        (
            {"job_state": "Q", "comment": "Not Running: no cpus"},
            TaskState(Phase.PENDING, "Not Running: no cpus"),
        ),
        ({"job_state": "H"}, TaskState(Phase.PENDING, block=BlockKind.BLOCKED)),
        (
            {
                "job_state": "R",
                "exec_host": "n1/0*4",
                "Resource_List": {"ngpus": 2},
                "resources_used": {"walltime": "00:01:05"},
            },
            TaskState(Phase.RUNNING, node="n1", seconds=65.0, gpus=2),
        ),
        ({"job_state": "F", "Exit_status": 0}, TaskState(Phase.COMPLETED)),
        ({"job_state": "X", "Exit_status": 1}, TaskState(Phase.FAILED)),
        ({"job_state": "F", "Exit_status": 271}, TaskState(Phase.CANCELLED)),
        ({"job_state": "F", "Exit_status": -29}, TaskState(Phase.TIMEOUT)),
        ({"job_state": "F", "Exit_status": -27}, TaskState(Phase.OUT_OF_MEMORY)),
        ({"job_state": "F"}, TaskState(Phase.CANCELLED)),
        ({"job_state": "Z"}, TaskState(Phase.UNKNOWN)),
    ],
)
def test_states_are_read_as_phases(job: dict[str, object], state: TaskState) -> None:
    assert task_state(job) == state


def test_ids_are_read() -> None:
    assert job_id("12[3].pbs") == JobId("12", 3)
    assert job_id("12[].pbs") == JobId("12", None)
    assert job_id("12.pbs") == JobId("12", None)
    assert job_id("Job id") is None
    assert seconds_of("unknown") is None


def test_output_that_is_no_json_is_no_absence() -> None:
    with pytest.raises(ClusterUnavailable, match="something else than JSON"):
        list(shown_tasks("Job id  Name"))
    assert list(shown_tasks("")) == []


def test_the_spec_may_ask_for_pbs_by_its_keys() -> None:
    backend = find_backend("pbs")
    assert set(backend.options.model_fields) == {"queue", "project", "account", "directives", "template"}
    assert not backend.automatic


def test_an_example_sweep_runs_to_its_end(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    example = Path(__file__).parents[2] / "sweeps" / "command.yaml"
    argv = ["launch", str(example), "--results", "results", "--cluster", "pbs", "--quiet"]
    sets = ("cluster.poll=0.2", "cluster.grace=5", "scheduler.max_resource=3")
    done = CliRunner().invoke(app, [*argv, *(word for each in sets for word in ("--set", each))])
    assert done.exit_code == 0, done.output
    events = read_journal(Layout(tmp_path / "results")).events
    assert SweepState.replay(events).ended is not None
    assert {event.cluster for event in events if isinstance(event, BatchPlanned)} == {"pbs"}


def test_plan_shows_the_script(programs: Path, tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "sweeps" / "command.yaml"
    done = CliRunner().invoke(app, ["plan", str(example), "--cluster", "pbs"])
    assert done.exit_code == 0, done.output
    assert "on PBS (as asked for)" in done.output
    assert "#PBS -l select=1:ncpus=" in done.output


def test_doctor_says_whether_the_server_answers(programs: Path, tmp_path: Path) -> None:
    (finding,) = find_backend("pbs").check_site(PbsSection())
    assert str(finding) == "good     PBS: the server answers (fake)"


@pytest.mark.parametrize("reuse", ["true", "false"])
def test_a_sweep_of_several_shapes_runs_to_its_end(programs: Path, tmp_path: Path, reuse: str) -> None:
    spec, root = tmp_path / "shapes.yaml", tmp_path / "results"
    spec.write_text(
        f"""\
name: shapes
train: {{command: 'echo "loss={{width}}.{{resource}}"', metrics: 'loss=(?P<loss>[0-9.]+)'}}
objective: {{metric: loss}}
space: {{width: {{type: choice, values: [1, 2, 4]}}}}
searcher: grid
scheduler: {{name: fifo, max_resource: 1}}
resources: {{cpus: "width", mem: "64 * width", time: {{base: 2m, per_unit: 5m}}}}
cluster: {{name: pbs, max_tasks: 2, reuse: {reuse}, poll: 0.2, grace: 5, settle: 5}}
"""
    )
    done = CliRunner().invoke(app, ["launch", str(spec), "--results", str(root), "--quiet"])
    assert done.exit_code == 0, done.output
    events = read_journal(Layout(root)).events
    planned = [event for event in events if isinstance(event, BatchPlanned)]
    shapes = {(each.cpus, each.mem_mib) for each in planned}
    assert shapes == {(1, 64), (2, 128), (4, 256)}
    state = SweepState.replay(events)
    assert [run.status.value for trial in state.trials for run in trial.runs] == ["completed"] * 3
