"""From a results folder to tables, plots and pages. Read only; needs no Slurm and no spec file."""

from __future__ import annotations
