"""All checks in their order: this machine, the results' filesystem, Slurm, the sweep, a canary."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpcsweep.cluster.slurm.cluster import SlurmCluster, SlurmOptions
from hpcsweep.cluster.slurm.site_reader import read_site
from hpcsweep.doctor import machine, slurm_checks, spec_checks
from hpcsweep.doctor.cron import launch_once
from hpcsweep.doctor.filesystem import filesystem, nearest
from hpcsweep.doctor.findings import Finding, Level, failure, good, one_line, warning
from hpcsweep.doctor.probe_checks import canary
from hpcsweep.doctor.slurm_limits import site_findings
from hpcsweep.errors import ClusterUnavailable
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
        #: What can run that line.
        self._by = "cron"
        #: Where a canary can fly; known once `findings` has ended.
        self._cluster: SlurmCluster | None = None

    @property
    def may_fly(self) -> bool:
        """Whether a canary makes sense; known once `findings` has ended."""
        return self._cluster is not None

    def findings(self) -> Iterator[Finding]:
        """Everything that can be known without a job."""
        wanted = self._spec.cluster.name if self._spec else "auto"
        found = shutil.which("sbatch") is not None
        slurm = wanted == "slurm" or (wanted == "auto" and found)
        yield machine.python()
        yield from filesystem(self._below, nodes=slurm)
        if slurm and found:
            yield from self._slurm()
            return
        if slurm:
            advice = "load the site's Slurm module, or take cluster.name: auto"
            yield failure("Slurm", "no sbatch on the PATH, and the spec asks for Slurm", advice)
            return
        where = "sweeps run on this machine" if wanted == "auto" else f"the spec asks for cluster {wanted}"
        yield good(
            "Slurm", f"is here, but {where}" if found else f"is not here (no sbatch on the PATH): {where}"
        )
        yield from machine.machine()
        if self._spec is not None:
            yield from spec_checks.placed(self._spec, name=wanted)[1]
            yield spec_checks.training_code(self._spec)

    def _slurm(self) -> Iterator[Finding]:
        for check in (slurm_checks.version, slurm_checks.controller):
            finding = check()
            yield finding
            if finding.level is Level.FAILURE:
                return
        yield slurm_checks.accounting()
        yield from slurm_checks.environment()
        try:
            site = read_site()
        except ClusterUnavailable as error:
            yield failure("limits", one_line(str(error)), "run doctor again when the controller answers")
            return
        yield from site_findings(site, partition=self._spec.cluster.partition if self._spec else None)
        self._by = "cron or scrontab" if site.scrontab else "cron"
        if self._spec is None:
            self._cluster = SlurmCluster(SlurmOptions())
            return
        place, findings = spec_checks.placed(self._spec, name="slurm")
        yield from findings
        yield spec_checks.training_code(self._spec)
        fits = not any(finding.level is Level.FAILURE for finding in findings)
        if place is not None and isinstance(place.cluster, SlurmCluster) and fits:
            self._cluster = place.cluster

    def canary(self, *, wait_s: float) -> Iterator[Finding]:
        """What only a job can find out; nothing of it is left."""
        assert self._cluster is not None
        gpus = self._spec.resources.gpus if self._spec else 0
        yield from canary(
            self._cluster, self._below, gpus=gpus, wait_s=wait_s, cron=f"{self._by}: {self._line}"
        )

    @staticmethod
    def no_canary() -> Finding:
        """What stays unknown without one."""
        words = "none was submitted, so what compute nodes see and may do is not known"
        return warning("canary", words, "run doctor with --canary")
