"""The sections of a spec, and searchers, schedulers and stopping rules by name with their options.

The docstring below a field is its description in the schema and the docs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, NamedTuple, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    create_model,
    model_serializer,
)

from hpcsweep import schedulers, searchers
from hpcsweep.cluster import CLUSTERS
from hpcsweep.cluster.backend import find_backend, is_cluster, options_of
from hpcsweep.core.outcomes import FAIL_FAST
from hpcsweep.core.space import Space
from hpcsweep.core.text import format_value, suggest_name
from hpcsweep.options import (
    DiskSize,
    Environment,
    Finite,
    Hundreds,
    Memory,
    Millions,
    Natural,
    NumberOrOff,
    OtherSchema,
    Pause,
    Positive,
    PositiveNumber,
    Seconds,
    Section,
    Text,
    Texts,
    TimeLimit,
    Whole,
    options_model,
    section_schema,
)
from hpcsweep.plugins import is_known, plugin_names
from hpcsweep.schedulers.stopping_rules import STOP_RULES

if TYPE_CHECKING:
    from hpcsweep.spec.checks import Problems


def _names(value: Any) -> Any:
    """Columns without a name are numbered."""
    if not isinstance(value, Mapping):
        return value
    return {str(name): str(item) if type(item) is int else item for name, item in value.items()}


class MetricsFile(Section):
    """A file in which a program leaves metrics."""

    file: Text
    """A path relative to the working directory, with placeholders such as `{output_dir}` and with `*`."""
    kind: Text | None = None
    """Format: `csv`, `jsonl`, `json`, `trainer_state`, `tensorboard`, `wandb` or `mlflow`. Default: by the
    file's name."""
    step: Text | None = None
    """Column, key or tag with the step; `rows` counts rows. Default: the format's own step, else `rows`."""
    values: Annotated[
        dict[str, str],
        BeforeValidator(_names),
        WithJsonSchema({"type": "object", "additionalProperties": {"type": ["string", "integer"]}}),
    ] = Field(default_factory=dict)
    """Metrics, and their names in the file. Default: all numbers, under their names in the file."""

    @model_serializer(mode="wrap")
    def _given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As written in YAML."""
        return {key: value for key, value in handler(self).items() if value}


def _metrics(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value if value is None else (value,)


def _metrics_schema() -> dict[str, Any]:
    """One pattern or file, or a list of these."""
    one = {"anyOf": [{"type": "string"}, section_schema(MetricsFile)]}
    return {"anyOf": [*one["anyOf"], {"type": "array", "items": one}]}


class CheckpointFiles(Section):
    """The files in which a program keeps what it goes on from."""

    path: Text
    """A path relative to the working directory with `*`, which has `{output_dir}` or `{trial}` in it."""
    when: Literal["changed", "end"] = "changed"
    """When they become the trial's checkpoint: at a report if they have `changed` and at the end, or at the
    `end` only."""


class Resume(Section):
    """What a command gets only where there is something to resume from."""

    args: Text
    """Arguments that are added at its end, with placeholders."""


def _or_null(model: type[Section]) -> OtherSchema:
    """A section that may be left out."""
    return OtherSchema(lambda: {"anyOf": [section_schema(model), {"type": "null"}]})


class Train(Section):
    """The training code: `function` or `command`."""

    function: Text | None = None
    """A callable that takes a `Trial`: `FILE.py:NAME`, relative to the spec, or `package.module:NAME`."""
    call: Literal["trial", "optuna", "ray"] = "trial"
    """How `function` is called: with a `Trial`, with a trial like Optuna's, or with a configuration as by
    Ray Tune. See porting.md."""
    command: Text | None = None
    """A command line with placeholders such as `{lr}`, `{resource}`, and `{args}` for all other parameters,
    instead of `function`. See commands.md."""
    shell: bool = False
    """Run `command` in a shell; placeholder values are shell-quoted."""
    flags: Text | None = None
    """How `command` gets booleans: `present` (`--name`, or nothing), `no-` (`--name` or `--no-name`), or
    the texts for true and false such as `1/0`. See commands.md."""
    dashes: bool = False
    """Write dashes for the underscores of names in `{args}`: `--batch-size` for `batch_size`."""
    config: Text | None = None
    """A YAML, JSON, TOML or INI file, relative to the spec. With the parameters at their dotted keys it is
    the `{config_file}` of `command`."""
    metrics: Annotated[
        tuple[str | MetricsFile, ...], BeforeValidator(_metrics), OtherSchema(_metrics_schema)
    ] = ()
    """Where a program leaves metrics: regular expressions for printed lines, whose named groups are metrics,
    and files. See metrics.md."""
    workdir: Text | None = None
    """Working directory of the training code, relative to the spec file. Default: the folder of that file."""
    keep_checkpoints: Positive = 1
    """Number of newest checkpoints to keep per trial."""
    keep: Literal["survivors", "all"] = "survivors"
    """Trials whose checkpoints are kept: `survivors` are those that may be promoted, and the best one."""
    log_limit: Memory = 100
    """Size limit of an attempt's log; beginning and end of a longer one are kept. null keeps everything."""
    check: bool = True
    """Import `function`, or look up the program of `command`, before the sweep is started."""
    warm: Literal["auto", False] = "auto"
    """Whether a task with `cluster.reuse` may import `function` once and fork each run from that process.
    `auto`: where that is safe."""
    launcher: Literal["none", "torchrun", "srun", "accelerate"] = "none"
    """What starts the processes of a run, on all its nodes; `none`: the run is one process, which may start
    others itself. See distributed.md."""
    processes: Hundreds | None = None
    """Processes on each node with a `launcher`. Default: one for each GPU, else 1."""
    first_step: Literal[0, 1] = 1
    """The number of the first step in what `command` prints: 0 for programs that count steps from 0."""
    checkpoint: Annotated[CheckpointFiles | None, _or_null(CheckpointFiles)] = None
    """The files that `command` keeps by itself, if not in `{checkpoint_dir}`. See programs.md."""
    resume: Annotated[Resume | None, _or_null(Resume)] = None
    """Arguments for `command` where there is something to resume from. See programs.md."""
    stop_at_resource: bool = False
    """End `command` once the objective was reported at the run's resource, for programs that train on."""
    snapshot: bool = False
    """Copy the code into the results folder when the sweep starts, and run this copy for the whole sweep."""

    @property
    def patterns(self) -> tuple[str, ...]:
        """The regular expressions among `metrics`."""
        return tuple(each for each in self.metrics if isinstance(each, str))

    @property
    def metric_files(self) -> tuple[MetricsFile, ...]:
        """The files among `metrics`."""
        return tuple(each for each in self.metrics if isinstance(each, MetricsFile))


class Objective(Section):
    """The metric to optimise."""

    metric: Text
    """The name of the metric that the training code reports."""
    mode: Literal["min", "max"] = "min"
    """Minimise or maximise it."""
    at: Literal["last", "best"] = "last"
    """The value of a run: the metric at its last step, or the best of the trial's steps so far."""
    at_most: Finite | None = None
    """A configuration with a larger value is infeasible: worse than any that keeps all bounds."""
    at_least: Finite | None = None
    """A configuration with a smaller value is infeasible: worse than any that keeps all bounds."""
    reference: Finite | None = None
    """Hypervolumes are measured up to this value. All of several objectives have one, or none has."""


class Cluster(Section):
    """Where the sweep runs and how much of it it may use. Each cluster adds keys of its own."""

    name: Text = "auto"
    """The cluster. `auto` is the first batch system that answers here, else this machine."""
    max_gpus: Millions | None = None
    """Maximum number of GPUs in use, over all jobs of the sweep. Without any cap: 1000 tasks at a time."""
    max_tasks: Millions | None = None
    """Maximum number of running tasks, over all jobs of the sweep."""
    setup: Texts = ()
    """Shell lines to run before training, such as `module load cuda`."""
    environment: Environment = Field(default_factory=dict)
    """Environment variables of the runs; null takes the value from the environment of `launch`."""
    python: Text | None = None
    """Python interpreter on the compute nodes. Default: the one that launches."""
    poll: Pause | None = None
    """Time between two ticks, in seconds or such as `30s`. Default: adapts to the cluster and its load."""
    settle: Seconds | None = None
    """How long an unanswered submission may still appear, such as `2m`. Default: depends on the cluster."""
    grace: Seconds | None = None
    """How long a result may appear after its task ended, such as `1m`. Default: depends on the cluster."""
    reuse: bool | None = None
    """Whether a task keeps its GPUs and does run after run; else it does one. Default: true where jobs wait
    in a queue, as on Slurm, false on this machine."""
    task_time: TimeLimit = None
    """Time limit of a task with `reuse`. Default: enough for the longest run, and at least an hour where the
    site allows that."""
    idle: Whole = Field(default=120, ge=1, le=86_400)
    """Seconds for which a task with `reuse` may hold its GPUs without a run."""
    concurrent: Hundreds = 1
    """Number of runs of a task that run at the same time and share its GPUs."""
    signal: Whole = Field(default=60, ge=0, le=65_535)
    """Seconds before the time limit at which a run is told to checkpoint and exit."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """The keys of single clusters: see `cluster_model`."""


class Budget(Section):
    """Limits of the whole sweep."""

    trials: Positive | None = None
    """Maximum number of trials."""
    gpu_hours: PositiveNumber | None = None
    """Maximum GPU-hours, never exceeded: each started task counts with its full time limit."""
    time: TimeLimit = None
    """Time after which no further run is started, such as `12h`."""


class Store(Section):
    """Limits of what the sweep keeps on disk."""

    checkpoint_quota: DiskSize = None
    """Maximum size of all checkpoints and output folders, such as `500G`. See training.md."""
    checkpoint_files: Positive | None = None
    """Maximum number of their files."""


class Retries(Section):
    """How often a failed or interrupted run is repeated."""

    training: Natural = 0
    """Retries after an error in the training code, a missing or NaN value, or out of memory."""
    infrastructure: Natural = 5
    """Retries after preemption, time limit, node failure or lost task, in a row without progress: a new
    checkpoint, or steps beyond those of earlier attempts."""
    timeouts: Natural | None = None
    """Retries after a time limit. Default: unlimited as long as there is progress."""
    fail_fast: NumberOrOff = FAIL_FAST
    """Pause the sweep after this many trials failed within seconds with the same error, before any run did
    better. 0 or false turns this off."""


def cluster_model(name: str) -> type[Cluster]:
    """The section `cluster` for a cluster of this name.

    Its keys are those of all clusters, its own, and those of the clusters of this package: a sweep for Slurm
    may be tried on this machine or simulated.
    """
    names = [*([name] if name and name not in CLUSTERS and is_cluster(name) else []), *CLUSTERS]
    return _cluster_model(tuple(find_backend(each).options for each in names))


@functools.cache
def _cluster_model(models: tuple[type[BaseModel], ...]) -> type[Cluster]:
    """The same for the same models, so that equal sections are of one type."""
    fields: dict[str, Any] = {}
    extra = "forbid"
    for model in models:
        for key, field in model.model_fields.items():
            if key not in Cluster.model_fields:
                fields.setdefault(key, (field.annotation, field))
        extra = cast("str", model.model_config.get("extra")) if model is models[0] else extra
    own = {"model_config": ConfigDict(extra=cast("Any", extra)), "fields_of": models}
    base = type("Cluster", (Cluster,), own)
    return cast("type[Cluster]", create_model("Cluster", __base__=base, **fields))


def cluster_problems(section: Cluster, space: Space) -> Iterator[str]:
    """What does not fit together in the keys of single clusters, each line beginning with the key path."""
    own = section.name not in ("auto", *CLUSTERS) and is_cluster(section.name)
    for name in [*CLUSTERS, *([section.name] if own else [])]:
        options = options_of(find_backend(name).options, section)
        problems = getattr(options, "problems", None)
        if problems is not None:
            yield from problems(space)


class Kind(NamedTuple):
    """One kind of things that a spec names.

    Attributes:
        table: Those of this package; the first one is the default.
        group: The entry points of others; empty if there are none.
        load: The class of a name.
        supplied: Parameters of its constructor that are not options.
    """

    table: Mapping[str, Any]
    group: str
    load: Callable[[str], Callable[..., Any]]
    supplied: tuple[str, ...]

    @property
    def default(self) -> str:
        return next(iter(self.table))

    def names(self) -> list[str]:
        """All names, those of installed packages included."""
        return plugin_names(self.table, self.group)

    def model(self, name: str) -> type[BaseModel]:
        """The options of the class of that name."""
        return options_model(self.load(name), self.supplied)


SEARCHER: Final = Kind(
    searchers.SEARCHERS, searchers.ENTRY_POINTS, searchers.searcher_class, searchers.SUPPLIED
)
SCHEDULER: Final = Kind(
    schedulers.SCHEDULERS, schedulers.ENTRY_POINTS, schedulers.scheduler_class, schedulers.SUPPLIED
)
STOP_RULE: Final = Kind(STOP_RULES, "", STOP_RULES.__getitem__, ("minimise", "objectives"))


class NamedOptions(BaseModel):
    """A searcher, scheduler or stopping rule by name, with all its options."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    name: str
    options: dict[str, Any] = Field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As written in YAML."""
        return {"name": self.name, **self.options}


class SearcherChoice(NamedOptions):
    """A searcher by name, with its seed and all its options."""

    seed: int = 0

    def plain(self) -> dict[str, Any]:
        """As written in YAML."""
        return {"name": self.name, "seed": self.seed, **self.options}


def split_name(raw: Any, path: str, kind: Kind, problems: Problems) -> tuple[str, dict[str, Any]] | None:
    """Name and options of a section that may be a name alone; None after adding a problem."""
    if raw is None or isinstance(raw, str):
        raw = {"name": raw} if raw else {}
    if not isinstance(raw, Mapping):
        problems.add(path, f"must be a name or a mapping with a name, got {format_value(raw)}")
        return None
    options = {str(option): value for option, value in raw.items()}
    name = options.pop("name", kind.default)
    if not isinstance(name, str):
        problems.add(f"{path}.name", f"must be text, got {format_value(name)}")
        return None
    if not is_known(kind.table, name, kind.group):
        problems.add(f"{path}.name", suggest_name(name, kind.names(), kind=f"name {name!r}"))
        return None
    return name, options


def read_options(
    name: str,
    options: Mapping[str, Any],
    path: str,
    kind: Kind,
    problems: Problems,
    *,
    other_keys: tuple[str, ...] = (),
) -> dict[str, Any] | None:
    """All options, defaults included; None after adding problems."""
    try:
        model = kind.model(name)
    except Exception as error:  # another package's code
        problems.add(f"{path}.name", f"{name!r} cannot be imported: {type(error).__name__}: {error}")
        return None
    section = problems.validated(model, options, path=path, also_known=("name", *other_keys))
    return None if section is None else section.model_dump()


def read_named(raw: Any, path: str, kind: Kind, problems: Problems) -> NamedOptions | None:
    """A section that may be a name alone, with all options; None after adding problems."""
    named = split_name(raw, path, kind, problems)
    options = None if named is None else read_options(*named, path, kind, problems)
    return None if named is None or options is None else NamedOptions(name=named[0], options=options)
