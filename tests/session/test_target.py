"""What a cluster cannot give is refused before anything is submitted."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcsweep.cluster.backend import SweepRequest, find_backend
from hpcsweep.cluster.local.backend import LocalSection
from hpcsweep.core.cluster_protocol import TaskResources
from hpcsweep.errors import SpecError
from hpcsweep.session.target import Target
from tests.doubles import FolderCluster

TWO = TaskResources(cpus=1, nodes=2)


def test_a_cluster_whose_tasks_have_one_node_is_given_none_of_two(tmp_path: Path) -> None:
    target = Target("jobs", "a test", FolderCluster(tmp_path), TWO, reuse=False, max_tasks=None)
    assert target.problems(max_gpus=None) == [
        "resources.nodes: must be 1 on jobs, where a task has one node, got 2"
    ]


def test_this_machine_is_one_node() -> None:
    with pytest.raises(SpecError, match=r"^resources\.nodes: this machine is one node, got 2$"):
        find_backend("local").connect(SweepRequest(run=TWO, task=TWO), LocalSection())
