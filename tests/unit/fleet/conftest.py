"""A watched fleet that is closed after the test."""

import pytest
from fleet_script import Watch


@pytest.fixture
def watch():
    made = []

    def make(*workers, **settings):
        made.append(Watch(*workers, **settings))
        return made[-1]

    yield make
    for one in made:
        one.fleet.close()
