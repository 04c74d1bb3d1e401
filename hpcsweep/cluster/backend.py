"""What a kind of cluster offers: its keys in the spec, detection, its cluster, its checks and its queue.

Each folder of this package has one `Backend`; so may other packages, by an entry point of the group
`hpcsweep.clusters`. An entry point may also be a plain class or function that gives a `Cluster`: it is called
with `spec` and its options, which are its other parameters.
"""

from __future__ import annotations

import enum
import functools
import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

import msgspec
from pydantic import BaseModel

from hpcsweep.cluster import CLUSTERS, ENTRY_POINTS
from hpcsweep.core.cluster_protocol import (
    Cluster,
    QueuedJob,
    SubmittedBatch,
    TaskId,
    TaskResources,
    TaskState,
)
from hpcsweep.errors import Finding, SpecError
from hpcsweep.options import Section, options_model
from hpcsweep.plugins import find_class, is_known, plugin_names

M = TypeVar("M", bound=BaseModel)


class Presence(enum.Enum):
    """Whether this machine belongs to such a cluster."""

    ABSENT = "absent"
    SILENT = "silent"  # there is one, and it does not answer
    ANSWERS = "answers"


class SweepRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a cluster is told of a sweep: the keys of `cluster:` that all clusters share, and its resources.

    Attributes:
        run: What is enough for any run. `least`: of the least demanding ones; None: all are alike.
        task: What one array task needs, for all runs that it does at a time.
        workdir: Where training code runs.
        environment: Variables of the runs; None takes the value from the environment of `launch`.
        setup: Shell lines before training.
        python: The interpreter on the nodes; None is the one that runs this.
        signal_s: Runs are told so long before their time limit.
        poll_s: Time between two polls; None, as of `settle_s` and `grace_s`, is the cluster's default.
        reuse: Tasks keep their GPUs and are given run after run.
        spec: The whole `SweepSpec`, for clusters of other packages; None in checks without a sweep.
    """

    run: TaskResources = TaskResources()
    least: TaskResources | None = None
    task: TaskResources = TaskResources()
    workdir: str | None = None
    environment: Mapping[str, str | None] = {}
    setup: Sequence[str] = ()
    python: str | None = None
    signal_s: int = 60
    poll_s: float | None = None
    settle_s: float | None = None
    grace_s: float | None = None
    reuse: bool = False
    spec: Any = None

    @property
    def variables(self) -> dict[str, str]:
        """The variables that have a value here."""
        return {name: value for name, value in self.environment.items() if value is not None}

    @property
    def inherited(self) -> tuple[str, ...]:
        """The variables whose value comes from the environment of `launch`."""
        return tuple(name for name, value in self.environment.items() if value is None)

    @property
    def times(self) -> dict[str, Any]:
        """Those of `poll_s`, `settle_s` and `grace_s` that are given, as clusters take them."""
        poll_s = None if self.poll_s is None else (self.poll_s, self.poll_s)
        given = {"poll_s": poll_s, "settle_s": self.settle_s, "grace_s": self.grace_s}
        return {key: value for key, value in given.items() if value is not None}


class Connection(msgspec.Struct, frozen=True):
    """A cluster that is ready for a sweep.

    Attributes:
        shape: What a task asks of it.
        where: For the user, as in "on {where}".
    """

    cluster: Cluster
    shape: TaskResources
    where: str


class Queue(Protocol):
    """What the cluster's queue shows to anybody, without a driver."""

    def jobs(self, user: str, *, timeout_s: float) -> list[QueuedJob]:
        """What waits or runs of this user; of an array its own id.

        Raises:
            ClusterUnavailable: The queue is not there, failed, or did not answer in time.
        """
        ...

    def poll(self, live: Sequence[SubmittedBatch]) -> Mapping[TaskId, TaskState] | None:
        """As `Cluster.poll`."""
        ...

    @property
    def poll_error(self) -> str:
        """Why the last poll gave no information; empty if it gave some."""
        ...


class Backend:
    """A kind of cluster. Cheap to import and to make.

    Attributes:
        title: Its name for people.
        options: The model of its own keys under `cluster:`. A field whose schema has the format `path` is a
            file, relative to the spec. The model may have a method `problems(space)`: what does not fit
            together, each line beginning with the key path.
        automatic: Whether `cluster.name: auto` looks for it.
        reuses: Whether tasks keep their GPUs for run after run where the spec does not say.
        remote: Whether tasks run on other machines, which have to see the results folder.
        driver_module: What a driver imports for it.
    """

    title: str = ""
    options: ClassVar[type[BaseModel]] = Section
    automatic: bool = False
    reuses: bool = False
    remote: bool = True
    driver_module: str = __name__

    def missing(self) -> str:
        """Why this machine has no programs of it, in a few words; empty if it has."""
        return ""

    def detect(self) -> tuple[Presence, str]:
        """Whether batches can be submitted from here, and why (not), for the user."""
        missing = self.missing()
        return (Presence.ABSENT, missing) if missing else (Presence.ANSWERS, f"{self.title} is here")

    def connect(self, sweep: SweepRequest, options: Any) -> Connection:
        """The cluster for a sweep.

        Args:
            sweep: What it is to run.
            options: A value of the model `options`.

        Raises:
            SpecError: It cannot run this sweep, or an option is wrong.
        """
        raise NotImplementedError

    def check_site(self, options: Any) -> Generator[Finding, None, bool]:
        """What `doctor` says of the site; False at its end if no sweep can be tried there.

        Args:
            options: As for `connect`.
        """
        yield from ()
        return True

    def queue(self) -> Queue | None:
        """Its queue, None where nobody but the driver can tell what runs."""
        return None

    def try_submitting(self, script: str, name: str) -> str:
        """On a node: submit this job held, look at it, and cancel it; why that fails, else empty."""
        return "no job can submit another one here"


class _PluginBackend(Backend):
    """A cluster of another package that is given as a plain class or function."""

    def __init__(self, name: str, make: Callable[..., Cluster]) -> None:
        self.title = f"cluster {name}"
        self.options = options_model(make, ("spec",))  # type: ignore[misc]  # of this very instance
        self._takes_model = "options" in inspect.signature(make).parameters
        self._make = make

    def connect(self, sweep: SweepRequest, options: Any) -> Connection:
        given = {"options": options} if self._takes_model else dict(options)
        return Connection(self._make(spec=sweep.spec, **given), sweep.task, self.title)


def cluster_names() -> list[str]:
    """Ours and those of other packages."""
    return plugin_names(CLUSTERS, ENTRY_POINTS)


def is_cluster(name: str) -> bool:
    """Whether there is a cluster of this name."""
    return is_known(CLUSTERS, name, ENTRY_POINTS)


def find_backend(name: str) -> Backend:
    """The backend of this name.

    Raises:
        SpecError: There is none, or it cannot be imported.
    """
    try:
        found = find_class(CLUSTERS, name, group=ENTRY_POINTS, key="cluster.name")
    except SpecError:
        raise
    except Exception as error:  # another package's code
        raise SpecError(
            f"cluster.name: {name!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if isinstance(found, type) and issubclass(found, Backend):
        backend = found()
        backend.title = backend.title or f"cluster {name}"
        return backend
    return _plugin_backend(name, found)


@functools.cache  # so that equal sections are of one type
def _plugin_backend(name: str, make: Callable[..., Cluster]) -> Backend:
    return _PluginBackend(name, make)


def options_of(model: type[M], section: BaseModel) -> M:
    """Of the section `cluster` what this model has, where it is given; else the model's defaults."""
    extra = section.model_extra or {}
    given = {key: getattr(section, key) for key in section.model_fields_set if key in model.model_fields}
    if model.model_config.get("extra") == "allow":
        given |= {key: value for key, value in extra.items() if key not in given}
    return model.model_construct(**given)
