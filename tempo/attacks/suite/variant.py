"""A scheme with settings: what the suite attacks, such as mixing, or mixing with one round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from types import MappingProxyType
from typing import Any, Final, final

from tempo.config import Config
from tempo.errors import UsageError
from tempo.secrecy.scheme import SCHEMES, SHARES

UNDEFENDED: Final = "unsafe_none"
KNOWN: Final = (*SCHEMES, SHARES)
_ONE_KEY: Final = (UNDEFENDED, "monomial")
_MANY_USES: Final = 256
_WORDS: Final = MappingProxyType({"yes": True, "true": True, "no": False, "false": False})


@final
@dataclass(frozen=True, slots=True)
class Variant:
    """Raises UsageError for a scheme or setting that there is not."""

    scheme: str
    #: Other settings of a session than the scheme: name and value.
    settings: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.scheme not in KNOWN:
            raise UsageError(f"there is no scheme {self.scheme!r}; there are {', '.join(KNOWN)}")

    @classmethod
    def parse(cls, text: str) -> Variant:
        """SCHEME or SCHEME:SETTING=VALUE,SETTING=VALUE, settings as of `tempo.Config`."""
        scheme, _, rest = text.partition(":")
        return cls(scheme, tuple(_setting(each, text) for each in rest.split(",") if each))

    @property
    def options(self) -> dict[str, Any]:
        """Of a session. In the clear, and under the paper's mask, one W serves a whole epoch: nothing there
        is worth a fresh key, and attacks on what keys share must be seen to work."""
        many = {"weight_uses": _MANY_USES} if self.scheme in _ONE_KEY else {}
        return {"scheme": self.scheme, **many, **dict(self.settings)}

    @property
    def key_shift(self) -> bool:
        return self.scheme == "mixing" and bool(dict(self.settings).get("key_shift", True))

    def __str__(self) -> str:
        settings = ",".join(f"{name}={value}" for name, value in self.settings)
        return f"{self.scheme}:{settings}" if settings else self.scheme


def _setting(text: str, whole: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    kinds: dict[str, Callable[[str], Any]] = {
        f.name: type(f.default) for f in fields(Config) if f.default is not MISSING
    }
    if not equals or name not in kinds or name == "scheme":
        raise UsageError(f"{whole!r}: expected SCHEME:SETTING=VALUE,..., settings as of tempo.Config")
    kind = kinds[name]
    try:
        if kind is bool:
            return name, _WORDS[value.lower()]
        return name, kind(value)
    except (KeyError, ValueError, TypeError):
        raise UsageError(f"{whole!r}: {value!r} is no value for {name}") from None
