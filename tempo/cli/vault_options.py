"""What the verbs of `tempo vault` share: the options, the passphrase, times, and opening the vault."""

from __future__ import annotations

import os
import re
import stat
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tempo.errors import UsageError

if TYPE_CHECKING:
    from tempo.trust.sealed import DataKey
    from tempo.trust.vault import RootKey, State, Store

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The vault's folder.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The key's name.")]
Passphrase = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="Passphrase or PIN, one line. [default: asked on the terminal]"),
]
Module = Annotated[
    Path | None, typer.Option("--pkcs11-module", help="Library of the token that holds the root key.")
]
KmsKey = Annotated[
    str | None, typer.Option("--kms-key", help="Id, ARN or alias of the AWS KMS key over the root key.")
]
Expires = Annotated[
    str | None, typer.Option(metavar="WHEN", help="30d (days), or 2027-01-31T00:00Z. [default: never]")
]
From = Annotated[
    Path | None, typer.Option("--from", help="A data key's file. [default: a new key, made in the vault]")
]

_MAX_PASSPHRASE = 4096
_DAY_S = 86_400


def secret(file: Path | None, *, new: bool = False) -> str:
    """The passphrase or PIN: from a file that its owner alone may read, or from the terminal."""
    if file is None:
        if not _has_terminal():
            raise UsageError("there is no terminal to ask for the passphrase on: give --passphrase-file FILE")
        asked: str = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=new, err=True)
        return asked
    try:
        with file.open("rb") as opened:
            mode = stat.S_IMODE(file.stat().st_mode)
            raw = opened.read(_MAX_PASSPHRASE + 1)
        text = raw.decode().removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the passphrase file {file} cannot be read as text") from error
    if mode & 0o077:
        raise UsageError(f"{file} can be read by others (mode {mode:o}): chmod 600 it")
    if not text or "\n" in text or len(raw) > _MAX_PASSPHRASE:
        raise UsageError(f"{file}: expected one line of {_MAX_PASSPHRASE} bytes at most")
    return text


def _has_terminal() -> bool:
    """Of its own: standard input may be a pipe, and the passphrase is asked all the same."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return sys.stdin is not None and sys.stdin.isatty()
    return True


def open_root(folder: Path, passphrase: Path | None, module: Path | None, kms_key: str | None) -> RootKey:
    from tempo.trust.vault import PassphraseRoot
    from tempo.trust.vault.pkcs11 import Pkcs11Root
    from tempo.trust.vault.root import ROOT_FILE

    path = folder / ROOT_FILE
    if not path.is_file():
        raise UsageError(f"there is no vault in {folder}: tempo vault init {folder}")
    if kms_key is not None:
        from tempo.trust.vault.kms import KmsRoot

        if module is not None or passphrase is not None:
            raise UsageError("--kms-key needs neither a token nor a passphrase: the service knows who asks")
        return KmsRoot.open(path, kms_key)
    words = secret(passphrase)
    if module is not None:
        return Pkcs11Root.open(path, module, words)
    return PassphraseRoot.open(path, words.encode())


def open_store(folder: Path, passphrase: Path | None, module: Path | None, kms_key: str | None) -> Store:
    from tempo.trust.vault import Store

    return Store.open(folder, open_root(folder, passphrase, module, kms_key))


def moment(text: str | None) -> int | None:
    """Seconds since 1970 of WHEN. Raises UsageError."""
    if text is None:
        return None
    if days := re.fullmatch(r"([1-9][0-9]{0,4})d", text):
        return int(time.time()) + int(days[1]) * _DAY_S
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no time: expected 30d, or 2027-01-31T00:00Z") from None
    if found.tzinfo is None:
        raise UsageError(f"{text!r} names no time zone: end it with Z for UTC")
    return int(found.timestamp())


def data_key(file: Path | None) -> DataKey:
    from tempo.trust.sealed import DataKey

    return DataKey.generate() if file is None else DataKey.load(file)


def when(seconds: int | None) -> str | None:
    """RFC 3339, UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def key_rows(state: State, now: int) -> list[dict[str, Any]]:
    """One for each version of each key; never the key."""
    return [
        {
            "key": k.name,
            "version": k.version,
            "key_id": k.id,
            "state": k.fault(now) or "active",
            "created": when(k.created),
            "expires": when(k.expires),
            "revoked": when(k.revoked),
        }
        for k in sorted(state.keys, key=lambda k: (k.name, k.version))
    ]


def grant_rows(state: State, now: int) -> list[dict[str, Any]]:
    return [
        {
            "grant": g.number,
            "key": g.key,
            "policy": g.policy,
            "client": g.client,
            "state": "active" if g.holds(g.client or "", now) else "revoked" if g.revoked else "expired",
            "created": when(g.created),
            "expires": when(g.expires),
            "revoked": when(g.revoked),
        }
        for g in state.grants
    ]
