"""A scheme in an arithmetic: one way of running Tempo that a suite measures.

    fp32   float32 operands and products
    tf32   float32 operands, which a worker may round to TF32
    bf16   operands and results cross as bfloat16, sums are float32

Where the installed Tempo has no setting for an arithmetic, the variant is listed as skipped.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, final

from tempo.bench.budget import Budget
from tempo.config import Config
from tempo.errors import UsageError
from tempo.secrecy.scheme import SCHEMES

_OPTIONS: dict[str, dict[str, str]] = {"fp32": {}, "tf32": {"arithmetic": "tf32"}, "bf16": {"wire": "bf16"}}
ARITHMETICS = tuple(_OPTIONS)


@final
@dataclass(frozen=True, slots=True)
class Variant:
    scheme: str
    arithmetic: str = "fp32"

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise UsageError(f"there is no scheme {self.scheme!r}; there are {', '.join(SCHEMES)}")
        if self.arithmetic not in _OPTIONS:
            raise UsageError(
                f"there is no arithmetic {self.arithmetic!r}; there are {', '.join(ARITHMETICS)}"
            )

    @property
    def options(self) -> dict[str, Any]:
        """Of a Session."""
        return {"scheme": self.scheme, **_OPTIONS[self.arithmetic]}

    @property
    def element_bytes(self) -> int:
        """Of an operand on the wire."""
        return 2 if self.arithmetic == "bf16" else 4

    def config(self) -> Config:
        return Config().with_options(**self.options)

    @property
    def available(self) -> bool:
        return set(self.options) <= {each.name for each in fields(Config)}

    def __str__(self) -> str:
        return self.scheme if self.arithmetic == "fp32" else f"{self.scheme} in {self.arithmetic}"


def variants(schemes: str, arithmetics: str = "fp32") -> tuple[Variant, ...]:
    """Every scheme in every arithmetic, both separated by commas."""
    return tuple(
        Variant(scheme.strip(), arithmetic.strip())
        for scheme in schemes.split(",")
        for arithmetic in arithmetics.split(",")
    )


def usable(wanted: tuple[Variant, ...], budget: Budget) -> list[Variant]:
    """Those that this Tempo can run; the others are listed as skipped."""
    for each in wanted:
        if not each.available:
            budget.skip(str(each), f"this Tempo has no setting for {each.arithmetic}")
    return [each for each in wanted if each.available]
