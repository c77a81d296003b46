"""How a master proves what it is to the next one, and judges the proof of that one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import final

from tempo.errors import OutsideError
from tempo.trust.evidence import Collateral
from tempo.trust.vault import Machines

#: (nonce, public key, context) to evidence: `tempo.trust.vault.ThisMachine`, for one.
Evidence = Callable[[bytes, bytes, bytes], bytes]


class Attestation(ABC):
    """Abstract. Both halves of one question, asked in both directions on each connection."""

    @abstractmethod
    def prove(self, nonce: bytes, public_key: bytes, context: bytes) -> bytes:
        """Evidence that this machine holds the key, in answer to the nonce."""

    @abstractmethod
    def judge(self, evidence: bytes, nonce: bytes, public_key: bytes, context: bytes) -> None:
        """Returns for evidence that is genuine, bound to exactly this, and good enough. Else RefusedError."""


@final
class Attested(Attestation):
    """Evidence of this machine; a policy, the same for all masters, decides about theirs.

    policy: a file as `tempo attest` verifies against (docs/attestation.md). Raises UsageError for one that is
    none, OutsideError where it cannot be read.
    """

    def __init__(self, evidence: Evidence, policy: str | Path, collateral: Collateral | None = None) -> None:
        try:
            self._policy = Path(policy).read_bytes()
        except OSError as error:
            raise OutsideError(f"{policy} cannot be read ({error.strerror}): name a policy file") from error
        self._machines = Machines(collateral)
        self._machines.check_policy(self._policy)
        self._evidence = evidence

    def prove(self, nonce: bytes, public_key: bytes, context: bytes) -> bytes:
        return self._evidence(nonce, public_key, context)

    def judge(self, evidence: bytes, nonce: bytes, public_key: bytes, context: bytes) -> None:
        self._machines.appraise(
            self._policy, evidence, nonce=nonce, public_key=public_key, context=context, now=datetime.now(UTC)
        )


@final
class UnsafeUnattested(Attestation):
    """UNSAFE: whoever has a certificate of the owner's authority is taken for a master, whatever it runs. For
    masters that stand in one's own building, and for trials."""

    def prove(self, nonce: bytes, public_key: bytes, context: bytes) -> bytes:
        return b"none"

    def judge(self, evidence: bytes, nonce: bytes, public_key: bytes, context: bytes) -> None:
        pass
