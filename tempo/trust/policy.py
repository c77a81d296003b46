"""What the security engineer demands of a machine: a file to be read, signed, and held against claims.

    1 validity    the policy has not expired
    2 kind        this kind of evidence is admitted
    3 debug       the machine is not debugged; nothing can switch this off
    4 code        all measurements of one of the sets listed, or a signer that is listed
    5 tcb         at least these security versions
    6 status      the vendor's verdict is admitted, and so is every advisory
    7 platform    the machine is one of those listed, where any are
    8 detail      any other value that is demanded
    9 revocation  revocation lists were looked at, where that is demanded

A policy sees claims and nothing else; evidence sees no policy. See docs/attestation.md for the file.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, final

from tempo.errors import RefusedError
from tempo.trust.evidence.anchors import VENDORS, Anchors
from tempo.trust.evidence.claims import NOT_PROVIDED, Claimed, Claims, Kind, NotProvided

#: What a vendor says of a TCB that lacks nothing.
UP_TO_DATE: Final = "UpToDate"


class Step(enum.StrEnum):
    """Of a policy, in order."""

    VALIDITY = "policy 1 validity"
    KIND = "policy 2 kind"
    DEBUG = "policy 3 debug"
    CODE = "policy 4 code"
    TCB = "policy 5 tcb"
    STATUS = "policy 6 status"
    PLATFORM = "policy 7 platform"
    DETAIL = "policy 8 detail"
    REVOCATION = "policy 9 revocation"


@final
@dataclass(frozen=True, slots=True)
class Demands:
    """Of one kind of evidence. Hex in lower case.

    measurements  sets of name -> value: all of one set must be there
    signers       name -> values: one of the keys that signed what runs, instead of a set of measurements
    require       name -> value of measurements that must be there besides (a signer's product, host data)
    minimum_tcb   component -> version
    statuses      vendor's verdicts that are admitted, where the kind has any
    advisories    advisories that are put up with; None: all that go with an admitted status
    platforms     chips, modules or keys; empty: any
    details       name -> value demanded of the claims' details
    roots         SHA-256 of root certificates in place of the vendor's own; empty: the vendor's
    keys          SHA-256 of attestation keys (TPM)
    revocation    whether revocation lists must have been looked at
    """

    measurements: tuple[Mapping[str, str], ...] = ()
    signers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    require: Mapping[str, str] = field(default_factory=dict)
    minimum_tcb: Mapping[str, int] = field(default_factory=dict)
    statuses: frozenset[str] = frozenset({UP_TO_DATE})
    advisories: frozenset[str] | None = None
    platforms: frozenset[str] = frozenset()
    details: Mapping[str, str | int | bool] = field(default_factory=dict)
    roots: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    revocation: bool = False


@final
@dataclass(frozen=True, slots=True)
class Policy:
    """Kinds that are admitted, and what is demanded of each. `expires` has a time zone."""

    name: str
    kinds: Mapping[Kind, Demands]
    expires: datetime | None = None

    @property
    def anchors(self) -> Anchors:
        """Whom a verifier trusts under this policy: nobody for a kind that it does not admit."""
        roots = {kind: each.roots or VENDORS.get(kind, frozenset()) for kind, each in self.kinds.items()}
        keys = self.kinds[Kind.TPM].keys if Kind.TPM in self.kinds else frozenset()
        return Anchors(roots, keys)

    def check(self, claims: Claims, now: datetime) -> None:
        """Raises RefusedError unless these claims are good enough at `now`."""
        if self.expires is not None and now > self.expires:
            raise RefusedError(
                Step.VALIDITY, f"a policy that expired at {self.expires:%Y-%m-%d %H:%M}", "one in force"
            )
        demands = self.kinds.get(claims.kind)
        if demands is None:
            raise RefusedError(Step.KIND, f"evidence of {claims.kind}", f"one of {', '.join(self.kinds)}")
        # A TPM cannot say whether its machine is debugged: its PCRs are what is looked at.
        if claims.debug is True or (claims.debug is NOT_PROVIDED and claims.kind is not Kind.TPM):
            raise RefusedError(Step.DEBUG, f"debug {claims.debug}", "a machine that is not debugged")
        _check_code(claims, demands)
        for component, least in demands.minimum_tcb.items():
            _at_least(component, claims.version(component), least)
        _check_status(claims, demands)
        if demands.platforms and claims.platform not in demands.platforms:
            raise RefusedError(
                Step.PLATFORM, f"the machine {claims.platform}", f"one of the {len(demands.platforms)} listed"
            )
        for name, value in demands.details.items():
            found = claims.details.get(name, NOT_PROVIDED)
            if found != value or type(found) is not type(value):
                raise RefusedError(Step.DETAIL, f"{name} {found}", f"{value}")
        if demands.revocation and not claims.revocation:
            raise RefusedError(
                Step.REVOCATION, "no revocation list of every issuer", "current lists in the collateral"
            )


def _check_code(claims: Claims, demands: Demands) -> None:
    for name, value in demands.require.items():
        if claims.measurement(name) != value:
            raise RefusedError(Step.CODE, f"{name} {claims.measurement(name)}", value)
    if any(_all_there(claims, wanted) for wanted in demands.measurements):
        return
    if any(claims.signer(name) in values for name, values in demands.signers.items()):
        return
    found, expected = _nearest(claims, demands.measurements)
    found += [f"signer {name} {claims.signer(name)}" for name in demands.signers]
    expected += [f"a listed signer {name}" for name in demands.signers]
    raise RefusedError(
        Step.CODE, ", ".join(found) or "no code that is listed", ", or ".join(expected) or "some"
    )


def _nearest(claims: Claims, sets: tuple[Mapping[str, str], ...]) -> tuple[list[str], list[str]]:
    """What differs from the set that comes nearest: found, expected."""
    differing = [{n: v for n, v in wanted.items() if claims.measurement(n) != v} for wanted in sets]
    if not differing:
        return [], []
    least = min(differing, key=len)
    found = [f"{name} {claims.measurement(name)}" for name in least]
    text = ", ".join(f"{name} {value}" for name, value in least.items())
    return found, [f"{text} (the nearest of {len(sets)} sets)"]


def _all_there(claims: Claims, wanted: Mapping[str, str]) -> bool:
    # An empty set would admit any code: the file's reader refuses it, and so does this.
    return bool(wanted) and all(claims.measurement(name) == value for name, value in wanted.items())


def _at_least(component: str, found: Claimed[int], least: int) -> None:
    if isinstance(found, NotProvided) or found < least:
        raise RefusedError(Step.TCB, f"{component} {found}", f"{component} {least} or newer")


def _check_status(claims: Claims, demands: Demands) -> None:
    if isinstance(claims.status, NotProvided):
        return
    if claims.status not in demands.statuses:
        raise RefusedError(
            Step.STATUS, f"{claims.status} ({', '.join(claims.advisories)})", " or ".join(demands.statuses)
        )
    if demands.advisories is not None and (more := set(claims.advisories) - demands.advisories):
        raise RefusedError(Step.STATUS, f"the advisories {', '.join(sorted(more))}", "those that are listed")
