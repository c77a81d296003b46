"""What `mixing` can do beyond its bases: the knobs, as the engine takes them.

    deflate, decoys, fill    tempo/secrecy/deflate.py, cover.py: low-rank parts that stay in the TEE
    gain                     tempo/secrecy/scheme.py: absolute sizes
    repeats                  tempo/secrecy/repeats.py: operations that stay in the TEE

docs/secrecy.md says what each buys and costs. Other schemes take none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Hardening:
    """Meanings and units: tempo.config.Config, which checks the values."""

    deflate: int = 0
    decoys: int = 0
    decoy_size: float = 1.0
    fill: int = 0
    gain: float = 1.0
    repeats: float = 1.0


#: None of them.
PLAIN: Final = Hardening()
