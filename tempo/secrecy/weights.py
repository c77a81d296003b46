"""Weights in secret bases, encoded once per W epoch.

An epoch ends when the weight changes (an optimizer step), or after a set number of uses (Config.weight_uses).
A use is an operand under row keys of its own: a chunk or a worker's share of an operation counts as one, as a
micro-batch does, since each tells the same about the bases that W' shares with it. One operation is not split
over two W'. A weight that is no parameter (a
computed one, an activation) is sealed for its one product.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from tempo.lowering.base import Lowering
from tempo.lowering.bmm import Bmm
from tempo.memory import Pool
from tempo.ops import Operand
from tempo.secrecy.deflate import Taken, take
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.scheme import Scheme
from tempo.secrecy.seal import FeatureKey
from tempo.stats import Stats
from tempo.truth import UnsafeTruth

Release = Callable[[Iterable[int]], None]


@final
class SealedWeight:
    """W' with the bases it was sealed under. Workers drop it when the last reference here dies."""

    __slots__ = ("__weakref__", "key", "operand", "taken")

    def __init__(self, key: FeatureKey, operand: Operand, release: Release, taken: Taken | None) -> None:
        """taken: what of W stays in the TEE."""
        self.key = key
        self.operand = operand
        self.taken = taken
        # Only enqueues: a finaliser may run anywhere.
        weakref.finalize(self, release, (operand.id,)).atexit = False


@dataclass(slots=True)
class _Epoch:
    owner: weakref.ref[Tensor]
    storage: int
    version: int
    fingerprint: Tensor
    sealed: SealedWeight
    uses: int

    def over(self, owner: Tensor, storage: int) -> bool:
        """Its weight is gone, or it is `owner`, which was changed or lies in another memory by now."""
        mine, now = self.owner(), (storage, owner._version)
        return mine is None or (mine is owner and (self.storage, self.version) != now)


@final
class Weights:
    """Seals weights, and remembers those of parameters for their epoch."""

    def __init__(
        self,
        key: SessionKey,
        scheme: Scheme,
        ids: Iterator[int],
        release: Release,
        uses: int,
        pool: Pool,
        stats: Stats | None = None,
        truth: UnsafeTruth | None = None,
    ) -> None:
        self._key = key
        self._scheme = scheme
        self._ids = ids
        self._release = release
        self._uses = uses
        self._pool = pool
        self._stats = stats or Stats()
        self._truth = truth
        self._epochs: dict[tuple[object, ...], _Epoch] = {}
        self._lock = threading.Lock()
        # Tells a changed weight even where its version was not counted (`p.data`, shared memory).
        self._probes: dict[tuple[int, torch.dtype], Tensor] = {}

    def seal(
        self,
        w_GNK: Tensor,
        sent: torch.dtype,
        start: Tensor | None = None,
        owner: Tensor | None = None,
        lowering: str = "",
    ) -> SealedWeight:
        """W' under a key of its own. sent: the dtype it crosses the boundary in. start: where to look for the
        directions of W that stay here. owner: the parameter that it is computed from, and how, for
        measurements."""
        number = next(self._ids)
        groups, n, k = w_GNK.shape
        key = FeatureKey(self._key, self._scheme, ("W", number), groups=groups, k=k, n=n)
        taken, w_GNK = self._deflated(w_GNK, number, start)
        w_sealed = key.seal_w(w_GNK, out=self._pool.empty(w_GNK.shape, sent))
        operand = Operand(number, tuple(w_sealed.shape), w_sealed.dtype, w_sealed, keep=True)
        if self._truth is not None:
            duals = [basis.dual() for basis in key.b]
            self._truth.weight(number, owner, lowering, w_GNK, key.c, duals)
        return SealedWeight(key, operand, self._release, taken)

    def _deflated(self, w_GNK: Tensor, number: int, start: Tensor | None) -> tuple[Taken | None, Tensor]:
        directions = self._scheme.hardening.deflate
        if not directions:
            return None, w_GNK
        with self._stats.timed("deflate"):
            taken = take(w_GNK, directions, self._key.stream(("deflate", number)), start)
            if taken is None:
                return None, w_GNK
            self._stats.add("deflated_w")
            return taken, taken.rest(w_GNK, out=self._pool.empty(w_GNK.shape, w_GNK.dtype))

    def of(
        self, w: Tensor, lowering: Lowering, w_GNK: Tensor, sent: torch.dtype, uses: int = 1
    ) -> tuple[SealedWeight, bool]:
        """W' of the current epoch of `w`, and whether it had to be encoded for this call.

        w: the layer's own weight, a parameter or a view of one. w_GNK: the same, lowered. sent: as in
        `seal`; another dtype is another epoch, under another key. uses: pieces that X is sent in.
        """
        owner = w if isinstance(w, nn.Parameter) else w._base
        if not isinstance(owner, nn.Parameter) or w.is_inference():
            return self.seal(w_GNK, sent, None, owner, lowering.name), True
        # Broadcasting puts one weight into as many groups in more than one order.
        groups = lowering.batch if isinstance(lowering, Bmm) else lowering.shape.groups
        name = (w.data_ptr(), tuple(w.shape), w.stride(), w.dtype, sent, type(lowering), groups)
        storage = owner.untyped_storage().data_ptr()
        fingerprint = self._fingerprint(w)
        with self._lock:
            epoch = self._epochs.get(name)
            if (
                epoch is not None
                and epoch.owner() is owner
                and epoch.version == w._version
                and epoch.uses + uses <= self._uses
                and torch.equal(epoch.fingerprint, fingerprint)
            ):
                epoch.uses += uses
                return epoch.sealed, False
            last = None if epoch is None or epoch.owner() is not owner else epoch.sealed.taken
            start = None if last is None else last.subspace
            sealed = self.seal(w_GNK, sent, start, owner, lowering.name)
            self._epochs = {n: e for n, e in self._epochs.items() if not e.over(owner, storage)}
            self._epochs[name] = _Epoch(weakref.ref(owner), storage, w._version, fingerprint, sealed, uses)
            return sealed, True

    def clear(self) -> None:
        with self._lock:
            self._epochs.clear()

    def _fingerprint(self, w: Tensor) -> Tensor:
        """A secret random projection of w: one pass over it."""
        flat = w.detach().reshape(w.shape[0], -1) if w.ndim else w.detach().reshape(1, 1)
        size = (flat.shape[1], flat.dtype)
        if size not in self._probes:
            stream = self._key.stream(("fingerprint", *map(str, size)))
            self._probes[size] = stream.gaussian(flat.shape[1]).to(flat.dtype)
        return flat @ self._probes[size]


@final
class Kept:
    """An operand that a worker keeps for a later job. It drops it when the last reference here dies."""

    __slots__ = ("__weakref__", "operand")

    def __init__(self, operand: Operand, release: Release) -> None:
        self.operand = Operand(operand.id, operand.shape, operand.dtype, None, keep=True)
        weakref.finalize(self, release, (operand.id,)).atexit = False


__all__ = ["Kept", "Release", "SealedWeight", "Weights"]
