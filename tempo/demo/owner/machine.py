"""The machine that a master runs on, and what vouches for it: a software TPM, or, unsafe, nothing at all."""

from __future__ import annotations

import hashlib
import importlib
import shutil
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Final, final

from tempo.demo.owner import measure
from tempo.demo.owner.orders import SimulatedMachine, TpmMachine
from tempo.demo.owner.stage import Child, Stage
from tempo.errors import OutsideError, UnsupportedError, UsageError
from tempo.trust.evidence import REPORT_DATA_BYTES, Kind, tpm_device
from tempo.trust.evidence.tpm import key_name

#: Where boot loaders note what they load; the operating system's own are left alone.
PACKAGE_PCR: Final = 8
PROGRAM_PCR: Final = 9
#: Of a Unix socket, by the kernel.
_LONGEST_PATH: Final = 107
_START_S: Final = 20.0
_POLL_S: Final = 0.02


class Machine(ABC):
    """Abstract. kind: of its evidence. words: what it is. measured: what a policy can demand of it."""

    kind: Kind
    words: str
    measured: str
    unsafe: bool

    @abstractmethod
    def boot(self, program: Path) -> TpmMachine | SimulatedMachine:
        """Start the machine afresh and measure what is about to run: how a master asks it for evidence."""

    @abstractmethod
    def demands(self, program: Path) -> str:
        """What a policy demands of it while it runs `program`: a table of TOML. After the first `boot`."""


@final
class SoftwareTpm(Machine):
    """A TPM of the stage, by swtpm. Each boot starts it again from its state: the same keys, other PCRs."""

    kind = Kind.TPM
    words = "a machine with a software TPM (swtpm)"
    measured = "its TPM's key and, by two PCRs, all code of Tempo and the program to run"
    unsafe = False

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._folder = stage.folder / "tpm"
        self._folder.mkdir(mode=0o700)
        self._socket = self._folder / "s"
        if len(f"{self._socket}.ctrl") > _LONGEST_PATH:
            raise UsageError(f"{stage.folder} is too long a path for a socket: set TMPDIR to a shorter one")
        self._tcti = f"swtpm:path={self._socket}"
        self._process: Child | None = None

    def boot(self, program: Path) -> TpmMachine:
        if self._process is not None:
            self._shut_down(self._process)
        sockets = [self._socket, self._socket.with_name("s.ctrl")]
        for path in sockets:
            path.unlink(missing_ok=True)
        command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self._folder},mode=0600"]
        command += ["--server", f"type=unixio,path={sockets[0]},mode=0600"]
        command += ["--ctrl", f"type=unixio,path={sockets[1]},mode=0600"]
        command += ["--flags", "not-need-init,startup-clear"]
        self._process = self._stage.start("swtpm", command)
        until = time.monotonic() + _START_S
        while not all(path.exists() for path in sockets):
            if time.monotonic() > until or not self._process.alive:
                raise OutsideError("swtpm did not start: try `swtpm socket --tpm2` by hand")
            time.sleep(_POLL_S)
        self._extend({PACKAGE_PCR: measure.package(), PROGRAM_PCR: measure.program(program)})
        return TpmMachine(self._tcti)

    def demands(self, program: Path) -> str:
        # Enrolled from the machine itself, while its owner knows that it is that machine.
        evidence = tpm_device.produce(bytes(REPORT_DATA_BYTES), self._tcti)
        pcrs = {PACKAGE_PCR: measure.package(), PROGRAM_PCR: measure.program(program)}
        values = ", ".join(f'pcr{n} = "{measure.extended(digest).hex()}"' for n, digest in pcrs.items())
        key = key_name(evidence.parts["key"])
        return f'[tpm]\nmeasurements = [{{ {values} }}]\nkeys = ["{key}"]\n'

    def _shut_down(self, process: Child) -> None:
        """In order, as an operating system does: else the TPM says that its clock may have gone back."""
        library = _pytss()
        with library.ESAPI(self._tcti) as tpm:
            tpm.shutdown(library.TPM2_SU.CLEAR)
        process.end()

    def _extend(self, digests: dict[int, bytes]) -> None:
        library = _pytss()
        with library.ESAPI(self._tcti) as tpm:
            for index, digest in digests.items():
                value = library.TPMT_HA(
                    hashAlg=library.TPM2_ALG.SHA256, digest=library.TPMU_HA(sha256=digest)
                )
                tpm.pcr_extend(library.ESYS_TR(index), library.TPML_DIGEST_VALUES([value]))


@final
class UnsafeSimulator(Machine):
    """UNSAFE: says of itself what it runs, under a key that everybody has."""

    kind = Kind.SIMULATED
    words = "an UNSAFE simulator, a machine that only says what it runs"
    measured = "a digest of all code of Tempo and the program to run, which anybody can claim"
    unsafe = True

    def boot(self, program: Path) -> SimulatedMachine:
        return SimulatedMachine(_measurement(program))

    def demands(self, program: Path) -> str:
        return f'[{Kind.SIMULATED}]\nmeasurements = [{{ measurement = "{_measurement(program).hex()}" }}]\n'


def _measurement(program: Path) -> bytes:
    return hashlib.sha384(measure.package() + measure.program(program)).digest()


def _pytss() -> Any:
    return importlib.import_module("tpm2_pytss")


def require_software_tpm() -> None:
    """Raises UnsupportedError, saying what to install, where no software TPM can be started and asked."""
    missing, install = [], []
    if shutil.which("swtpm") is None:
        missing.append("swtpm")
        install.append("apt-get install swtpm libtss2-dev pkg-config")
    try:
        _pytss()
    except (ImportError, OSError):
        missing.append("tpm2-pytss")
        install.append("pip install 'tempo-confidential[tpm]'")
    if missing:
        raise UnsupportedError(
            f"the master's machine is vouched for by a software TPM, and {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not installed",
            f"{' and '.join(install)}; or give --unsafe-simulator, which goes through the same steps with "
            "evidence that proves nothing",
        )
