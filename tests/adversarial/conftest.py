"""Listeners and masters that are closed after the test."""

import threading

import pytest
from listener_script import Running

from tempo.fleet import RemoteWorker
from tempo.wire.authority import issue, make_authority


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    make_authority(folder)
    return issue(folder, "gpu", "worker", ["127.0.0.1"]), issue(folder, "m", "master")


@pytest.fixture
def run(tmp_path):
    made = []

    def make(endpoint=None, **settings):
        made.append(Running(endpoint or f"unix:{tmp_path}/{len(made)}", **settings))
        return made[-1]

    yield make
    for one in made:
        one.stop()
    assert not [t for t in threading.enumerate() if t.name == "tempo-connection"]


@pytest.fixture
def master():
    made = []

    def make(running, tls=None):
        made.append(RemoteWorker(running.endpoint, name=f"w{len(made)}", tls=tls))
        made[-1].connect()
        return made[-1]

    yield make
    for one in made:
        one.close()
