"""`tempo.toml`: workers, certificates and settings of a session, as a file beside a script.

    [session]                        settings, named and meant as in tempo/config.py
    scheme = "shares"

    [session.fleet]                  as in tempo.FleetSettings
    quarantine_s = 30.0

    [workers]                        by owner, for scheme "shares"
    alpha = ["a.example:7443"]
    beta = ["b.example:7443"]
    gamma = ["c.example:7443", "d.example:7443"]

    [tls]                            the master's files, relative to this one
    cert = "pki/master.pem"
    key = "pki/master.key"
    ca = "pki/ca.pem"
    crl = "pki/ca.crl"               optional: the list of revoked certificates

For other schemes `workers` is a string or a list, at the head of the file. [watch] is in
tempo/watch/settings.py, [vault] in tempo/run/vault.py, [prices] for `tempo plan` and for what a run cost.
Paths are relative to the file.
Whatever else stands there is an error: a setting that is not read is a setting somebody counts on.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, final, get_args, get_type_hints

from tempo.config import Config
from tempo.errors import OutsideError, UsageError
from tempo.fleet import FleetSettings, TlsFiles, WorkerSpec
from tempo.run.vault import VaultSettings
from tempo.watch.settings import WatchSettings

#: The last one is read by others.
_TABLES = ("session", "workers", "tls", "watch", "vault", "prices")


@final
@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a file says. workers, vault: None where it names none."""

    config: Config
    workers: WorkerSpec | Mapping[str, WorkerSpec] | None
    tls: TlsFiles | None
    watch: WatchSettings
    vault: VaultSettings | None


def read_config(path: str | Path) -> ConfigFile:
    """Raises OutsideError for a file that cannot be read, UsageError for what is wrong in it."""
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not text in UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise OutsideError(f"settings {path} cannot be read ({why})") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    _require_known(path, "", table, _TABLES)
    try:
        tls = _tls(path, table, "tls")
        return ConfigFile(
            _config(path, table),
            _workers(path, table.get("workers")),
            tls,
            _watch(path, table),
            _vault(path, table, tls),
        )
    except (UsageError, TypeError) as error:
        # A value of another type than a setting has meets a comparison first.
        text = str(error) if isinstance(error, UsageError) else f"a value has the wrong type ({error})"
        raise UsageError(text if str(path) in text else f"{path}: {text}") from error


def _config(path: Path, table: Mapping[str, Any]) -> Config:
    session = dict(_table(path, table, "session"))
    fleet = _table(path, session, "fleet")
    session.pop("fleet", None)
    _require_known(path, "session.", session, [f.name for f in fields(Config)])
    _require_known(path, "session.fleet.", fleet, [f.name for f in fields(FleetSettings)])
    for name, value in session.items():
        meant = _type_of(name)
        # An integer will do for a float, but neither for a truth value nor the other way round.
        if type(value) is not meant and not (meant is float and type(value) is int):
            raise UsageError(f"session.{name} = {value!r}: expected a {meant.__name__}")
    return Config(**session, fleet=FleetSettings(**fleet)) if fleet else Config(**session)


def _type_of(name: str) -> type:
    """Of a setting; of one that may be left open, its type where it is not."""
    meant = get_type_hints(Config)[name]
    found: type = next((each for each in get_args(meant) if each is not type(None)), meant)
    return found


def _workers(path: Path, value: Any) -> WorkerSpec | Mapping[str, WorkerSpec] | None:
    if value is None or _is_spec(value):
        return value  # type: ignore[no-any-return]
    if isinstance(value, Mapping) and all(_is_spec(own) for own in value.values()):
        return value
    raise UsageError(
        f"{path}: workers are a string, a list of strings, or one of these for each owner in [workers]"
    )


def _is_spec(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str) for v in value))


def _tls(path: Path, table: Mapping[str, Any], where: str) -> TlsFiles | None:
    """where: the table's name, for messages; its last part is that in `table`."""
    files = _table(path, table, where.rpartition(".")[2])
    if not files:
        return None
    names = [f.name for f in fields(TlsFiles)]
    _require_known(path, f"{where}.", files, names)
    for name in names:
        if not isinstance(files.get(name, "" if name == "crl" else None), str):
            raise UsageError(
                f"{path}: [{where}] names three files: cert, key, ca (and crl); {name} is missing or no text"
            )
    return TlsFiles(**{name: str(path.parent / file) for name, file in files.items()})


def _watch(path: Path, table: Mapping[str, Any]) -> WatchSettings:
    watch = dict(_table(path, table, "watch"))
    _require_known(path, "watch.", watch, [f.name for f in fields(WatchSettings)])
    for name in ("tensorboard", "trace"):
        if isinstance(watch.get(name), str):
            watch[name] = path.parent / watch[name]
    return WatchSettings(**watch)


def _vault(path: Path, table: Mapping[str, Any], tls: TlsFiles | None) -> VaultSettings | None:
    vault = dict(_table(path, table, "vault"))
    if not vault:
        return None
    _require_known(path, "vault.", vault, [f.name for f in fields(VaultSettings)])
    own = _tls(path, vault, "vault.tls") or tls
    if own is None:
        raise UsageError(f"{path}: a vault is asked with a master's certificate: add [vault.tls], or [tls]")
    vault.pop("tls", None)
    return VaultSettings(**{"address": None, **vault}, tls=own)


def _table(path: Path, table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = table.get(name, {})
    if not isinstance(value, Mapping):
        raise UsageError(f"{path}: {name} is a table, [{name}]")
    return value


def _require_known(path: Path, prefix: str, table: Mapping[str, Any], known: Any) -> None:
    for name in table:
        if name not in known:
            raise UsageError(f"{path}: unknown key {prefix}{name}. There are: {', '.join(sorted(known))}")
