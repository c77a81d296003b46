"""What other tools do to the forward of a protected module: wrap, restore, copy and compile it."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
from types import MethodType

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tempo import Session
from tempo.errors import UnsupportedError, UsageError
from tempo.nn.wrapped import is_protected

LAST = "last weighted layer: its gradient gives away labels"


@pytest.fixture
def session():
    with Session("cpu") as session:
        yield session
        assert session.report().quarantined == []


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 8))


def where(session):
    return {row.module: row.reason if not row.offloaded else None for row in session.report().rows}


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


# ---- compiled parts -------------------------------------------------------------------------------


class Block(nn.Module):
    """A layer, and a part without one that is worth compiling."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 64)
        self.part = nn.Sequential(nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 64))
        self.head = nn.Linear(64, 8)

    def forward(self, x):
        return self.head(self.part(self.layer(x)))


#: Of the compiler, which looks at .grad of everything.
compiling = pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)


@compiling
def test_a_compiled_part_that_is_kept_runs_compiled(session):
    torch.manual_seed(0)
    net, x = Block(), torch.randn(96, 64)
    plain = copy.deepcopy(net)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    net.part = torch.compile(net.part, backend=backend, fullgraph=True)
    session.protect(net, keep=["part"])
    for _ in range(2):
        got, want = net(x), plain(x)
        torch.testing.assert_close(got, want)
    got.square().sum().backward()
    want.square().sum().backward()
    for a, b in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-4)
    assert len(graphs) == 1
    rows = {row.module: row for row in session.report().rows}
    assert rows["part"].reason == "kept by the user, compiled: flops not counted"
    assert (rows["part"].calls, rows["layer"].offloaded) == (2, True)
    session.unprotect(net)
    torch.testing.assert_close(net(x), plain(x))
    assert session.report().rows[0].calls == 2


@compiling
def test_a_compiled_loss_beside_a_protected_model(session):
    net, x, labels = model(), torch.randn(96, 64), torch.randint(8, (96,))
    plain = copy.deepcopy(net)
    session.protect(net)
    loss = torch.compile(F.cross_entropy, backend="eager", fullgraph=True)
    torch.testing.assert_close(loss(net(x), labels), F.cross_entropy(plain(x), labels))
    loss(net(x), labels).backward()
    assert sent(session) == {"0": 2, "2": 2}


def test_what_is_compiled_and_not_kept_is_refused_with_what_to_do(session):
    net = Block()
    net.part = torch.compile(net.part, backend="eager")
    with pytest.raises(UnsupportedError, match=r"module 'part' is compiled.*keep=\['part'\]"):
        session.protect(net)
    other = Block()
    other.part.compile(backend="eager")
    with pytest.raises(UnsupportedError, match=r"'part' was compiled in place.*torch.compile\(module\)"):
        session.protect(other)
    assert not any(is_protected(module) for net in (net, other) for module in net.modules())
    protected = session.protect(Block())
    with pytest.raises(UnsupportedError, match=r"cannot be compiled or traced.*keep=\['part'\]"):
        torch.compile(protected, backend="eager")(torch.randn(96, 64))


# ---- adapters beside the last layer ---------------------------------------------------------------


class Adapted(nn.Module):
    """As PEFT wraps a layer: the base, two factors beside it, and the base's weight as its own."""

    def __init__(self, base, rank=64):
        super().__init__()
        self.base_layer = base
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)

    @property
    def weight(self):
        return self.base_layer.weight

    def forward(self, x):
        return self.base_layer(x) + self.up(self.down(x))


@pytest.mark.security
def test_a_last_layer_stays_with_the_adapters_around_it(session):
    """Attack: labels from the gradient of the base layer, which is no longer the last one registered."""
    net = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), Adapted(nn.Linear(64, 64)))
    session.protect(net)
    net(torch.randn(96, 64)).square().sum().backward()
    assert where(session) == {"0": None, "2.base_layer": LAST, "2.down": LAST, "2.up": LAST}


def test_it_can_be_sent_on_purpose(session):
    net = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), Adapted(nn.Linear(64, 64)))
    session.protect(net, unsafe_offload=["2"])
    net(torch.randn(96, 64))
    assert all(row.offloaded for row in session.report().rows)


def test_a_weight_of_the_models_own_makes_it_no_wrapper(session):
    class Own(nn.Sequential):
        def __init__(self, *layers):
            super().__init__(*layers)
            self.weight = nn.Parameter(torch.randn(64, 64))

    net = session.protect(Own(nn.Linear(64, 64), nn.Linear(64, 64)))
    net(torch.randn(96, 64))
    assert where(session) == {"0": None, "1": LAST}


# ---- precision ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_grad_scaler_sees_what_it_would_see(session, dtype):
    """Losses scaled up, one overflow that it has to skip, and scales that follow."""
    x, labels = torch.randn(4, 96, 64), torch.randint(8, (4, 96))

    def train(net):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        seen = []
        for step in range(4):
            with torch.autocast("cpu", dtype):
                loss = F.cross_entropy(net(x[step]).float(), labels[step])
            loss = loss * float("inf") if step == 2 else loss
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            seen.append((loss.item(), scaler.get_scale()))
        return seen

    plain = train(model())
    protected = train(session.protect(model()))
    assert [scale for _, scale in protected] == [scale for _, scale in plain]
    assert plain[2][1] < plain[1][1], "it skipped"
    for (a, _), (b, _) in zip(protected, plain):
        assert a == b or abs(a - b) < 2e-2
    assert sent(session) == {"0": 4, "2": 4}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inference_modes(session, mode):
    net, x = model().eval(), torch.randn(96, 64)
    want = net(x).detach()
    session.protect(net)
    with mode():
        got = net(x)
    torch.testing.assert_close(got.clone(), want)
    assert not got.requires_grad
    assert got.is_inference() == (mode is torch.inference_mode)
    net(x).sum().backward()  # training goes on


def test_moves_that_change_nothing_and_one_that_cannot_be(session):
    net, x = model(), torch.randn(96, 64)
    session.protect(net)
    want = net(x)
    torch.testing.assert_close(net.to("cpu").cpu().float().train(False).requires_grad_(True)(x), want)
    with pytest.raises(UsageError, match="protected already"):
        session.protect(net)


def test_a_method_that_is_bound_twice_gets_its_module_once(session):
    """accelerate binds whatever it finds under its wrapper, a bound method too."""
    net, x = model(), torch.randn(96, 64)
    want = net(x)
    session.protect(net)
    net.forward = MethodType(net.forward, net)
    torch.testing.assert_close(net(x), want)
    session.unprotect(net)
    assert torch.equal(net(x), want)
