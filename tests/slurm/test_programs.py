"""Programs that know nothing of hpcsweep, on real daemons: three sweeps at a time on one private cluster."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import NamedTuple

from hpcsweep.views.folder import LogReader, ResultsFolder, attempt_logs

from .fixture import PrivateSlurm
from .sweeps import finish, launch

#: Saves its own checkpoint after each epoch, and resumes from one; it dies of signals.
KILLED = """\
out=$1; from=$2; epochs=$3
e=0; [ -n "$from" ] && e=$(cat "$from/last")
echo "starts at $e"
while [ $e -lt $epochs ]; do
  sleep 1; e=$((e+1)); echo $e > "$out/last"; echo "epoch $e error $((1000-e))"
done
"""
#: Keeps its checkpoint in a folder of its own, and resumes by itself.
OWN_FOLDER = """\
out=out/$1; mkdir -p $out; e=0; [ -f $out/last ] && e=$(cat $out/last)
echo "starts at $e"
while [ $e -lt $2 ]; do sleep 0.5; e=$((e+1)); echo $e > $out/last; echo "epoch $e error $((1000-e))"; done
"""
#: Trains until it is killed.
ENDLESS = 'e=0; while sleep 1; do e=$((e+1)); echo "epoch $e error $((1000-e))"; done\n'
SPEC = """\
name: free
train:
  command: "bash prog.sh {command}"
  metrics: 'epoch (?P<step>\\d+) error (?P<error>\\S+)'
objective: {{metric: error}}
space: {{lr: {{type: choice, values: [1]}}}}
scheduler: {{name: fifo, max_resource: {epochs}}}
budget: {{trials: 1}}
resources: {{time: 1m}}
cluster: {{name: slurm, signal: 10, poll: 1, grace: 5, settle: 5}}
retries: {{infrastructure: 1}}
"""


class Case(NamedTuple):
    program: str
    command: str
    epochs: int
    starts: str  # where an attempt begins
    warning: str = ""


#: With one interruption without progress they would be given up, had it been without.
CASES = {
    "killed": Case(KILLED, "{checkpoint_dir} {resume_from} {resource}", 130, r"^starts at (\d+)"),
    "own folder": Case(OWN_FOLDER, "{trial} {resource}", 270, r"^starts at (\d+)"),
    "endless": Case(ENDLESS, "", 10, r"(0)$", "train.stop_at_resource: true ends it in time"),
}


def test_programs_that_are_killed_go_on_and_one_that_has_its_value_is_completed(
    slurm: PrivateSlurm, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as stack:
        drivers = {}
        for name, case in CASES.items():
            folder = tmp_path / name
            folder.mkdir()
            (folder / "prog.sh").write_text(case.program)
            (folder / "sweep.yaml").write_text(SPEC.format(command=case.command, epochs=case.epochs))
            drivers[name] = stack.enter_context(launch(folder / "sweep.yaml", env=slurm.env))
        printed = {name: finish(driver) for name, driver in drivers.items()}
    for name, case in CASES.items():
        results = ResultsFolder(tmp_path / name / "results/free")
        (run,) = results.state.trials[0].runs
        assert (run.value, run.step) == (1000 - case.epochs, case.epochs), name
        assert case.warning in printed[name]
        if name == "endless":
            assert results.state.interruptions == 0
            continue
        assert results.state.interruptions >= 2, "it was killed, and went on"
        logs = LogReader(results.layout, results.events)
        texts = [
            (logs.read(each)[1] or b"").decode() for each in attempt_logs(results.events, results.layout, 0)
        ]
        starts = [int(at) for text in texts for at in re.findall(case.starts, text, re.MULTILINE)]
        trained = [list(map(int, re.findall(r"^epoch (\d+)", text, re.MULTILINE))) for text in texts]
        assert starts[0] == 0
        for start, before in zip(starts[1:], trained, strict=False):
            assert start >= before[-1] - 1, "of what it had reported, the last step at most is trained again"
