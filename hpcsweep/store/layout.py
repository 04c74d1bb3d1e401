"""Every path of a results folder, in one place."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

#: Trials in one folder at most: Lustre is slow in folders with tens of thousands of entries.
SHARD = 1000


class Layout:
    """Paths below one results folder. Makes nothing, reads nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def of_batch(cls, batch_folder: Path) -> Layout:
        """The layout of a worker, which is given only its batch folder."""
        return cls(batch_folder.parent.parent)

    @property
    def spec(self) -> Path:
        return self.root / "sweep.yaml"

    @property
    def journal(self) -> Path:
        return self.root / "journal"

    @property
    def batches(self) -> Path:
        return self.root / "batches"

    @cached_property
    def trials(self) -> Path:
        return self.root / "trials"

    @property
    def control(self) -> Path:
        return self.root / "control"

    @property
    def tick_script(self) -> Path:
        """The script of tick jobs (detached sweeps); rewritten before each."""
        return self.root / "tick.sbatch"

    @property
    def tick_log(self) -> Path:
        """Output of ticks outside of `launch`."""
        return self.root / "ticks.log"

    @property
    def code(self) -> Path:
        """The snapshot of the training code (`train.snapshot`)."""
        return self.root / "code"

    @property
    def provenance(self) -> Path:
        """One record for each launch that differs from the one before."""
        return self.root / "provenance"

    @property
    def compacted(self) -> Path:
        """Parts: the content of many small files in a few large ones."""
        return self.root / "compacted"

    def reports_part(self, part: str) -> Path:
        """Metrics of the part's runs."""
        return self.compacted / f"metrics-{part}.parquet"

    def batches_part(self, part: str) -> Path:
        """The part's batch folders."""
        return self.compacted / f"batches-{part}.zip"

    def index_part(self, part: str) -> Path:
        """Which raw files are in the part; exists until they are removed."""
        return self.compacted / f"taken-{part}.json"

    @property
    def tables(self) -> Path:
        """What the tables of a finished sweep were made of; see `compaction.parts.Tables`."""
        return self.compacted / "tables.json"

    def batch(self, name: str) -> BatchLayout:
        return BatchLayout(self.batches / name)

    def trial(self, trial: int) -> TrialLayout:
        return TrialLayout(Path(f"{self.trials}/{trial // SHARD:04d}/{trial}"))


class BatchLayout:
    """Paths of one batch."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def manifest(self) -> Path:
        """What each task is to do; written before submission."""
        return self.root / "manifest.jsonl"

    @property
    def script(self) -> Path:
        return self.root / "script.sbatch"

    @property
    def abandoned_marker(self) -> Path:
        """Exists once the batch is abandoned: a task that starts all the same leaves."""
        return self.root / "void"

    def stop(self, trial: int, rung: int) -> Path:
        """Exists once this run is to stop; see `batch.request_stop`."""
        return self.root / f"stop-{trial}-{rung}"

    @cached_property
    def results(self) -> Path:
        return self.root / "results"

    def result(self, task: int, restart: int, n: int) -> Path:
        """Result of the task's `n`-th run in its `restart`-th start."""
        return self.results / f"{task}.{restart}.{n}.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def log(self, task: int, n: int | None = None) -> Path:
        """Output of the task; of its `n`-th run if it has several."""
        return self.logs / (f"{task}.log" if n is None else f"{task}.{n}.log")

    @property
    def claims(self) -> Path:
        """Which process runs which task, on the local cluster."""
        return self.root / "claims"


class TrialLayout:
    """Paths of one trial."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def metrics(self, rung: int, attempt: int, restart: int) -> Path:
        """Reports of one attempt, one JSON object per line. One writer."""
        return self.root / f"metrics-{rung}.{attempt}.{restart}.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step}"
