"""From a results folder to files that other programs open: tables, TensorBoard, Optuna."""

from __future__ import annotations
