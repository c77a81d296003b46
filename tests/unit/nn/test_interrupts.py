"""An interrupt right after a change of state: what was changed is put back, or it would stay for ever."""

import pytest
import torch
from torch import nn

import tempo
from tempo.kernels import threads_for
from tempo.nn.offload import Offload
from tempo.nn.placement import Account
from tempo.nn.wrapped import KeptParameters
from tempo.stats import Stats


class Interrupting(list):
    """Appends, and is interrupted at once where something was in it."""

    def append(self, item):
        super().append(item)
        if len(self) > 1:
            raise KeyboardInterrupt


def test_interception_goes_on_after_an_interrupt_in_its_beginning(monkeypatch):
    """Attack: from then on this thread would compute every product in the TEE, and never say so."""
    net, x = nn.Sequential(nn.Linear(128, 128), nn.Linear(128, 10)), torch.randn(512, 128)
    with tempo.Session("cpu") as session:
        model = session.protect(net)
        with monkeypatch.context() as patch:
            patch.setattr(KeptParameters, "reasons", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                model(x)
        before = session.report().bytes_sent
        model(x)
        assert session.report().bytes_sent > before


def test_the_module_we_are_in_is_left():
    offload = Offload(None, None, Account(), None)
    offload._local.stack = Interrupting()
    with offload.module("outer", None, None):
        with pytest.raises(KeyboardInterrupt), offload.module("inner", "kept", None):
            pass
        assert offload._stack == [("outer", None, None)]
        assert offload.kept_here is None
    assert offload._stack == []


def test_a_part_that_did_not_begin_takes_nothing_from_the_one_around_it():
    stats = Stats()
    stats._local.inner = inner = Interrupting()
    with stats.timed("outer"):
        with pytest.raises(KeyboardInterrupt), stats.timed("inner"):
            pass
        assert len(inner) == 1
        with pytest.raises(KeyboardInterrupt), stats.timed("inner"):
            pass
        assert len(inner) == 1
    assert inner == []
    assert set(stats.seconds) == {"inner", "outer"}


def test_a_watcher_that_fails_leaves_no_part_open():
    stats = Stats()
    stats.watch(lambda part, begins: (_ for _ in ()).throw(KeyboardInterrupt) if begins else None)
    with pytest.raises(KeyboardInterrupt), stats.timed("part"):
        pass
    assert stats._local.inner == []


def test_the_number_of_threads_comes_back(monkeypatch):
    before, real = torch.get_num_threads(), torch.set_num_threads

    def interrupted(count):
        real(count)
        if count == 1:
            raise KeyboardInterrupt

    real(2)
    try:
        monkeypatch.setattr(torch, "set_num_threads", interrupted)
        with pytest.raises(KeyboardInterrupt), threads_for(1):
            pass
        assert torch.get_num_threads() == 2
    finally:
        real(before)
