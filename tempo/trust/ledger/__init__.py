"""The audit log: append-only, a Merkle tree under signed checkpoints, checked offline with a public key."""

from tempo.trust.ledger.entry import Entry, Kind, Value
from tempo.trust.ledger.files import Contents, read_verified
from tempo.trust.ledger.ledger import Ledger
from tempo.trust.ledger.note import Checkpoint, Signer, VerifierKey
from tempo.trust.ledger.session_log import SessionLog

__all__ = [
    "Checkpoint",
    "Contents",
    "Entry",
    "Kind",
    "Ledger",
    "SessionLog",
    "Signer",
    "Value",
    "VerifierKey",
    "read_verified",
]
