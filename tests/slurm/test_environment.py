"""What runs find around them in real jobs, and what happens where the set-up or the code is broken."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import hpcsweep

from .fixture import PrivateSlurm
from .sweeps import COMMAND

SHOW = """\
import json, os, sys

if len(sys.argv) > 1:
    from hpcsweep import current_trial
    current_trial().report(1, loss=1.0)
name = f"seen-{os.environ.get('SLURM_PROCID', 'run')}.json"
with open(name, "w") as file:
    json.dump(dict(os.environ), file)
"""
SPEC = """\
name: z
train: {command: %s, shell: true, check: false}
objective: {metric: loss}
space: {x: {type: float, low: 0.0, high: 1.0}}
searcher: random
scheduler: {name: %s, max_resource: %d}
resources: {gpus: 1, cpus: 1, time: 10m}
cluster: {name: slurm, max_gpus: 8, poll: 1, grace: 5, settle: 5}
budget: {trials: 100}
"""


def launch(folder: Path, slurm: PrivateSlurm, *options: str, **environ: str) -> tuple[int, str]:
    env = {key: value for key, value in slurm.env.items() if key != "LC_ALL"}
    done = subprocess.run(
        [*COMMAND, "launch", "sweep.yaml", *(part for option in options for part in ("--set", option))],
        cwd=folder,
        env={**env, **environ},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_run_has_the_user_s_language_and_no_launcher_around_it_and_srun_starts_what_was_asked_for(
    tmp_path: Path, slurm: PrivateSlurm
) -> None:
    (tmp_path / "show.py").write_text(SHOW)
    command = json.dumps("{python} show.py run && srun -n 2 -c 1 {python} show.py")
    (tmp_path / "sweep.yaml").write_text(SPEC % (command, "fifo", 1))
    language = {"LC_CTYPE": "C.UTF-8", "LC_NUMERIC": "POSIX", "LANG": "C.UTF-8"}
    options = (
        "budget.trials=1",
        "resources.cpus=2",
        "cluster.setup=['echo \"${#NAME}\" >length']",
    )
    code, out = launch(tmp_path, slurm, *options, NAME="ö", **language)
    assert code == 0, out
    seen = {who: json.loads((tmp_path / f"seen-{who}.json").read_text()) for who in ("run", "0", "1")}
    for each in seen.values():
        assert {key: each.get(key) for key in ("LC_ALL", *language)} == {"LC_ALL": None, **language}
    launched = {"SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_ID", "HPCSWEEP_JOB"}
    assert launched.isdisjoint(seen["run"])
    kept = {"SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_NODELIST", "SLURM_CPUS_PER_TASK"}
    assert kept <= set(seen["run"])
    assert [seen[who]["SLURM_NTASKS"] for who in ("0", "1")] == ["2", "2"]
    assert [seen[who]["SLURM_PROCID"] for who in ("0", "1")] == ["0", "1"]
    # bash counts letters and not bytes, in the user's language.
    assert (tmp_path / "length").read_text() == "1\n"


def test_an_error_in_every_trial_and_a_set_up_that_fails_cost_a_handful_of_runs(
    tmp_path: Path, slurm: PrivateSlurm
) -> None:
    command = json.dumps("{python} -c 'import time; time.sleep(3); undefined_name'")
    (tmp_path / "sweep.yaml").write_text(SPEC % (command, "hyperband", 81))
    code, out = launch(tmp_path, slurm)
    error = "exit code 1: NameError: name 'undefined_name' is not defined"
    assert code == 1
    assert f"trials failed within seconds with the same error: {error}. Fix it" in out
    # 8 at a time: of 81 only those that ran when the fifth had failed, and one ahead of each.
    runs = hpcsweep.load(tmp_path / "results" / "z").runs
    assert (runs["outcome"] == "failed").sum() <= 5 + 2 * 8
    assert slurm.squeue(states="PENDING,RUNNING") == []

    setup = ("name=y", 'cluster.setup=["module() { echo no $2 >&2; return 1; }", "module load cuda/99.9"]')
    code, out = launch(tmp_path, slurm, *setup)
    assert code == 1
    assert "cluster.setup: 'module load cuda/99.9' failed with exit status 1: no cuda/99.9" in out
    assert hpcsweep.load(tmp_path / "results" / "y").runs["outcome"].isna().all()
