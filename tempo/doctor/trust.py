"""What secrets and certificates stand on: a TEE, the clock, the system's generator."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import tempo
from tempo.doctor.finding import Finding, note, ok, problem
from tempo.doctor.host import Host
from tempo.errors import TempoError
from tempo.trust.evidence import Kind, available, produce, report_data

_DEVICES = {"SEV-SNP": "dev/sev-guest", "TDX": "dev/tdx_guest", "SGX": "dev/sgx_enclave", "Nitro": "dev/nsm"}
_CONFIGFS = "sys/kernel/config/tsm/report"
_MEND_EVIDENCE = (
    "it needs the rights to read the device, and for a TPM pip install 'tempo-confidential[tpm]' "
    "(docs/attestation.md)"
)
#: Clocks and file times are rounded differently.
_SLACK_S = 2.0


def tee(host: Host) -> Finding:
    """A guess from what the kernel shows. Whether it is genuine is what attestation proves, not this."""
    found = [name for name, path in _DEVICES.items() if host.exists(path)]
    configfs = host.exists(_CONFIGFS)
    if not found:
        seen = "configfs-tsm is there, but no guest device" if configfs else "no TEE found"
        if Kind.TPM in available(host.root):
            seen += "; a TPM is there, which vouches for what was booted (tempo attest produce)"
        return note("tee", f"{seen}: fine for development", "run the master in a confidential VM for secrets")
    if not configfs and not {"SGX", "Nitro"} & set(found):
        return note(
            "tee",
            f"a guess: {', '.join(found)}, without configfs-tsm",
            "reports come from there: mount -t configfs none /sys/kernel/config (Linux 6.7 or newer)",
        )
    shown = f"a guess: {', '.join(found)}{', configfs-tsm' if configfs else ''}"
    kinds = available(host.root)
    if kinds:
        shown += f"; evidence of kind {', '.join(kinds)} (tempo attest produce)"
    return ok("tee", shown)


def evidence(host: Host) -> Finding:
    """Made once for a nonce of our own and thrown away: what a vault would be shown."""
    kinds = available(host.root)
    if not kinds:
        return note(
            "evidence",
            "this machine can produce none",
            "a vault that demands a TEE releases no key to it: run the master in a confidential VM",
        )
    try:
        made = produce(kinds[0], report_data(os.urandom(32), b"tempo doctor", b"tempo doctor"), host.root)
    except TempoError as error:
        return problem("evidence", f"{kinds[0].value}: {error}", _MEND_EVIDENCE)
    return ok("evidence", f"{kinds[0].value}, {len(made.to_json()):,} bytes (tempo attest produce)")


def clock(now: float | None = None) -> Finding:
    """Certificates need the right day; deadlines need a clock that never goes back. now: seconds of Unix."""
    now = time.time() if now is None else now
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    installed = Path(tempo.__file__).stat().st_mtime
    if now + _SLACK_S < installed:
        return problem(
            "clock", f"{shown} is before the files of Tempo were written", "set it: certificates depend on it"
        )
    return ok("clock", f"{shown}, monotonic to {time.get_clock_info('monotonic').resolution * 1e9:.0f} ns")


def _draw() -> bytes:
    return os.getrandom(1, os.GRND_NONBLOCK)


def entropy(draw: Callable[[], bytes] = _draw) -> Finding:
    """Whether the system's generator is seeded. What is drawn here is thrown away."""
    try:
        draw()
    except BlockingIOError:
        return problem(
            "entropy", "the system's generator is not seeded yet", "wait, or give the VM a virtio-rng device"
        )
    except (OSError, AttributeError):
        return problem("entropy", "the system has no getrandom", "run on Linux 3.17 or newer")
    return ok("entropy", "the system's generator is seeded")
