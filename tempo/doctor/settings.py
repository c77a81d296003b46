"""tempo.toml, as far as it can be judged without running anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from tempo.config_file import ConfigFile, read_config
from tempo.doctor.finding import Finding, note, ok, problem
from tempo.errors import TempoError
from tempo.fleet import TlsFiles, Worker
from tempo.plan.money import Prices

#: Settings that give something up, and say so by their name.
_UNSAFE = "unsafe_"


@final
@dataclass(frozen=True, slots=True)
class Described:
    """workers, tls: what the file names; None where it cannot be read or names none."""

    finding: Finding
    workers: list[str | Worker] | None = None
    tls: TlsFiles | None = None


def described(path: Path) -> Described:
    try:
        file = read_config(path)
        Prices.load(path)
    except TempoError as error:
        return Described(problem("settings", str(error), f"correct {path} (docs/run.md)"))
    return Described(_judged(path, file), _flat(file.workers), file.tls)


def _judged(path: Path, file: ConfigFile) -> Finding:
    chosen = file.config.chosen()
    words = ", ".join(f"{name} {value}" for name, value in chosen.items() if name != "fleet")
    found = f"{path.name}: {words}; vault {'named' if file.vault else 'none'}"
    unsafe = [name for name, value in chosen.items() if name.startswith(_UNSAFE) and value]
    if chosen["scheme"].startswith(_UNSAFE):
        unsafe.append(f"scheme {chosen['scheme']}")
    if file.vault is not None and file.vault.unsafe_measurement is not None:
        unsafe.append("vault.unsafe_measurement")
    if unsafe:
        return note("settings", found, f"for trials only: {', '.join(unsafe)}")
    if file.workers is None:
        return note(
            "settings", f"{found}; it names no workers", "without workers = ... two local ones are started"
        )
    return ok("settings", found)


def _flat(workers: Any) -> list[str | Worker] | None:
    """Of all owners."""
    if workers is None:
        return None
    groups = workers.values() if isinstance(workers, Mapping) else [workers]
    return [one for group in groups for one in ([group] if isinstance(group, str) else group)]
