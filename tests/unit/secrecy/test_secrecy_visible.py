"""Which codes a layer shows under which settings."""

import pytest

from tempo.config import Config
from tempo.secrecy.scheme import SCHEMES
from tempo.secrecy.visible import CLASSES, CODES, Layer, meaning, ordered, remedy, visible, worst

DEFAULT = {"shapes", "rows", "block-norms", "rank", "planes", "repeats", "spectrum", "class"}


def seen(scheme="mixing", public=False, trains=True, **options):
    return visible(scheme, Config(**options), Layer(public=public, trains=trains))


def test_the_default():
    assert seen() == DEFAULT


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        ({"key_shift": False}, {"spectrum"}),
        ({"decoys": 4}, {"planes"}),
        ({"decoys": 3}, set()),
        ({"repeats": 0.0}, {"repeats"}),
        ({"repeats": 0.1}, set()),
        ({"deflate": 32}, set()),
        ({"trains": False}, {"spectrum"}),
        (
            {"key_shift": False, "decoys": 8, "repeats": 0.0},
            {"spectrum", "planes", "repeats"},
        ),
    ],
)
def test_what_a_knob_takes_away(options, gone):
    assert seen(**options) == DEFAULT - gone


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({"gain": 1.0}, {"norms"}),
        ({"weight_uses": 2, "unsafe_many_uses": True}, {"reuse"}),
        ({"weight_uses": 256, "unsafe_many_uses": True}, {"reuse"}),
    ],
)
def test_what_a_knob_adds(options, more):
    assert seen(**options) == DEFAULT | more


@pytest.mark.parametrize("options", [{"wire": "bf16"}, {"arithmetic": "tf32"}])
def test_rounding_shows_evenness(options):
    assert seen(**options) == DEFAULT | {"evenness"}


def test_public_weights():
    assert seen(public=True) == DEFAULT | {"known-directions"}
    assert seen("monomial", public=True) - seen("monomial") == {"known-directions"}
    assert seen("shares", public=True) == {"shapes", "known-weights"}
    assert seen("unsafe_none", public=True) == {"everything"}


def test_other_schemes():
    """Knobs of mixing take nothing away from monomial."""
    knobs = {"gain": 16.0, "decoys": 8, "repeats": 0.0}
    assert seen("monomial") == seen("monomial", **knobs)
    assert {"entries", "norms", "planes", "repeats"} < seen("monomial")
    assert seen("shares") == {"shapes"}
    assert seen("unsafe_none") == {"everything"}


def test_classes_are_those_of_the_worst_code():
    assert worst(()) == "nothing"
    assert worst(seen("shares")) == "shapes"
    assert worst(seen()) == "invariants"
    assert worst(seen(public=True)) == "directions"
    assert worst(seen("monomial")) == "entries"
    assert worst(seen("unsafe_none")) == CLASSES[-1]
    ranks = [CLASSES.index(worst(seen(scheme))) for scheme in ("shares", *SCHEMES)]
    assert ranks == sorted(ranks)


def test_every_code_is_explained():
    assert ordered(reversed(CODES)) == CODES
    assert all(meaning(code) and remedy(code) for code in CODES)
    used = set().union(
        *(
            seen(s, public=p, wire=w, weight_uses=2, unsafe_many_uses=True)
            for s in (*SCHEMES, "shares")
            for p in (True, False)
            for w in ("fp32", "bf16")
        )
    )
    assert used == set(CODES)


def test_sizes_that_follow_the_data_are_named():
    """Under shares too, whose one code is `shapes`."""
    assert "tokens each expert got" in meaning("shapes")
    assert "packed sequences" in meaning("shapes")
    assert "each expert" in meaning("rows")
