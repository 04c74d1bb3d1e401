"""What is wrong with a command is known before the queue."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from hpcsweep.session.program import Found, check_program, example_command
from hpcsweep.spec import SweepSpec, load_spec

METRICS = r"metrics: 'error=(?P<error>\S+)'"
OPT_OUT = "train.check: false turns this check off"
FILES = {
    "train.py": "print('error=1')",
    "uses.py": "from hpcsweep import current_trial",
    "indirect.py": "import os, lib.inner\nfrom .other import x",
    "lib/__init__.py": "",
    "lib/inner.py": "os.environ['HPCSWEEP_PARAM_LR']",
    "pkg/__main__.py": "print(1)",
    "run.sh": "#!/bin/sh\npython train.py",
    "uses.sh": "#!/bin/sh\nexec python uses.py",
    "more.sh": (
        "#!/bin/sh\nset -e\nif [ -f x ]; then rm x; fi\n# run\nOMP=1 srun -n 2 python \\\n train.py | tee log"
    ),
    "other.sh": "module load cuda\nexport A=1\npython train.py\nmake report\n",
    "here.sh": "python - <<EOF\nprint(1)\nEOF\n",
    "options.py": (
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--lr', type=float)\n"
        "p.add_argument('--wd', action='store_true')\np.add_argument('--fixed', action='store_false')\n"
        "p.add_argument('--both', action=argparse.BooleanOptionalAction)\nprint(p.parse_args())\n"
    ),
    "positions.py": (
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('lr', type=float)\n"
        "p.add_argument('--wd', action='store_true')\nprint(p.parse_args())\n"
    ),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # `python`, as in an environment that is activated: a system may have only `python3`.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "run.sh").chmod(0o755)
    return tmp_path


def load(folder: Path, command: str, *, train: str = METRICS, more: str = "") -> SweepSpec:
    path = folder / "s.yaml"
    path.write_text(
        f"train: {{command: {json.dumps(command)}, {train}}}\nobjective: {{metric: error}}\n"
        f"space: {{lr: [1, 2], wd: [3, 4], fixed: 5}}\n{more}"
    )
    return load_spec(path)


NEVER = "train.command: never uses {}: trials would differ in nothing that the program sees; add {}"
BOTH = NEVER.format("the parameters lr, wd", "{lr}, {wd}, or {args} for all of them")
WD = NEVER.format("the parameter wd", "{wd}, or {args} for all of them")


@pytest.mark.parametrize(
    ("command", "problems", "warnings"),
    [
        ("python train.py {args}", [], []),
        ("python train.py {lr} {wd}", [], []),
        ("python train.py {lr}", [f"{WD} ({OPT_OUT})"], []),
        ("python train.py", [f"{BOTH} ({OPT_OUT})"], []),
        # what reads the configuration by itself
        ("python uses.py", [], []),
        ("python indirect.py", [], []),
        ("python -m lib.inner", [], []),
        ("sh uses.sh", [], []),
        (
            "python uses.py {lr}",
            [],
            [
                (
                    "train.command: does not use the parameter wd; if the program does not ask hpcsweep "
                    "for it, add {wd}, or {args} for all of them"
                )
            ],
        ),
        # what may do so, unseen
        ("sh other.sh", [], [BOTH]),
        ("sh here.sh", [], [BOTH]),
        ("sh -c 'python train.py'", [], [BOTH]),
        ("sh run.sh", [f"{BOTH} ({OPT_OUT})"], []),
        ("./run.sh", [f"{BOTH} ({OPT_OUT})"], []),
        ("bash more.sh", [f"{BOTH} ({OPT_OUT})"], []),
        ("python -m elsewhere", [], [BOTH]),
        ("make train", [], [BOTH]),
        ("srun make train", [], [BOTH]),
        ("srun python train.py", [f"{BOTH} ({OPT_OUT})"], []),
        ("python -m pkg", [f"{BOTH} ({OPT_OUT})"], []),
        ("sh run.sh {lr}", [f"{WD} ({OPT_OUT})"], []),
        # what is not there
        ("python gone.py {args}", ["train.command: gone.py: there is no such file in {folder}"], []),
        (
            "srun -n 2 python -u gone.py {args}",
            ["train.command: gone.py: there is no such file in {folder}"],
            [],
        ),
        ("{python} -W ignore gone.py {args}", [], []),
        ("./gone.sh {args}", ["train.command: ./gone.sh: there is no such file in {folder}"], []),
        (
            "./uses.sh {args}",
            [
                (
                    "train.command: ./uses.sh: is not executable; `chmod +x {folder}/uses.sh`, or name "
                    "the program that runs it"
                )
            ],
            [],
        ),
        (
            "run.sh {args}",
            [
                (
                    "train.command: 'run.sh': there is no such program on the PATH; write ./run.sh for "
                    f"the one in {{folder}}; {OPT_OUT}"
                )
            ],
            [],
        ),
    ],
)
def test_a_command_that_cannot_do_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str, problems: list[str], warnings: list[str]
) -> None:
    programs = folder / "bin"
    programs.mkdir()
    for name in ("srun", "make"):
        (programs / name).symlink_to("/bin/true")
    (programs / "python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    told = [line.replace("{folder}", str(folder)) for line in problems]
    assert check_program(load(folder, command)) == Found(told, warnings)


@pytest.mark.parametrize(
    "line",
    [
        "module load x && python train.py {args} | tee log",
        "cd elsewhere; python gone.py {args}",
        "X=1 python train.py {args}",
        'python train.py "$HPCSWEEP_PARAM_LR"',
        "for i in 1 2; do python train.py {args}; done",
        "python train.py {args} > $OUT 2>&1; exit 0",
    ],
)
def test_shell_lines_are_read_with_care(folder: Path, line: str) -> None:
    assert check_program(load(folder, line, train=f"shell: true, {METRICS}")) == Found([], [])


def test_a_shell_line_names_a_script_that_is_not_there(folder: Path) -> None:
    spec = load(folder, "true && bash gone.sh {args}", train=f"shell: true, {METRICS}")
    assert check_program(spec).problems == [f"train.command: gone.sh: there is no such file in {folder}"]


SWITCH = (
    "train.command: --wd of options.py takes no value, and {wd} gives it one: write {wd?--wd}, which is left "
    f"out where wd is false, or {{args}} with train.flags: present ({OPT_OUT})"
)


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("python options.py --lr {lr} --wd {wd}", True),
        ("python options.py --lr={lr} --wd={wd}", True),
        ("python options.py {lr?--lr {lr}} {wd?--wd {wd}}", True),
        ("python options.py --lr {lr} {wd?--wd}", False),
        ("python options.py --lr {lr}{wd}", False),
        ("python options.py --wd --lr {lr} {args}", False),
        ("python positions.py --wd {lr} {wd}", False),
        ("python train.py --lr {lr} --wd {wd}", False),
        ("{python} gone.py --wd {wd} {args}", False),
    ],
)
@pytest.mark.parametrize("shell", [False, True])
def test_a_switch_takes_no_value(folder: Path, command: str, named: bool, shell: bool) -> None:
    spec = load(folder, command, train=f"shell: {str(shell).lower()}, {METRICS}")
    found = [line for line in check_program(spec).problems if "takes no value" in line]
    assert found == ([SWITCH] if named else [])


def test_rungs_and_metrics_must_be_known_to_the_program(folder: Path) -> None:
    rungs = "scheduler: {name: halving, max_resource: 9, eta: 3}"
    never = (
        "train.command: must have {resource}, as scheduler halving trains trials up to 1, 3, 9 and the "
        f"program would not know; {OPT_OUT}"
    )
    missing = (
        "train.metrics: missing; the program does not report 'error' by itself, so say how it is found in "
        f"what it prints, such as 'error=(?P<error>\\S+)'; {OPT_OUT}"
    )
    bare = load(folder, "python train.py {args}", train="shell: false", more=rungs)
    assert check_program(bare) == Found([never, missing], [])
    assert check_program(load(folder, "python uses.py {args}", train="shell: false", more=rungs)) == Found(
        [], []
    )
    assert check_program(load(folder, "sh other.sh {args}", more=rungs)) == Found([], [never])
    assert check_program(load(folder, "sh run.sh {args}", more=rungs)) == Found([never], [])
    assert check_program(load(folder, "python train.py {args} {resource}", more=rungs)) == Found([], [])


def test_a_program_must_be_told_the_folder_of_its_metrics(folder: Path) -> None:
    file = "metrics: {file: '{checkpoint_dir}/m.csv'}"
    told = (
        "train.metrics: '{checkpoint_dir}/m.csv' cannot be there: the command does not name "
        f"{{checkpoint_dir}}, so the program cannot write into it; {OPT_OUT}"
    )
    assert check_program(load(folder, "python train.py {args}", train=file)) == Found([told], [])
    for command in ("python train.py {args} {checkpoint_dir}", "python uses.py {args}", "sh other.sh {args}"):
        assert check_program(load(folder, command, train=file)) == Found([], [])


def test_parameters_are_compared_with_the_config_file(folder: Path) -> None:
    def check(**files: str) -> Found:
        for name, text in files.items():
            (folder / f"{name}.json").write_text(text)
        return check_program(
            load(folder, "python train.py {config_file}", train=f"config: base.json, {METRICS}")
        )

    base = folder / "base.json"
    missing = f"train.config: {base} cannot be read: No such file or directory"
    assert check() == Found([missing], [])
    assert check(base='{"lr": 1, "wd": 2, "fixed": 3}') == Found([], [])
    assert check(base='{"optimizer": {"lr": 1}, "wd": 2, "fixed": 3}') == Found(
        [], [f"space.lr: is not in {base}, which has optimizer.lr"]
    )


def test_another_path_of_the_jobs_may_have_the_program(folder: Path) -> None:
    spec = load(folder, "nosuch {args}", more="cluster: {setup: ['module load nosuch']}")
    assert check_program(spec).warnings == [
        "train.command: 'nosuch': there is no such program on the PATH of this machine"
    ]


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("cat {lr} | tee log", "'|'"),
        ("cat {lr} >log 2>&1", "'2>&1'"),
        ("true; cat {lr}", "'true;'"),
        ("cd /tmp && cat {lr}", "'&&'"),
        ("OMP_NUM_THREADS=1 cat {lr}", "'OMP_NUM_THREADS=1'"),
        ("cd {lr}", "'cd'"),
    ],
)
def test_a_command_for_a_shell_needs_one(folder: Path, command: str, word: str) -> None:
    problem = (
        f"train.command: {word} is for a shell: write train.shell: true to have bash read the command "
        "(train.check: false turns this check off)"
    )
    assert check_program(load(folder, command)).problems == [problem]
    assert problem not in check_program(load(folder, command, train=f"shell: true, {METRICS}")).problems


def test_what_a_shell_would_replace_is_pointed_out(folder: Path) -> None:
    command = "cat {args} --data=~/data $HOME/x '$HOME' a~/b"
    assert check_program(load(folder, command)).warnings == [
        f"train.command: '{word}' stays as it is: write train.shell: true to have bash read the command"
        for word in ("--data=~/data", "$HOME/x")
    ]


@pytest.mark.parametrize("command", ["cat {args} '|' --a='x; y' \\;", 'cat {args} "a > b;" --b=c;d'])
def test_what_is_quoted_is_for_no_shell(folder: Path, command: str) -> None:
    assert "shell" not in str(check_program(load(folder, command)).problems)


def test_check_false_looks_at_no_program(folder: Path) -> None:
    assert check_program(load(folder, "nosuch {lr}", train=f"check: false, {METRICS}")) == Found([], [])


def test_the_example_is_the_command_of_a_first_run(folder: Path) -> None:
    spec = load(
        folder,
        "train {args} --out {checkpoint_dir} {resume_from?--from {resume_from}} -o={output_dir} {resource}",
    )
    assert example_command(spec, Path("/r")) == (
        "train --lr 2 --wd 3 --fixed 5 --out /r/trials/0000/0/checkpoints/work -o=/r/trials/0000/0/output 1"
    )
    shell = load(folder, "train {lr} | tee 'a b'", train=f"shell: true, {METRICS}")
    assert example_command(shell, Path("/r")) == "train 2 | tee 'a b'"
