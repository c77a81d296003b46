"""The guides of the verbs of trust: evidence, keys, sealed files, the audit log."""

from __future__ import annotations

from typing import Final

from tempo.cli.guide import Guide

_VAULT_ADDRESS: Final = "--listen 0.0.0.0:7444 --cert vault.pem --key vault.key --ca ca.pem"
_NONCE: Final = "--nonce $(openssl rand -hex 32)"
_POLICY: Final = "--policy policy.toml --signer engineer.key.pub"

TRUST: Final = {
    "attest": Guide(
        (
            (f"tempo attest produce {_NONCE} --out evidence.json", "on the machine that is rented"),
            ("tempo attest sign policy.toml --key engineer.key", "in-house: what is demanded of it"),
        ),
        "tempo attest produce --help",
        "attestation.md",
    ),
    "attest draft": Guide(
        (
            (
                "tempo attest draft evidence.json --nonce $NONCE --name trainers --out policy.toml",
                "a policy that admits the machine that you started yourself",
            ),
        ),
        "tempo attest sign policy.toml --key engineer.key --create-key",
        "attestation.md",
    ),
    "attest produce": Guide(
        (
            (f"tempo attest produce {_NONCE} --out evidence.json", "of the best kind that is here"),
            (
                f"tempo attest produce {_NONCE} --kind tpm --public-key master.pub --out evidence.json",
                "of a TPM, bound to a key as well",
            ),
        ),
        f"tempo attest verify evidence.json {_POLICY} --nonce $NONCE",
        "attestation.md",
    ),
    "attest sign": Guide(
        (
            ("tempo attest sign policy.toml --key engineer.key --create-key", "with a new key"),
            ("tempo attest sign policy.toml --key engineer.key", "again, after a change"),
        ),
        f"tempo vault grant vault photos {_POLICY}",
        "attestation.md",
    ),
    "attest verify": Guide(
        (
            (
                f"tempo attest verify evidence.json {_POLICY} --nonce $NONCE",
                "offline: is it genuine, fresh and what the policy admits?",
            ),
        ),
        "tempo report run.json --attestation attestation.json",
        "attestation.md",
    ),
    "log": Guide(
        (
            ("tempo log verify log --key log.pub", "has anything been altered?"),
            ("tempo log show log --key log.pub --last 20", "the newest entries"),
        ),
        "tempo log verify --help",
        "audit-log.md",
    ),
    "log export": Guide(
        (
            ("tempo log export log --key log.pub --entry 7 --out proof.json", "one entry, for an auditor"),
            (
                "tempo log export log --key log.pub --entry 7 --since checkpoint.old --out proof.json",
                "and that the log extends what the auditor saw",
            ),
        ),
        "tempo log verify proof.json --key log.pub",
        "audit-log.md",
    ),
    "log show": Guide(
        (
            ("tempo log show log --key log.pub --last 20", "the newest entries"),
            ("tempo log show log --key log.pub --kind key_released", "one kind alone"),
        ),
        "tempo log export log --key log.pub --entry 7 --out proof.json",
        "audit-log.md",
    ),
    "log verify": Guide(
        (
            ("tempo log verify log --key log.pub --since checkpoint.old", "and nothing was taken back"),
            ("tempo log verify proof.json --key log.pub", "the proof of one entry"),
        ),
        "tempo report run.json --log log --key log.pub",
        "audit-log.md",
    ),
    "seal": Guide(
        (
            ("tempo seal photos/ photos.tempo --key photos.key --create-key", "with a new key"),
            ("tempo seal model.safetensors model.tempo --key master.pub", "for a recipient's public key"),
        ),
        "tempo vault add vault photos --from photos.key",
        "sealed-data.md",
    ),
    "unseal": Guide(
        (("tempo unseal photos.tempo photos/ --key photos.key", "in the form that it had"),),
        None,
        "sealed-data.md",
    ),
    "vault": Guide(
        (
            ("tempo vault init vault --name example.org/vault", "a new vault; asks for a passphrase"),
            ("tempo vault add vault photos", "a key, made in the vault"),
        ),
        "tempo vault init --help",
        "vault.md",
    ),
    "vault add": Guide(
        (
            ("tempo vault add vault photos", "a new key, made in the vault"),
            ("tempo vault add vault photos --from photos.key --expires 90d", "one that is there already"),
        ),
        f"tempo vault grant vault photos {_POLICY}",
        "vault.md",
    ),
    "vault grant": Guide(
        (
            (
                f"tempo vault grant vault photos {_POLICY} --expires 30d",
                "to machines that the policy admits, for a month",
            ),
        ),
        f"tempo vault serve vault {_VAULT_ADDRESS}",
        "vault.md",
    ),
    "vault init": Guide(
        (
            ("tempo vault init vault --name example.org/vault", "asks for a passphrase"),
            (
                "tempo vault init vault --name example.org/vault --kms-key alias/tempo",
                "its root key under a key of AWS KMS",
            ),
        ),
        "tempo vault add vault photos",
        "vault.md",
    ),
    "vault list": Guide(
        (("tempo vault list vault", "keys and grants, and what became of them"),),
        "tempo log verify vault/log --key vault/log.pub",
        "vault.md",
    ),
    "vault passphrase": Guide(
        (("tempo vault passphrase vault", "asks for the old one and the new one"),),
        None,
        "operations/keys.md",
    ),
    "vault reseal": Guide(
        (("tempo vault reseal vault photos.tempo photos-2.tempo", "after tempo vault rotate"),),
        "tempo vault sealed vault photos-2.tempo",
        "operations/rotation.md",
    ),
    "vault revoke": Guide(
        (
            ("tempo vault revoke vault photos --version 1", "once nothing is sealed with it"),
            ("tempo vault revoke vault --grant 3", "one grant"),
        ),
        "tempo vault list vault",
        "operations/rotation.md",
    ),
    "vault rotate": Guide(
        (("tempo vault rotate vault photos", "version 2, made in the vault"),),
        "tempo vault reseal vault photos.tempo photos-2.tempo",
        "operations/rotation.md",
    ),
    "vault sealed": Guide(
        (("tempo vault sealed vault data/", "which files still stand under which key"),),
        "tempo vault revoke vault photos --version 1",
        "operations/rotation.md",
    ),
    "vault serve": Guide(
        ((f"tempo vault serve vault {_VAULT_ADDRESS}", "to masters with a certificate of the authority"),),
        "tempo run train.py",
        "vault.md",
    ),
}
