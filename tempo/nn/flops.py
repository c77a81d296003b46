"""Linear algebra that stays in the TEE: which functions it is, and how much of it there is.

PyTorch's flop counter (torch.utils.flop_counter) is the reference. Everything here agrees with it to
the flop, so that "counted by PyTorch = offloaded + kept" can be tested:

- formulas over shapes, for ops that Tempo takes apart or plans: `matmul_flops`, `conv_flops`, ...
- `FlopMeter`, for ops that are kept: it watches what really runs. Shapes alone do not tell: the same
  call is a bmm or an mv by its strides, one fused kernel or two products by its dropout.

The counter is blind to some kernels: fused attention on CPU, bilinear, in-place and batch-summed
products, LSTM. What the meter knows of them goes to `unseen`, never into the agreement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
Shape = Sequence[int]


@dataclass(frozen=True, slots=True)
class Flops:
    """forward: multiplications and additions. gradients: (flops, operands), each a product of the
    backward pass that is done if any of these operands, given by position, requires its gradient."""

    forward: int
    gradients: tuple[tuple[int, tuple[int, ...]], ...] = ()

    def backward(self, needs: Sequence[bool]) -> int:
        """Flops of the backward pass where operand i requires its gradient if needs[i]."""
        return sum(flops for flops, operands in self.gradients if any(needs[i] for i in operands))


def _product(flops: int) -> Flops:
    return Flops(flops, ((flops, (0,)), (flops, (1,))))


def matmul_flops(a: Shape, b: Shape) -> Flops:
    """torch.matmul of shapes (..., R, K) and (..., K, N): 2 B R K N with B the broadcast batch.
    Operands: a, b.

    Also mm and bmm, and the product in addmm and baddbmm. A matrix times a vector counts nothing, as
    with PyTorch, which runs mv; with more than two dimensions it may run bmm: ask the meter.
    """
    if len(b) == 1 or (len(a) == 1 and len(b) > 2):
        return _product(0)
    rows, k = (1, a[0]) if len(a) == 1 else (a[-2], a[-1])
    batch = torch.broadcast_shapes(tuple(a[:-2]), tuple(b[:-2]))
    return _product(2 * prod(batch) * rows * k * b[-1])


def linear_flops(x: Shape, w: Shape) -> Flops:
    """F.linear of shapes (..., K) and (N, K). Operands: x, w."""
    return matmul_flops((prod(x[:-1]), x[-1]), (w[1], w[0]))


def conv_flops(x: Shape, w: Shape, out: Shape, transposed: bool = False) -> Flops:
    """F.conv1d, 2d, 3d and their transposes, with or without a batch dimension. Operands: x, w.

    2 (batch) (positions) (window) w[0] w[1], positions those of the output, of the input if transposed.
    """
    dims = len(w) - 2
    batch = prod(x[: -dims - 1])
    channels_in, channels_out = x[-dims - 1], out[-dims - 1]
    positions = (x if transposed else out)[-dims:]
    forward = 2 * batch * prod(positions) * prod(w)
    # The counter takes the gradient of a grouped weight for that of a full one: G times too much.
    dw = 2 * batch * prod(positions) * prod(w[2:]) * channels_in * channels_out
    return Flops(forward, ((forward, (0,)), (dw, (1,))))


def attention_flops(q: Shape, k: Shape, v: Shape) -> Flops:
    """F.scaled_dot_product_attention of (..., L, D), (..., S, D), (..., S, V) done in two products;
    masks, causal or not, change nothing. Operands: q, k, v.

    On CPU the counter sees that where PyTorch takes its `math` path: operands not 4-D, dropout, a
    mask with a gradient, heads of unequal width. Otherwise one fused kernel runs and counts nothing.
    """
    queries = prod(q[:-1])
    scores, mixed = 2 * queries * q[-1] * k[-2], 2 * queries * k[-2] * v[-1]
    return Flops(scores + mixed, ((mixed, (0, 1)), (mixed, (2,)), (scores, (0,)), (scores, (1,))))


def bilinear_flops(x1: Shape, x2: Shape, w: Shape) -> Flops:
    """F.bilinear of (..., I), (..., J) and (N, I, J), to leading order; the counter sees none of it.
    Operands: x1, x2, w."""
    flops = 2 * prod(x1[:-1]) * prod(w)
    return Flops(flops, ((flops, (0,)), (flops, (1,)), (flops, (2,))))


def _conv(args: Sequence[Any], out: Any) -> Flops:
    return conv_flops(args[0].shape, args[1].shape, out.shape, transposed=bool(args[6]))


def _matmul_at(a: int, b: int) -> Callable[[Sequence[Any], Any], Flops]:
    """A product of arguments a and b, (R, K) by (K, N) or batches of them."""

    def count(args: Sequence[Any], out: Any) -> Flops:
        flops = matmul_flops(args[a].shape, args[b].shape).forward
        return Flops(flops, ((flops, (a,)), (flops, (b,))))

    return count


#: What the counter counts, forward and backward.
_SEEN: dict[Any, Callable[[Sequence[Any], Any], Flops]] = {
    aten.mm: _matmul_at(0, 1),
    aten.bmm: _matmul_at(0, 1),
    aten.addmm: _matmul_at(1, 2),
    aten.baddbmm: _matmul_at(1, 2),
    aten.convolution: _conv,
    aten._convolution: _conv,
}
#: Not counted themselves, while their gradients are made of bmm and mm, which are.
_SEEN_BACKWARD_ONLY = {
    aten.addmm_: _matmul_at(1, 2),
    aten.baddbmm_: _matmul_at(1, 2),
    aten.addbmm: _matmul_at(1, 2),
    aten.addbmm_: _matmul_at(1, 2),
}
#: Counted neither forward nor backward.
_UNSEEN: dict[Any, Callable[[Sequence[Any], Any], Flops]] = {
    aten._scaled_dot_product_flash_attention_for_cpu: lambda args, out: attention_flops(
        args[0].shape, args[1].shape, args[2].shape
    ),
    aten._trilinear: lambda args, out: bilinear_flops(args[0].shape, args[2].shape, args[1].shape),
}


def _of_inference(arg: Any) -> bool:
    if isinstance(arg, tuple | list):
        return any(map(_of_inference, arg))
    return isinstance(arg, Tensor) and arg.is_inference()


class FlopMeter(TorchDispatchMode):
    """Runs what is inside it, and adds up its linear algebra.

        with FlopMeter() as meter:
            y = function(*args)

    forward, backward: as PyTorch's counter counts them, backward given which operands require their
    gradients now. unseen: forward flops the counter does not see, as far as they are known.
    """

    def __init__(self) -> None:
        super().__init__()
        self.forward = 0
        self.backward = 0
        self.unseen = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # In inference mode composite functions arrive whole. (Elsewhere nothing is to be taken apart, and
        # asking aborts the process where tensors have shapes but no data.)
        if torch.is_inference_mode_enabled() or any(map(_of_inference, args)):
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        # An in-place op overwrites its operand's requires_grad: look before it runs.
        needs = [isinstance(arg, Tensor) and arg.requires_grad and torch.is_grad_enabled() for arg in args]
        out = func(*args, **kwargs)
        op = func._overloadpacket
        if op in _SEEN:
            flops = _SEEN[op](args, out)
            self.forward += flops.forward
            self.backward += flops.backward(needs)
        elif op in _SEEN_BACKWARD_ONLY:
            flops = _SEEN_BACKWARD_ONLY[op](args, out)
            self.backward += flops.backward(needs)
            self.unseen += flops.forward
        elif op in _UNSEEN:
            self.unseen += _UNSEEN[op](args, out).forward
        elif op in flop_registry:  # kernels of other devices
            self.forward += flop_registry[op](*args, **kwargs, out_val=out)
        return out


class Kind(Enum):
    """How a function is met. The operands' order is that of the function."""

    LINEAR = auto()  # x W^T + b
    MATMUL = auto()  # a b
    RMATMUL = auto()  # called as (b, a): a b
    ADDMM = auto()  # beta c + alpha a b, called as (c, a, b)
    CONV = auto()
    CONV_TRANSPOSED = auto()
    EINSUM = auto()
    MHA = auto()
    SDPA = auto()
    RECURRENT = auto()
    GROUPED = auto()  # a product for each stretch of rows
    OTHER_LINEAR = auto()  # run it under a FlopMeter


def _present(*names: str) -> list[Any]:
    """Those of the functions that this version of PyTorch has."""
    found = []
    for name in names:
        owner: Any = torch
        for part in name.split("."):
            owner = getattr(owner, part, None)
        found += [] if owner is None else [owner]
    return found


#: Each function as a TorchFunctionMode sees it. `a @ b` and `a @= b` arrive as Tensor.matmul. Not
#: here: what PyTorch never counts (mv, dot, outer), and decompositions (inv, solve, svd, cdist), of
#: which it counts the gradients only.
LINEAR_FUNCTIONS: dict[Callable[..., Any], Kind] = {
    F.linear: Kind.LINEAR,
    torch.Tensor.__rmatmul__: Kind.RMATMUL,
    torch.einsum: Kind.EINSUM,
    torch._VF.einsum: Kind.EINSUM,  # type: ignore[attr-defined]
    F.multi_head_attention_forward: Kind.MHA,
    F.scaled_dot_product_attention: Kind.SDPA,
    **dict.fromkeys((torch.matmul, torch.linalg.matmul, torch.mm, torch.bmm), Kind.MATMUL),
    **dict.fromkeys((torch.Tensor.matmul, torch.Tensor.mm, torch.Tensor.bmm), Kind.MATMUL),
    **dict.fromkeys((torch.addmm, torch.Tensor.addmm), Kind.ADDMM),
    **dict.fromkeys((torch.baddbmm, torch.Tensor.baddbmm), Kind.ADDMM),
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), Kind.CONV),
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), Kind.CONV_TRANSPOSED),
    **dict.fromkeys(_present("lstm", "gru", "rnn_tanh", "rnn_relu"), Kind.RECURRENT),
    **dict.fromkeys(_present("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), Kind.RECURRENT),
    **dict.fromkeys(_present("_grouped_mm"), Kind.GROUPED),
    **dict.fromkeys(
        _present(
            *("addbmm", "Tensor.addbmm", "Tensor.addbmm_", "Tensor.addmm_", "Tensor.baddbmm_"),
            *("inner", "Tensor.inner", "tensordot", "chain_matmul", "linalg.multi_dot"),
            *("matrix_power", "Tensor.matrix_power", "linalg.matrix_power"),
            *("cov", "Tensor.cov", "corrcoef", "Tensor.corrcoef"),
            *("convolution", "_convolution", "conv_tbc", "bilinear"),
            *("nn.functional.linear_cross_entropy", "_scaled_dot_product_attention_math"),
            # Whole where an operand is a Parameter, and products one by one where none is.
            *("svd_lowrank", "pca_lowrank", "lobpcg"),
        ),
        Kind.OTHER_LINEAR,
    ),
}
