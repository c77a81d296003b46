"""What two audit logs must say of the story, and how they hold together.

    the vault's log      key added, granted | refused at a step | released, for evidence with this digest
    the master's log     attested, by the same evidence | session | model sealed, with this digest

The vault's log is signed by a key of the vault. The master made the key of its own log after it was measured,
and its last evidence speaks for that key.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, final

from tempo.demo.owner.orders import LOG_CONTEXT, Done, Released
from tempo.trust.evidence import Evidence, Expected
from tempo.trust.ledger import Checkpoint, Contents, Entry, Kind, VerifierKey, read_verified
from tempo.trust.policy import Policy
from tempo.trust.policy import Step as PolicyStep
from tempo.trust.vault.store import LOG, LOG_PUBLIC
from tempo.trust.verifier import Verifier

_SESSION: Final = (Kind.SESSION_OPENED, Kind.CONFIGURATION, Kind.SESSION_CLOSED)


def vault_log(vault: Path, since: Checkpoint | None = None) -> tuple[VerifierKey, Contents]:
    """Verified with the public key that lies beside it. Raises TamperedError."""
    key = VerifierKey.parse((vault / LOG_PUBLIC).read_text())
    return key, read_verified(vault / LOG, key, since=since)


def master_log(
    folder: Path, done: Done, nonce: bytes, policy: Policy
) -> tuple[VerifierKey, Contents, Evidence, Expected]:
    """Verified with a key that the master's evidence speaks for. Raises RefusedError, TamperedError."""
    evidence = Evidence.from_json(done.evidence)
    expected = Expected.answer(nonce, done.log_key.encode(), LOG_CONTEXT)
    now = datetime.now(UTC)
    policy.check(Verifier(policy.anchors).verify(evidence, expected, now), now)
    key = VerifierKey.parse(done.log_key)
    return key, read_verified(folder, key), evidence, expected


@final
@dataclass(frozen=True, slots=True)
class Story:
    """What happened, by other accounts than the logs'."""

    key_id: str
    released: Released
    done: Done
    policy_sha256: str


def missing(vault: tuple[Entry, ...], master: tuple[Entry, ...], story: Story) -> list[str]:
    """A sentence for each thing that the logs do not say and should."""
    return [*_of_the_vault(vault, story), *_of_the_master(master, story)]


def _of_the_vault(entries: tuple[Entry, ...], story: Story) -> Iterator[str]:
    actions = [e.fields.get("action") for e in entries if e.kind is Kind.KEY_CHANGED]
    if actions != ["added", "granted"]:
        yield f"the vault's log has the changes {actions}, expected added and granted"
    refused = [e.fields.get("step") for e in entries if e.kind is Kind.KEY_REFUSED]
    if refused != [PolicyStep.CODE.value]:
        yield f"the vault's log has refusals at {refused}, expected one at {PolicyStep.CODE.value}"
    released = [e.fields for e in entries if e.kind is Kind.KEY_RELEASED]
    if len(released) != 1:
        yield f"the vault's log has {len(released)} releases, expected one"
        return
    wanted = {
        "key_id": story.key_id,
        "evidence_sha256": story.released.evidence_sha256,
        "policy": story.policy_sha256,
    }
    for name, value in wanted.items():
        if released[0].get(name) != value:
            yield f"the release in the vault's log has another {name}"


def _of_the_master(entries: tuple[Entry, ...], story: Story) -> Iterator[str]:
    kinds = [e.kind for e in entries]
    for kind in _SESSION:
        if kinds.count(kind) != 1:
            yield f"the master's log has {kinds.count(kind)} entries {kind.value}, expected one"
    if found := kinds.count(Kind.INTEGRITY_FAILURE):
        yield f"the master's log has {found} integrity failures, expected none"
    digests = {
        (Kind.ATTESTATION, "evidence_sha256"): story.released.evidence_sha256,
        (Kind.CHECKPOINT_WRITTEN, "sha256"): story.done.model_sha256,
    }
    for (kind, name), value in digests.items():
        if [e.fields.get(name) for e in entries if e.kind is kind] != [value]:
            yield f"the master's log does not have the one entry {kind.value} with the right {name}"
