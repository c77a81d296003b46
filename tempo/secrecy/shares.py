"""Shares: an operand in pieces that say nothing one by one (replicated secret sharing).

    v = v_0 + v_1 + v_2  modulo each prime     v_0, v_1 from seeds, v_2 what is left
    worker i of three holds v_i and v_i+1      any two shares are uniform and independent of v

    v = v_0 + v_1                              where the other operand is public: worker i of two holds v_i

A seed is 32 bytes of a keystream of the session key and makes a share by `tempo.ops.expand`. It hides one
operand. So a worker of three gets a seed and the data, the data and a seed, or two seeds: 10 bytes for each
entry in all. (Araki, Furukawa, Lindell, Nof and Ohara, CCS 2016, section 2, without its resharing: the master
deals and adds up, so workers need not speak to each other and nothing is ever cut off.)
"""

from __future__ import annotations

from typing import Final, final

from torch import Tensor

from tempo.kernels import Hidden
from tempo.ops import KEY_BYTES, Half, RingOperand, Seed, expand
from tempo.secrecy.chinese import remaining, residues_of
from tempo.secrecy.fixed import Integers
from tempo.secrecy.keys import Label, SessionKey, SingleUse

#: Workers that a product of two shared operands takes, and one of a shared and a public operand.
REPLICATED: Final = 3
ADDITIVE: Final = 2


@final
class ShareKey(Hidden):
    """The seeds of one operand. workers: REPLICATED or ADDITIVE."""

    __slots__ = ("_once", "_seeds")

    def __init__(self, key: SessionKey, label: Label, workers: int) -> None:
        words = key.stream(("share", *label)).words(workers - 1, KEY_BYTES // 8)
        self._seeds = tuple(Seed(word.numpy().tobytes()) for word in words)
        self._once = SingleUse()

    def split(self, operand: Integers) -> tuple[tuple[Half, ...], ...]:
        """For each worker its halves of the operand. Raises KeySpentError the second time."""
        self._once.spend("operand")
        shape = operand.values.shape
        drawn = [expand(one.key, shape) for one in self._seeds]
        return self._dealt(remaining(operand.values, drawn))

    def again(self, operand: Integers) -> tuple[tuple[Half, ...], ...]:
        """The halves of the same operand once more, to judge what workers made of them. Never to be sent:
        the key cannot tell another operand from the one that it hid."""
        drawn = [expand(one.key, operand.values.shape) for one in self._seeds]
        return self._dealt(remaining(operand.values, drawn))

    def _dealt(self, data: Tensor) -> tuple[tuple[Half, ...], ...]:
        shares: tuple[Half, ...] = (*self._seeds, data)
        if len(shares) == ADDITIVE:
            return tuple((share,) for share in shares)
        return tuple(zip(shares, (*shares[1:], shares[0]), strict=True))


def public(operand: Integers, workers: int) -> tuple[tuple[Half, ...], ...]:
    """The operand itself for each of so many workers: for a weight that was declared public."""
    residues = residues_of(operand.values)
    return ((residues,),) * workers


def dealt(
    number: int, halves: tuple[tuple[Half, ...], ...], operand: Integers, *, keep: bool
) -> list[RingOperand]:
    """Operands of jobs, one for each worker, all under one name."""
    shape = tuple(operand.values.shape)
    return [RingOperand(number, shape, own, keep) for own in halves]


def left_there(operand: RingOperand) -> RingOperand:
    """The same operand for later jobs, its shares with the worker alone."""
    return RingOperand(operand.id, operand.shape, (), operand.keep)
