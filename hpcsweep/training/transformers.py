"""Hugging Face's `Trainer`: a callback that reports, checkpoints, stops and resumes.

    sweep = SweepCallback(trial)
    arguments = TrainingArguments(
        output_dir=sweep.output_dir,
        num_train_epochs=trial.resource,
        eval_strategy="epoch",
        save_strategy="epoch",
        lr_scheduler_type="constant",
    )
    trainer = Trainer(model, arguments, train_dataset=..., eval_dataset=..., callbacks=[sweep])
    trainer.train(resume_from_checkpoint=sweep.resume_from_checkpoint)

The default learning rate schedule falls to zero at the end of the run, which differs from rung to rung: use
one that does not depend on it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Literal

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    need = "hpcsweep.training.transformers needs transformers: pip install 'hpcsweep[transformers]'"
    raise ImportError(need) from error

from hpcsweep.training.pytorch import any_should_stop, wait_for_all
from hpcsweep.trial import Trial


class SweepCallback(TrainerCallback):
    """Makes a training one run of a trial.

    It reports the metrics of each evaluation, and the training loss if it is logged. Each of the Trainer's
    checkpoints is moved, not copied, to become one of the trial's. When the trial is told to stop, training
    ends after the present epoch.

    With `unit="step"` the resource counts optimiser steps (`max_steps=trial.resource`,
    `save_strategy="steps"`), and training ends after the present step, with a checkpoint.

    Args:
        trial: The trial to train.
        unit: What `trial.resource` counts.
    """

    def __init__(self, trial: Trial, *, unit: Literal["epoch", "step"] = "epoch") -> None:
        self._trial = trial
        self._unit = unit
        self._reported: dict[str, None] = {}
        self._evaluated = False

    @property
    def output_dir(self) -> str:
        """For `TrainingArguments`: a folder from which checkpoints can be moved instead of copied."""
        return str(self._trial.checkpoint_dir or "trainer_output")

    @property
    def resume_from_checkpoint(self) -> str | None:
        """For `Trainer.train`: the checkpoint to resume from; None: from scratch."""
        folder = self._trial.resume_from
        return str(folder) if folder is not None else None

    # ------------------------------------------------------------------ what the Trainer calls

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Check that length, checkpoints and start of the training fit this run."""
        name, strategy = ("num_train_epochs", "epoch") if self._unit == "epoch" else ("max_steps", "steps")
        if getattr(args, name) != self._trial.resource:
            raise ValueError(
                f"TrainingArguments({name}={getattr(args, name)}): this run trains to {self._unit} "
                f"{self._trial.resource}; write {name}=trial.resource"
            )
        saved = getattr(args.save_strategy, "value", args.save_strategy)
        if saved != strategy or args.save_only_model:
            raise ValueError(
                f"TrainingArguments(save_strategy={saved!r}, save_only_model={args.save_only_model}): a "
                f"trial goes on from checkpoints of whole {self._unit}s; write save_strategy={strategy!r}, "
                "and leave save_only_model out"
            )
        at = state.global_step if self._unit == "step" else round(state.epoch or 0)
        if at != self._trial.start:
            raise ValueError(
                f"training starts after {self._unit} {at}, the trial after {self._trial.start}: write "
                "trainer.train(resume_from_checkpoint=sweep.resume_from_checkpoint), where sweep is the "
                "SweepCallback"
            )
        self._trial.rank = args.process_index

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Stop with a checkpoint, where steps count and the trial is told to."""
        if self._unit == "step" and any_should_stop(self._trial):
            control.should_save = control.should_training_stop = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Stop, where epochs count and the trial is told to."""
        if self._unit == "epoch" and any_should_stop(self._trial):
            control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Report the training loss; evaluations come to `on_evaluate`."""
        if logs and "loss" in logs:
            self._report(state, logs)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Report the metrics of an evaluation."""
        self._evaluated = True
        self._report(state, metrics or {})

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Make the Trainer's checkpoint the trial's, complete or absent."""
        self._check_objective()
        step = self._step(state)
        if step is None:
            return
        source = Path(args.output_dir or "", f"checkpoint-{state.global_step}")
        wait_for_all()  # each process writes its random numbers into it
        with self._trial.checkpoint(step) as folder:
            if self._trial.rank == 0:
                shutil.copytree(source, folder, copy_function=_link, dirs_exist_ok=True)
        if self._trial.rank == 0 and not args.load_best_model_at_end:
            shutil.rmtree(source, ignore_errors=True)

    def _step(self, state: TrainerState) -> int | None:
        """Epochs or steps that were trained; None in the middle of an epoch, where epochs count."""
        if self._unit == "step":
            return state.global_step
        epoch = round(state.epoch or 0)
        return epoch if abs((state.epoch or 0) - epoch) < 1e-6 else None

    def _report(self, state: TrainerState, metrics: dict[str, Any]) -> None:
        step = self._step(state)
        numbers = {
            name: value
            for name, value in metrics.items()
            if isinstance(value, int | float) and name not in ("epoch", "step")
        }
        if step is not None and numbers:
            self._reported |= dict.fromkeys(numbers)
            self._trial.report(step, **numbers)

    def _check_objective(self) -> None:
        """Complain after the first evaluation, not after the last."""
        for objective in self._trial.metrics:
            if not self._evaluated or not objective.startswith("eval_") or objective in self._reported:
                continue
            evaluated = ", ".join(map(repr, self._reported))
            raise ValueError(
                f"objective.metric {objective!r} was not evaluated; evaluated were {evaluated}. "
                "What compute_metrics returns as 'name' is 'eval_name'"
            )


def _link(source: str, target: str) -> str:
    """Another name for the file; a copy only where the filesystem is another one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
