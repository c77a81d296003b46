"""Sealed files: data, models and checkpoints at rest, opened inside the TEE only."""

from tempo.trust.sealed.keys import DataKey, OwnerKey, Recipient
from tempo.trust.sealed.reader import Expected, SealedFile
from tempo.trust.sealed.writer import SealedWriter

__all__ = ["DataKey", "Expected", "OwnerKey", "Recipient", "SealedFile", "SealedWriter"]
