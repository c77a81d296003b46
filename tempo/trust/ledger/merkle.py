"""The Merkle tree of RFC 6962, section 2.1, with proofs as RFC 9162, 2.1.3 and 2.1.4, checks them.

    leaf(d)      = SHA-256(0x00 || d)
    node(l, r)   = SHA-256(0x01 || l || r)
    root(D[n])   = node(root(D[0:k]), root(D[k:n])), k the largest power of two below n
    root([])     = SHA-256()

The prefixes keep a leaf from passing for a node. Pure functions over hashes of 32 bytes; verification returns
nothing or raises.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, final

from tempo.errors import TamperedError

HASH_BYTES: Final = 32


def leaf_hash(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_hash(leaves: Sequence[bytes]) -> bytes:
    """Root over the hashes of leaves."""
    tree = Frontier()
    for leaf in leaves:
        tree.append(leaf)
    return tree.root()


@final
class Frontier:
    """The tree's right edge: all that appending needs, log2(n) hashes."""

    def __init__(self) -> None:
        self.size = 0
        self._whole: list[bytes] = []  # roots of the perfect subtrees, largest first

    def append(self, leaf: bytes) -> None:
        """leaf: the hash of one."""
        self._whole.append(leaf)
        # One merge for each trailing 1 of the size so far.
        at = self.size
        while at & 1:
            right = self._whole.pop()
            self._whole[-1] = node_hash(self._whole[-1], right)
            at >>= 1
        self.size += 1

    def extended(self, leaf: bytes) -> Frontier:
        """The frontier after one more leaf; this one stays as it is."""
        fresh = Frontier()
        fresh.size, fresh._whole = self.size, list(self._whole)
        fresh.append(leaf)
        return fresh

    def root(self) -> bytes:
        if not self._whole:
            return hashlib.sha256().digest()
        root = self._whole[-1]
        for left in reversed(self._whole[:-1]):
            root = node_hash(left, root)
        return root


def _split(n: int) -> int:
    """The largest power of two below n, n > 1."""
    return 1 << ((n - 1).bit_length() - 1)


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Hashes that lead from leaf `index` to the root, the deepest first (RFC 6962, 2.1.1)."""
    if not 0 <= index < len(leaves):
        raise IndexError(f"entry {index} of a log of {len(leaves)}")
    if len(leaves) == 1:
        return []
    k = _split(len(leaves))
    if index < k:
        return [*inclusion_proof(leaves[:k], index), root_hash(leaves[k:])]
    return [*inclusion_proof(leaves[k:], index - k), root_hash(leaves[:k])]


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Raises TamperedError unless the leaf stands at `index` of the tree with that root
    (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        raise TamperedError(f"a proof for entry {index} of a log of {size}: there is no such entry")
    at, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise TamperedError("the inclusion proof is longer than the tree is deep")
        if at & 1 or at == last:
            found = node_hash(sibling, found)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        at, last = at >> 1, last >> 1
    if last or found != root:
        raise TamperedError(f"entry {index} is not in the log with this root")


def consistency_proof(leaves: Sequence[bytes], old: int) -> list[bytes]:
    """That the first `old` leaves were not changed (RFC 6962, 2.1.2)."""
    if not 0 < old <= len(leaves):
        raise IndexError(f"a log of {len(leaves)} entries never had {old}")
    return _subproof(leaves, old, whole=True)


def _subproof(leaves: Sequence[bytes], old: int, *, whole: bool) -> list[bytes]:
    n = len(leaves)
    if old == n:
        return [] if whole else [root_hash(leaves)]
    k = _split(n)
    if old <= k:
        return [*_subproof(leaves[:k], old, whole=whole), root_hash(leaves[k:])]
    return [*_subproof(leaves[k:], old - k, whole=False), root_hash(leaves[:k])]


def check_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Raises TamperedError unless the tree of `new` leaves begins with that of `old` (RFC 9162, 2.1.4.2)."""
    if not 0 < old <= new:
        raise TamperedError(f"a log of {new} entries cannot extend one of {old}")
    if old == new:
        if proof or old_root != new_root:
            raise TamperedError("two checkpoints of one size have different roots: the log was forked")
        return
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not path:
        raise TamperedError("the consistency proof is empty")
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    before = after = path[0]
    for each in path[1:]:
        if last == 0:
            raise TamperedError("the consistency proof is longer than the tree is deep")
        if at & 1 or at == last:
            before, after = node_hash(each, before), node_hash(each, after)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            after = node_hash(after, each)
        at, last = at >> 1, last >> 1
    if last or before != old_root or after != new_root:
        raise TamperedError(f"the log of {new} entries does not extend the one of {old}: it was rewritten")
