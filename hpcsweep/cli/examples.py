"""An example for each verb, which its help ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

EXAMPLES: Final[Mapping[str, Sequence[str]]] = {
    "init": ("hpcsweep init train.py", "hpcsweep init train.py --output -"),
    "try": ("hpcsweep try sweep.yaml", "hpcsweep try sweep.yaml lr=0.01 --cluster slurm"),
    "launch": (
        "hpcsweep launch sweep.yaml",
        "hpcsweep launch sweep.yaml --detach --set cluster.max_gpus=16",
        "hpcsweep launch sweep.yaml --set searcher.seed=1 --results results/again",
    ),
    "plan": (
        "hpcsweep plan sweep.yaml",
        "hpcsweep plan sweep.yaml --seconds-per-step 90",
        "hpcsweep plan --schema > sweep.schema.json",
    ),
    "list": ("hpcsweep list", "hpcsweep list /project/results --json"),
    "status": (
        "hpcsweep status results/digits --watch",
        "hpcsweep status results/digits results/faces",
        "hpcsweep status results/digits --json",
    ),
    "trials": (
        "hpcsweep trials results/digits -n 20",
        "hpcsweep trials results/digits --where 'lr < 0.01' --sort -seconds",
    ),
    "best": (
        "hpcsweep best results/digits",
        "hpcsweep best results/digits -n 10",
        "hpcsweep best results/digits --rerun --start",
    ),
    "explain": ("hpcsweep explain results/digits 17",),
    "logs": ("hpcsweep logs results/digits 17", "hpcsweep logs results/digits 17 --rung 0 --tail 50"),
    "stop": ("hpcsweep stop results/digits", "hpcsweep stop results/digits 17"),
    "enqueue": ("hpcsweep enqueue results/digits lr=0.01 optimizer=adam",),
    "retry": (
        "hpcsweep retry results/digits",
        "hpcsweep retry results/digits 17 --set resources.mem=32G",
    ),
    "clean": ("hpcsweep clean results/digits", "hpcsweep clean results/digits --best --yes"),
    "simulate": (
        "hpcsweep simulate sweep.yaml",
        "hpcsweep simulate sweep.yaml --compare scheduler=hyperband,asha searcher=random,tpe",
    ),
    "report": (
        "hpcsweep report results/digits",
        "hpcsweep report results/digits --metric latency_ms=min --output digits.html",
    ),
    "compare": ("hpcsweep compare results/a results/b",),
    "serve": ("hpcsweep serve results", "hpcsweep serve results /project/results --port 8123"),
    "export": ("hpcsweep export results/digits --format csv --output digits.csv",),
    "doctor": ("hpcsweep doctor sweep.yaml", "hpcsweep doctor sweep.yaml --canary"),
}


def epilog(verb: str) -> str | None:
    """The examples, as the help shows them: not to be wrapped."""
    examples = EXAMPLES.get(verb)
    return None if examples is None else "\n".join(["\b", "Examples:", *(f"  {line}" for line in examples)])
