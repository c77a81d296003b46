"""What an adversary knows besides the transcript. Each attack declares the one type that it takes.

The architecture is public under every scheme (README, threat model 4), and so is this code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

from torch import Tensor


@final
@dataclass(frozen=True, slots=True)
class LayerFacts:
    """Public facts of one offloaded operation of the model, in the order of a forward pass.

    module: its name. lowering: the name of how it is lowered. kernel: (height, width) of a convolution.
    """

    module: str
    lowering: str
    groups: int
    k: int
    n: int
    kernel: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Nothing:
    """No more than the public architecture. The base of all side knowledge."""

    architecture: tuple[LayerFacts, ...] = ()


@final
@dataclass(frozen=True, slots=True, eq=False)
class PublicWeights(Nothing):
    """Weights W0 that the secret ones started from, or are: by parameter name, as in a state_dict."""

    weights: Mapping[str, Tensor] | None = None
    #: Covariance of the in-features of each layer on public data, (K, K), by parameter name.
    covariance: Mapping[str, Tensor] | None = None


@final
@dataclass(frozen=True, slots=True, eq=False)
class PublicData(Nothing):
    """Data of the same distribution as the secret data: inputs as the model takes them, and labels."""

    inputs: Tensor | None = None
    labels: Tensor | None = None


@final
@dataclass(frozen=True, slots=True, eq=False)
class Candidates(Nothing):
    """Things of which one was run, say batches or models: what each would have sent, by operand.

    operands: for each candidate, plain operands in the order of the architecture's layers.
    """

    operands: tuple[tuple[Tensor, ...], ...] = ()


@final
@dataclass(frozen=True, slots=True, eq=False)
class KnownPlaintext(Nothing):
    """Plain rows (T, F) of some operands, by the id that the transcript names them with."""

    operands: Mapping[int, Tensor] | None = None


@final
@dataclass(frozen=True, slots=True, eq=False)
class OwnRuns(Nothing):
    """The public scheme as a callable that draws fresh keys of the attacker's own at every call, and operands
    of one layer on public data: as many sealed examples as the attacker cares to make.

    seal_rows: X (R, K) to X'. seal_weight: W (N, K) to W'.
    rows: (E, P, K), E public examples of P rows each (P is 1 for a linear layer on vectors, pixels for a 1x1
    convolution). kinds: (E,) which kind an example is of, such as its class. weights: candidates (N, K) of
    which one was run. picture: height and width, where a row is one.
    """

    seal_rows: Callable[[Tensor], Tensor] | None = None
    seal_weight: Callable[[Tensor], Tensor] | None = None
    rows: Tensor | None = None
    kinds: Tensor | None = None
    weights: tuple[Tensor, ...] = ()
    picture: tuple[int, int] | None = None


@final
@dataclass(frozen=True, slots=True, eq=False)
class PublicLayer(Nothing):
    """One layer whose weight is public, or close to a public one, and rows that could enter it.

    weight: W0 (N, K). rows: (S, K), such as the state of every token at every position, or public examples.
    tokens: (S,) the token of each row, for language models. picture: height and width, where a row is one.
    """

    weight: Tensor | None = None
    rows: Tensor | None = None
    tokens: Tensor | None = None
    picture: tuple[int, int] | None = None
