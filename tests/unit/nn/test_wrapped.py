"""What other tools do to the forward of a protected module: wrap, restore, copy and compile it."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
from types import MethodType

import pytest
import torch
from torch import nn

from tempo import Session
from tempo.nn.wrapped import is_protected


@pytest.fixture
def session():
    with Session("cpu") as session:
        yield session
        assert session.report().quarantined == []


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 8))


def sent(session):
    return {row.module: row.calls for row in session.report().rows if row.offloaded}


def doubled(forward):
    """A wrapper as accelerate makes them: a function around the function, that knows what it wraps."""

    @functools.wraps(forward)
    def wrapper(*args, **kwargs):
        return 2 * forward(*args, **kwargs)

    return wrapper


def wrapped_as_method(net):
    net.forward = MethodType(doubled(net.forward.__func__), net)


def wrapped_as_function(net):
    net.forward = doubled(net.forward)


WRAPPERS = (wrapped_as_method, wrapped_as_function)


# ---- wrapping and unwrapping ----------------------------------------------------------------------


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_forward_that_others_wrapped_is_protected_within(session, wrap):
    net, x = model(), torch.randn(96, 64)
    want = 2 * net(x)
    session.protect(net)
    wrap(net)
    torch.testing.assert_close(net(x), want)
    assert sent(session) == {"0": 1, "2": 1}


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_unprotect_reaches_under_the_wrapper_of_others(session, wrap):
    net, x = model(), torch.randn(96, 64)
    want = 2 * net(x)
    session.protect(net)
    wrap(net)
    session.unprotect(net)
    assert torch.equal(net(x), want)
    assert session.report().rows == []
    assert not any(map(is_protected, net.modules()))
    session.protect(net)  # over what others left there
    torch.testing.assert_close(net(x), want)
    assert sent(session) == {"0": 1, "2": 1}
    session.unprotect(net)
    assert torch.equal(net(x), want)


@pytest.mark.security
def test_a_wrapper_is_taken_off_down_to_the_protection_and_no_further(session):
    """As accelerate's unwrap_model does: go down `__wrapped__`, and bind what is found."""
    net, x = model(), torch.randn(96, 64)
    want = net(x)
    session.protect(net)
    net.forward = MethodType(doubled(doubled(net.forward.__func__)), net)
    forward = net.forward
    while hasattr(forward, "__wrapped__"):
        forward = forward.__wrapped__
    net.forward = MethodType(forward, net)
    torch.testing.assert_close(net(x), want)
    assert is_protected(net)
    assert sent(session) == {"0": 1, "2": 1}


@pytest.mark.security
def test_the_outermost_modules_own_product_stays_protected_through_that(session):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(64, 64))

        def forward(self, x):
            return x @ self.w

    net = session.protect(Own())
    net.forward = MethodType(doubled(net.forward.__func__), net)
    forward = net.forward
    while hasattr(forward, "__wrapped__"):
        forward = forward.__wrapped__
    net.forward = MethodType(forward, net)
    net(torch.randn(96, 64))
    assert sent(session) == {"Own": 1}


def test_a_copy_of_a_wrapped_model_calls_its_own_weights(session):
    net, x = model(), torch.randn(96, 64)
    session.protect(net)
    wrapped_as_method(net)
    average = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.zero_()
        assert average(x).abs().max() == 0
        assert net(x).abs().max() > 0
    assert is_protected(average)


def test_a_method_that_somebody_kept_is_plain_after_unprotect(session):
    net, x = model(), torch.randn(96, 64)
    want = net(x)
    kept = session.protect(net).forward
    session.unprotect(net)
    assert torch.equal(kept(x), want)
    pickle.dumps(net)


def test_signatures_for_those_who_choose_arguments_by_them(session):
    class Model(nn.Module):
        def forward(self, ids, mask=None, *, labels=None):
            return ids

    class Strange(nn.Module):
        forward = len  # says its parameters, has no wrapper's attributes

    net = nn.Module()
    net.a, net.b = Model(), Strange()
    session.protect(net)
    assert list(inspect.signature(net.a.forward).parameters) == ["ids", "mask", "labels"]
    assert not hasattr(net.a.forward, "__wrapped__")
    assert net.a.forward.__func__.__qualname__ == Model.forward.__qualname__
    wrapped_as_method(net.a)
    assert list(inspect.signature(net.a.forward).parameters) == ["ids", "mask", "labels"]
    session.unprotect(net)
    session.protect(net)
    assert list(inspect.signature(net.a.forward).parameters) == ["ids", "mask", "labels"]


def test_a_class_that_is_changed_later(session):
    """Parametrisation gives a module another class."""
    net, x = model(), torch.randn(96, 64)
    session.protect(net)
    torch.nn.utils.parametrizations.weight_norm(net[0])
    plain = copy.deepcopy(net)
    session.unprotect(plain)
    torch.testing.assert_close(net(x), plain(x))
    assert sent(session)["0"] == 1


def test_a_method_that_is_bound_twice_gets_its_module_once(session):
    """accelerate binds whatever it finds under its wrapper, a bound method too."""
    net, x = model(), torch.randn(96, 64)
    want = net(x)
    session.protect(net)
    net.forward = MethodType(net.forward, net)
    torch.testing.assert_close(net(x), want)
    session.unprotect(net)
    assert torch.equal(net(x), want)
