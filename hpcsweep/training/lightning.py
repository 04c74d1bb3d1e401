"""PyTorch Lightning: a callback that reports, checkpoints, stops and resumes.

    sweep = SweepCallback(trial)
    trainer = L.Trainer(max_epochs=trial.resource, callbacks=[sweep])
    trainer.fit(model, data, ckpt_path=sweep.ckpt_path)

For the package `lightning` (`import lightning as L`), not `pytorch_lightning`. A run is one Slurm task:
with several GPUs give the Trainer `plugins=[LightningEnvironment()]`, or Lightning waits for Slurm to start
the other processes.
"""

from __future__ import annotations

import signal
import threading
from typing import Any, Final, Literal

try:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import Checkpoint
except ImportError as error:
    need = "hpcsweep.training.lightning needs lightning: pip install 'hpcsweep[lightning]'"
    raise ImportError(need) from error

from hpcsweep.training.pytorch import any_should_stop, random_states, restore_random_states
from hpcsweep.trial import Trial

#: In the checkpoint's folder.
FILE: Final = "lightning.ckpt"


class SweepCallback(Checkpoint):
    """Makes a fit one run of a trial.

    After each epoch it reports all logged metrics and saves Lightning's own checkpoint with the random
    states. An epoch that is not validated, where others are, is not reported. When the trial is told to
    stop, the fit ends after the present epoch.

    With `unit="step"` the resource counts optimiser steps (`Trainer(max_steps=trial.resource)`); it reports
    and checkpoints after each validation (`val_check_interval`), and stops after the present step. To
    resume in the middle of an epoch with the right batch the data loader must have `state_dict` and
    `load_state_dict`; Lightning warns if it has not. (Means over an epoch's training batches then count
    from there: Lightning does not save them.)

    Lightning's default checkpoints are not made; a `ModelCheckpoint` of yours works beside it. Its reaction
    to SIGTERM is replaced by the trial's, which lets the present epoch or step end.

    Args:
        trial: The trial to train.
        unit: What `trial.resource` counts.
    """

    def __init__(self, trial: Trial, *, unit: Literal["epoch", "step"] = "epoch") -> None:
        self._trial = trial
        self._unit = unit
        self._validated = False
        self._handler: Any = None
        self._saved_step: int | None = None
        self._due: list[tuple[int, float]] = []

    @property
    def ckpt_path(self) -> str | None:
        """For `Trainer.fit`: the checkpoint to resume from; None: from scratch."""
        folder = self._trial.resume_from
        return str(folder / FILE) if folder is not None else None

    # ------------------------------------------------------------------ what Lightning calls

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the fit is as long as the run."""
        if stage != "fit":
            return
        name = "max_epochs" if self._unit == "epoch" else "max_steps"
        if getattr(trainer, name) != self._trial.resource:
            raise ValueError(
                f"Trainer({name}={getattr(trainer, name)}): this run trains to {self._unit} "
                f"{self._trial.resource}; write Trainer({name}=trial.resource, ...)"
            )
        if self._unit == "step" and not trainer.enable_validation:
            raise ValueError(
                "SweepCallback(unit='step') reports after each validation: give the fit validation data, and "
                "Trainer(val_check_interval=...)"
            )
        self._trial.rank = trainer.global_rank
        self._handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that the fit resumes where the trial is."""
        at = trainer.current_epoch if self._unit == "epoch" else trainer.global_step
        if at != self._trial.start:
            raise ValueError(
                f"the fit starts after {self._unit} {at}, the trial after {self._trial.start}: "
                "write trainer.fit(..., ckpt_path=sweep.ckpt_path), where sweep is the SweepCallback"
            )
        # Lightning's handler would end the fit after the present batch, before the epoch's checkpoint.
        if callable(self._handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handler)
        for number, value in self._due:
            pl_module.lr_scheduler_step(trainer.lr_scheduler_configs[number].scheduler, value)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report and checkpoint, if steps count."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._validated = True
        if self._unit == "step" and self._saved_step != trainer.global_step:
            self._report(trainer, trainer.global_step)
            self._save(trainer, trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Checkpoint and stop, if steps count and the trial is told to stop."""
        if self._unit == "step" and not trainer.should_stop and any_should_stop(self._trial):
            trainer.should_stop = True
            # Lightning now validates in any case. It goes on from here with the next batch, so that a
            # validation that belongs to this step comes first, and one that does not counts for nothing.
            if not _is_to_validate(trainer):
                self._save(trainer, trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report, checkpoint, and stop if the trial is told to, if epochs count."""
        if self._unit != "epoch":
            return
        epoch = trainer.current_epoch + 1
        if self._validated or not trainer.enable_validation:
            self._report(trainer, epoch)
        self._save(trainer, epoch)
        if any_should_stop(self._trial):
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """What Lightning's checkpoint lacks: random states, and schedulers that wait for a metric."""
        return {"random": random_states(), "due": self._due}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it; the schedulers follow when the fit starts."""
        restore_random_states(state_dict["random"])
        self._due = state_dict["due"]

    # ------------------------------------------------------------------ what it does

    def _report(self, trainer: Trainer, step: int) -> None:
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items() if name != "step"}
        for objective in self._trial.metrics:
            if objective in metrics:
                continue
            raise ValueError(
                f"objective.metric {objective!r} was not logged up to {self._unit} {step}; logged were "
                f"{', '.join(map(repr, metrics)) or 'none'}. Log it with self.log({objective!r}, ...)"
            )
        if metrics:
            self._trial.report(step, **metrics)
        self._validated = False

    def _save(self, trainer: Trainer, step: int) -> None:
        self._due = self._waiting_schedulers(trainer)
        with self._trial.checkpoint(step) as folder:
            # All processes write into the folder of the first, if the strategy has each write its share.
            trainer.save_checkpoint(trainer.strategy.broadcast(str(folder / FILE)), weights_only=False)
        self._saved_step = step

    def _waiting_schedulers(self, trainer: Trainer) -> list[tuple[int, float]]:
        """Schedulers that get their metric only after this, which Lightning's checkpoint forgets."""
        count = trainer.current_epoch + 1 if self._unit == "epoch" else trainer.fit_loop.batch_idx + 1
        return [
            (number, trainer.callback_metrics[config.monitor].item())
            for number, config in enumerate(trainer.lr_scheduler_configs)
            if config.reduce_on_plateau
            and config.interval == self._unit
            and count % config.frequency == 0
            and config.monitor in trainer.callback_metrics
        ]


def _is_to_validate(trainer: Trainer) -> bool:
    """Whether a validation would follow the present batch if nobody had asked to stop."""
    every, epochs = trainer.val_check_batch, trainer.check_val_every_n_epoch
    if epochs is not None and (trainer.current_epoch + 1) % epochs:
        return False
    if every is None or every == float("inf"):
        return every is not None and trainer.is_last_batch
    batch = trainer.fit_loop.total_batch_idx if epochs is None else trainer.fit_loop.batch_idx
    return (batch + 1) % every == 0
