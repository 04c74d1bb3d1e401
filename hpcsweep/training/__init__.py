"""Helpers for training code: plain PyTorch, PyTorch Lightning and Hugging Face's `Trainer`.

Each module needs a package that only training code has, and is imported by nothing else:

* `hpcsweep.training.pytorch`: `TorchState` saves model, optimiser, scheduler and random states;
* `hpcsweep.training.lightning`: `SweepCallback` for `lightning.pytorch.Trainer`;
* `hpcsweep.training.transformers`: `SweepCallback` for `transformers.Trainer`.
"""
