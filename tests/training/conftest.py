"""Trainings of tests share the machine, and leave no trace in the random numbers of others."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _one_thread_and_the_random_numbers_left_alone() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    python, numpy, own = random.getstate(), np.random.get_state(), torch.get_rng_state()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(own)
