"""For all tests of attacks: the same keys and the same draws in every run."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_keys(fixed_keys):
    torch.manual_seed(0)
