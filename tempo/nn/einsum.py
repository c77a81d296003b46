"""torch.einsum, on linear algebra that the caller brings.

Operands are folded from left to right. Each pair a, b is brought to one product

    y[b,r,n] = sum_k a[b,r,k] b[b,k,n]

by what costs one pass over memory: diagonals, sums, permutations, reshapes. Every label falls into
one of five groups:

    B batch        in a, in b, still needed      K contracted   in a, in b, needed no more
    R free in a    in a only, still needed       N free in b    in b only, still needed
    summed         in one of them only, needed no more

"Needed" is: in the output or in an operand to come. A pair that contracts nothing is an elementwise
product, as it is in PyTorch, and no linear algebra at all.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from tempo.errors import UnsupportedError

Label = str  # a letter, or ".2" for the third dimension from the right under an ellipsis
Labels = tuple[Label, ...]
Linear = Callable[[Tensor, Tensor], Tensor]
Matmul = Callable[[Tensor, Tensor], Tensor]

_SIDE = re.compile(r"[a-zA-Z]*(\.\.\.)?[a-zA-Z]*")
_BROKEN_TOKEN = re.compile(r"\. +\.|- +>|[^a-zA-Z.,> -]")


def einsum(matmul: Matmul, linear: Linear, equation: str, *operands: Any) -> Tensor:
    """torch.einsum(equation, *operands), its products done by `matmul(a_BRK, b_BKN)`.

    Where an operand is an nn.Parameter and the pair has no batch label, by `linear(x_RK, w_NK)`
    instead, x with any leading dimensions. w is the parameter itself if it lies as (N,K), its `.mT`
    if it lies as (K,N), and otherwise a permuted and reshaped view.

    `operands` are tensors, or one list of them. What PyTorch refuses is refused by PyTorch, in its
    words; the sublist format it has already turned into an equation when a function mode sees it.
    """
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    if len(operands) < 2:  # a diagonal, a sum or a permutation
        return torch.einsum(equation, *operands)
    parsed = _parse(equation, operands)
    if parsed is None:
        return _let_torch_refuse(equation, operands)
    inputs, output, sizes = parsed

    y, labels = _canonical(operands[0], inputs[0])
    for i in range(1, len(operands)):
        other, other_labels = _canonical(operands[i], inputs[i])
        needed = {*output}.union(*inputs[i + 1 :])
        y, labels = _contract(matmul, linear, (y, labels), (other, other_labels), needed)
    y = _arrange(y, labels, tuple(label for label in output if label in labels))
    return y.reshape([sizes[label] for label in output])


def _parse(equation: str, operands: Sequence[Tensor]) -> tuple[list[Labels], Labels, dict[Label, int]] | None:
    """(labels of each operand, labels of the output, size of each label); None if PyTorch refuses."""
    if _BROKEN_TOKEN.search(equation):
        return None
    left, arrow, right = equation.replace(" ", "").partition("->")
    sides = left.split(",")
    if len(sides) != len(operands) or not all(_SIDE.fullmatch(side) for side in (*sides, right)):
        return None

    inputs: list[Labels] = []
    sizes: dict[Label, int] = {}
    for side, operand in zip(sides, operands, strict=True):
        labels = _expand(side, operand.dim() - len(side.replace("...", "")))
        if labels is None:
            return None
        for label, size in zip(labels, operand.shape, strict=True):
            known = sizes.get(label, 1)
            if 1 not in (known, size) and known != size:
                return None
            sizes[label] = size if known == 1 else known
        if any(len(_lengths(labels, label, operand.shape)) > 1 for label in labels):
            return None  # a diagonal of unequal sizes
        inputs.append(labels)

    covered = max((sum(label[0] == "." for label in labels) for labels in inputs), default=0)
    if arrow:
        output = _expand(right, covered if "..." in right else 0)
    else:
        once = Counter(label for labels in inputs for label in labels)
        letters = sorted(label for label, count in once.items() if count == 1 and label[0] != ".")
        output = (*_ellipsis(covered), *letters)
    if output is None or len({*output}) != len(output) or not {*output} <= {*sizes}:
        return None
    return inputs, output, sizes


def _expand(side: str, covered: int) -> Labels | None:
    """The labels of one side, its ellipsis spelled out over `covered` dimensions."""
    before, dots, after = side.partition("...")
    if covered < 0 or (covered > 0 and not dots):
        return None
    return (*before, *_ellipsis(covered), *after)


def _ellipsis(covered: int) -> Labels:
    """Counted from the right, for that is how dimensions under ellipses are broadcast."""
    return tuple(f".{i}" for i in reversed(range(covered)))


def _lengths(labels: Labels, label: Label, shape: Sequence[int]) -> set[int]:
    return {size for other, size in zip(labels, shape, strict=True) if other == label}


def _let_torch_refuse(equation: str, operands: Sequence[Tensor]) -> Tensor:
    torch.einsum(equation, *(operand.detach().to("meta") for operand in operands))
    raise UnsupportedError(f"einsum equation {equation!r}", "write it with torch.matmul")


def _canonical(x: Tensor, labels: Labels) -> tuple[Tensor, Labels]:
    """Every label once (diagonals) and no dimension of size 1, so that nothing is left to broadcast.

    x itself if there is nothing to do: it may be a parameter, which goes by identity.
    """
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            x = x.diagonal(dim1=i, dim2=j)  # the diagonal becomes the last dimension
            labels = (*labels[:i], *labels[i + 1 : j], *labels[j + 1 :], label)
    if 1 in x.shape:
        labels = tuple(label for label, size in zip(labels, x.shape, strict=True) if size != 1)
        x = x.squeeze()
    return x, labels


def _contract(
    matmul: Matmul,
    linear: Linear,
    left: tuple[Tensor, Labels],
    right: tuple[Tensor, Labels],
    needed: set[Label],
) -> tuple[Tensor, Labels]:
    """The product of a pair, summed over what is needed no more."""
    (a, a_labels), (b, b_labels) = _sum(*left, needed.union(right[1])), _sum(*right, needed.union(left[1]))
    if isinstance(a, nn.Parameter) and not isinstance(b, nn.Parameter):
        a, a_labels, b, b_labels = b, b_labels, a, a_labels
    shared = [label for label in b_labels if label in a_labels]
    # In the order in which b has them, so that a parameter is permuted as little as can be.
    K = tuple(label for label in shared if label not in needed)
    B = tuple(label for label in shared if label in needed)
    R = tuple(label for label in a_labels if label not in shared)
    N = tuple(label for label in b_labels if label not in shared)
    size = dict(zip((*a_labels, *b_labels), (*a.shape, *b.shape), strict=True))

    def sizes(labels: Labels) -> list[int]:
        return [size[label] for label in labels]

    def grouped(x: Tensor, labels: Labels, *groups: Labels) -> Tensor:
        x = _arrange(x, labels, tuple(label for group in groups for label in group))
        shape = [prod(sizes(group)) for group in groups]
        return x if list(x.shape) == shape else x.reshape(shape)

    if not K:
        a = _arrange(a, a_labels, (*B, *R)).reshape([*sizes((*B, *R)), *[1] * len(N)])
        b = _arrange(b, b_labels, (*B, *N)).reshape([*sizes(B), *[1] * len(R), *sizes(N)])
        y = a * b
    elif isinstance(b, nn.Parameter) and not B:
        # x keeps its leading dimensions: where nothing is permuted, x too goes by identity.
        x = _arrange(a, a_labels, (*R, *K))
        x = x if len(K) == 1 else x.reshape([*sizes(R), prod(sizes(K))])
        y = linear(x, grouped(b, b_labels, N, K))
    else:
        y = matmul(grouped(a, a_labels, B, R, K), grouped(b, b_labels, B, K, N))
    labels = (*B, *R, *N)
    return y.reshape(sizes(labels)), labels


def _sum(x: Tensor, labels: Labels, needed: set[Label]) -> tuple[Tensor, Labels]:
    """x summed over the labels that nobody needs."""
    dims = [i for i, label in enumerate(labels) if label not in needed]
    if not dims:
        return x, labels
    return x.sum(dims), tuple(label for label in labels if label in needed)


def _arrange(x: Tensor, labels: Labels, wanted: Labels) -> Tensor:
    """x with its labels in the order wanted: x itself, x.mT, or a permutation of it."""
    if labels == wanted:
        return x
    if labels == wanted[::-1] and len(labels) == 2:
        return x.mT
    return x.permute([labels.index(label) for label in wanted])
