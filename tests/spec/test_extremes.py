"""Specs that are large, deep, or hold what nothing can carry: refused in words, or they work."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpcsweep.cli import app
from hpcsweep.core.space import Choice, Float, Parameter, Space
from hpcsweep.errors import SpecError
from hpcsweep.spec import SweepSpec, load_spec

BASE = """\
train: {command: "{python} train.py", check: false}
objective: {metric: loss}
space: {x: {type: float, low: 0, high: 1}}
scheduler: {name: hyperband, max_resource: 9}
"""


def spec_of(folder: Path, *overrides: str, text: str = BASE) -> SweepSpec:
    path = folder / "s.yaml"
    path.write_text(text, encoding="utf-8")
    return load_spec(path, overrides)


BOMB = "".join(f"  b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 10)}]\n" for n in range(1, 9))
LINES = {
    "train: {command: x}\nobjective: {metric: loss}\nspace:\n  b0: &b0 [l, l, l, l, l, l, l, l, l, l]\n"
    + BOMB: "space.b4[",
    BASE + "enqueue: &e [{x: 1}, *e]\n": "enqueue[1]: must not contain itself, got the alias *e",
    BASE + "cluster: {options: &o {gres: *o}}\n": "cluster.options.gres: must not contain itself",
    BASE + f"constraints: {'[' * 60}{']' * 60}\n": "must be nested at most 50 deep",
    BASE + f"enqueue: {'[' * 5000}": "must be nested at most 50 deep",
    BASE + f"budget: {{trials: {'9' * 500}}}\n": "must have at most 400 digits, got 500; quote it",
    BASE + f"name: {'n' * 70_000}\n": "name: must be at most 65536 characters, got 70000; put it into a file",
    BASE + 'cluster: {setup: "a\\0b"}\n': "cluster.setup: must have no zero byte",
    BASE + 'cluster: {environment: {A: "\\ud83d"}}\n': "cluster.environment.A: must be Unicode text",
    BASE + f"enqueue: [{', '.join(['1'] * 60_000)}]\n": "enqueue[49",
    BASE + f"enqueue: [{', '.join(['{x: 0.123456789}'] * 100_000)}]\n": "must be at most 1048576 bytes",
    BASE + "name: a\nname: b\n": "key 'name' must be given once, got it twice",
}


@pytest.mark.parametrize(("text", "words"), LINES.items(), ids=range(len(LINES)))
def test_yaml_that_no_spec_can_hold_is_refused_with_its_key_path(
    tmp_path: Path, text: str, words: str
) -> None:
    began = time.process_time()
    with pytest.raises(SpecError) as caught:
        spec_of(tmp_path, text=text)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 2000
    assert time.process_time() - began < 60  # not exponential


VALUES = {
    "scheduler.max_resource=1e12": "at most 14348906 with min_resource 1 and eta 3, got 1000000000000",
    "scheduler.max_resource=1e308": "must be at most 1000000000000000, got an integer of about 309",
    "scheduler={name: halving, max_resource: 8, prefact: 1e300}": "prefact: must leave at most 10000000",
    "scheduler={name: halving, max_resource: 8, prefact: .inf}": "scheduler.prefact: must be a finite number",
    "scheduler={name: halving, max_resource: 1e14}": "max_resource: must leave at most 10000000 trials",
    "scheduler={name: pbt, population: 1e12, interval: 1, max_resource: 4}": "must be at most 10000",
    "scheduler={name: pbt, population: 4, interval: 1, max_resource: 1e12}": "must be at least 10000000",
    "scheduler.iterations=1e12": "scheduler.iterations: must be at most 10000, got 1000000000000",
    "scheduler={name: asha, max_resource: 9, brackets: 1e12}": "scheduler.brackets: must be at most 3",
    "repeats=1000000000": "repeats: must be at most 1000, got 1000000000; the mean of a few",
    "searcher={name: grid, num_points: 1e12}": "searcher.num_points: ",
    "searcher={name: grid, num_points: 1000000000000}": "searcher.num_points: must be at most 100000",
    "searcher={name: grid, num_points: {x: 1000000000000}}": "searcher.num_points.x: must be at most 100000",
    "searcher={name: tpe, candidates: 1000000000000}": "searcher.candidates: must be at most 100000",
    "searcher.seed=100000000000000000000": "searcher.seed: must be at most 1000000000000000",
    "budget.time=1000000000000s": "budget.time: must be at most 3650d, got '1000000000000s'",
    "budget.gpu_hours=1e308": "budget.gpu_hours: must be at most 1e+15, got 1e+308",
    "resources.mem=99999999999999999999T": "resources.mem: must be at most 1048576T",
    "resources.gpus=1e12": "resources.gpus: must be at most 10000, got 1000000000000",
    "cluster.poll=0": "cluster.poll: must be >= 0.01, got 0",
    "cluster.max_tasks=1e12": "cluster.max_tasks: must be at most 1000000",
    "cluster.concurrent=1e12": "cluster.concurrent: must be at most 10000",
    "cluster.simulated.nodes=1e12": "cluster.simulated.nodes: must be at most 10000",
    "cluster.simulated={nodes: 10000, gpus: 10000}": "cluster.simulated.nodes: must be such that nodes times",
    "cluster.simulated.preemptions=1e300": "cluster.simulated.preemptions: must be at most 3600",
    "cluster.simulated.wait=1e300": "cluster.simulated.wait: must be at most 3650d",
    f"space.y=[{10**30}]": "space.y: must be an integer of 64 bits",
    "space.y=[.nan]": "space.y: must be finite",
    "space.y={type: float, low: -1e308, high: 1e308}": "space.y.high: must be less than 1.8e308 above low",
    "space.y={type: float, low: 0, high: 1, step: 1e-300}": "step: must leave at most 10000000 values",
    f"train.metrics='{'(' * 30_000}'": "train.metrics: must be a regular expression",
    "train.metrics='a{99999999999999999999}'": "train.metrics: must be a regular expression",
}


@pytest.mark.parametrize(("override", "words"), VALUES.items(), ids=[text[:50] for text in VALUES])
def test_absurd_counts_are_refused_with_the_maximum(tmp_path: Path, override: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec_of(tmp_path, override)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_of_thousands_of_problems_the_first_30_are_reported(tmp_path: Path) -> None:
    text = BASE + "".join(f"key{n}: 1\n" for n in range(5000))
    with pytest.raises(SpecError) as caught:
        spec_of(tmp_path, text=text)
    assert len(caught.value.problems) == 31
    assert caught.value.problems[-1].endswith("and perhaps more; these are the first 30")


CHAIN = Space(
    (
        Parameter("p0", Choice((0, 1))),
        *(Parameter(f"p{n}", Choice((0, 1)), {f"p{n - 1}": (1,)}) for n in range(1, 1500)),
    )
)


def test_parameters_in_a_chain_of_conditions_are_sampled_counted_and_listed() -> None:
    assert CHAIN.size == 1501
    deepest = max(CHAIN.grid(), key=lambda config: sum(config.values()))
    assert deepest == {f"p{n}": 1 for n in range(1500)}
    assert sum(1 for _ in CHAIN.grid()) == 1501
    assert CHAIN.check(deepest) == []


def test_a_cycle_of_thousands_of_conditions_is_reported_once(tmp_path: Path) -> None:
    chain = "".join(
        f"  p{n}: {{type: choice, values: [0, 1], when: {{p{(n - 1) % 1500}: 1}}}}\n" for n in range(1500)
    )
    text = f"train: {{command: x}}\nobjective: {{metric: loss}}\nspace:\n{chain}"
    with pytest.raises(SpecError) as caught:
        spec_of(tmp_path, text=text)
    assert [line.partition(": p0 ->")[0].rpartition(": ")[2] for line in caught.value.problems] == [
        "must not form a cycle"
    ]


def test_a_space_with_too_entangled_conditions_has_no_size() -> None:
    many = tuple(Parameter(f"p{n}", Choice((0, 1, 2))) for n in range(60))
    child = Parameter("child", Choice((0, 1)), {f"p{n}": (1,) for n in range(60)})
    assert Space((*many, child)).size is None


def test_a_stepped_domain_of_millions_is_iterated_without_a_list() -> None:
    domain = Float(0.0, 1.0, step=1e-7)
    points = domain.points(None)
    assert (len(points), points[0], points[3], points[-1]) == (10_000_001, 0.0, 3e-7, 1.0)


VERBS = [["plan"], ["launch"], ["simulate"], ["doctor", "--no-canary"]]
OUTSIDE = {
    "train.workdir=/nonexistent": "train.workdir: must be a folder in which training code can run, /non",
    "warm_start=[/etc, results/none]": "warm_start[0]: ",
}


@pytest.mark.parametrize("verb", VERBS, ids=[verb[0] for verb in VERBS])
@pytest.mark.parametrize(("override", "words"), OUTSIDE.items(), ids=["workdir", "warm_start"])
def test_every_verb_makes_the_same_checks_and_creates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: list[str], override: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(BASE)
    result = CliRunner().invoke(app, [*verb, "s.yaml", "--set", override, "--set", "cluster.name=local"])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"hpcsweep: s.yaml: {words}")
    assert "Traceback" not in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


#: Runs a command from a small process: a child that a large one forks counts the pages of its parent.
MEASURED = """
import resource, subprocess, sys
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
status = subprocess.run(sys.argv[1:], stderr=subprocess.STDOUT).returncode
print(status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_a_rung_of_millions_starts_within_bounded_memory(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(BASE)
    (tmp_path / "train.py").write_text("print('loss=1')\n")
    sets = ["scheduler.max_resource=10000000", "cluster.name=local", "searcher=random"]
    command = [sys.executable, "-m", "hpcsweep", "launch", "s.yaml", "--once", "-q"]
    launch = subprocess.run(
        [sys.executable, "-c", MEASURED, *command, *(word for text in sets for word in ("--set", text))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert launch.stdout.startswith("0 runs completed, 1,000 under way")
    status, peak_kib = launch.stdout.splitlines()[-1].split()
    assert status == "3"
    assert int(peak_kib) < 300 * 1024
    stop = subprocess.run(
        [sys.executable, "-m", "hpcsweep", "stop", "results/s"], cwd=tmp_path, timeout=300, check=False
    )
    assert stop.returncode == 0


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\x1b[31m", "a\udcff"])
def test_a_results_folder_with_a_name_that_no_script_can_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(BASE)
    result = CliRunner().invoke(app, ["launch", "s.yaml", "--results", name, "--set", "cluster.name=local"])
    assert result.exit_code == 2
    assert "no batch script and no log can carry the " in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


def test_a_locale_without_utf8_runs_a_sweep_with_names_beyond_ascii(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "größe"
    folder.mkdir()
    (folder / "ä.yaml").write_text(
        "name: a\ntrain: {function: 'tränen.py:train'}\nobjective: {metric: loss}\n"
        "space: {x: [größer, kleiner]}\nscheduler: fifo\nsearcher: grid\ncluster: {name: local, slots: 2}\n",
        encoding="utf-8",
    )
    (folder / "tränen.py").write_text(
        "def train(trial):\n    print(ascii(trial.config['x']))\n    return len(trial.config['x'])\n",
        encoding="utf-8",
    )
    for key, value in (("PYTHONUTF8", "0"), ("LC_ALL", "C")):
        monkeypatch.setenv(key, value)

    def run(*words: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "hpcsweep", *words]
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=300, check=False)
        assert b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
        return done.returncode, done.stdout.decode(errors="replace")

    assert run("launch", "ä.yaml", "--results", "ö", "-q")[0] == 0
    assert "  x: größer\n" in run("best", "ö")[1]
    assert run("status", "ö")[0] == 0
    assert r"'gr\xf6\xdfer'" in run("logs", "ö", "0")[1]
    assert run("export", "ö", "--output", "ü.csv")[0] == 0
    assert "größer" in (folder / "ü.csv").read_text(encoding="utf-8")
