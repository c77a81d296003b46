"""`tempo attest draft`: re-measurement, from the evidence of one's own machine to a policy to be signed."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tempo.errors import DataError, UsageError

if TYPE_CHECKING:
    from tempo.trust.evidence import Claims, Collateral, Evidence, Expected
    from tempo.trust.evidence.anchors import Anchors


def verified_by_vendor(evidence: Path, papers: Collateral, expected: Expected, now: datetime) -> Claims:
    """The claims of evidence that is genuine and bound to `expected`; no policy was asked.

    Raises UsageError where it cannot be read, RefusedError.
    """
    from tempo.trust.evidence import Evidence
    from tempo.trust.evidence.envelope import MAX_BYTES
    from tempo.trust.verifier import Verifier

    try:
        with evidence.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"the evidence {evidence} cannot be read ({error.strerror})") from error
    shown = Evidence.from_json(raw)
    return Verifier(_anchors(shown), papers).verify(shown, expected, now)


def _anchors(shown: Evidence) -> Anchors:
    """The vendors' roots. A TPM's key is its own word: who drafts knows that it is that machine's."""
    from tempo.trust.evidence import Kind
    from tempo.trust.evidence.anchors import Anchors
    from tempo.trust.evidence.tpm import key_name

    if shown.kind is Kind.TPM:
        return Anchors(keys=frozenset({key_name(shown.parts["key"])}))
    return Anchors()


def write_new(path: Path, text: str) -> None:
    """Raises UsageError where it exists (it is never overwritten), DataError where it cannot be written."""
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} exists: a policy is never overwritten. Name another file") from None
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror})") from error
