"""A proof that stands alone: one entry, that it is in the log, and that the log extends an earlier one.

    {"format": "tempo-log-proof-1", "checkpoint": note, "index": 7, "entry": line, "inclusion": [hash, ...],
     "earlier": note or null, "consistency": [hash, ...]}

Hashes in base64. Whoever has the public key checks it, without the log and without a network.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final, Literal, final

import msgspec

from tempo.errors import TamperedError, UsageError
from tempo.trust.ledger.entry import Entry, parse
from tempo.trust.ledger.files import Contents
from tempo.trust.ledger.merkle import (
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
)
from tempo.trust.ledger.note import Checkpoint, VerifierKey

FORMAT: Final = "tempo-log-proof-1"
MAX_PROOF_BYTES: Final = 1 << 20


@final
class Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal["tempo-log-proof-1"]
    checkpoint: str
    index: int
    entry: str
    inclusion: tuple[str, ...]
    earlier: str | None = None
    consistency: tuple[str, ...] = ()


def prove(log: Contents, index: int, earlier: tuple[str, Checkpoint] | None) -> Proof:
    """That entry `index` is in the log. earlier: an older note, opened. Raises UsageError for an entry
    that there is not."""
    if not 0 <= index < len(log.leaves):
        raise UsageError(f"the log has entries 0 to {len(log.leaves) - 1}, not {index}")
    consistency: list[bytes] = []
    if earlier is not None and earlier[1].size:
        consistency = consistency_proof(log.leaves, earlier[1].size)
    return Proof(
        FORMAT,
        log.note,
        index,
        log.lines[index].decode(),
        tuple(_encode(h) for h in inclusion_proof(log.leaves, index)),
        None if earlier is None else earlier[0],
        tuple(_encode(h) for h in consistency),
    )


def check(data: bytes, key: VerifierKey) -> tuple[Entry, Proof, Checkpoint]:
    """The entry that a proof proves. Raises TamperedError."""
    if len(data) > MAX_PROOF_BYTES:
        raise TamperedError("the proof is larger than any that this log gives")
    try:
        proof = msgspec.json.decode(data, type=Proof)
        inclusion, consistency = ([_decode(h) for h in path] for path in (proof.inclusion, proof.consistency))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise TamperedError(f"this is no proof of format {FORMAT}") from error
    now = key.open(proof.checkpoint)
    line = proof.entry.encode()
    check_inclusion(leaf_hash(line), proof.index, now.size, inclusion, now.root)
    if proof.earlier is not None:
        before = key.open(proof.earlier)
        if before.size:
            check_consistency(before.size, before.root, now.size, now.root, consistency)
    return parse(line), proof, now


def to_json(proof: Proof) -> bytes:
    return msgspec.json.format(msgspec.json.encode(proof), indent=2) + b"\n"


def _encode(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error
