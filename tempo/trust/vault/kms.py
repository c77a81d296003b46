"""A root key that a cloud's key management service opens: AWS KMS, through the package botocore (optional).

    root.json   {"tempo_vault_root": 1, "kind": "aws-kms", "key", "salt", "sealed"}
    sealed    = KMS Encrypt(key, root key), bound to the encryption context {"tempo-vault-root": hex of salt}

The service is asked once, when the vault is opened; data keys are wrapped here, as under a passphrase, and
never go to it. So the cloud knows the root key and not what lies under it: vault.db stays in-house. The
encryption context is in the cloud's logs: it says nothing.

Which key it is, the caller says each time: a file that somebody exchanged does not choose who opens a vault.
Credentials, region and endpoint come from where botocore takes them (environment, profile, machine).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, Literal, final
from urllib.parse import urlsplit

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Meta, Struct

from tempo.errors import OutsideError, UnsupportedError, UsageError
from tempo.trust.vault.root import KEY_BYTES, RootKey, WrapsHere, read_small, write_new

_SALT_BYTES: Final = 16
_SECONDS: Final = 10
_TRIES: Final = 3
#: What the service says of a ciphertext that is not this key's, or for another context.
_NOT_ITS_OWN: Final = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})
_NAME: Final = r"^[A-Za-z0-9:/_-]{1,2048}$"


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    tempo_vault_root: Literal[1]
    kind: Literal["aws-kms"]
    key: Annotated[str, Meta(pattern=_NAME)]
    salt: Annotated[bytes, Meta(min_length=_SALT_BYTES, max_length=_SALT_BYTES)]
    sealed: Annotated[bytes, Meta(max_length=2048)]


@final
class KmsRoot(RootKey):
    """In memory while the vault is open. key: id, ARN or alias of a symmetric key in the service."""

    def __init__(self, raw: bytes) -> None:
        self._here = WrapsHere(raw)

    @classmethod
    def create(cls, path: Path, key: str) -> KmsRoot:
        """A new root key in a new file. Raises UsageError where the file exists, or the service has no such
        key; OutsideError where it does not answer."""
        raw, salt = AESGCM.generate_key(256), os.urandom(_SALT_BYTES)
        try:
            made = msgspec.convert({**_HEAD, "key": key, "salt": salt, "sealed": b""}, _File)
        except msgspec.ValidationError:
            raise UsageError(
                f"{key!r} names no key of AWS KMS: expected an id, an ARN or alias/NAME"
            ) from None
        sealed = _ask(key, "encrypt", Plaintext=raw, EncryptionContext=_context(made))["CiphertextBlob"]
        write_new(path, msgspec.json.encode(msgspec.structs.replace(made, sealed=sealed)) + b"\n")
        return cls(raw)

    @classmethod
    def open(cls, path: Path, key: str) -> KmsRoot:
        """Raises UsageError for another key, or a file that was altered; OutsideError where the service does
        not answer."""
        try:
            found = msgspec.json.decode(read_small(path), type=_File)
        except (msgspec.MsgspecError, ValueError):
            raise UsageError(f"{path} holds no root key under AWS KMS") from None
        if found.key != key:
            raise UsageError(f"{path} is under the key {found.key}; --kms-key names {key}")
        answer = _ask(key, "decrypt", CiphertextBlob=found.sealed, EncryptionContext=_context(found))
        raw = answer["Plaintext"]
        if len(raw) != KEY_BYTES:
            raise UsageError(f"AWS KMS opened {path}, and what is in it is no root key")
        return cls(raw)

    def wrap(self, secret: bytes, about: bytes) -> bytes:
        return self._here.wrap(secret, about)

    def unwrap(self, wrapped: bytes, about: bytes) -> bytes:
        return self._here.unwrap(wrapped, about)


_HEAD: Final = {"tempo_vault_root": 1, "kind": "aws-kms"}


def _context(file: _File) -> dict[str, str]:
    return {"tempo-vault-root": file.salt.hex()}


def _ask(key: str, call: Literal["encrypt", "decrypt"], **fields: Any) -> Any:
    """The service's answer. Errors name its code or botocore's type, never what was sent."""
    try:
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.session import get_session
    except ImportError:
        raise UnsupportedError(
            "a root key under AWS KMS needs the package botocore",
            "install botocore, or keep the root key under a passphrase",
        ) from None
    parts = key.split(":")
    region = parts[3] if key.startswith("arn:") and len(parts) > 3 else None
    patience = Config(
        connect_timeout=_SECONDS, read_timeout=_SECONDS, retries={"mode": "standard", "max_attempts": _TRIES}
    )
    try:
        client = get_session().create_client("kms", region_name=region, config=patience)
        _protected(client.meta.endpoint_url)
        with _unlogged():
            return getattr(client, call)(KeyId=key, **fields)
    except UsageError:
        raise
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "no code"))[:100]
        if code in _NOT_ITS_OWN:
            raise UsageError(
                f"AWS KMS does not open the root key with {key}: was root.json altered?"
            ) from None
        if code == "NotFoundException":
            raise UsageError(f"AWS KMS has no key {key} here ({code})") from None
        raise OutsideError(f"AWS KMS did not {call} with {key} ({code})") from None
    except (BotoCoreError, ValueError) as error:
        raise OutsideError(
            f"AWS KMS cannot be asked ({type(error).__name__}): are credentials, region and network there?"
        ) from None


@contextmanager
def _unlogged() -> Iterator[None]:
    """Inside, botocore logs nothing below INFO, whatever levels are set: at DEBUG it writes out what is sent
    and what is answered, the root key among it. Threads may be inside at once: each has its own filter."""

    def quiet(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.INFO

    found = [logging.getLogger("botocore")]  # a filter holds for its own logger alone
    known = list(logging.root.manager.loggerDict.items())
    found += [x for name, x in known if name.startswith("botocore.") and isinstance(x, logging.Logger)]
    for logger in found:
        logger.addFilter(quiet)
    try:
        yield
    finally:
        for logger in found:
            logger.removeFilter(quiet)


def _protected(endpoint: str) -> None:
    """The root key goes there: under TLS, or within this machine."""
    url = urlsplit(endpoint)
    if url.scheme != "https" and url.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise UsageError(f"the endpoint of AWS KMS is {endpoint}: the root key goes there under https alone")
