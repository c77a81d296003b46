"""A root key that never leaves its token: PKCS #11, through the package python-pkcs11 (optional).

    root.json   {"tempo_vault_root": 1, "kind": "pkcs11", "token": label, "key": label}
    wrapped   = nonce (12 random bytes) || CKM_AES_GCM(key in the token, secret), bound to `about`

The module, a shared library that runs in this process, is named by whoever starts the vault, never by a file.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, final

import msgspec
from msgspec import Meta, Struct

from tempo.errors import OutsideError, UnsupportedError, UsageError
from tempo.trust.vault.root import NONCE_BYTES, NotWrappedHere, RootKey, read_small, write_new

if TYPE_CHECKING:
    from types import ModuleType

_Label = Annotated[str, Meta(min_length=1, max_length=32)]


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    tempo_vault_root: Literal[1]
    kind: Literal["pkcs11"]
    token: _Label
    key: _Label


@final
class Pkcs11Root(RootKey):
    """One session of a token, one call at a time."""

    def __init__(self, library: ModuleType, session: Any, key: Any) -> None:
        self._library = library
        self._session = session
        self._key = key
        self._lock = threading.Lock()

    @classmethod
    def create(cls, path: Path, module: Path, token: str, key: str, pin: str) -> Pkcs11Root:
        """An AES-256 key, made in the token: sensitive, not extractable. Raises UsageError where the token
        has one of that label, or the file exists."""
        library, session = _session(module, token, pin)
        try:
            if list(session.get_objects({library.Attribute.LABEL: key})):
                raise UsageError(f"the token {token} holds {key!r} already: name another label")
            attributes = {library.Attribute.SENSITIVE: True, library.Attribute.EXTRACTABLE: False}
            made = session.generate_key(library.KeyType.AES, 256, label=key, store=True, template=attributes)
            write_new(path, msgspec.json.encode(_File(1, "pkcs11", token, key)) + b"\n")
        except library.PKCS11Error as error:
            session.close()
            raise _failed(error) from None
        except BaseException:
            session.close()
            raise
        return cls(library, session, made)

    @classmethod
    def open(cls, path: Path, module: Path, pin: str) -> Pkcs11Root:
        """Raises UsageError for a wrong PIN, a token or a key that is not there."""
        try:
            found = msgspec.json.decode(read_small(path), type=_File)
        except (msgspec.MsgspecError, ValueError):
            raise UsageError(f"{path} names no root key in a PKCS #11 token") from None
        library, session = _session(module, found.token, pin)
        try:
            key = session.get_key(label=found.key, object_class=library.ObjectClass.SECRET_KEY)
        except (library.NoSuchKey, library.MultipleObjectsReturned):
            session.close()
            raise UsageError(f"the token {found.token} holds no key {found.key!r}, or several") from None
        except library.PKCS11Error as error:
            session.close()
            raise _failed(error) from None
        return cls(library, session, key)

    def wrap(self, secret: bytes, about: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        with self._lock:
            try:
                return nonce + bytes(self._key.encrypt(secret, **self._how(nonce, about)))
            except self._library.PKCS11Error as error:
                raise _failed(error) from None

    def unwrap(self, wrapped: bytes, about: bytes) -> bytes:
        with self._lock:
            try:
                how = self._how(wrapped[:NONCE_BYTES], about)
                return bytes(self._key.decrypt(wrapped[NONCE_BYTES:], **how))
            except (self._library.PKCS11Error, ValueError) as error:
                # Tokens do not agree on a code for a tag that does not fit: SoftHSM has a general error.
                if isinstance(error, (self._library.DeviceRemoved, self._library.SessionClosed)):
                    raise _failed(error) from None
                raise NotWrappedHere from None

    def close(self) -> None:
        with self._lock:
            self._session.close()

    def _how(self, nonce: bytes, about: bytes) -> dict[str, Any]:
        library = self._library
        return {
            "mechanism": library.Mechanism.AES_GCM,
            "mechanism_param": library.GCMParams(nonce, about, 128),
        }


def _session(module: Path, token: str, pin: str) -> tuple[ModuleType, Any]:
    try:
        import pkcs11
    except ImportError:
        raise UnsupportedError(
            "a root key in a token needs the package python-pkcs11",
            "install python-pkcs11, or keep the root key under a passphrase",
        ) from None
    try:
        found = pkcs11.lib(str(module)).get_token(token_label=token)
        return pkcs11, found.open(rw=True, user_pin=pin)
    except pkcs11.NoSuchToken:
        raise UsageError(f"{module} knows no token {token!r}") from None
    except (pkcs11.PinIncorrect, pkcs11.PinLenRange, pkcs11.PinInvalid):
        raise UsageError(f"the PIN does not open the token {token!r}") from None
    except (pkcs11.PKCS11Error, RuntimeError, OSError) as error:
        raise _failed(error) from None


def _failed(error: Exception) -> OutsideError:
    return OutsideError(f"the PKCS #11 token did not do its part ({type(error).__name__})")
