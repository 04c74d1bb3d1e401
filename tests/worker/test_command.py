"""Commands get their values unchanged, whatever is in them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from hpcsweep.core.events import Interruption, Outcome
from hpcsweep.worker.command import parameter_variable

if TYPE_CHECKING:
    from tests.worker.conftest import Bench

HOSTILE = [
    "a b",
    "it's",
    'say "hi"',
    "$HOME `id` $(id)",
    "one\ntwo",
    "*",
    "{lr}",
    "\\",
    "",
    "-x",
    "é",
    "; exit 3",
]

SHOW = """
    import json, os, sys
    json.dump([sys.argv[1:], dict(os.environ)], open("seen.json", "w"))
    print("val_error=0.5")
"""


@pytest.mark.parametrize("shell", [False, True])
def test_hostile_values_reach_the_program_unchanged(bench: Bench, shell: bool) -> None:
    bench.code(SHOW, "show.py")
    names = [f"p{index}" for index in range(len(HOSTILE))]
    config = dict(zip(names, HOSTILE, strict=True))
    places = " ".join(f"{{{name}}}" for name in names)
    bench.plan_command(
        f"{{python}} show.py {places} {{resource}} {{seed}} {{resume_from}} {{gone}}",
        bench.run(config=config),
        parameters=(*names, "gone"),
        metrics=(r"val_error=(?P<val_error>\S+)",),
        shell=shell,
    )
    result = bench.work(HPCSWEEP_PARAM_STALE="1")
    assert result.outcome is Outcome.COMPLETED, bench.log()
    seen, environ = json.loads((bench.workdir / "seen.json").read_text())
    assert seen == [*HOSTILE, "3", "7", "", ""]
    assert [environ[parameter_variable(name)] for name in names] == HOSTILE
    assert "HPCSWEEP_PARAM_STALE" not in environ
    wanted = {
        "HPCSWEEP_TRIAL": "0",
        "HPCSWEEP_RUNG": "0",
        "HPCSWEEP_RESOURCE": "3",
        "HPCSWEEP_START": "0",
        "HPCSWEEP_SEED": "7",
        "HPCSWEEP_RESUME_FROM": "",
    }
    assert {name: environ[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("name", "variable"), [("lr", "LR"), ("optimizer.beta-1", "OPTIMIZER_BETA_1"), ("grün", "GR_N")]
)
def test_environment_variable_of_a_parameter(name: str, variable: str) -> None:
    assert parameter_variable(name) == f"HPCSWEEP_PARAM_{variable}"


def test_without_its_working_directory_a_run_has_not_failed(bench: Bench) -> None:
    gone = bench.workdir / "gone"
    bench.plan_command("true", workdir=str(gone))
    result = bench.work()
    assert (result.outcome, result.interrupted) == (None, Interruption.WORKER_DIED)
    assert result.message == f"the worker: there is no working directory {gone}"
    assert bench.log().splitlines()[-1].startswith("[hpcsweep] worker_died after")
    assert not list(bench.temporary.iterdir())


@pytest.mark.parametrize("command", ["no-such-program {lr}", "train {nothing}", "sh -c 'exit 0\0'"])
def test_a_command_that_cannot_be_started_is_a_failed_run(bench: Bench, command: str) -> None:
    bench.plan_command(command)
    result = bench.work()
    assert result.outcome is Outcome.FAILED
    assert "cannot be started" in result.message or "unknown placeholder" in result.message
    assert not list(bench.temporary.iterdir())


def test_a_program_that_only_prints_is_resumed_and_read(bench: Bench) -> None:
    script = """
        import os, sys
        first, last, resume, save = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
        assert (resume == "") == (first == 0)
        if resume:
            assert open(os.path.join(resume, "state")).read() == str(first)
        for step in range(first + 1, last + 1):
            print("loss is", 1 / step, file=sys.stderr)
        open(os.path.join(save, "state"), "w").write(str(last))
        print("bye", end="")
    """
    bench.code(script, "plain.py")
    fields: dict[str, Any] = {"metrics": (r"loss is (?P<val_error>\S+)",)}
    runs = [bench.run(resource=3)], [bench.run(resource=9, rung=1)]
    bench.plan(*runs, command="{python} plain.py {start} {resource} {resume_from} {checkpoint_dir}", **fields)
    assert bench.work(task=0).value == 1 / 3
    assert bench.newest() == 3
    result = bench.work(task=1)
    assert (result.outcome, result.value, result.start, result.step) == (Outcome.COMPLETED, 1 / 9, 3, 9)
    assert bench.newest() == 9
    assert "loss is 0.5\n" in bench.log(0)
    assert bench.log(0).splitlines()[-2] == "bye"


def test_the_working_folder_becomes_a_checkpoint_only_when_the_run_completes(bench: Bench) -> None:
    bench.plan_command('echo x > "$HPCSWEEP_CHECKPOINT_DIR/state"; exit 3', shell=True)
    assert bench.work().outcome is Outcome.FAILED
    assert list(bench.trial().checkpoints.iterdir()) == []
