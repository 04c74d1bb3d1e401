"""The pages of the documentation that are about clusters work on one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.doc_runner import DOCS, ON_SLURM, DocRunner, blocks

from .fixture import PrivateSlurm


@pytest.mark.parametrize("name", sorted(ON_SLURM))
def test_a_page_works_on_a_cluster(name: str, tmp_path: Path, slurm: PrivateSlurm) -> None:
    runner = DocRunner(tmp_path, slurm.env)
    for block in blocks((DOCS / "first_sweep.md").read_text(encoding="utf-8")):
        if block.name == "train.py":  # what these pages go on from
            runner.run(block)
    runner.run_page(DOCS / name)
