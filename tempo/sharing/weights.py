"""Weights in fixed point and in shares, as long as they stay the same.

A weight's shares say nothing however often they are used, so they are made anew only when the weight has
changed. A weight that is no parameter is shared for its one product.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from tempo.lowering.base import Lowering
from tempo.lowering.bmm import Bmm
from tempo.secrecy.fixed import fixed_weight
from tempo.secrecy.shares import REPLICATED
from tempo.sharing.desk import Dealt, Desk


@dataclass(slots=True)
class _Entry:
    owner: weakref.ref[Tensor]
    storage: int
    version: int
    fingerprint: Tensor
    weight: Dealt

    def over(self, owner: Tensor, storage: int) -> bool:
        """Its weight is gone, or it is `owner`, which was changed or lies in another memory by now."""
        mine, now = self.owner(), (storage, owner._version)
        return mine is None or (mine is owner and (self.storage, self.version) != now)


@final
class SharedWeights:
    """Thread-safe."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._lock = threading.Lock()
        self._entries: dict[tuple[object, ...], _Entry] = {}
        #: Of public weights: the fingerprint they had when they were first sent.
        self._declared: dict[tuple[object, ...], tuple[weakref.ref[Tensor], Tensor]] = {}
        self._probes: dict[tuple[int, torch.dtype], Tensor] = {}

    def of(self, w: Tensor, lowering: Lowering, w_GNK: Tensor, *, public: bool) -> Dealt:
        """w: the layer's own weight, a parameter or a view of one. w_GNK: the same, lowered. public: it was
        declared public; where it was changed behind PyTorch's back since, it is shared all the same."""
        owner = w if isinstance(w, nn.Parameter) else w._base
        if not isinstance(owner, nn.Parameter) or w.is_inference():
            return self._deal(w_GNK, owner, lowering, public=public)
        # Broadcasting puts one weight into as many groups in more than one order.
        groups = lowering.batch if isinstance(lowering, Bmm) else lowering.shape.groups
        name = (w.data_ptr(), tuple(w.shape), w.stride(), w.dtype, type(lowering), groups, public)
        storage = owner.untyped_storage().data_ptr()
        fingerprint = self._fingerprint(w)
        with self._lock:
            if public and not self._as_declared(owner, w, fingerprint):
                name, public = (*name[:-1], False), False
            entry = self._entries.get(name)
            if (
                entry is not None
                and entry.owner() is owner
                and entry.version == w._version
                and torch.equal(entry.fingerprint, fingerprint)
            ):
                return entry.weight
            weight = self._deal(w_GNK, owner, lowering, public=public)
            self._entries = {n: e for n, e in self._entries.items() if not e.over(owner, storage)}
            self._entries[name] = _Entry(weakref.ref(owner), storage, w._version, fingerprint, weight)
            return weight

    def _as_declared(self, owner: Tensor, w: Tensor, fingerprint: Tensor) -> bool:
        """The public weight is what it was when it was first sent."""
        name = (id(owner), w.storage_offset(), tuple(w.shape), w.stride(), w.dtype)
        known = self._declared.get(name)
        if known is None or known[0]() is not owner:
            self._declared[name] = (weakref.ref(owner), fingerprint)
            return True
        return torch.equal(known[1], fingerprint)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()

    def _deal(self, w_GNK: Tensor, owner: Tensor | None, lowering: Lowering, *, public: bool) -> Dealt:
        desk = self._desk
        with desk.stats.timed("encode"):
            integers = fixed_weight(w_GNK)
            weight = desk.publish(integers) if public else desk.share(integers, workers=REPLICATED, keep=True)
        desk.stats.add("encoded_w")
        if desk.truth is not None:
            desk.truth.weight(weight.id, owner, lowering.name, w_GNK, [], [])
        return weight

    def _fingerprint(self, w: Tensor) -> Tensor:
        """A secret random projection of w: tells a change that its version did not count (`p.data`)."""
        flat = w.detach().reshape(w.shape[0], -1) if w.ndim else w.detach().reshape(1, 1)
        size = (flat.shape[1], flat.dtype)
        if size not in self._probes:
            stream = self._desk.key.stream(("fingerprint", *map(str, size)))
            self._probes[size] = stream.gaussian(flat.shape[1]).to(flat.dtype)
        return flat @ self._probes[size]
