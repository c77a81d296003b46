"""Attack 5: layer linking. A working copy of a network with ReLU, with no knowledge of any weight.

1. Take the last step of which all layers were seen: Y'(l) and dY'(l) of each, X'(l+1) of the next.
2. Where operands hold no zeros, features may be mixed and rows not: unmix them into components with exact
   zeros (tempo/attacks/separation.py), X' and dY' each; dY' unmixed by U* says that U*^-T unmixes Y'.
3. The zeros of dY'(l), which lie in the places of Y'(l), are those of X'(l+1): match rows and columns, then
   fit
   all coefficients and biases between the two (tempo/attacks/relu.py). The row coefficients a of each
   operation come out, so do biases, which no worker ever received, and the sign of each unit.
4. Behind the last layer sent there is no X': its zeros are those of dY' too, and a bias is the threshold on
   Y'/a between entries that are zero and entries that are not.
5. Columns of X'(1)/a are placed among the features of public data by their distributions and moments
   (tempo/attacks/placing.py). Layers, biases and signs now make a network on plain inputs.
6. The classifier stays in the TEE: a linear probe on a few labelled samples of one's own replaces it.

Axes: R rows, K in-features, N out-features; S samples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Final, final

import numpy as np
from numpy.typing import NDArray

from tempo.attacks import relu
from tempo.attacks.attack import Attack, NothingToAttack
from tempo.attacks.knowledge import PublicData
from tempo.attacks.placing import Placing, place
from tempo.attacks.separation import mixed_together, zero_components
from tempo.attacks.transcript import Pass, Transcript
from tempo.ops import Op

Array = NDArray[np.float64]
Index = NDArray[np.int64]

#: Labelled samples that the attacker has.
SHOTS: Final = 50
#: Rows of the pass that is taken, where there is a choice.
_ROWS: Final = 700
#: Below this share of zeros an operand is taken to be mixed.
_ZEROS: Final = 0.01
_SMALL: Final = 1e-3


@final
@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """z = h M^T + bias; units with sign * z > 0 are active; h of the next layer is scale * z where active.

    m (N, K), in the attacker's coordinates of both sides; order: the unit of each input of the next layer.
    """

    m_NK: Array
    bias_N: Array
    sign_N: Array
    scale_N: Array
    order: Index

    def __call__(self, h_SK: Array) -> Array:
        z = h_SK @ self.m_NK.T + self.bias_N
        return np.asarray((np.where(self.sign_N * z > 0, z, 0.0) * self.scale_N)[:, self.order])


@final
@dataclass(frozen=True, slots=True, eq=False)
class FunctionalCopy:
    """A network up to its classifier. shots and held: features of the attacker's own samples by the copy,
    with
    labels; the probe is fitted on the first. inputs: the same samples as they are. agreements: of the
    patterns
    of zeros of each link; residuals: of the fits (exact is about 1e-7)."""

    layers: tuple[Layer, ...]
    placing: Placing
    shots: tuple[Array, Index]
    held: tuple[Array, Index]
    inputs: tuple[Array, Array]
    agreements: tuple[float, ...]
    residuals: tuple[float, ...]
    exact_share: float


@final
class LayerLinking(Attack[PublicData, FunctionalCopy]):
    name = "layer-linking"
    number = 5
    title = "Layer linking: a functional copy of a network trained from scratch"
    adversary = "one worker, or several that collude, that record one training step"
    side_knowledge = f"inputs of the same distribution, {SHOTS} of them labelled; that layers meet by ReLU"
    knowledge: ClassVar[type[PublicData]] = PublicData
    metric = f"accuracy of the copy on held-out data, its classifier fitted on {SHOTS} labelled samples"
    compute = "some seconds: assignments and least squares of the size of a layer"

    def run(self, transcript: Transcript, knowledge: PublicData) -> FunctionalCopy:
        if knowledge.inputs is None or knowledge.labels is None:
            raise NothingToAttack("layer linking needs public inputs, some with labels, to try its copy on")
        public = knowledge.inputs.detach().double().flatten(1).numpy()
        labels = knowledge.labels.numpy()
        if len(public) <= 2 * SHOTS:
            raise NothingToAttack(f"layer linking needs more than {2 * SHOTS} public samples")
        chain = _chain(transcript)
        views = [_View.of(each, raw=each is chain[0]) for each in chain]
        if views[0].k_seen != public.shape[1]:
            raise NothingToAttack(
                f"the first layer sent takes {views[0].k_seen} features, the data has {public.shape[1]}: an "
                f"attacker who lacks the layers before it has no inputs to try its copy on"
            )
        layers, row_scale, agreements, residuals = _assembled(views)
        placing = place(views[0].x_RK / row_scale[:, None], public)
        copy = _features(layers, placing, public)
        held = slice(SHOTS, None)
        return FunctionalCopy(
            tuple(layers),
            placing,
            (copy[:SHOTS], labels[:SHOTS]),
            (copy[held], labels[held]),
            (public[:SHOTS], public[held]),
            tuple(agreements),
            tuple(residuals),
            float(np.mean([view.exact for view in views])),
        )


def _chain(transcript: Transcript) -> list[Pass]:
    """A pass of each layer of the last complete step: layers of one group, each as wide as the next takes."""
    # A step ends when gradients were computed and a new forward product comes.
    steps: list[list[int]] = [[]]
    backward = False
    for s in transcript.seen:
        if s.op is Op.PRODUCT:
            if backward:
                steps.append([])
                backward = False
            if s.right_id not in steps[-1]:
                steps[-1].append(s.right_id)
        else:
            backward = True
    layers = {each[0].w_id: each for each in transcript.layers()}
    for step in reversed(steps):
        passes = [
            sorted((p for p in layers[w] if _usable(p)), key=lambda p: abs(len(p.x) - _ROWS)) for w in step
        ]
        if len(passes) > 1 and all(passes):
            chain = [passes[0][0]]
            for each in passes[1:]:
                same = [p for p in each if len(p.x) == len(chain[-1].x)]
                if not same or chain[-1].w is None or same[0].x.shape[1] != chain[-1].w.shape[1]:
                    break
                chain.append(same[0])
            else:
                return chain
    raise NothingToAttack(
        "layer linking needs a training step of two or more layers in a row, each as wide as the next takes, "
        "with X', W', Y' and dY' of the same rows"
    )


def _usable(p: Pass) -> bool:
    return p.w is not None and len(p.w) == 1 and p.y is not None and p.dy is not None and len(p.x) > 8


@final
@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """One layer as far as it could be unmixed: y = x m^T, and the pattern of dY'."""

    x_RK: Array
    y_RN: Array
    m_NK: Array
    active_RN: relu.Bits
    zeros_RK: float
    exact: float
    k_seen: int

    @classmethod
    def of(cls, p: Pass, *, raw: bool) -> _View:
        """raw: x is the model's input, which need not have zeros, and whose quantised values repeat ratios
        that tell nothing of blocks: whether it is mixed, dY' tells."""
        if p.w is None or p.y is None or p.dy is None:
            raise AssertionError("only complete passes are chosen")
        x, y, dy = (t.double().numpy() for t in (p.x, p.y, p.dy))
        w, k = p.w[0].double().numpy(), x.shape[1]
        shares = []
        mixed = _mixed(dy)
        if mixed:
            v, exact = zero_components(dy)
            # On the span of dY' a dual: unused directions of Y' stay out.
            dual = np.linalg.pinv(v).T
            dy, y, w = dy @ v, y @ dual, dual.T @ w
            shares.append(exact / max(v.shape[1], 1))
        else:
            shares.append(1.0)
        tolerance = 0.0
        if mixed if raw else _mixed(x):
            v, exact = zero_components(x)
            x, w, tolerance = x @ v, w @ np.linalg.pinv(v).T, _SMALL
            shares.append(exact / max(v.shape[1], 1))
        active = relu.pattern(dy, _SMALL if mixed else 0.0)
        return cls(x, y, w, active, tolerance, float(np.mean(shares)), k)


def _mixed(t_RF: Array) -> bool:
    """No zeros, or columns that fall into small blocks."""
    if bool((t_RF == 0).mean() < _ZEROS):
        return True
    return bool(1 < max(map(len, mixed_together(t_RF))) < t_RF.shape[1])


def _as_wide(views: list[_View]) -> list[_View]:
    """Unmixing drops units that were never active, not always the same on both sides of a link: put as many
    silent ones back as it takes."""
    out = list(views)
    for i in range(len(out) - 1):
        here, then = out[i], out[i + 1]
        lack = then.x_RK.shape[1] - here.y_RN.shape[1]
        if lack > 0:
            more = ((0, 0), (0, lack))
            out[i] = replace(
                here,
                y_RN=np.pad(here.y_RN, more),
                active_RN=np.pad(here.active_RN, more),
                m_NK=np.pad(here.m_NK, more[::-1]),
            )
        elif lack < 0:
            more = ((0, 0), (0, -lack))
            out[i + 1] = replace(then, x_RK=np.pad(then.x_RK, more), m_NK=np.pad(then.m_NK, more))
    return out


def _assembled(views: list[_View]) -> tuple[list[Layer], Array, list[float], list[float]]:
    """Layers in one gauge, that of the first layer's row coefficients, which are returned too."""
    layers: list[Layer] = []
    agreements: list[float] = []
    residuals: list[float] = []
    views = _as_wide(views)
    first = last = np.ones(len(views[0].x_RK))
    for here, then in pairwise(views):
        found, fit = relu.linked(here.y_RN, then.x_RK, here.active_RN, then.zeros_RK)
        agreements.append(found.agreement)
        residuals.append(fit.residual)
        own = _ratio(fit.v_R, fit.u_R)
        if np.abs(fit.t_N).max() < 1e-9 * np.abs(fit.s_N).max():  # no bias: a does not show, but its signs
            own = relu.sign_of_rows(here.y_RN, here.active_RN) * np.abs(last)
        if not layers:
            first, gauge = own, 1.0
        else:
            gauge = _middle(_ratio(own, last))
        z = here.y_RN / (own / gauge)[:, None]
        bias = _ratio(fit.t_N, fit.s_N) * gauge
        layers.append(
            Layer(here.m_NK, bias, _signs(z + bias, here.active_RN), fit.s_N, np.argsort(found.columns))
        )
        # Coefficients of the next operation's rows, in its own order.
        last = np.empty_like(own)
        last[found.rows] = fit.u_R * own / gauge
    end = views[-1]
    z = end.y_RN / last[:, None]
    bias, sign = relu.thresholds(z, end.active_RN)
    n = len(bias)
    layers.append(Layer(end.m_NK, bias, sign, np.ones(n), np.arange(n)))
    return layers, first, agreements, residuals


def _ratio(p: Array, q: Array) -> Array:
    return np.asarray(p / np.where(np.abs(q) < 1e-12 * (np.abs(q).max() + 1e-300), np.inf, q))


def _middle(t: Array) -> float:
    """Median of those that are not zero, 1 if there are none."""
    some = t[(t != 0) & np.isfinite(t)]
    return float(np.median(some)) if len(some) else 1.0


def _signs(z_RN: Array, active_RN: relu.Bits) -> Array:
    """Sign of active entries."""
    return np.where((np.sign(z_RN) * active_RN).sum(0) < 0, -1.0, 1.0)


def _features(layers: list[Layer], placing: Placing, samples_SF: Array) -> Array:
    h = samples_SF[:, placing.feature] * placing.scale + placing.offset
    for layer in layers:
        h = layer(h)
    return np.nan_to_num(h, posinf=0.0, neginf=0.0)
