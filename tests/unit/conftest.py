"""What all unit tests share."""

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def seed():
    """Give every test the same random numbers, whatever ran before it."""
    torch.manual_seed(0)
    np.random.seed(0)
