"""Protecting a module tree: what is wrapped, what stays and why, and what users do to models."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from tempo import Session
from tempo.errors import UnsupportedError, UsageError
from tempo.nn.wrapped import is_protected

LAST = "last weighted layer: its gradient gives away labels"


def r(*shape):
    return torch.randn(*shape, dtype=torch.float64)


class Net(nn.Module):
    """Sequential and ModuleList, a block used by hand, a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(64, 64), nn.ReLU(inplace=True))
        self.blocks = nn.ModuleList([nn.Linear(64, 64), nn.Linear(64, 64)])
        self.norm = nn.BatchNorm1d(64)
        self.head = nn.Linear(64, 64)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x).tanh()
        return self.head(self.norm(x))


@pytest.fixture
def session():
    with Session("cpu") as session:
        yield session
        assert session.report().quarantined == []


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().double()


def where(session):
    return {row.module: row.reason if not row.offloaded else None for row in session.report().rows}


def step(model, x):
    model.zero_grad()
    y = model(x)
    y.square().sum().backward()
    return [y.detach(), *(p.grad.clone() for p in model.parameters())]


def close(got, want, tolerance=1e-9):
    for a, b in zip(got, want, strict=True):
        assert (a - b).norm() <= tolerance * (b.norm() + 1e-6)


# ---- wrapping -------------------------------------------------------------------------------------


def test_nothing_is_replaced_but_forward(session, net):
    parameters, keys, text = list(net.parameters()), list(net.state_dict()), str(net)
    signature = inspect.signature(net.forward)
    assert session.protect(net) is net
    assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
    assert list(net.state_dict()) == keys
    assert str(net) == text
    assert inspect.signature(net.forward) == signature
    assert net.forward.__name__ == "forward"
    assert type(net) is Net


def test_where_things_run(session, net):
    session.protect(net)
    net(r(128, 64))
    assert where(session) == {"stem.0": None, "blocks.0": None, "blocks.1": None, "head": LAST}


def test_unprotect_restores_the_plain_model(session, net):
    x = r(128, 64)
    want = step(net, x)
    session.protect(net)
    session.unprotect(net)
    assert not any("forward" in module.__dict__ for module in net.modules())
    assert all(torch.equal(a, b) for a, b in zip(step(net, x), want))
    session.unprotect(net)  # of a plain model: nothing to do
    session.protect(net)
    close(step(net, x), want)


def test_a_forward_set_on_the_instance_comes_back(session):
    model = nn.Sequential(nn.Linear(64, 64, dtype=torch.float64))
    own = model[0].forward = lambda x: F.linear(x, model[0].weight) * 3
    x = r(64, 64)
    want = model(x)
    session.protect(model)
    close([model(x).detach()], [want.detach()])
    assert where(session) == {"0": None}
    session.unprotect(model)
    assert model[0].forward is own


def test_protect_twice_is_refused_whole_or_in_part(session, net):
    session.protect(net)
    for model in (net, net.stem, nn.Sequential(net, nn.Linear(64, 64))):
        with pytest.raises(UsageError, match="protected already"):
            session.protect(model)
    with Session("cpu") as other, pytest.raises(UsageError, match="protected already"):
        other.protect(net)


def test_a_part_may_be_protected(session, net):
    x = r(128, 64)
    want = step(net, x)
    session.protect(net.blocks[0])
    close(step(net, x), want)
    assert where(session) == {"Linear": None}


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (["blocks.1"], {"blocks.1"}),
        (["blocks"], {"blocks.0", "blocks.1"}),  # a list has no forward of its own
        (["blocks.*"], {"blocks.0", "blocks.1"}),
        (["stem"], {"stem.0"}),
        (["*"], {"stem.0", "blocks.0", "blocks.1", "head"}),
        ([""], {"stem.0", "blocks.0", "blocks.1", "head"}),
    ],
)
def test_keep(session, net, keep, kept):
    x = r(128, 64)
    want = step(net, x)
    session.protect(net, keep=keep)
    close(step(net, x), want)
    assert {name for name, reason in where(session).items() if reason == "kept by the user"} == kept


def test_unsafe_offload_sends_the_classifier(session, net):
    session.protect(net, unsafe_offload=["head"])
    net(r(128, 64))
    assert where(session)["head"] is None


@pytest.mark.parametrize("option", ["keep", "unsafe_offload"])
def test_unknown_names_are_refused_before_anything_is_changed(session, net, option):
    for names, message in ((["hed"], "no module is named 'hed'.*stem"), ("head", "takes a list")):
        with pytest.raises(UsageError, match=message):
            session.protect(net, **{option: names})
    assert not any("forward" in module.__dict__ for module in net.modules())


@pytest.mark.security
def test_a_kept_output_projection_keeps_its_attention(session):
    """MultiheadAttention uses the weight of out_proj and never calls it."""
    model = nn.Sequential(nn.Linear(64, 64), nn.TransformerEncoderLayer(64, 2, 64, batch_first=True)).double()
    session.protect(model, keep=["1.self_attn.out_proj"])
    model(r(4, 20, 64))
    rows = {row.shape: row for row in session.report().rows if row.module == "1.self_attn"}
    assert rows["20x4x64 192x64"].offloaded or rows["4x20x64 192x64"].offloaded
    kept = [row for row in rows.values() if row.reason == "kept by the user"]
    assert len(kept) == 1
    assert "64x64" in kept[0].shape


@pytest.mark.security
@pytest.mark.parametrize("options", [{}, {"keep": ["wte"]}])
def test_a_tied_classifier_stays_though_no_module_is_called(session, options):
    """F.linear with the weight of an embedding: its gradient gives away tokens."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte = nn.Embedding(100, 64)
            self.mlp = nn.Linear(64, 64)
            self.mlp2 = nn.Linear(64, 64)

        def forward(self, tokens):
            return F.linear(self.mlp2(self.mlp(self.wte(tokens))), self.wte.weight)

    model = session.protect(Model(), **options)
    for net in (model, copy.deepcopy(model)):
        net(torch.randint(0, 100, (8, 16)))
    rows = [row for row in session.report().rows if "100x64" in row.shape]
    assert rows
    assert not any(row.offloaded for row in rows)
    assert any(row.offloaded for row in session.report().rows)


def test_a_tied_classifier_can_be_sent_on_purpose(session):
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 96, bias=False))
    model.wte = nn.Embedding(96, 64)
    model.wte.weight = model[1].weight
    model.forward = lambda x: model[1](model[0](x))
    session.protect(model, unsafe_offload=["1"])
    model(torch.randn(64, 64))
    assert all(row.offloaded for row in session.report().rows)


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell])
def test_recurrent_layers_are_taken_apart_or_kept(session, cls):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(64, 64)
            self.rnn = cls(64, 64)

        def forward(self, x):
            out = self.rnn(self.inner(x))
            return out[0] if isinstance(out, tuple) else out

    model, x = Model().double(), r(128, 64)
    want = step(model, x)
    session.protect(model, keep=["rnn"], unsafe_offload=["inner"])
    close(step(model, x), want)
    assert where(session) == {"inner": None, "rnn": "kept by the user"}
    session.unprotect(model)
    session.protect(model, unsafe_offload=["inner", "rnn"])
    close(step(model, x), want)
    assert any(row.module == "rnn" and row.offloaded for row in session.report().rows)


@pytest.mark.filterwarnings("ignore:Complex modules")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.complex64])
def test_other_dtypes_are_refused_or_kept(session, dtype):
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64, dtype=dtype))
    with pytest.raises(UnsupportedError, match=r"weight of module '1'.*float32 and float64.*Instead:"):
        session.protect(model)
    session.protect(model, keep=["1"])
    session.unprotect(model)
    session.protect(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)).to(dtype), keep=["*"])


def test_a_model_cast_after_protecting_is_refused(session):
    model = session.protect(nn.Sequential(nn.Linear(64, 64)))
    with pytest.raises(UnsupportedError, match="bfloat16 operands.*autocast"):
        model.bfloat16()(torch.randn(64, 64).bfloat16())


def test_what_is_no_module_or_has_no_weights_yet(session):
    with pytest.raises(UsageError, match="Module, not a function"):
        session.protect(step)
    lazy = nn.Sequential(nn.LazyLinear(64))
    with pytest.raises(UsageError, match="lazy"):
        session.protect(lazy)
    lazy(torch.randn(64, 64))
    session.protect(lazy)(torch.randn(64, 64))
    assert where(session) == {"0": None}


def test_errors_of_pytorch_stay_pytorchs(session):
    model = session.protect(nn.Sequential(nn.Linear(64, 64), nn.Conv2d(64, 64, 3), nn.Conv1d(64, 64, 3)))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model[0](torch.randn(64, 65))
    with pytest.raises(RuntimeError):
        model[1](torch.randn(64))
    with pytest.raises(RuntimeError, match="same dtype"):
        model[0](torch.randn(64, 64, dtype=torch.float64))


# ---- tools of PyTorch -----------------------------------------------------------------------------


def test_a_copy_is_protected_and_independent(session, net):
    x = r(128, 64)
    session.protect(net, keep=["blocks.1"])
    ema = copy.deepcopy(net)
    want = copy.deepcopy(net)
    session.unprotect(want)
    assert is_protected(ema)
    assert ema.stem[0].forward.__self__ is ema.stem[0]
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(0.5)
    close(step(ema, x), step(want, x))
    assert where(session)["blocks.0"] is None
    assert where(session)["blocks.1"] == "kept by the user"
    averaged = torch.optim.swa_utils.AveragedModel(net)
    averaged.update_parameters(net)
    close([averaged(x).detach()], [net(x).detach()])


def test_pickling_is_refused_and_a_state_dict_is_not(session, net):
    session.protect(net)
    with pytest.raises(TypeError, match="state_dict.*unprotect"):
        pickle.dumps(net)
    with pytest.raises(TypeError, match="state_dict.*unprotect"):
        torch.save(net, io.BytesIO())
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    fresh = Net().double()
    fresh.load_state_dict(torch.load(file))
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), net.parameters()))
    pickle.dumps(session.unprotect(net))


def test_hooks_see_whole_plain_results(session, net):
    x, seen = r(128, 64), []

    def watch(model):
        record = []
        handles = [model.blocks[0].register_forward_pre_hook(lambda m, args: record.append(args[0].detach()))]
        handles += [
            module.register_forward_hook(lambda m, args, out: record.append(out.detach()))
            for module in (model, model.stem, model.stem[0], model.blocks[1])
        ]
        handles += [
            module.register_full_backward_hook(lambda m, dx, dy: record.extend([*dx, *dy]))
            for module in (model.blocks[0], model.head)
        ]
        model.blocks[1].weight.register_hook(lambda g: record.append(g.clone()))
        record += step(model, x)
        for handle in handles:
            handle.remove()
        seen.append(record)

    watch(copy.deepcopy(net))
    watch(session.protect(net))
    close(seen[1], seen[0])


def test_a_hook_may_replace_a_result(session, net):
    x = r(128, 64)
    net.blocks[0].register_forward_hook(lambda m, args, out: out * 2)
    want = step(net, x)
    close(step(session.protect(net), x), want)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_recomputes_on_the_workers(session, net, reentrant):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net
            self.first = nn.Linear(64, 64, dtype=torch.float64)

        def forward(self, x):
            return checkpoint(self.inner, self.first(x), use_reentrant=reentrant)

    model, x = Checkpointed(), r(128, 64)
    with FlopCounterMode(display=False) as counter:
        want = step(model, x)
    close(step(session.protect(model), x), want)
    report = session.report()
    calls = {row.module: row.calls for row in report.rows}
    assert calls["inner.stem.0"] == 2
    assert calls["first"] == 1
    assert report.offloaded_flops + report.kept_flops == counter.get_total_flops()


def test_compilers_and_transforms_are_refused(session):
    model, x = nn.Sequential(nn.Linear(64, 64)), torch.randn(64, 64)
    want = model(x)
    session.protect(model)
    with pytest.raises(UnsupportedError, match="compiled or traced"):
        torch.compile(model, backend="eager")(x)
    with pytest.raises(UnsupportedError, match="vmap"):
        torch.vmap(model)(torch.randn(3, 64, 64))
    with pytest.raises(UnsupportedError, match="grad"):
        torch.func.grad(lambda x: model(x).sum())(x)
    torch.testing.assert_close(model(x), want)  # and it goes on
    compiled = torch.compile(nn.Sequential(nn.Linear(64, 64)), backend="eager")
    with pytest.raises(UnsupportedError, match="keep it in the TEE whole"):
        session.protect(compiled)


def test_functional_call_with_other_weights(session, net):
    other = {name: p.detach() * 0.5 for name, p in net.named_parameters()}
    x = r(128, 64)
    want = torch.func.functional_call(net, other, (x,))
    session.protect(net)
    got = torch.func.functional_call(net, other, (x,))
    close([got], [want])
    assert where(session)["stem.0"] is None


class Recorder(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.seen = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen += 1
        return func(*args, **(kwargs or {}))


def test_modes_of_the_user_around_us(session, net):
    x = r(128, 64)
    want = step(copy.deepcopy(net), x)
    session.protect(net)
    with Recorder() as recorder, torch.device("cpu"):
        close(step(net, x), want)
    assert recorder.seen
    with FlopCounterMode(display=False):
        close(step(net, x), want)
    assert where(session)["stem.0"] is None


def test_modes_of_the_user_inside_us(session):
    class Moded(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(64, 64)

        def forward(self, x):
            with Recorder():
                return self.a(x)

    session.protect(Moded())(torch.randn(64, 64))
    assert where(session) == {"a": None}


def test_meta_tensors_pass_through(session, net):
    session.protect(net)
    shadow = copy.deepcopy(net).to("meta")
    assert shadow(torch.empty(128, 64, device="meta", dtype=torch.float64)).shape == (128, 64)


def test_anomaly_detection(session, net):
    session.protect(net)
    with pytest.warns(UserWarning, match="Anomaly Detection"), torch.autograd.detect_anomaly():
        step(net, r(128, 64))


def test_calls_that_end_in_an_error_leave_the_thread_clean(session, net):
    class Broken(nn.Module):
        def forward(self, x):
            raise ZeroDivisionError

    model = session.protect(nn.Sequential(nn.Linear(64, 64), Broken(), nn.Linear(64, 64)))
    with pytest.raises(ZeroDivisionError):
        model(torch.randn(64, 64))
    torch.randn(64, 64) @ torch.randn(64, 64)
    F.linear(torch.randn(64, 64), model[0].weight)  # outside: none of our business
    assert [(row.module, row.calls) for row in session.report().rows] == [("0", 1)]


# ---- shared parameters ----------------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(100, 64)
        self.body = nn.Linear(64, 64)
        self.lm_head = nn.Linear(64, 100, bias=False)
        self.lm_head.weight = self.embed.weight

    def forward(self, tokens):
        return self.lm_head(torch.relu(self.body(self.embed(tokens))))


@pytest.mark.parametrize("unsafe", [[], ["lm_head"]])
def test_a_tied_embedding(session, unsafe):
    torch.manual_seed(1)
    model, tokens = Tied().double(), torch.randint(100, (4, 32))
    want = step(copy.deepcopy(model), tokens)
    close(step(session.protect(model, unsafe_offload=unsafe), tokens), want)
    assert where(session) == {"body": None, "lm_head": None if unsafe else LAST}


@pytest.mark.parametrize(("uses", "encoded"), [(1, 2), (2, 1)])
def test_a_weight_of_two_layers_is_encoded_once_where_it_may_be_used_twice(uses, encoded):
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 8)
    ).double()
    model[2].weight = model[0].weight
    x = r(128, 64)
    want = step(copy.deepcopy(model), x)
    with Session("cpu", weight_uses=uses, unsafe_many_uses=True) as session:
        close(step(session.protect(model), x), want)
        assert session.report().encodings == 2 + encoded + 2  # X twice, W, dY twice


def test_a_module_registered_twice(session):
    layer = nn.Linear(64, 64)
    model, x = nn.Sequential(layer, nn.Tanh(), layer).double(), r(128, 64)
    want = step(copy.deepcopy(model), x)
    close(step(session.protect(model), x), want)
    assert [(row.module, row.calls) for row in session.report().rows] == [("0", 2)]


def test_a_convolution_and_a_linear_layer_of_one_storage(session):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(r(64, 64))

        def forward(self, x):
            y = F.linear(x, self.w) + F.linear(x, self.w.T) + x @ self.w
            image = x.reshape(2, 64, -1, 1)
            return y.sum() + F.conv2d(image, self.w[:, :, None, None]).square().sum()

    model, x = Shared(), r(128, 64)
    want = step(copy.deepcopy(model), x)
    close(step(session.protect(model), x), want)
    assert all(row.offloaded for row in session.report().rows)


# ---- threads --------------------------------------------------------------------------------------


def test_threads_share_a_session(net):
    """Two replicas, and one model in two threads without gradients, at once."""
    xs = [r(96, 64), r(130, 64)]
    replicas = [copy.deepcopy(net) for _ in xs]
    want = [step(copy.deepcopy(net), x) for x in xs]
    frozen = copy.deepcopy(net).eval()
    want_frozen = [frozen(x).detach() for x in xs]
    failures = []
    with Session(["cpu", "cpu"]) as session:
        for model in (*replicas, frozen):
            session.protect(model)

        def work(i):
            try:
                for _ in range(6):
                    close(step(replicas[i], xs[i]), want[i])
                    with torch.no_grad():
                        close([frozen(xs[i])], [want_frozen[i]])
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        report = session.report()
    assert failures == []
    assert report.checks_failed == report.retries == 0
    assert {row.calls for row in report.rows if row.offloaded} <= {12, 24, 6, 18}
