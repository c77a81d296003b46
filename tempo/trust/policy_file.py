"""A policy as a file (TOML) that the security engineer reads. Its signature lies beside it: policy_key.py.

Whatever the reader does not know, it refuses: a word spelled wrong must not be a rule that is not there.
There is no word for "debug". An empty set of measurements, which would admit any code, is no policy either.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, NoReturn, final

from tempo.errors import UsageError
from tempo.trust.evidence.claims import Kind
from tempo.trust.policy import UP_TO_DATE, Demands, Policy

MAX_BYTES: Final = 1 << 20
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})+")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,40}")
_HEAD: Final = ("tempo-policy", "name", "expires", "allow-unsafe")
#: Kinds whose vendor gives a verdict on the TCB; the others are asked for versions, or for PCRs.
_WITH_STATUS: Final = (Kind.TDX, Kind.SGX_DCAP)


def parse_policy(raw: bytes) -> Policy:
    """Raises UsageError, saying where, for anything that is no policy or would admit any code."""
    if len(raw) > MAX_BYTES:
        raise UsageError(f"a policy has at most {MAX_BYTES} bytes")
    try:
        fields = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"the policy is no TOML: {error}") from error
    if fields.get("tempo-policy") != 1 or isinstance(fields["tempo-policy"], bool):
        raise UsageError("the policy begins with `tempo-policy = 1`")
    name, expires = fields.get("name"), fields.get("expires")
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise UsageError("the policy needs a `name` that can be printed")
    if expires is not None and (not isinstance(expires, datetime) or expires.tzinfo is None):
        raise UsageError("`expires` is a date with time and zone, such as 2027-01-31T00:00:00Z")
    unsafe = fields.get("allow-unsafe", False)
    if not isinstance(unsafe, bool):
        raise UsageError("`allow-unsafe` is true or false")
    kinds: dict[Kind, Demands] = {}
    for key, table in fields.items():
        if key in _HEAD:
            continue
        if key not in list(Kind) or not isinstance(table, dict):
            known = ", ".join([*_HEAD, *(f"[{kind}]" for kind in Kind)])
            raise UsageError(f"the policy does not know {key!r}. It knows {known}")
        kinds[Kind(key)] = _Table(Kind(key), table).demands()
    if not kinds:
        raise UsageError("the policy admits no kind of evidence: it needs a table such as [sev-snp]")
    if Kind.SIMULATED in kinds and not unsafe:
        raise UsageError(
            f"[{Kind.SIMULATED}] proves nothing: anybody can make it. Where that is wanted, for a test, the "
            "policy says `allow-unsafe = true`"
        )
    return Policy(name, kinds, expires)


@final
class _Table:
    """One table of the file. Raises UsageError, saying which word."""

    def __init__(self, kind: Kind, table: Mapping[str, Any]) -> None:
        self._kind = kind
        self._table = table
        self._readers: Mapping[str, Callable[[str, Any], Any]] = {
            "measurements": self._sets,
            "signers": self._signers,
            "require": self._values,
            "minimum-tcb": self._versions,
            "statuses": self._words,
            "advisories": self._words,
            "platforms": self._words,
            "details": self._details,
            "roots": self._hashes,
            "keys": self._hashes,
            "revocation": self._flag,
        }

    def demands(self) -> Demands:
        unknown = sorted(set(self._table) - set(self._readers))
        if unknown:
            known = ", ".join(self._readers)
            raise UsageError(f"[{self._kind}] does not know {unknown[0]!r}. It knows {known}")
        if "keys" in self._table and self._kind is not Kind.TPM:
            self._wrong("keys", f"only for [{Kind.TPM}]: other kinds rest on roots")
        if {"statuses", "advisories"} & set(self._table) and self._kind not in _WITH_STATUS:
            self._wrong("statuses", f"only for {', '.join(_WITH_STATUS)}: use minimum-tcb here")
        found = {word: self._readers[word](word, value) for word, value in self._table.items()}
        if not found.get("measurements") and not found.get("signers"):
            raise UsageError(
                f"[{self._kind}] would admit any code: it needs `measurements` or `signers` of what may run"
            )
        if self._kind is Kind.TPM and not found.get("keys") and not found.get("roots"):
            raise UsageError(f"[{Kind.TPM}] needs `keys` or `roots`: TPMs have no vendor known to all")
        found.setdefault("statuses", frozenset({UP_TO_DATE}))
        return Demands(**{word.replace("-", "_"): value for word, value in found.items()})

    def _wrong(self, word: str, expected: str) -> NoReturn:
        raise UsageError(f"[{self._kind}] {word}: expected {expected}")

    def _sets(self, word: str, value: Any) -> tuple[Mapping[str, str], ...]:
        if not isinstance(value, list) or not value or not all(value):
            self._wrong(word, 'a list of tables such as { mr_td = "...", rt_mr1 = "..." }, none empty')
        return tuple(self._values(word, each) for each in value)

    def _values(self, word: str, value: Any) -> Mapping[str, str]:
        if not isinstance(value, dict) or not all(_NAME.fullmatch(name) for name in value):
            self._wrong(word, "names, each with a value in hexadecimal")
        return {name: self._hex(f"{word}.{name}", each) for name, each in value.items()}

    def _hex(self, word: str, value: Any) -> str:
        if not isinstance(value, str) or not _HEX.fullmatch(value.lower()):
            self._wrong(word, "hexadecimal")
        return value.lower()

    def _signers(self, word: str, value: Any) -> Mapping[str, frozenset[str]]:
        if not isinstance(value, dict) or not value:
            self._wrong(word, "names, each with a list in hexadecimal")
        found = {}
        for name, each in value.items():
            if not isinstance(each, list) or not each:
                self._wrong(f"{word}.{name}", "a list in hexadecimal")
            found[name] = frozenset(self._hex(f"{word}.{name}", one) for one in each)
            if any(not one.strip("0") for one in found[name]):
                self._wrong(f"{word}.{name}", "keys: zeros stand for none")
        return found

    def _versions(self, word: str, value: Any) -> Mapping[str, int]:
        if not isinstance(value, dict) or not all(type(each) is int and each >= 0 for each in value.values()):
            self._wrong(word, "names, each with a number from 0")
        return value

    def _words(self, word: str, value: Any) -> frozenset[str]:
        if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
            self._wrong(word, "a list of texts")
        if not value and word != "advisories":
            self._wrong(word, "at least one")
        return frozenset(value)

    def _details(self, word: str, value: Any) -> Mapping[str, str | int | bool]:
        if not isinstance(value, dict) or not all(isinstance(each, str | int) for each in value.values()):
            self._wrong(word, "names, each with a text, a number, true or false")
        return value

    def _hashes(self, word: str, value: Any) -> frozenset[str]:
        found = self._words(word, value)
        if not all(_SHA256.fullmatch(each) for each in found):
            self._wrong(word, "SHA-256 in lower-case hexadecimal")
        return found

    def _flag(self, word: str, value: Any) -> bool:
        if not isinstance(value, bool):
            self._wrong(word, "true or false")
        return value
