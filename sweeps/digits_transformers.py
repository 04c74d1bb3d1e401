"""A tiny vision transformer on scikit-learn's handwritten digits with Hugging Face's Trainer.

Nothing is downloaded: the model is made from its configuration. By hand, without any sweep:
`python digits_transformers.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import Dataset, random_split
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification, set_seed

from hpcsweep import Trial, current_trial
from hpcsweep.training.transformers import SweepCallback


class Digits(Dataset[dict[str, Tensor]]):
    """The 1797 images `(1, 8, 8)` in 0..1 with their labels, as the model's arguments."""

    def __init__(self) -> None:
        digits = load_digits()
        self.images = torch.tensor(digits.images).float().unsqueeze(1) / 16
        self.labels = torch.tensor(digits.target)

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One image."""
        return {"pixel_values": self.images[index], "labels": self.labels[index]}


def accuracy(found: Any) -> dict[str, float]:
    """Share of right answers."""
    return {"accuracy": float((found.predictions.argmax(1) == found.label_ids).mean())}


def train(trial: Trial) -> None:
    """Train up to `trial.resource` epochs."""
    torch.set_num_threads(1)  # the sweep is parallel already
    config = trial.config
    set_seed(trial.seed)
    # The split must be the same for all trials: they are compared on the same images.
    data, validation = random_split(Digits(), [0.8, 0.2], generator=torch.Generator().manual_seed(0))
    model = ViTForImageClassification(
        ViTConfig(
            image_size=8,
            patch_size=2,
            num_channels=1,
            id2label={digit: str(digit) for digit in range(10)},
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=config["layers"],
            num_attention_heads=4,
        )
    )
    sweep = SweepCallback(trial)
    arguments = TrainingArguments(
        output_dir=sweep.output_dir,
        num_train_epochs=trial.resource,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        seed=trial.seed,
        learning_rate=config["lr"],
        lr_scheduler_type="constant",  # the default ends at zero, and each rung ends elsewhere
        per_device_train_batch_size=config["batch_size"],
        per_device_eval_batch_size=360,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=data,
        eval_dataset=validation,
        compute_metrics=accuracy,
        callbacks=[sweep],
    )
    trainer.train(resume_from_checkpoint=sweep.resume_from_checkpoint)


if __name__ == "__main__":
    train(current_trial(lr=0.003, batch_size=32, layers=2, resource=4))
