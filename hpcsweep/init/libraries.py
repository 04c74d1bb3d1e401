"""What training libraries print and write by themselves: Keras, XGBoost, LightGBM, Lightning and others."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hpcsweep.init.files import Paths
from hpcsweep.init.found import MetricFile, MetricLine
from hpcsweep.init.names import measured
from hpcsweep.init.sources import Source, keywords, last_name

#: What the Trainer of transformers prints after each evaluation.
_TRAINER = r"'eval_loss': '?(?P<eval_loss>[-+.\w]+).*'epoch': '?(?P<step>[\d.]+)"


def library_lines(source: Source) -> Iterator[MetricLine]:
    """The lines that a library prints for this module."""
    packages = {name.partition(".")[0] for name in source.imported}
    for call in source.calls():
        verb, given = last_name(source.dotted(call)), keywords(call)
        if verb == "fit" and packages & {"keras", "tensorflow"}:
            if "validation_data" in given or "validation_split" in given:
                yield MetricLine(r"val_loss: (?P<val_loss>\S+)", ("val_loss",), repeated=True)
        elif verb == "train" and "xgboost" in packages and "evals" in given:
            name = _last_set(source, given["evals"])
            yield MetricLine(
                rf"^\[(?P<step>\d+)\].*\b{name}-[^:]+:(?P<val_loss>\S+)", ("val_loss",), True, first_step=0
            )
        elif verb == "train" and "lightgbm" in packages and "valid_sets" in given:
            pattern = r"^\[(?P<step>\d+)\].*'s [^:]+: (?P<val_loss>\S+)"
            yield MetricLine(pattern, ("val_loss",), True, first_step=1)
        elif verb in ("Trainer", "Seq2SeqTrainer") and "transformers" in packages:
            yield MetricLine(_TRAINER, ("eval_loss",), repeated=True)


def _last_set(source: Source, node: ast.expr) -> str:
    """The name of the last data set of `evals`, the one that XGBoost stops by."""
    for item in reversed(node.elts if isinstance(node, ast.List | ast.Tuple) else []):
        name = source.constant(item.elts[1]) if isinstance(item, ast.Tuple) and len(item.elts) > 1 else None
        if isinstance(name, str):
            return name
    return r"\S+?"


def lightning_file(source: Source, paths: Paths) -> MetricFile | None:
    """What Lightning writes of `self.log(...)`: by its CSVLogger, else for TensorBoard."""
    packages = {name.partition(".")[0] for name in source.imported}
    if not packages & {"lightning", "pytorch_lightning"}:
        return None
    kind, folder, trainer = "", None, False
    tags: list[str] = []
    for call in source.calls():
        verb, given = last_name(source.dotted(call)), keywords(call)
        first = source.constant(call.args[0]) if call.args else None
        if verb == "CSVLogger":
            kind, folder = "lightning", paths.read(call.args[0] if call.args else given.get("save_dir"))
        elif verb == "TensorBoardLogger":
            kind, folder = "tensorboard", paths.read(call.args[0] if call.args else given.get("save_dir"))
        elif verb == "Trainer":
            trainer = True
            folder = folder or paths.read(given.get("default_root_dir"))
        elif verb == "log" and isinstance(first, str):
            tags.append(first)
        elif verb == "log_dict" and call.args and isinstance(call.args[0], ast.Dict):
            tags += [key for key in map(source.constant, call.args[0].keys) if isinstance(key, str)]
    metrics = measured(dict.fromkeys(tags))
    if not metrics or not (kind or trainer):
        return None
    argument, path = folder or ("", "")
    return MetricFile(kind or "tensorboard", argument, path, metrics, "epoch", first_step=0)
