"""Evidence of machines, judged by tempo.trust.verifier under signed policies; and evidence of this machine.

1 envelope   the evidence is one of the kinds that there are
2 verifier   genuine, and bound to nonce, public key and what was asked (tempo/trust/verifier.py)
3 policy     good enough (tempo/trust/policy.py)
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Final, final

from tempo.errors import RefusedError, UnsupportedError
from tempo.trust.evidence import Collateral, Evidence, Expected, Kind, produce, report_data
from tempo.trust.evidence.machine import best
from tempo.trust.evidence.simulated import produce as simulate
from tempo.trust.ledger import Value
from tempo.trust.policy_file import parse_policy
from tempo.trust.vault.appraise import Appraiser
from tempo.trust.verifier import Verifier

_MAX_NAMED: Final = 32
_MAX_TEXT: Final = 200

_parsed = lru_cache(maxsize=64)(parse_policy)


@final
class Machines(Appraiser):
    """collateral: certificates, revocation lists and DCAP papers that lie at hand."""

    def __init__(self, collateral: Collateral | None = None) -> None:
        self._collateral = collateral or Collateral()

    def check_policy(self, policy: bytes) -> None:
        _parsed(policy)

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
        demanded = _parsed(policy)
        shown = Evidence.from_json(evidence)
        expected = Expected.answer(nonce, public_key, context)
        try:
            claims = Verifier(demanded.anchors, self._collateral).verify(shown, expected, now)
        except UnsupportedError as error:
            raise RefusedError(
                "vault library", str(error.what), "a vault with tempo's extra `trust`"
            ) from error
        demanded.check(claims, now)
        measured: list[str | int | float | bool | None] = [
            f"{name}={value}"[:_MAX_TEXT] for name, value in sorted(claims.measurements.items())
        ]
        return {
            "kind": claims.kind.value,
            "policy": demanded.name[:_MAX_TEXT],
            "measurements": measured[:_MAX_NAMED],
            "root": claims.root[:_MAX_TEXT],
            "platform": str(claims.platform)[:_MAX_TEXT],
        }


@final
class ThisMachine:
    """Evidence of the machine that this process runs on, for `fetch`. kind: the best there is by default.
    Raises OutsideError where there is none."""

    def __init__(self, kind: Kind | None = None) -> None:
        self._kind = kind or best()

    def __call__(self, nonce: bytes, public_key: bytes, context: bytes) -> bytes:
        return produce(self._kind, report_data(nonce, public_key, context)).to_json()


@final
class UnsafeSimulated:
    """UNSAFE: says that it is a machine with this measurement (48 bytes), as anybody can. For trials."""

    def __init__(self, measurement: bytes) -> None:
        self._measurement = measurement

    def __call__(self, nonce: bytes, public_key: bytes, context: bytes) -> bytes:
        return simulate(report_data(nonce, public_key, context), self._measurement).to_json()
