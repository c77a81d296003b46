"""What a vault asks of whoever judges evidence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime

from tempo.trust.ledger import Value


class Appraiser(ABC):
    """Abstract. Judges evidence under the text of a policy. Called by several threads at once."""

    @abstractmethod
    def check_policy(self, policy: bytes) -> None:
        """Raises UsageError for a text that is no policy, before it is granted anything."""

    @abstractmethod
    def appraise(
        self,
        policy: bytes,
        evidence: bytes,
        *,
        nonce: bytes,
        public_key: bytes,
        context: bytes,
        now: datetime,
    ) -> Mapping[str, Value]:
        """What the audit log shall say of the machine, none of it secret.

        Returns only if the evidence is genuine, bound to exactly this nonce, key and context, and satisfies
        the policy. Raises RefusedError, which names the step, for everything else.
        """
