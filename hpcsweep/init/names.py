"""Which names are metrics: their words, the data that they are measured on, and whether more is better."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

#: Words for data, as in `val_loss`, from the best objective to the worst.
SETS: Final = {
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "heldout", "validate", "evaluate"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
    **dict.fromkeys(("train", "training", "trn", "tr"), "train"),
}
#: Metrics that are maximised, and those that are minimised.
_MAXIMISED_TEXT: Final = """
    acc accuracy f1 auc auroc ap map iou miou dice r2 bleu rouge precision recall score top1 top5 success
    reward return psnr ssim elbo correct kappa mcc ndcg mrr fitness
"""
_MINIMISED_TEXT: Final = """
    loss error err ppl perplexity nll bpc bpb rmse mse mae mape wer cer fid logloss cost deviance regret
    objective crossentropy ce bce energy
"""
_MAXIMISED: Final = frozenset(_MAXIMISED_TEXT.split())
_MINIMISED: Final = frozenset(_MINIMISED_TEXT.split())
#: What a model costs: further objectives beside a metric, never the only one. Of the last two more is better.
_COSTS: Final = frozenset(("latency", "flops", "macs", "params", "throughput", "fps"))
_RATES: Final = frozenset(("throughput", "fps"))
#: What else is one where a script reports it to hpcsweep by its name.
_REPORTED_COSTS: Final = frozenset(("size", "time", "seconds", "duration", "memory", "parameters"))
_PLURALS: Final = {"losses": "loss", "accs": "acc", "errors": "error", "errs": "err", "scores": "score"} | {
    "accuracies": "accuracy",
    "rewards": "reward",
    "returns": "return",
}
#: Words that say nothing of a metric's kind.
_NOISE_TEXT: Final = """
    average avg mean set current final end of epoch total running the is at on with and in to for by step item
    value values meter tensor iter iteration result results now new this model cur per sum all self
"""
_NOISE: Final = frozenset(_NOISE_TEXT.split())
_STEPS: Final = "epoch epochs ep step steps iter iters iteration iterations round rounds e it update"
STEP_WORDS: Final = frozenset(_STEPS.split(" "))
_WORD: Final = re.compile(r"[A-Z]?[a-z]+\d?(?![a-z])|[A-Z]+(?![a-z])\d?|\d+")


def words(name: str) -> list[str]:
    """`valLoss`, `val/loss` and `Val Loss` all have the words val and loss."""
    found = [word.lower() for word in _WORD.findall(name)]
    return [_PLURALS.get(word, word) for word in found]


def data_of(parts: Iterable[str]) -> str:
    """`val`, `test`, `train` or nothing: the last word for data."""
    named = [SETS[word] for word in parts if word in SETS]
    return named[-1] if named else ""


def _is_kind(word: str) -> bool:
    """Whether the word names a metric, perhaps with a number as in `acc1`."""
    return any(each in _MAXIMISED or each in _MINIMISED for each in (word, word.rstrip("0123456789")))


def is_metric(name: str) -> bool:
    """Whether the name has the word of a metric."""
    return any(map(_is_kind, words(name)))


def is_cost(name: str, *, reported: bool = False) -> bool:
    """Whether it measures what a model costs; `reported`: by a script that reports it by this name."""
    costs = _COSTS | _REPORTED_COSTS if reported else _COSTS
    return not is_metric(name) and any(word in costs for word in words(name))


def measured(names: Iterable[str]) -> tuple[str, ...]:
    """Those of metrics, with costs beside them; none where no metric is there."""
    found = tuple(name for name in names if is_metric(name) or is_cost(name))
    return found if any(map(is_metric, found)) else ()


def metric_name(text: str, *, data: str = "") -> str:
    """`Average val loss` is `val_loss`; empty where it is no metric. `data` is for texts that have none."""
    parts = words(text)
    known = _is_kind if any(map(_is_kind, parts)) else _COSTS.__contains__
    if not any(map(known, parts)):
        return ""
    kept = [word for word in parts if word not in _NOISE and word not in SETS]
    # Of a longer text what stands nearest to the value.
    first = next(index for index, word in enumerate(kept) if known(word))
    kept = kept[max(0, first - 1 if first and kept[first - 1] in ("best", "log", "top") else first) :][:3]
    named = data_of(parts) or ("" if is_cost(text) else data)
    name = "_".join([named, *kept] if named else kept)
    return name if not name[0].isdigit() else f"metric_{name}"


def is_step(name: str) -> bool:
    """Whether the name counts epochs or steps."""
    parts = words(name)
    if not parts or is_metric(name):
        return False
    numbered = parts[0] in STEP_WORDS and parts[-1] in ("num", "number", "idx", "index", "no", "nr", "count")
    return numbered or parts[-1] in STEP_WORDS


def mode_of(name: str) -> str:
    """`max` or `min`, by the last word that says it."""
    for word in reversed(words(name)):
        base = word if word in _MAXIMISED else word.rstrip("0123456789")
        if _is_kind(word):
            return "max" if base in _MAXIMISED else "min"
    return "max" if _RATES.intersection(words(name)) else "min"


def rank(name: str) -> tuple[int, int, int]:
    """How fit a metric is as the objective; smaller is better."""
    parts = words(name)
    data = {"val": 0, "test": 1, "": 2, "train": 3}[data_of(parts)]
    order = ("loss", "error", "err", "ppl", "perplexity", "acc", "accuracy", "f1", "auc", "score")
    kind = min((order.index(word) for word in parts if word in order), default=len(order))
    return (int("best" in parts), data, kind)
