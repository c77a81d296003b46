"""torch.lstm, gru, rnn_tanh, rnn_relu and their cells, on linear algebra that the caller brings.

Axes: T steps; B batch; I in-features; H hidden features; P what a step hands on (H, or the projection's
size). Per layer and direction, with the gates stacked in the rows of both weights (PyTorch, nn.LSTM,
nn.GRU, nn.RNN):

    LSTM   i, f, g, o = x Wi^T + bi + h Wh^T + bh
           c' = sigmoid(f) c + sigmoid(i) tanh(g)      h' = sigmoid(o) tanh(c')  [ Wr^T ]
    GRU    r, z = sigmoid of theirs    n = tanh(x Win^T + bin + r (h Whn^T + bhn))
           h' = (1 - z) n + z h
    RNN    h' = tanh or relu of x Wi^T + bi + h Wh^T + bh

PyTorch hands these over as wholes, so their products are out of reach until they are taken apart. The
products with Wi are one for all steps; those with Wh follow one another. `linear(x, w, b)` does each of
them, and parameters are passed on as they are: who encodes them may go by identity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

Linear = Callable[[Tensor, Tensor, Tensor | None], Tensor]
#: (gates of x, gates of h, state) -> the next state; the first tensor of a state is what is handed on.
State = tuple[Tensor, ...]
Step = Callable[[Tensor, Tensor, State], State]


def _lstm(x: Tensor, h: Tensor, state: State) -> State:
    i, f, g, o = (x + h).chunk(4, dim=-1)
    c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _gru(x: Tensor, h: Tensor, state: State) -> State:
    xr, xz, xn = x.chunk(3, dim=-1)
    hr, hz, hn = h.chunk(3, dim=-1)
    r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
    n = (xn + r * hn).tanh()
    return ((state[0] - n) * z + n,)


def _rnn_tanh(x: Tensor, h: Tensor, state: State) -> State:
    return ((x + h).tanh(),)


def _rnn_relu(x: Tensor, h: Tensor, state: State) -> State:
    return ((x + h).relu(),)


STEPS: dict[str, Step] = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _rnn_tanh, "rnn_relu": _rnn_relu}


def cell(
    linear: Linear,
    kind: str,
    input: Tensor,
    hx: Any,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Any:
    """One step of torch.<kind>_cell: input (B,I) or (I), hx (B,H), for an LSTM a pair of them."""
    state: State = tuple(hx) if isinstance(hx, tuple | list) else (hx,)
    new = STEPS[kind](linear(input, w_ih, b_ih), linear(state[0], w_hh, b_hh), state)
    return new if kind == "lstm" else new[0]


def sequence(linear: Linear, kind: str, *args: Any) -> tuple[Tensor, ...]:
    """torch.<kind>(input, hx, params, has_biases, layers, dropout, train, bidirectional, batch_first), or
    with (data, batch_sizes, hx, params, ...) for packed sequences and without batch_first, as nn.RNNBase
    calls it. Returns what it returns: (output, h) and for an LSTM c, h and c being (layers x directions, B,
    P or H)."""
    packed = isinstance(args[1 if kind == "lstm" else 2], Tensor)
    if packed:
        data, sizes, hx, params, biases, layers, dropout, train, both = args
        lengths: list[int] = sizes.tolist()
    else:
        data, hx, params, biases, layers, dropout, train, both, batch_first = args
        data = data.transpose(0, 1) if batch_first else data
        lengths = [data.shape[1]] * data.shape[0]
        data = data.flatten(0, 1)
    states: State = tuple(hx) if isinstance(hx, tuple | list) else (hx,)
    final: list[State] = []
    groups = _layers(params, biases, layers * (2 if both else 1))
    for layer in range(layers):
        out = []
        for reverse in (False, True) if both else (False,):
            at = len(final)
            run = _Run(linear, STEPS[kind], groups[at], lengths, reverse)
            y, last = run(data, tuple(s[at] for s in states))
            out.append(y)
            final.append(last)
        data = torch.cat(out, -1) if both else out[0]
        if dropout and train and layer < layers - 1:
            data = data if packed else data.unflatten(0, (len(lengths), -1))
            data = F.dropout(data, dropout, True)
            data = data if packed else data.flatten(0, 1)
    if not packed:
        data = data.unflatten(0, (len(lengths), lengths[0]))
        data = data.transpose(0, 1) if batch_first else data
    return (data, *(torch.stack(each) for each in zip(*final, strict=True)))


@final
@dataclass(frozen=True, slots=True)
class _Weights:
    """Of one layer and direction. hr: what an LSTM projects its h with, or None."""

    ih: Tensor
    hh: Tensor
    b_ih: Tensor | None
    b_hh: Tensor | None
    hr: Tensor | None


def _layers(params: Sequence[Tensor], biases: bool, count: int) -> list[_Weights]:
    """The flat list of parameters by layer and direction: ih, hh, two biases if any, hr if any."""
    each = len(params) // count
    found = []
    for start in range(0, len(params), each):
        ih, hh, *rest = params[start : start + each]
        b_ih, b_hh = (rest.pop(0), rest.pop(0)) if biases else (None, None)
        found.append(_Weights(ih, hh, b_ih, b_hh, rest[0] if rest else None))
    return found


@final
@dataclass(frozen=True, slots=True)
class _Run:
    """One layer in one direction. lengths: how many sequences are alive at each step, never more than
    before."""

    linear: Linear
    step: Step
    w: _Weights
    lengths: Sequence[int]
    reverse: bool

    def __call__(self, x: Tensor, first: State) -> tuple[Tensor, State]:
        """x (sum of lengths, I) -> (y (sum of lengths, P), the state of each sequence after its last
        step)."""
        gates = self.linear(x, self.w.ih, self.w.b_ih).split(list(self.lengths))
        outputs: list[Tensor] = []
        ended: list[State] = []
        state = tuple(s[: self.lengths[0]] for s in first)
        if self.reverse:
            state = tuple(s[: self.lengths[-1]] for s in first)
        for t in reversed(range(len(gates))) if self.reverse else range(len(gates)):
            alive, had = self.lengths[t], state[0].shape[0]
            if alive > had:  # backwards: sequences begin at their own ends
                state = tuple(torch.cat([s, f[had:alive]]) for s, f in zip(state, first, strict=True))
            elif alive < had:
                ended.append(tuple(s[alive:] for s in state))
                state = tuple(s[:alive] for s in state)
            h = self.linear(state[0], self.w.hh, self.w.b_hh)
            state = self.step(gates[t], h, state)
            if self.w.hr is not None:
                state = (self.linear(state[0], self.w.hr, None), *state[1:])
            outputs.append(state[0])
        if self.reverse:
            outputs.reverse()
        last = [state, *reversed(ended)]
        return torch.cat(outputs), tuple(torch.cat(parts) for parts in zip(*last, strict=True))
