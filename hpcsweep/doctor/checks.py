"""All checks in their order: this machine, the results' filesystem, the cluster, the sweep, a canary."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import hpcsweep
from hpcsweep.cluster import CLUSTERS, FALLBACK
from hpcsweep.cluster.backend import Backend, SweepRequest, find_backend, options_of
from hpcsweep.core.findings import Finding, Level, failure, good, warning
from hpcsweep.core.protocols import Cluster
from hpcsweep.doctor import spec_checks
from hpcsweep.doctor.cron import launch_once
from hpcsweep.doctor.filesystem import filesystem, nearest
from hpcsweep.doctor.probe_checks import canary
from hpcsweep.spec import SweepSpec


class Doctor:
    """Examines the site for one sweep, or for any.

    Args:
        spec: Of the sweep, None for any.
        spec_path: Its file.
        results: Folder of the results, None for the default.
        overrides: `--set` words, for the crontab line.
    """

    def __init__(
        self,
        spec: SweepSpec | None,
        spec_path: Path | None,
        *,
        results: Path | None,
        overrides: Sequence[str],
    ) -> None:
        self._spec = spec
        default = Path("results") / spec.name if spec else Path("results")
        self._below = nearest(results or default)
        self._line = launch_once(spec_path, results=results or default, overrides=overrides)
        #: Where a canary can run, and the cluster's name; known once `findings` has ended.
        self._cluster: Cluster | None = None
        self._name = ""

    @property
    def can_probe(self) -> bool:
        """Whether a canary makes sense; known once `findings` has ended."""
        return self._cluster is not None and self._cluster.can_probe

    def findings(self) -> Iterator[Finding]:
        """Everything that can be known without a job."""
        wanted = self._spec.cluster.name if self._spec else "auto"
        self._name = name = _chosen(wanted)
        backend = find_backend(name)
        yield good(
            "python", f"{platform.python_version()} at {sys.executable}, hpcsweep {hpcsweep.__version__}"
        )
        yield from filesystem(self._below, nodes=backend.remote)
        if missing := backend.missing():
            advice = f"load the site's {backend.title} module, or take cluster.name: auto"
            yield failure(backend.title, f"{missing}, and the spec asks for {backend.title}", advice)
            return
        yield from _others(wanted, name)
        options = options_of(backend.options, self._spec.cluster) if self._spec else backend.options()
        if not (yield from backend.check_site(options)):
            return
        if self._spec is None:
            self._cluster = backend.connect(SweepRequest(), options).cluster
            return
        place, findings = spec_checks.placed(self._spec, name=name)
        yield from findings
        yield spec_checks.training_code(self._spec)
        if place is not None and not any(finding.level is Level.FAILURE for finding in findings):
            self._cluster = place.cluster

    def canary(self, *, wait_s: float) -> Iterator[Finding]:
        """What only a job can find out; nothing of it is left."""
        assert self._cluster is not None
        gpus = self._spec.resources.gpus if self._spec else 0
        yield from canary(
            self._cluster, self._name, self._below, gpus=gpus, wait_s=wait_s, crontab_line=self._line
        )

    @staticmethod
    def no_canary() -> Finding:
        """What stays unknown without one."""
        words = "none was submitted, so what compute nodes see and may do is not known"
        return warning("canary", words, "run doctor with --canary")


def _chosen(wanted: str) -> str:
    """What `auto` would take if it answered."""
    if wanted != "auto":
        return wanted
    automatic = ((name, find_backend(name)) for name in CLUSTERS)
    return next((name for name, each in automatic if each.automatic and not each.missing()), FALLBACK)


def _others(wanted: str, name: str) -> Iterator[Finding]:
    """Of the clusters that `auto` looks for: which are here, and why the sweep runs elsewhere."""
    where = "sweeps run on this machine" if wanted == "auto" else f"the spec asks for cluster {wanted}"
    for other in CLUSTERS:
        backend: Backend = find_backend(other)
        if backend.automatic and other != name:
            missing = backend.missing()
            words = f"is not here ({missing}): {where}" if missing else f"is here, but {where}"
            yield good(backend.title, words)
