"""Helpers for training code: `TorchState` for PyTorch, a `SweepCallback` for Lightning and for transformers.

Each module needs a package that only training code has, and is imported by nothing else.
"""
