"""All checks in order: this machine, the results' filesystem, the cluster, the sweep, a test job."""

from __future__ import annotations

import errno
import os
import platform
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import hpcsweep
from hpcsweep.cluster import CLUSTERS, FALLBACK
from hpcsweep.cluster.backend import Backend, SweepRequest, find_backend, options_of
from hpcsweep.core.cluster_protocol import Cluster, TaskResources
from hpcsweep.core.text import plural, shell_join, shell_quote
from hpcsweep.doctor.probe_job import probe_findings
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
from hpcsweep.session.program import check_program
from hpcsweep.session.target import Target, resolve_target
from hpcsweep.spec import SweepSpec
from hpcsweep.store.files import fsync_dir, rename, write_all

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
        target, findings = resolve_findings(self._spec, name=name)
        yield from findings
        yield training_code_finding(self._spec)
        for line in check_program(self._spec).warnings:
            yield warning("command", line, FIX)
        if target is not None and not any(finding.level is Level.FAILURE for finding in findings):
            self._cluster = target.cluster

    def probe_findings(self, *, wait_s: float) -> Iterator[Finding]:
        """What only a test job can find out; nothing of it remains."""
        assert self._cluster is not None
        gpus = self._spec.largest_run.gpus if self._spec else 0
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
    argv += [argument for override in overrides for argument in ("--set", override)]
    kept = [f"{name}={shell_quote(os.environ[name])}" for name in _KEPT_VARIABLES if os.environ.get(name)]
    command = f"cd {shell_quote(os.getcwd())} && {' '.join([*kept, shell_join(argv)])}"
    # cron ends the command at a bare % sign.
    return f"*/5 * * * * bash -lc {shlex.quote(command)} >/dev/null".replace("%", r"\%")


def resolve_findings(spec: SweepSpec, *, name: str) -> tuple[Target | None, list[Finding]]:
    """Where the sweep runs (None if it cannot), with findings on template and resources."""
    try:
        target = resolve_target(spec, name=name)
    except SpecError as error:
        return None, [failure("spec", problem, FIX) for problem in error.problems]
    findings = []
    if target.cluster.template:
        findings.append(good("template", f"{target.cluster.template} renders"))
    try:
        problems = target.problems(max_gpus=spec.cluster.max_gpus)
    except ClusterUnavailable as error:
        return target, [*findings, failure("resources", one_line(str(error)), "try again when Slurm answers")]
    if problems:
        return target, [*findings, *(failure("resources", problem, FIX) for problem in problems)]
    findings.append(good("resources", f"{format_resources(target.submitted_shape)} of one task: fits"))
    held = target.allocation()
    if held.why:
        advice = "max_gpus and budget.gpu_hours count what is held"
        findings.append(warning("whole nodes", target.allocation_note(held), advice))
    ticks, _, advice = target.tick_note().partition("; ")
    if ticks:
        findings.append(warning("tick jobs", f"with --detach, {ticks}", advice))
    return target, findings


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
    parts = [f"{shape.nodes} nodes, on each"] if shape.nodes > 1 else []
    parts += [plural(shape.gpus, "GPU")] if shape.gpus else []
    parts.append(plural(shape.cpus, "CPU"))
    parts += [] if shape.mem_mib is None else [f"{shape.mem_mib} MiB"]
    parts += [] if shape.time_s is None else [f"{shape.time_s / 60:g} min"]
    return ", ".join(parts)


#: Seen by every node that mounts them.
SHARED: Final = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "fuse.ceph", "wekafs", "panfs", "afs", "9p")
#: Where node-local scratch is, whatever its filesystem.
LOCAL_FOLDERS: Final = ("/tmp", "/var/tmp", "/dev/shm", "/run")
SLOW_S: Final = 1.0
LOW_GIB, LEAST_GIB = 5.0, 0.1
LOW_FILES, LEAST_FILES = 50_000, 1_000
ELSEWHERE: Final = "give another folder with --results"


def nearest_folder(folder: Path) -> Path:
    """The folder itself, or the nearest above it that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def filesystem_findings(folder: Path, *, nodes: bool) -> Iterator[Finding]:
    """Findings about the filesystem of this existing folder, which other machines see if `nodes`."""
    try:
        scratch = Path(tempfile.mkdtemp(prefix=".hpcsweep-doctor-", dir=folder))
    except OSError as error:
        yield failure("results", f"{folder} cannot be written: {error.strerror}", ELSEWHERE)
        return
    try:
        yield good("results", f"{folder} can be written")
        yield type_finding(folder, nodes=nodes)
        yield _space_finding(folder)
        yield from _operation_findings(scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def type_finding(folder: Path, *, nodes: bool) -> Finding:
    kind = filesystem_type(folder)
    if not nodes:
        return good("filesystem", kind)
    if kind.startswith(SHARED):
        return good("filesystem", f"{kind}, a network filesystem")
    resolved = folder.resolve()
    local = next((top for top in LOCAL_FOLDERS if resolved.is_relative_to(top)), None)
    what = f"{kind}, below {local}" if local else f"{kind}, a local filesystem"
    return warning("filesystem", f"{what}: compute nodes may not see it", f"make sure, or {ELSEWHERE}")


def filesystem_type(folder: Path) -> str:
    """Its type as the kernel names it, `unknown` where that cannot be read."""
    path, found = folder.resolve(), ("", "unknown")
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return found[1]
    for line in lines:
        fields, _, rest = line.partition(" - ")
        # Blanks in a mount point are written as \040; a later mount hides an earlier one.
        point = fields.split()[4].replace("\\040", " ")
        if path.is_relative_to(point) and len(point) >= len(found[0]):
            found = (point, rest.split()[0])
    return found[1]


def _space_finding(folder: Path) -> Finding:
    """Of the filesystem as a whole: quotas do not show here but in what writing says."""
    stat = os.statvfs(folder)
    gib, files = stat.f_bavail * stat.f_frsize / 2**30, stat.f_favail
    counted = stat.f_files > 0  # some filesystems have no fixed number of inodes
    message = f"{gib:.1f} GiB free" + (f", {files} files" if counted else "")
    if gib < LEAST_GIB or (counted and files < LEAST_FILES):
        return failure("space", message, f"free some, or {ELSEWHERE}")
    if gib < LOW_GIB or (counted and files < LOW_FILES):
        advice = "checkpoints may fill that: lower train.keep_checkpoints, or free some"
        return warning("space", message, advice)
    return good("space", f"{message} (your own quota may be less)")


def _operation_findings(scratch: Path) -> Iterator[Finding]:
    """What every journal and every result relies on, tried."""
    done = []
    for what, action in (
        ("rename over a file", _rename_over),
        ("exclusive create", _create_exclusively),
        ("fsync", _fsync),
    ):
        began = time.monotonic()
        try:
            problem = action(scratch)
        except OSError as error:
            problem = error.strerror or str(error)
        seconds = time.monotonic() - began
        if problem:
            yield failure("files", f"{what} does not work here: {problem}", ELSEWHERE)
        elif seconds > SLOW_S:
            advice = f"every event of a sweep waits so long; {ELSEWHERE}"
            yield warning("files", f"{what} took {seconds:.1f} s", advice)
        else:
            done.append(what)
    if done:
        yield good("files", f"{', '.join(done)}: as they must be")


def _rename_over(scratch: Path) -> str:
    old, new = scratch / "renamed", scratch / "new"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    rename(new, old)
    return "the old file is still there" if old.read_bytes() != b"new" or new.exists() else ""


def _create_exclusively(scratch: Path) -> str:
    path = scratch / "exclusive"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
    os.close(os.open(path, flags, 0o644))
    try:
        os.close(os.open(path, flags, 0o644))
    except OSError as error:
        return "" if error.errno == errno.EEXIST else error.strerror or str(error)
    return "a second one succeeds too"


def _fsync(scratch: Path) -> str:
    fd = os.open(scratch / "synced", os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        write_all(fd, b"x" * 4096)
        os.fsync(fd)
    finally:
        os.close(fd)
    fsync_dir(scratch)
    return ""
