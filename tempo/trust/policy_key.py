"""Who may set a policy: Ed25519 (RFC 8032) over the file's bytes, detached.

    policy.toml.sig    tempo-policy-signature-1 <name of the key> <base64>

What is signed begins with "tempo policy 1" and a newline, so that no other signature of this key serves here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from pathlib import Path
from typing import Final, final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tempo.errors import TamperedError, UsageError
from tempo.kernels.hidden import Hidden
from tempo.trust.policy import Policy
from tempo.trust.policy_file import MAX_BYTES, parse_policy
from tempo.trust.sealed.keys import load_key_file, save_key_file

_DOMAIN: Final = b"tempo policy 1\n"
_SIGNATURE: Final = "tempo-policy-signature-1"
_KEY_BYTES: Final = 32
_MAX_SIGNATURE_BYTES: Final = 1024


def signature_path(policy: Path) -> Path:
    """Where a policy's signature lies."""
    return policy.with_name(policy.name + ".sig")


@final
class PolicySigner(Hidden):
    """The security engineer's private key. Never printed or pickled."""

    KIND: Final = "tempo-policy-key-1"

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> PolicySigner:
        return cls(Ed25519PrivateKey.generate())

    @property
    def public(self) -> PolicyKey:
        return PolicyKey(self._key.public_key())

    def save(self, path: Path) -> None:
        """To a new file that its owner alone may read, in the clear: keep it in-house."""
        save_key_file(path, self.KIND, self._key.private_bytes_raw())

    @classmethod
    def load(cls, path: Path) -> PolicySigner:
        """Raises UsageError."""
        return cls(Ed25519PrivateKey.from_private_bytes(load_key_file(path, cls.KIND, _KEY_BYTES)))

    def sign(self, policy: bytes) -> str:
        """The signature file. Raises UsageError for what is no policy: it is read before it is signed."""
        parse_policy(policy)
        signature = base64.b64encode(self._key.sign(_DOMAIN + policy)).decode()
        return f"{_SIGNATURE} {self.public.name} {signature}\n"


@final
class PolicyKey:
    """The public half: what a verifier keeps."""

    KIND: Final = "tempo-policy-signer-1"

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key

    @property
    def name(self) -> str:
        return hashlib.sha256(b"tempo policy key " + self._key.public_bytes_raw()).hexdigest()[:16]

    def save(self, path: Path) -> None:
        save_key_file(path, self.KIND, self._key.public_bytes_raw())

    @classmethod
    def load(cls, path: Path) -> PolicyKey:
        """Raises UsageError."""
        return cls(Ed25519PublicKey.from_public_bytes(load_key_file(path, cls.KIND, _KEY_BYTES)))

    def open(self, policy: bytes, signature: str) -> Policy:
        """The policy. Raises TamperedError unless this key signed these bytes, UsageError for no policy."""
        words = signature.split()
        if len(words) != 3 or words[0] != _SIGNATURE:
            raise TamperedError(f"the policy's signature is none: expected one line, {_SIGNATURE} ...")
        if words[1] != self.name:
            raise TamperedError(f"the policy is signed by the key {words[1]!r:.40}, expected {self.name}")
        try:
            self._key.verify(base64.b64decode(words[2], validate=True), _DOMAIN + policy)
        except (InvalidSignature, binascii.Error, ValueError) as error:
            raise TamperedError(f"the signature of {self.name} does not fit the policy") from error
        return parse_policy(policy)

    def open_file(self, path: Path) -> Policy:
        """The policy at `path`, signed in `path`.sig. Raises as `open`."""
        try:
            with path.open("rb") as file:
                policy = file.read(MAX_BYTES + 1)
            with signature_path(path).open() as file:
                signature = file.read(_MAX_SIGNATURE_BYTES)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"{path} and its signature {signature_path(path).name} cannot be read (tempo attest sign)"
            ) from error
        return self.open(policy, signature)
