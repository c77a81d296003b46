"""The knobs of mixing through a session: all lowerings, and what require and public do."""

import copy
import json
import warnings

import pytest
import torch
from test_autograd import LAYERS, errors, evaluate, r
from torch import nn

from tempo import Config, Session
from tempo.errors import PublicWeightsWarning, UnsupportedError, UsageError
from tempo.secrecy.visible import CODES

KNOBS = {"deflate": 8, "decoys": 4, "fill": 8, "gain": 16.0, "repeats": 0.5}
SENT = [name for name, (_, _, lowering) in LAYERS.items() if lowering]
LOWERINGS = [
    next(name for name in SENT if LAYERS[name][2] == lowering)
    for lowering in sorted({LAYERS[name][2] for name in SENT})
] + ["conv grouped", "conv 1x1 strided", "conv 3x3 unbatched", "weight norm"]


def compared(name, dead=False, **options):
    """Errors against plain PyTorch, and whether it was sent. dead: some channels or features are zero."""
    make, shape, _ = LAYERS[name]
    torch.manual_seed(0)
    model, x = make().double(), r(*shape)
    if dead:
        axis = 1 if x.ndim == 4 else x.ndim - 1
        x.narrow(axis, 3, 6).zero_()
    want = evaluate(copy.deepcopy(model), [x])
    with Session("cpu", **options) as session:
        got = evaluate(session.protect(model), [x])
        report = session.report()
    assert report.checks_failed == 0
    return max(errors(got, want)), any(row.offloaded for row in report.rows)


@pytest.mark.parametrize("key_shift", [True, False])
@pytest.mark.parametrize("name", LOWERINGS)
def test_every_lowering_is_exact(name, key_shift):
    for dead in (False, True):
        error, sent = compared(name, dead=dead, key_shift=key_shift, **KNOBS)
        assert sent
        assert error < 1e-12


@pytest.mark.parametrize("knob", KNOBS)
@pytest.mark.parametrize("key_shift", [True, False])
def test_each_knob_by_itself(knob, key_shift):
    for name in ("linear ragged", "conv 3x3 F(4,3)"):
        error, sent = compared(name, dead=True, key_shift=key_shift, **{knob: KNOBS[knob]})
        assert sent
        assert error < 1e-12


@pytest.mark.parametrize("key_shift", [True, False])
def test_a_product_of_two_activations_is_exact(key_shift):
    """Neither is a parameter: W of many groups, sealed for this product alone."""

    class Scores(nn.Module):
        def forward(self, q, k):
            return torch.matmul(q, k.mT)

    inputs = [r(2, 3, 100, 64) + 1, r(2, 3, 80, 64)]
    want = evaluate(Scores(), inputs)
    with Session("cpu", key_shift=key_shift, offload_attention=True, **KNOBS) as session:
        got = evaluate(session.protect(Scores()), inputs)
        assert session.report().rows[0].offloaded
    assert max(errors(got, want)) < 1e-12


@pytest.mark.parametrize("wire", ["fp32", "bf16"])
def test_float32_errs_little_more(wire):
    """Decoys as large as X make errors grow by their share of the energy, sqrt(2); twice is allowed."""
    torch.manual_seed(0)
    model, x = nn.Linear(256, 256), torch.randn(512, 256)
    exact = evaluate(copy.deepcopy(model).double(), [x.double()])
    found = []
    for knobs in ({}, {"deflate": 8, "decoys": 8, "gain": 16.0}):
        with Session("cpu", wire=wire, **knobs) as session:
            got = evaluate(session.protect(model), [x])
            session.unprotect(model)
            assert session.report().checks_failed == 0
        found.append(max(errors([t.double() for t in got], exact)))
    assert found[1] < 2 * found[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("deflate", -1),
        ("deflate", 65),
        ("decoys", 65),
        ("decoy_size", 0.0),
        ("decoy_size", 9.0),
        ("fill", -1),
        ("gain", 0.5),
        ("gain", 2000.0),
        ("repeats", 1.5),
        ("repeats", -0.1),
    ],
)
def test_values_that_cannot_be(name, value):
    with pytest.raises(UsageError, match=f"setting {name} = "):
        Config(**{name: value})


# ---- require, public -------------------------------------------------------------------------------


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Sequential(nn.Linear(64, 64)), nn.Linear(64, 10))


def run(module):
    module(torch.randn(128, 64)).sum().backward()


@pytest.mark.security
def test_require_refuses_by_layer_and_code():
    mine = model()
    with Session("cpu") as session:
        with pytest.raises(UnsupportedError, match=r"layer '0' would show 'spectrum'.*key_shift=False"):
            session.protect(mine, require=set(CODES) - {"spectrum"})
        assert "forward" not in vars(mine[0]), "nothing was changed"
        with pytest.raises(UnsupportedError, match=r"layer '2\.0' would show"):
            session.protect(mine, keep=["0"], require=set(CODES) - {"spectrum"})
        session.protect(mine, keep=["0", "2"], require=())  # the last layer stays as well
        session.unprotect(mine)
        session.protect(mine, place={"*": "never"}, require=())
        session.unprotect(mine)
        session.protect(mine, require=CODES)
    with Session("cpu", key_shift=False) as session:
        session.protect(model(), require=set(CODES) - {"spectrum"})


@pytest.mark.security
def test_require_allows_no_other_scheme_by_mistake():
    allowed = set(CODES) - {"entries", "everything"}
    for scheme, code in (("monomial", "entries"), ("unsafe_none", "everything")):
        with (
            Session("cpu", scheme=scheme) as session,
            pytest.raises(UnsupportedError, match=f"would show '{code}'"),
        ):
            session.protect(model(), require=allowed)


def test_require_takes_codes():
    with Session("cpu") as session:
        with pytest.raises(UsageError, match="no code 'everythin'"):
            session.protect(model(), require={"everythin"})
        with pytest.raises(UsageError, match="not one string"):
            session.protect(model(), require="shapes")


@pytest.mark.security
def test_public_weights_warn_and_name_the_remedy():
    mine = model()
    with Session("cpu") as session:
        with pytest.warns(PublicWeightsWarning, match=r"'2\.0'.*'shares'"):
            session.protect(mine, public=["2"])
        run(mine)
        report = session.report()
    seen = {row.module: row.visible for row in report.rows}
    assert "known-directions" in seen["2.0"]
    assert "known-directions" not in seen["0"]
    assert seen["3"] == (), "what stays shows nothing"
    assert any("public" in note and "shares" in note for note in report.notes)
    leak = {row.module: row.leakage for row in report.rows}
    assert leak == {"0": "invariants", "2.0": "directions", "3": "nothing"}
    assert "known-directions" in report.visible
    text = str(report)
    assert "workers see" in text
    assert "known-directions" in text
    rows = json.loads(json.dumps(report.to_dict()))["rows"]
    assert rows[1]["visible"] == list(seen["2.0"])


def test_public_weights_that_nobody_sends_do_not_warn():
    with warnings.catch_warnings(), Session("cpu") as session:
        warnings.simplefilter("error")
        session.protect(model(), public=["2"], keep=["2"])
    with Session("cpu") as session, pytest.raises(UsageError, match="public: no module is named"):
        session.protect(model(), public=["encoder"])


@pytest.mark.security
def test_public_weights_are_refused_where_required():
    with (
        Session("cpu") as session,
        pytest.raises(UnsupportedError, match=r"layer '0' would show 'known-directions'.*scheme='shares'"),
    ):
        session.protect(model(), public=["*"], require=set(CODES) - {"known-directions"})


def test_forward_alone_shows_no_spectrum():
    mine = model()
    with Session("cpu") as session, torch.no_grad():
        session.protect(mine)(torch.randn(128, 64))
        assert all("spectrum" not in row.visible for row in session.report().rows)
        assert session.report().rows[0].visible


def test_features_that_stay_dead_are_noted():
    x = torch.randn(128, 64)
    x[:, :5] = 0
    for fill, note in ((2, "2 filled, 3 left"), (5, None)):
        with Session("cpu", fill=fill) as session, torch.no_grad():
            mine = session.protect(model(), keep=["2"])
            mine(x)
            notes = " ".join(session.report().notes)
        assert (note in notes) if note else ("filled" not in notes)


def test_repeated_gradients_are_noted():
    mine = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 10))
    with Session("cpu", repeats=0.5) as session:
        session.protect(mine)
        mine[0](torch.randn(8, 32, 64)).mean(1).square().sum().backward()
        assert any("rows repeat" in note for note in session.report().notes)
