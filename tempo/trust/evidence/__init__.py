"""Evidence of TEEs: what a machine can say about itself, and what it takes to believe it; a file per kind."""

from tempo.trust.evidence.anchors import VENDORS, Anchors, Collateral
from tempo.trust.evidence.binding import NONCE_BYTES, REPORT_DATA_BYTES, Expected, report_data
from tempo.trust.evidence.claims import NOT_PROVIDED, Claimed, Claims, Kind, NotProvided
from tempo.trust.evidence.envelope import Evidence
from tempo.trust.evidence.machine import available, produce

__all__ = [
    "NONCE_BYTES",
    "NOT_PROVIDED",
    "REPORT_DATA_BYTES",
    "VENDORS",
    "Anchors",
    "Claimed",
    "Claims",
    "Collateral",
    "Evidence",
    "Expected",
    "Kind",
    "NotProvided",
    "available",
    "produce",
    "report_data",
]
