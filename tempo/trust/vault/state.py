"""What a vault knows: keys, grants and policies, as one value that changes as a whole.

    key      a data key, wrapped, in one of the versions of its name
    policy   the text that the security engineer wrote and signed, by its digest
    grant    machines that satisfy `policy`, under a certificate of `client` (None: any), may have `key`

Times are whole seconds since 1970, UTC. Nothing is ever removed: what was revoked stays, and says when.
"""

from __future__ import annotations

from typing import Final, final

import msgspec
from msgspec import Struct

from tempo.errors import UsageError

MAX_KEYS: Final = 10_000
MAX_GRANTS: Final = 10_000
#: Policies that are tried for one request, the newest: each costs one appraisal.
MAX_TRIED: Final = 16
MAX_POLICY_BYTES: Final = 65_536


@final
class Key(Struct, frozen=True):
    """One version. id: the data key's own name, which tells nothing about it. wrapped: under the root key."""

    name: str
    version: int
    id: str
    created: int
    expires: int | None
    revoked: int | None
    wrapped: bytes

    def fault(self, now: int) -> str | None:
        """Why it is not released; None where it may be."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and now >= self.expires else None


@final
class Grant(Struct, frozen=True):
    """policy: digest of its text."""

    number: int
    key: str
    policy: str
    client: str | None
    created: int
    expires: int | None
    revoked: int | None

    def holds(self, client: str, now: int) -> bool:
        return (
            self.revoked is None
            and (self.expires is None or now < self.expires)
            and self.client in (None, client)
        )


@final
class Policy(Struct, frozen=True):
    """digest: SHA-256 of the text, hex."""

    digest: str
    text: bytes


@final
class State(Struct, frozen=True):
    """change: number of changes that led here; the audit log has each under this number."""

    change: int = 0
    keys: tuple[Key, ...] = ()
    grants: tuple[Grant, ...] = ()
    policies: tuple[Policy, ...] = ()

    def versions(self, name: str) -> list[Key]:
        """Oldest first."""
        return sorted((k for k in self.keys if k.name == name), key=lambda k: k.version)

    def key(self, name: str, version: int | None) -> Key | None:
        """version None: the newest, whatever became of it: a revoked one never gives way to an older."""
        found = self.versions(name)
        if version is None:
            return found[-1] if found else None
        return next((k for k in found if k.version == version), None)

    def grants_for(self, name: str, client: str, now: int) -> list[Grant]:
        """Those that hold, newest first, one of each policy, MAX_TRIED at most."""
        found = [g for g in self.grants if g.key == name and g.holds(client, now)]
        newest = {g.policy: g for g in sorted(found, key=lambda g: g.number)}
        return sorted(newest.values(), key=lambda g: -g.number)[:MAX_TRIED]

    def policy(self, digest: str) -> Policy:
        return next(p for p in self.policies if p.digest == digest)

    def grant(self, number: int) -> Grant:
        """Raises UsageError."""
        for grant in self.grants:
            if grant.number == number:
                return grant
        raise UsageError(f"there is no grant {number}: `tempo vault list` shows those that there are")

    def with_key(self, key: Key) -> State:
        """Added, or put in the place of the same version."""
        rest = tuple(k for k in self.keys if (k.name, k.version) != (key.name, key.version))
        if len(rest) >= MAX_KEYS:
            raise UsageError(f"a vault holds {MAX_KEYS} versions of keys at most")
        return msgspec.structs.replace(self, keys=(*rest, key))

    def with_grant(self, grant: Grant) -> State:
        rest = tuple(g for g in self.grants if g.number != grant.number)
        if len(rest) >= MAX_GRANTS:
            raise UsageError(f"a vault holds {MAX_GRANTS} grants at most")
        return msgspec.structs.replace(self, grants=(*rest, grant))

    def with_policy(self, policy: Policy) -> State:
        if any(p.digest == policy.digest for p in self.policies):
            return self
        return msgspec.structs.replace(self, policies=(*self.policies, policy))
