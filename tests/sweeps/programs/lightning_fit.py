"""A Lightning script as people have it: an argument parser, a Trainer, a CSVLogger."""

import argparse

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset


class Line(lightning.LightningModule):
    def __init__(self, lr):
        super().__init__()
        self.lr = lr
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, _):
        loss = ((self.layer(batch[0]) - 2 * batch[0]) ** 2).mean()
        self.log("train/loss", loss, on_step=True, on_epoch=False)
        return loss

    def validation_step(self, batch, _):
        self.log("val/loss", ((self.layer(batch[0]) - 2 * batch[0]) ** 2).mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--max-epochs", type=int, default=10)
    parser.add_argument("--save-dir", default=".")
    args = parser.parse_args()
    lightning.seed_everything(1, verbose=False)
    data = DataLoader(TensorDataset(torch.linspace(-1, 1, 64).unsqueeze(1)), batch_size=16)
    trainer = lightning.Trainer(
        max_epochs=args.max_epochs,
        logger=CSVLogger(args.save_dir),
        log_every_n_steps=2,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(Line(args.lr), data, data)
