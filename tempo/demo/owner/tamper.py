"""One byte altered, here and there, and what the verifier says of each.

Every alteration is tried by the code that a user runs: nothing of the demo's own decides what is caught.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, final

from tempo.errors import TempoError
from tempo.trust.evidence import Evidence, Expected
from tempo.trust.ledger import VerifierKey, read_verified
from tempo.trust.ledger.files import ENTRIES
from tempo.trust.policy import Policy
from tempo.trust.policy_key import PolicyKey
from tempo.trust.sealed import DataKey, OwnerKey, SealedFile
from tempo.trust.verifier import Verifier

#: Bytes of a file that are altered, one at a time, where trying all of them takes too long.
PLACES: Final = 64
_FLIP: Final = 0x01


@final
@dataclass(frozen=True, slots=True)
class Caught:
    """size: of what was altered, in bytes. tried: alterations, of one byte each. missed: places of those that
    nobody noticed. message: of the one at `place`."""

    size: int
    tried: int
    missed: list[int]
    place: int
    message: str


def places(size: int, show: int, count: int = PLACES) -> list[int]:
    """`show`, the first byte, the last, and others at random: so many, or all that there are."""
    chosen = dict.fromkeys([show, 0, size - 1])
    others = [
        place for place in random.SystemRandom().sample(range(size), min(size, count)) if place not in chosen
    ]
    return [*chosen, *others][:count]


def attempt(check: Callable[[bytes], object], whole: bytes, where: Iterable[int], show: int) -> Caught:
    """check: raises TempoError for what was altered, and must accept `whole`: else it would prove nothing."""
    check(whole)
    said: dict[int, str] = {}
    for place in where:
        altered = bytearray(whole)
        altered[place] ^= _FLIP
        try:
            check(bytes(altered))
        except TempoError as error:
            said[place] = str(error)
        else:
            said[place] = ""
    missed = [place for place, message in said.items() if not message]
    return Caught(len(whole), len(said), missed, show, said[show])


def data(sealed: Path, key: DataKey | OwnerKey, scratch: Path) -> Caught:
    """A sealed file: it is read whole each time. scratch: an empty folder, here and below."""

    def check(altered: bytes) -> None:
        path = scratch / sealed.name
        path.write_bytes(altered)
        with SealedFile(path, key) as file:
            file.verify()

    whole = sealed.read_bytes()
    show = len(whole) // 2
    return attempt(check, whole, places(len(whole), show), show)


def log(folder: Path, key: VerifierKey, scratch: Path, kind: str) -> Caught:
    """The entries of an audit log. The alteration that is shown is in the first entry of `kind`."""

    def check(altered: bytes) -> None:
        (copy / ENTRIES).write_bytes(altered)
        read_verified(copy, key)

    copy = scratch / "log"
    shutil.copytree(folder, copy)
    whole = (folder / ENTRIES).read_bytes()
    show = whole.index(f'"kind":"{kind}"'.encode()) + len('"kind":"')
    return attempt(check, whole, places(len(whole), show), show)


def evidence(shown: Evidence, expected: Expected, policy: Policy) -> Caught:
    """Every byte of every part, what was signed and what signs it. The one that is shown is in the middle of
    what was signed."""
    order = sorted(shown.parts, key=lambda name: -len(shown.parts[name]))
    order.sort(key=lambda name: name not in ("attest", "statement"))
    ends = {name: sum(len(shown.parts[n]) for n in order[: i + 1]) for i, name in enumerate(order)}

    def check(altered: bytes) -> None:
        parts = {name: altered[ends[name] - len(shown.parts[name]) : ends[name]] for name in order}
        now = datetime.now(UTC)
        # Through the file's form, as it would come from a machine.
        again = Evidence.from_json(Evidence(shown.kind, parts).to_json())
        policy.check(Verifier(policy.anchors).verify(again, expected, now), now)

    whole = b"".join(shown.parts[name] for name in order)
    return attempt(check, whole, range(len(whole)), ends[order[0]] // 2)


def policy(text: bytes, signature: str, signer: PolicyKey) -> Caught:
    """Every byte of a signed policy. The one that is shown is in its last value."""

    def check(altered: bytes) -> None:
        signer.open(altered, signature)

    return attempt(check, text, range(len(text)), text.rindex(b'"') - 1)
