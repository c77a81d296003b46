"""Evidence and what it must be bound to, in; claims, out. Or a refusal that names the step.

    1 kind       somebody's word is asked for at all: an anchor of this kind
    2 evidence   the kind's own numbered steps: tempo/trust/evidence/<kind>.py
    3 binding    what the evidence is bound to is what was asked for: nonce, key, context (binding.py)
    4 document   a document that shows a nonce or a key besides shows these

What remains the caller's duty:

    a. a nonce that is fresh, random, and used once
    b. a policy over the claims (policy.py): a genuine machine may run anything
    c. to send secrets to the bound public key only

Nothing here asks the network or the clock: `now` comes from the caller, and so do certificates, revocation
lists and collateral.
"""

from __future__ import annotations

import enum
import hmac
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, final

from tempo.errors import RefusedError, UsageError
from tempo.trust.evidence import nitro, sev_snp, sgx_dcap, simulated, tdx, tpm
from tempo.trust.evidence.anchors import Anchors, Collateral
from tempo.trust.evidence.binding import Expected
from tempo.trust.evidence.claims import Claimed, Claims, Kind, NotProvided
from tempo.trust.evidence.envelope import Evidence

_Verify = Callable[[Evidence, Anchors, Collateral, datetime], Claims]
_KINDS: Final[Mapping[Kind, _Verify]] = {
    Kind.SEV_SNP: sev_snp.verify,
    Kind.TDX: tdx.verify,
    Kind.SGX_DCAP: sgx_dcap.verify,
    Kind.NITRO: nitro.verify,
    Kind.TPM: tpm.verify,
    Kind.SIMULATED: simulated.verify,
}


class Step(enum.StrEnum):
    """Of the verifier itself."""

    KIND = "verifier 1 kind"
    BINDING = "verifier 3 binding"
    DOCUMENT = "verifier 4 document"


@final
class Verifier:
    """Verifies evidence under these anchors, with what lies at hand. Keeps nothing between calls."""

    def __init__(self, anchors: Anchors, collateral: Collateral | None = None) -> None:
        self._anchors = anchors
        self._collateral = collateral or Collateral()

    def verify(self, evidence: Evidence, expected: Expected, now: datetime) -> Claims:
        """The claims of evidence that is genuine at `now` (with a time zone) and bound to `expected`.

        Raises RefusedError; UnsupportedError where a library for this kind is missing.
        """
        if now.tzinfo is None:
            raise UsageError("`now` needs a time zone: datetime.now(UTC)")
        # 1 kind: the simulator's key is everybody's; all others need whom to trust.
        named = self._anchors.of(evidence.kind) or (evidence.kind is Kind.TPM and self._anchors.keys)
        if not named and evidence.kind is not Kind.SIMULATED:
            raise RefusedError(Step.KIND, f"evidence of {evidence.kind}", "a kind with a trusted root or key")
        # 2 evidence
        claims = _KINDS[evidence.kind](evidence, self._anchors, self._collateral, now)
        # 3 binding
        bound = expected.report_data
        wanted = tpm.qualifying(bound) if evidence.kind is Kind.TPM else bound
        if not hmac.compare_digest(claims.bound, wanted):
            shown = claims.bound.hex()[:32] or "nothing"
            raise RefusedError(
                Step.BINDING,
                f"evidence bound to {shown}...",
                f"{wanted.hex()[:32]}...: this nonce, this public key, this context",
            )
        # 4 document
        _check_shown("nonce", claims.nonce, expected.nonce)
        _check_shown("public key", claims.public_key, expected.public_key)
        return claims


def _check_shown(name: str, shown: Claimed[bytes], expected: Claimed[bytes]) -> None:
    if isinstance(shown, NotProvided) or isinstance(expected, NotProvided):
        return
    if not hmac.compare_digest(shown, expected):
        raise RefusedError(Step.DOCUMENT, f"the {name} {shown.hex()[:32]}...", f"{expected.hex()[:32]}...")
