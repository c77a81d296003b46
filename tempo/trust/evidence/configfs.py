"""Reports from Linux: configfs-tsm (Documentation/ABI/testing/configfs-tsm, Linux 6.7).

    mkdir  <root>/<name>                 the kernel fills it with attributes
    write  <root>/<name>/inblob          64 bytes of report data
    read   <root>/<name>/outblob         the report or quote over them
    read   <root>/<name>/auxblob         what belongs to it: SEV-SNP's table of certificates
    read   <root>/<name>/provider        sev_guest or tdx_guest
    read   <root>/<name>/generation      one more for each write to an attribute
    rmdir  <root>/<name>

The entry is our own, but whoever is root may write to it too. So the generation is read before the one write
and after the last read: where it is not one more, somebody else wrote, and what was read is thrown away.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from tempo.errors import OutsideError, UsageError
from tempo.trust.evidence.binding import REPORT_DATA_BYTES
from tempo.trust.evidence.envelope import MAX_PART_BYTES

ROOT: Final = Path("/sys/kernel/config/tsm/report")
#: Times that somebody else may get between.
ATTEMPTS: Final = 5
#: A quote of TDX is made by the host: it takes seconds where it must fetch certificates.
DEADLINE_S: Final = 30.0
_PAUSE_S: Final = 0.05
_LATER: Final = (errno.EBUSY, errno.EINTR, errno.EAGAIN, errno.ETIMEDOUT)


@final
@dataclass(frozen=True, slots=True)
class Report:
    """What the kernel gave, bytes. `auxblob` is empty where the provider has none."""

    provider: str
    outblob: bytes
    auxblob: bytes


def provider(root: Path = ROOT) -> str | None:
    """The name of the machine's provider; None where there is none, or it cannot be asked."""
    entry = root / _entry_name()
    try:
        os.mkdir(entry)
    except OSError:
        return None
    try:
        return _read(entry, "provider").decode("ascii", "replace").strip()
    except OSError:
        return None
    finally:
        os.rmdir(entry)


def take(report_data: bytes, root: Path = ROOT) -> Report:
    """A report over 64 bytes. Raises OutsideError where the kernel gives none or others keep writing."""
    if len(report_data) != REPORT_DATA_BYTES:
        raise UsageError(f"report data has {REPORT_DATA_BYTES} bytes, not {len(report_data)}")
    entry = root / _entry_name()
    try:
        os.mkdir(entry)
    except OSError as error:
        raise OutsideError(
            f"no report can be had at {root} ({error.strerror}): it needs root rights in a confidential VM "
            "with Linux 6.7 or newer and configfs mounted (tempo doctor)"
        ) from error
    try:
        for _ in range(ATTEMPTS):
            report = _attempt(entry, report_data)
            if report is not None:
                return report
        raise OutsideError(f"somebody else writes to {entry}: {ATTEMPTS} reports were thrown away")
    except OSError as error:
        raise OutsideError(f"the kernel gives no report at {entry} ({error.strerror})") from error
    finally:
        os.rmdir(entry)


def _entry_name() -> str:
    return f"tempo-{os.getpid()}-{secrets.token_hex(8)}"


def _attempt(entry: Path, report_data: bytes) -> Report | None:
    """A report, or None where the generation says that it may be another's."""
    before = _generation(entry)
    _write(entry, "inblob", report_data)
    outblob = _read_patiently(entry, "outblob")
    try:
        auxblob = _read(entry, "auxblob")
    except OSError as error:
        # TDX has no auxblob: the attribute is hidden, or it reads as an error.
        if error.errno not in (errno.ENOENT, errno.ENXIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY):
            raise
        auxblob = b""
    name = _read(entry, "provider").decode("ascii", "replace").strip()
    return Report(name, outblob, auxblob) if _generation(entry) == before + 1 else None


def _generation(entry: Path) -> int:
    text = _read(entry, "generation").strip()
    if not text.isdigit() or len(text) > 20:
        raise OutsideError(f"{entry}/generation is no number: is this configfs-tsm?")
    return int(text)


def _read_patiently(entry: Path, name: str) -> bytes:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return _read(entry, name)
        except OSError as error:
            if error.errno not in _LATER or time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE_S)


def _read(entry: Path, name: str) -> bytes:
    with (entry / name).open("rb") as file:
        raw = file.read(MAX_PART_BYTES + 1)
    if len(raw) > MAX_PART_BYTES:
        raise OutsideError(f"{entry}/{name} has more than {MAX_PART_BYTES} bytes")
    return raw


def _write(entry: Path, name: str, raw: bytes) -> None:
    # One write, unbuffered, into a file that must be there: the kernel takes each write as the whole value.
    fd = os.open(entry / name, os.O_WRONLY)
    try:
        written = os.write(fd, raw)
    finally:
        os.close(fd)
    if written != len(raw):
        raise OutsideError(f"the kernel took {written} of {len(raw)} bytes of report data")
