"""What an owner does with a vault and the files sealed under its keys: which file stands under which key, and
from an old key to the newest. A data key is in memory for that long, and never in a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

from tempo.errors import UsageError
from tempo.trust.sealed import Recipient
from tempo.trust.sealed.reseal import header_of, reseal, sealed_files
from tempo.trust.vault.state import Key, State
from tempo.trust.vault.store import Store


@final
@dataclass(frozen=True, slots=True)
class Found:
    """A sealed file. key: of this vault; None where it holds none of that id. To a recipient: `wrapped`."""

    path: Path
    key_id: str
    wrapped: bool
    key: Key | None


def sealed_under(state: State, paths: list[Path]) -> list[Found]:
    """The sealed files among these files and in these folders, with the key that each names. The name is
    public and not proved: a file opens under that key, or not at all.

    Raises UsageError for a path that is not there, TamperedError for a damaged file, DataError for one that
    cannot be read.
    """
    return [_found(state, path) for path in sealed_files(paths)]


def _found(state: State, path: Path) -> Found:
    header = header_of(path)
    to_recipient = header.wrapped is not None
    keys = {key.id: key for key in state.keys}
    return Found(path, header.key, to_recipient, None if to_recipient else keys.get(header.key))


def reseal_in(
    store: Store, path: Path, out: Path, to: Recipient | None, progress: Callable[[int], None]
) -> tuple[Key, str]:
    """Write `out` under the newest version of the key that `path` names, or to a recipient. The old key may
    be revoked or expired, it is the owner who asks; the new one must not be. Returns the old key and the id
    of the new one. The audit log has it before `out` is there: an entry whose file then failed does less harm
    than a file that nobody knows of.

    Raises UsageError for a key that is not this vault's, and as `reseal` does.
    """
    found = _found(store.state(), path)
    if found.key is None:
        raise UsageError(
            f"{path} is sealed under the key {found.key_id}, which this vault does not hold: look for its "
            "file, or another vault"
        )
    sealing = store.unwrap(_newest(store, found.key)) if to is None else to
    key = found.key

    def note() -> None:
        store.note(
            "resealed",
            key=key.name,
            version=key.version,
            key_id=key.id,
            to_key_id=sealing.name,
            to_recipient=to is not None,
        )

    reseal(path, store.unwrap(key), out, sealing, progress, note)
    return key, sealing.name


def _newest(store: Store, old: Key) -> Key:
    newest = store.state().key(old.name, None)
    if newest is None or newest.version == old.version:
        raise UsageError(f"{old.name} has no newer version than {old.version}: tempo vault rotate makes one")
    if fault := newest.fault(store.now()):
        raise UsageError(f"the newest version of {old.name} is {fault}: tempo vault rotate makes another")
    return newest
