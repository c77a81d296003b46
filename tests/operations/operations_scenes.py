"""What a page starts from, by name: set-ups that the page tells its reader in words. Each is made by the same
commands that a person would type."""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from operations_sandbox import PROJECT, Sandbox

WORDS = "--passphrase-file vault.pass"
MEASURE = "deploy/confidential-vm/launch-snp.sh --measure images/1"


def certificates(box: Sandbox) -> None:
    """pki/: an authority, a vault, the master trainer, the workers gpu-a and gpu-b, an empty list."""
    box.must("tempo worker ca pki")
    box.must("tempo worker issue pki --name trainer --role master")
    for name, role in (("vault", "vault"), ("gpu-a", "worker"), ("gpu-b", "worker")):
        box.must(f"tempo worker issue pki --name {name} --role {role} --host localhost")
    box.must("tempo worker revoke pki")


def passphrase(box: Sandbox) -> None:
    """vault.pass."""
    box.write("vault.pass", "correct horse battery staple\n").chmod(0o600)


def vault(box: Sandbox) -> None:
    """keys/: a vault with the key photos, from photos.key; photos.tempo, sealed with it."""
    box.write("photos/one.txt", "the first record\n")
    box.write("photos/two.txt", "the second record\n")
    box.must(f"tempo vault init keys --name example.org/vault {WORDS}")
    box.must("tempo seal photos photos.tempo --key photos.key --create-key")
    box.must(f"tempo vault add keys photos --from photos.key {WORDS}")


def image(box: Sandbox) -> None:
    """images/1 and images/2: firmware with the tables of OVMF for SEV, kernel, initrd, command line."""
    for number in (1, 2):
        folder = box.home / "images" / str(number)
        folder.mkdir(parents=True)
        (folder / "ovmf.fd").write_bytes(_firmware())
        (folder / "kernel").write_bytes(b"kernel %d" % number)
        (folder / "initrd").write_bytes(b"initrd %d" % number)
        (folder / "cmdline").write_text("console=ttyS0 roothash=" + f"{number:064x}\n")


def snp(box: Sandbox) -> None:
    """A stand-in SEV-SNP machine that runs images/1; papers/ as from AMD."""
    _machine(box, "sev-snp", "amd")
    box.must(f"{MEASURE} > machine/measurement")


def tdx(box: Sandbox) -> None:
    """A stand-in trust domain; papers/ as from Intel."""
    _machine(box, "tdx", "intel")
    box.write("machine/measurement", "31" * 48)


def sgx(box: Sandbox) -> None:
    """A stand-in enclave under Gramine; papers/ as from Intel."""
    _machine(box, "sgx-dcap", "intel")
    box.write("machine/measurement", "21" * 32)


def granted(box: Sandbox) -> None:
    """policy.toml, signed by engineer.key, for images/1; grant 1 of photos to the master trainer under it."""
    box.must(f'sed "s/NAME/image 1/; s/MEASUREMENT/$({MEASURE})/" deploy/policies/sev-snp.toml > policy.toml')
    box.must("tempo attest sign policy.toml --key engineer.key --create-key")
    box.must(
        "tempo vault grant keys photos --policy policy.toml --signer engineer.key.pub --client trainer "
        + WORDS
    )


def serving(box: Sandbox) -> None:
    """The vault listens on run/vault.sock."""
    box.must("mkdir -p run")
    box.must(
        "tempo vault serve keys --listen unix:$PWD/run/vault.sock --cert pki/vault.pem --key pki/vault.key "
        f"--ca pki/ca.pem --crl pki/ca.crl --collateral papers {WORDS} &"
    )


def workers(box: Sandbox) -> None:
    """gpu-a and gpu-b listen on run/gpu-a.sock and run/gpu-b.sock; the second lies once."""
    box.must("mkdir -p run")
    for name, more in (("gpu-a", ""), ("gpu-b", "--unsafe-lie flip_entry:0:1")):
        box.must(
            f"tempo worker --listen unix:$PWD/run/{name}.sock --cert pki/{name}.pem --key pki/{name}.key "
            f"--ca pki/ca.pem --crl pki/ca.crl --threads 1 --record recordings {more} &"
        )


def run(box: Sandbox) -> None:
    """A run with both workers has ended; its audit log is log/, the log's public key log.pub."""
    box.must("python deploy/operations/training.py unix:$PWD/run/gpu-a.sock unix:$PWD/run/gpu-b.sock")


def _machine(box: Sandbox, kind: str, vendor: str) -> None:
    box.must("mkdir machine")
    (box.home / "papers").symlink_to(box.server.folder / "papers" / vendor)
    box.must(f"export TEMPO_STAND_IN={kind}:$PWD/machine")


SCENES: Mapping[str, Callable[[Sandbox], None]] = {
    made.__name__: made
    for made in (certificates, passphrase, vault, image, snp, tdx, sgx, granted, serving, workers, run)
}


def set_up(box: Sandbox, names: tuple[str, ...]) -> None:
    """deploy/ is the project's. Raises KeyError for a set-up that there is not."""
    os.symlink(PROJECT / "deploy", box.home / "deploy")
    for name in names:
        SCENES[name](box)


def boot(box: Sandbox, command: str) -> None:
    """What the hardware does when a VM is started: it measures what it loads."""
    image = Path(command.split()[-1])
    box.must(f"deploy/confidential-vm/launch-snp.sh --measure {image} > machine/measurement")


def _firmware() -> bytes:
    """As much of OVMF (OvmfPkg/AmdSev) as its measurement reads: the footer's table, the SEV metadata."""
    entries = {
        "7255371f-3a3b-4b04-927b-1da6efa8d454": struct.pack("<II", 0x80_0400, 0x400),
        "00f771de-1a7e-4fcb-890e-68c77e2fb44e": struct.pack("<I", 0x80_B004),
        "dc886566-984a-4798-a75e-5585a7bf67cc": struct.pack("<I", 1024),
    }
    table = b""
    for guid, data in entries.items():
        table += data + struct.pack("<H", len(data) + 18) + uuid.UUID(guid).bytes_le
    footer = struct.pack("<H", len(table) + 18) + uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
    sections = [(0x80_0000, 0x1000, 0x10), (0x80_D000, 0x1000, 2), (0x80_E000, 0x1000, 3)]
    metadata = b"ASEV" + struct.pack("<III", 16 + 12 * len(sections), 1, len(sections))
    metadata += b"".join(struct.pack("<III", *each) for each in sections)
    end = table + footer + bytes(32)
    body = bytes(8192 - 1024) + metadata
    return body + bytes(8192 - len(body) - len(end)) + end
