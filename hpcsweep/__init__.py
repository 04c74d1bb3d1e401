"""Hyperparameter sweeps on Slurm clusters: searches become job arrays and rungs."""

__version__ = "0.1.0"
