"""Killed at any instant and launched again, a sweep is what it would have been."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.effort import by_effort

ROOT = Path(__file__).parents[2]
#: In CI at every point.
STRIDE = by_effort(4, 1, ci=1)


def killed_everywhere(folder: Path, sweep: str, *, stride: int = STRIDE) -> dict[str, Any]:
    # In a process of its own: it forks, which a process with threads must not.
    done = subprocess.run(
        [sys.executable, "-m", "tests.driver.kill_harness", str(folder), sweep, str(stride)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_driver_killed_at_every_point_leads_to_the_same_sweep(tmp_path: Path) -> None:
    found = killed_everywhere(tmp_path, "whole")
    assert found["differing"] == {}
    assert found["points"] > 150
    assert (found["runs"], found["parts"]) == (22, [])


def test_a_driver_killed_at_every_point_of_a_hand_over_gives_each_run_to_one_task(tmp_path: Path) -> None:
    found = killed_everywhere(tmp_path, "reused")
    assert found["differing"] == {}
    assert found["points"] > 150
    assert (found["runs"], found["parts"]) == (22, [])


@pytest.mark.parametrize("sweep", ["shaped", "reused-shaped"])
def test_a_driver_killed_where_runs_have_different_shapes_leads_to_the_same_sweep(
    tmp_path: Path, sweep: str
) -> None:
    found = killed_everywhere(tmp_path, sweep, stride=3 * STRIDE)
    assert found["differing"] == {}
    assert found["points"] > 150
    assert (found["runs"], found["parts"]) == (22, [])


def test_a_driver_killed_at_every_point_of_a_compaction_loses_no_result_report_log_or_useful_checkpoint(
    tmp_path: Path,
) -> None:
    found = killed_everywhere(tmp_path, "compacted")
    assert found["differing"] == {}
    assert found["points"] > 150
    assert found["runs"] == 6
    assert found["parts"] == ["batches", "metrics", "runs", "tables.json", "trials"]
    assert found["raw"] == ["metrics-0.0.0.jsonl"]  # of the run that failed
    kept = {name.partition("/checkpoints/")[0] for name in found["checkpoints"]}
    assert kept == {"0000/0", "0000/3"}  # of the best, and of the run that failed
    assert found["starts"] == [[0, 0, 0], [0, 1, 1], [1, 0, 0], [2, 0, 0], [3, 0, 0], [4, 0, 0]]
