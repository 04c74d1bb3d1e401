"""Killed at any instant and launched again, a sweep is what it would have been."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_driver_killed_at_every_point_leads_to_the_same_sweep(tmp_path: Path) -> None:
    # In a process of its own: it forks, which a process with threads must not.
    done = subprocess.run(
        [sys.executable, "-m", "tests.driver.kill_harness", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["differing"] == {}
    assert found["points"] > 200
    assert found["runs"] == 22
