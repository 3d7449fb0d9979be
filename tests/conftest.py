"""One thread for all tests, since several small models train at a time; one seed each."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Draw the same numbers in each run, whatever ran before."""
    torch.manual_seed(0)
