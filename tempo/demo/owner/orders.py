"""What the demo tells a master, in a file, and what it answers, a line of JSON each. Neither has a secret."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import msgspec

#: What the evidence for the key of a master's log is bound to, besides nonce and key.
LOG_CONTEXT: Final = b"tempo owner demo: the log of this master 1"


@final
class TpmMachine(msgspec.Struct, frozen=True, tag="tpm"):
    """tcti: how the master reaches its machine's TPM."""

    tcti: str


@final
class SimulatedMachine(msgspec.Struct, frozen=True, tag="unsafe-simulated"):
    """measurement: what it says it runs, 48 bytes."""

    measurement: bytes


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """folder: the master's own. vault, workers: host:port. key: its name in the vault. sealed: the data.
    recipient: file of the owner's public key. nonce: the owner's, for the evidence about the log's key.
    cert, master_key, ca: files for TLS."""

    folder: str
    machine: TpmMachine | SimulatedMachine
    vault: str
    workers: list[str]
    cert: str
    tls_key: str
    ca: str
    key: str
    sealed: str
    recipient: str
    nonce: bytes
    scheme: str
    steps: int
    batch: int
    seed: int
    channels: int
    classes: int

    @property
    def model(self) -> Path:
        """Where the sealed model is put."""
        return Path(self.folder, "model.tempo")

    @property
    def log(self) -> Path:
        return Path(self.folder, "log")

    def write(self, path: Path) -> None:
        path.write_bytes(msgspec.json.encode(self))

    @classmethod
    def read(cls, path: Path) -> Orders:
        return msgspec.json.decode(path.read_bytes(), type=cls)


@final
class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The vault said no. code, step: as the protocol has them. message: for people."""

    code: str
    step: str
    message: str


@final
class Released(msgspec.Struct, frozen=True, tag="released"):
    """key_id: name of the data key, which tells nothing about it. evidence_sha256: of what it cost."""

    key_id: str
    evidence_sha256: str


@final
class Step(msgspec.Struct, frozen=True, tag="step"):
    number: int
    loss: float


@final
class Done(msgspec.Struct, frozen=True, tag="done"):
    """figures: of the session's report. log_key: the public key of the master's log. evidence: that the key
    belongs to this master. model_sha256: of the sealed file."""

    figures: dict[str, int]
    quarantined: list[str]
    log_key: str
    evidence: bytes
    model_sha256: str


Line = Refused | Released | Step | Done


def encode(line: Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def decode(text: bytes) -> Line:
    line: Line = msgspec.json.decode(text, type=Line)
    return line
