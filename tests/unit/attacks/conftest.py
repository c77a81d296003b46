"""For all tests of attacks: the same keys in every run."""

import pytest


@pytest.fixture(autouse=True)
def _same_keys(fixed_keys):
    pass
