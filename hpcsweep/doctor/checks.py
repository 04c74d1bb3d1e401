"""All checks in order: this machine, the results' filesystem, the cluster, the sweep, a test job."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import hpcsweep
from hpcsweep.cluster import CLUSTERS, FALLBACK
from hpcsweep.cluster.backend import Backend, SweepRequest, find_backend, options_of
from hpcsweep.core.cluster_protocol import Cluster, TaskResources
from hpcsweep.core.text import plural, shell_join, shell_quote
from hpcsweep.doctor.filesystem import filesystem_findings, nearest_folder
from hpcsweep.doctor.probe_checks import probe_findings
from hpcsweep.errors import (
    ClusterUnavailable,
    Finding,
    Level,
    SpecError,
    TrainerError,
    failure,
    good,
    one_line,
    warning,
)
from hpcsweep.session.preparation import check_training_code
from hpcsweep.session.target import Target, resolve_target
from hpcsweep.spec import SweepSpec

#: Variables set by hand that decide which Slurm and which package are found.
_KEPT_VARIABLES: Final = ("SLURM_CONF", "PYTHONPATH")
FIX: Final = "fix it in the spec"


class Doctor:
    """Checks the site for one sweep, or in general.

    Args:
        spec: The sweep, None without one.
        spec_path: Its file.
        results: The results folder, None for the default.
        overrides: `--set` texts, for the crontab line.
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
        self._folder = nearest_folder(results or default)
        self._crontab_line = crontab_line(spec_path, results=results or default, overrides=overrides)
        #: Where a test job can run, and its backend; known once `findings` has ended.
        self._cluster: Cluster | None = None
        self._name = ""

    @property
    def can_probe(self) -> bool:
        """Whether a test job can be submitted; known once `findings` has ended."""
        return self._cluster is not None and self._cluster.can_probe

    def findings(self) -> Iterator[Finding]:
        """All that can be checked without a job."""
        wanted = self._spec.cluster.name if self._spec else "auto"
        self._name = name = _automatic_cluster(wanted)
        backend = find_backend(name)
        yield good(
            "python", f"{platform.python_version()} at {sys.executable}, hpcsweep {hpcsweep.__version__}"
        )
        yield from filesystem_findings(self._folder, nodes=backend.remote)
        if missing := backend.missing():
            advice = f"load the site's {backend.title} module, or take cluster.name: auto"
            yield failure(backend.title, f"{missing}, and the spec asks for {backend.title}", advice)
            return
        yield from _other_clusters(wanted, name)
        options = options_of(backend.options, self._spec.cluster) if self._spec else backend.options()
        if not (yield from backend.check_site(options)):
            return
        if self._spec is None:
            self._cluster = backend.connect(SweepRequest(), options).cluster
            return
        place, findings = resolve_findings(self._spec, name=name)
        yield from findings
        yield training_code_finding(self._spec)
        if place is not None and not any(finding.level is Level.FAILURE for finding in findings):
            self._cluster = place.cluster

    def probe_findings(self, *, wait_s: float) -> Iterator[Finding]:
        """What only a test job can find out; nothing of it remains."""
        assert self._cluster is not None
        gpus = self._spec.resources.gpus if self._spec else 0
        yield from probe_findings(
            self._cluster, self._name, self._folder, gpus=gpus, wait_s=wait_s, crontab_line=self._crontab_line
        )

    @staticmethod
    def no_probe() -> Finding:
        """That no test job was submitted."""
        message = "none was submitted, so what compute nodes see and may do is not known"
        return warning("canary", message, "run doctor with --canary")


def _automatic_cluster(wanted: str) -> str:
    """The cluster that `auto` would choose if it answered."""
    if wanted != "auto":
        return wanted
    automatic = ((name, find_backend(name)) for name in CLUSTERS)
    return next((name for name, each in automatic if each.automatic and not each.missing()), FALLBACK)


def _other_clusters(wanted: str, name: str) -> Iterator[Finding]:
    """Clusters that `auto` looks for, and why the sweep does not run there."""
    where = "sweeps run on this machine" if wanted == "auto" else f"the spec asks for cluster {wanted}"
    for other in CLUSTERS:
        backend: Backend = find_backend(other)
        if backend.automatic and other != name:
            missing = backend.missing()
            message = f"is not here ({missing}): {where}" if missing else f"is here, but {where}"
            yield good(backend.title, message)


def crontab_line(spec: Path | None, *, results: Path, overrides: Sequence[str]) -> str:
    """The crontab line that ticks this sweep every five minutes.

    A login shell, because cron itself knows next to no PATH, and jobs inherit what it knows.
    """
    argv = [sys.executable, "-m", "hpcsweep", "launch", "SPEC" if spec is None else str(spec.absolute())]
    argv += ["--results", str(results.absolute()), "--once", "--quiet"]
    argv += [word for override in overrides for word in ("--set", override)]
    kept = [f"{name}={shell_quote(os.environ[name])}" for name in _KEPT_VARIABLES if os.environ.get(name)]
    command = f"cd {shell_quote(os.getcwd())} && {' '.join([*kept, shell_join(argv)])}"
    # cron ends the command at a bare % sign.
    return f"*/5 * * * * bash -lc {shlex.quote(command)} >/dev/null".replace("%", r"\%")


def resolve_findings(spec: SweepSpec, *, name: str) -> tuple[Target | None, list[Finding]]:
    """Where the sweep runs (None if it cannot), with findings on template and resources."""
    try:
        place = resolve_target(spec, name=name)
    except SpecError as error:
        return None, [failure("spec", problem, FIX) for problem in error.problems]
    found = []
    if place.cluster.template:
        found.append(good("template", f"{place.cluster.template} renders"))
    try:
        problems = place.problems(max_gpus=spec.cluster.max_gpus)
    except ClusterUnavailable as error:
        return place, [*found, failure("resources", one_line(str(error)), "try again when Slurm answers")]
    if problems:
        return place, [*found, *(failure("resources", problem, FIX) for problem in problems)]
    found.append(good("resources", f"{format_resources(place.shape)} of one task: fits"))
    held = place.allocation()
    if held.why:
        advice = "max_gpus and budget.gpu_hours count what is held"
        found.append(warning("whole nodes", place.allocation_note(held), advice))
    ticks, _, advice = place.tick_note().partition("; ")
    if ticks:
        found.append(warning("tick jobs", f"with --detach, {ticks}", advice))
    return place, found


def training_code_finding(spec: SweepSpec) -> Finding:
    """Whether the training code can be run here."""
    if not spec.train.check:
        return good("training code", "not looked at (train.check: false)")
    try:
        check_training_code(spec)
    except TrainerError as error:
        return failure("training code", one_line(str(error)), FIX)
    return good("training code", f"{spec.train.function or 'the command'} can be run")


def format_resources(shape: TaskResources) -> str:
    """For example `2 GPUs, 8 CPUs, 16384 MiB, 30 min`."""
    parts = [plural(shape.gpus, "GPU")] if shape.gpus else []
    parts.append(plural(shape.cpus, "CPU"))
    parts += [] if shape.mem_mib is None else [f"{shape.mem_mib} MiB"]
    parts += [] if shape.time_s is None else [f"{shape.time_s / 60:g} min"]
    return ", ".join(parts)
