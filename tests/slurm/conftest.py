"""One private Slurm cluster for all tests of this folder; every test starts with an empty queue."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .fixture import PrivateSlurm, missing

#: `required` turns a missing Slurm into a failure, `off` skips without looking.
SWITCH = "HPCSWEEP_TEST_SLURM"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder `slurm`."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.slurm)


def require_slurm(*, accounting: bool = False) -> None:
    """Skip where no private cluster (with accounts) can be had, or fail where one is required."""
    switch = os.environ.get(SWITCH, "")
    if switch == "off":
        pytest.skip(f"{SWITCH}=off")
    lack = missing(accounting=accounting)
    if lack is not None and switch == "required":
        pytest.fail(f"{SWITCH}=required, but {lack}", pytrace=False)
    if lack is not None:
        pytest.skip(lack)


@pytest.fixture(scope="session")
def slurm() -> Iterator[PrivateSlurm]:
    """The session's cluster."""
    require_slurm()
    cluster = PrivateSlurm()
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def cluster_with_accounts() -> Iterator[PrivateSlurm]:
    """A second cluster: it keeps accounts, and soon forgets what has ended."""
    require_slurm(accounting=True)
    cluster = PrivateSlurm(accounting=True, min_job_age=2)
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def accounts(cluster_with_accounts: PrivateSlurm) -> Iterator[PrivateSlurm]:
    """The cluster with accounts; a test's limits end with it."""
    yield cluster_with_accounts
    cluster_with_accounts.limit_submits()
    cluster_with_accounts.reset()


@pytest.fixture(autouse=True)
def _on_the_private_cluster(slurm: PrivateSlurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The test's own process sees the private cluster; what it leaves there is cancelled."""
    env = slurm.env
    for key in set(os.environ) - set(env):
        monkeypatch.delenv(key)
    monkeypatch.setenv("SLURM_CONF", env["SLURM_CONF"])
    yield
    slurm.reset()
