"""Helpers for training code: plain PyTorch, PyTorch Lightning and Hugging Face's `Trainer`.

Each module stands on a package that only training code needs, and is imported by nobody else:

* `hpcsweep.training.pytorch`: `TorchState` keeps model, optimiser, scheduler and random numbers;
* `hpcsweep.training.lightning`: `SweepCallback` for `lightning.pytorch.Trainer`;
* `hpcsweep.training.transformers`: `SweepCallback` for `transformers.Trainer`.
"""
