"""What workers see of a layer by construction, as short codes.

Not what an attack may find out beyond that: `tempo attack` measures it, docs/secrecy.md says what stands on
what. `Session.protect(require=...)` refuses what goes beyond a set of these codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from tempo.config import Config

#: code: (what it means, what takes it away, the class it belongs to).
_CODES: Final[Mapping[str, tuple[str, str, str]]] = MappingProxyType(
    {
        "shapes": (
            "sizes of operands, hence the architecture, and where they follow the data what they say of it "
            "(how many tokens each expert got, lengths of packed sequences); timing, the number of steps, "
            "what shares a weight",
            "keep the layer in the TEE: protect(keep=[...])",
            "shapes",
        ),
        "rows": (
            "how many rows were sent, hence how many are zero (padding, masks), of each expert and each step "
            "of a sequence by itself; whether backward was sent at all, where the setting repeats keeps some "
            "of it here",
            "scheme='shares'",
            "shapes",
        ),
        "evenness": (
            "for each X and dY, whether its rows differ by more than 30 times: those stay in float32",
            "wire='fp32' and arithmetic='fp32'",
            "invariants",
        ),
        "norms": (
            "absolute sizes of operands, up to some per cent: how weights and gradients grow or fade",
            "gain=16",
            "invariants",
        ),
        "block-norms": (
            "relative sizes of blocks of rows and of features, up to the spread of the coefficients",
            "scheme='shares'",
            "invariants",
        ),
        "rank": (
            "ranks of operands, and that their null spaces constrain the bases (dead units, few classes)",
            "scheme='shares'",
            "invariants",
        ),
        "planes": (
            "single linear constraints of X, such as the plane of LayerNorm, which the noise of the centre "
            "makes inexact only",
            "decoys=4 or more",
            "invariants",
        ),
        "repeats": (
            "repeated rows of X and dY (mean pooling, constant background), as dependencies within blocks",
            "repeats=0, which keeps such operations in the TEE",
            "invariants",
        ),
        "spectrum": (
            "spectra of W'^T dW', X'^T dX' and Y'^T dY': a batch or model that is known is recognised",
            "key_shift=False (three more encodings a step)",
            "invariants",
        ),
        "class": (
            "which class a batch of one class is of, to whoever has runs of their own to compare: spectra "
            "survive any basis that is well-conditioned",
            "scheme='shares', or shuffled batches",
            "invariants",
        ),
        "reuse": (
            "what operands under one W' have in common: independent features from two on, and with "
            "unsafe_many_uses whole row spaces, to whoever knows some of the operands",
            "weight_uses=1",
            "directions",
        ),
        "known-directions": (
            "the strongest directions of the features, to whoever knows W; deflate and decoys blunt it",
            "scheme='shares'",
            "directions",
        ),
        "known-weights": (
            "the weight itself, which was declared public and is sent in the clear",
            "leave the layer out of public=[...]",
            "directions",
        ),
        "entries": (
            "every entry, up to the order of rows and columns and a coefficient for each; zeros as zeros",
            "scheme='mixing' or 'shares'",
            "entries",
        ),
        "everything": ("plaintext", "scheme='mixing' or 'shares'", "everything"),
    }
)
CODES: Final = tuple(_CODES)
#: Decoys from which a null vector of X is no longer among the least singular ones that stand out.
_LIFT: Final = 4
#: From nothing to everything; a layer is in the class of the worst of its codes.
CLASSES: Final = ("nothing", "shapes", "invariants", "directions", "entries", "everything")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What matters of a layer. public: its weights are public knowledge. trains: gradients pass through."""

    public: bool = False
    trains: bool = True


def visible(scheme: str, config: Config, layer: Layer) -> frozenset[str]:
    """Codes of what workers see of a layer that is sent under this scheme. config: for its other settings."""
    if scheme == "unsafe_none":
        return frozenset({"everything"})
    if scheme == "shares":
        return frozenset({"shapes", *(["known-weights"] if layer.public else [])})
    codes = {"shapes", "rank"}
    if layer.trains and config.key_shift:
        codes.add("spectrum")
    if layer.public:
        codes.add("known-directions")
    codes.add("class")
    if scheme == "monomial":
        return frozenset(codes | {"entries", "norms", "planes", "repeats"})
    codes |= {"rows", "block-norms"}
    if config.weight_uses > 1:
        codes.add("reuse")
    hardening = config.hardening
    if hardening.gain == 1.0:
        codes.add("norms")
    if hardening.decoys < _LIFT:
        codes.add("planes")
    if hardening.repeats > 0.0:
        codes.add("repeats")
    if not config.precision.full:
        codes.add("evenness")
    return frozenset(codes)


def ordered(codes: Iterable[str]) -> tuple[str, ...]:
    """In the order of CODES."""
    known = set(codes)
    return tuple(code for code in CODES if code in known)


def meaning(code: str) -> str:
    return _CODES[code][0]


def remedy(code: str) -> str:
    return _CODES[code][1]


def worst(codes: Iterable[str]) -> str:
    """The class of leakage, one of CLASSES."""
    return max((_CODES[code][2] for code in codes), key=CLASSES.index, default=CLASSES[0])
