"""A small results folder with a trial of each kind, for the exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    BatchSubmitted,
    Interruption,
    Outcome,
    RunFinished,
    RunId,
    RunInterrupted,
    SweepStarted,
    TrialCreated,
    TrialPromoted,
)
from hpcsweep.core.models import SIMULATED
from hpcsweep.spec import load_spec
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.run_files import MetricsWriter

SPEC = """\
name: lr
train: {function: "trainer.py:train"}
objective: {metric: loss}
space:
  lr: {type: float, low: 1e-12, high: 1.0, log: true}
  drop: {type: float, low: 0.0, high: 0.55, step: 0.1}
  width: {type: ordinal, values: [64, 128]}
  layers: {type: choice, values: [[64, 64], [128], none, 3, null]}
  flag: {type: choice, values: ["=1+1", -O2, "@x"]}
  nesterov: {type: choice, values: [true, false]}
  warmup: {type: int, low: 1, high: 9, step: 3, when: {nesterov: true}}
  data: {type: constant, value: digits}
searcher: random
scheduler: {name: hyperband, max_resource: 9}
"""

CONFIGS: tuple[dict[str, Any], ...] = tuple(
    {"lr": lr, "drop": 0.3, "width": 64, "layers": layers, "flag": flag, "nesterov": bool(warmup)}
    | ({"warmup": warmup} if warmup else {})
    | {"data": "digits"}
    for lr, layers, flag, warmup in (
        (1.25e-11, [64, 64], "=1+1", 4),
        (0.1, [128], "-O2", None),
        (0.2, "none", "@x", 7),
        (0.3, 3, "-O2", None),
        (0.4, None, "-O2", None),
    )
)

#: 0 went on to the top, 1 was dropped, 2 failed, 3 was stopped at step 2, 4 is under way.
TRIALS: tuple[AnyEvent, ...] = tuple(TrialCreated(n, config, 0, 3) for n, config in enumerate(CONFIGS))
EVENTS: tuple[AnyEvent, ...] = (
    *TRIALS,
    BatchPlanned("a", 1100.0, tuple((RunId(t, 0),) for t in range(4)), 1, 4, "slurm", 1800),
    BatchSubmitted("a", "11", 1101.0),
    RunFinished(0, 0, Outcome.COMPLETED, 0.5, 3, batch="a", seconds=30.0, started=1200.0, node="n1", job="1"),
    RunFinished(1, 0, Outcome.COMPLETED, 0.9, 3, batch="a", task=1, seconds=30.0, started=1200.0),
    RunFinished(
        2, 0, Outcome.FAILED, batch="a", task=2, seconds=10.0, started=1200.0, message="ValueError: no"
    ),
    RunFinished(3, 0, Outcome.STOPPED, 0.8, 2, batch="a", task=3, seconds=20.0, started=1200.0),
    TrialPromoted(0, 1, 9),
    BatchPlanned("b", 1300.0, ((RunId(0, 1),), (RunId(4, 0),)), 1, 2, "slurm", 1800),
    BatchSubmitted("b", "12", 1301.0),
    RunInterrupted(0, 1, Interruption.PREEMPTED, batch="b", start=3, step=5, requeued=True, seconds=25.0),
    RunFinished(0, 1, Outcome.COMPLETED, 0.2, 9, 5, restart=1, batch="b", seconds=40.0, started=1400.0),
)

#: By trial and rung, each with its steps.
REPORTS: Mapping[tuple[int, int], Sequence[tuple[int, dict[str, float]]]] = {
    (0, 0): [(step, {"loss": 1 / step, "acc": step / 10}) for step in (1, 2, 3)],
    (0, 1): [(step, {"loss": 1 / step}) for step in range(3, 10)],
    (1, 0): [(1, {"loss": 1.0}), (3, {"loss": 0.9, "acc": float("inf")})],
    (2, 0): [(1, {"loss": float("nan"), "acc": float("nan")})],
    (4, 0): [(1, {"loss": 0.7})],
}


#: Names that no file name, terminal or page would bear, and those that an export gives a meaning.
ODD_NAMES: tuple[str, ...] = (
    "a\x1b[31m",
    "a\u202eb/c",
    "x\ny",
    "x\\ny",
    "../up",
    "",
    "sweep/value",
    "_hparams_/experiment",
    "train/loss",
    "é",
)
#: The same as they are shown.
SHOWN_NAMES: tuple[str, ...] = (
    "a\\x1b[31m",
    "a\\u202eb/c",
    "x\\ny (2)",
    "x\\ny",
    "../up",
    "(no name)",
    "sweep/value",
    "_hparams_/experiment",
    "train/loss",
    "é",
)


def oddly_named(root: Path) -> Path:
    """The results folder `s` in which trial 0 reported metrics of such names at its first step."""
    folder = exported(root, more=[r'objective.metric="lo\x1bss"'])
    writer = MetricsWriter(Layout(folder).trial(0).metrics(0, 0, 0))
    writer.write(1, {name: float(value) for value, name in enumerate(ODD_NAMES)})
    writer.close()
    return folder


def simulated(root: Path) -> Path:
    """The results folder `s` of the sweep as if it had been simulated."""
    events = (
        msgspec.structs.replace(event, cluster=SIMULATED) if isinstance(event, BatchPlanned) else event
        for event in EVENTS
    )
    return exported(root, events=list(events))


def exported(
    root: Path, *, events: Sequence[AnyEvent] = EVENTS, more: Sequence[str] = (), sweep: str = "cafe01"
) -> Path:
    """The results folder `s` in `root`, of a sweep that still goes on."""
    (root / "lr.yaml").write_text(SPEC)
    folder = root / "s"
    layout = Layout(folder)
    journal = Journal.open(layout)
    started = SweepStarted(sweep, "lr", 1000.0, load_spec(root / "lr.yaml", more).identity())
    journal.commit([started, *events])
    journal.release()
    for (trial, rung), reports in REPORTS.items():
        if any(isinstance(event, TrialCreated) and event.trial == trial for event in events):
            writer = MetricsWriter(layout.trial(trial).metrics(rung, 0, 0))
            for step, metrics in reports:
                writer.write(step, metrics)
            writer.close()
    return folder
