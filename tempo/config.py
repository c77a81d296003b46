"""Settings of a session: frozen, checked when made, unit and meaning beside each."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

from tempo.errors import UsageError
from tempo.fleet import FleetSettings
from tempo.nn.placement import PLACES
from tempo.secrecy.scheme import SCHEMES, Scheme, scheme_from

#: Condition of a basis that a session accepts: float32 results keep four digits in the mean.
_WORST_GROWTH = 1024.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Raises UsageError where a value is not one of those allowed."""

    #: How operands are hidden: "mixing", or the paper's "monomial" (broken: for comparison).
    scheme: str = "mixing"
    #: Reuse forward ciphertexts in backward: three encodings a step and layer instead of six. Without
    #: it a worker cannot recognise a batch or a model it already knows (docs/secrecy.md).
    key_shift: bool = True
    #: Products with fewer rows, in-features or out-features than this stay in the TEE.
    min_size: int = 64
    #: Allow a min_size below the mixing block, where mixing hides less (docs/secrecy.md).
    unsafe_small: bool = False
    #: Send products of two activations (attention) too. They rarely pay.
    offload_attention: bool = False
    #: Where linear operations run that may leave the TEE: "always" (at the workers), "never", or "auto": the
    #: session measures the machine once and decides for each shape what is quicker (docs/plan.md). Not the
    #: default: timings differ from run to run, results shall not.
    placement: str = "always"
    #: With no worker left, the master computes. False: NoWorkersLeft is raised.
    local_fallback: bool = True
    #: Entries mixed with each other per round; a power of two.
    block: int = 64
    #: Rounds of mixing on each axis.
    rounds: int = 2
    #: Magnitudes of secret coefficients are log-uniform in [1/spread, spread].
    spread: float = 2.0**0.5
    #: Rows within which row permutations stay.
    chunk: int = 8192
    #: Operands sealed against one encoded W before W gets a fresh key. A changed W always does.
    weight_uses: int = 256
    #: Independent probes of each check. A perturbation is missed with the power of that.
    probes: int = 2
    #: Deadlines and quarantine.
    fleet: FleetSettings = field(default_factory=FleetSettings)

    def __post_init__(self) -> None:
        def require(holds: bool, name: str, expected: str) -> None:
            if not holds:
                raise UsageError(f"setting {name} = {getattr(self, name)!r}: expected {expected}")

        if self.scheme == "none":
            raise UsageError("scheme 'none' sends everything in the clear. If that is meant: 'unsafe_none'")
        require(self.scheme in SCHEMES, "scheme", f"one of {', '.join(SCHEMES)}")
        require(self.placement in PLACES, "placement", f"one of {', '.join(PLACES)}")
        require(self.block >= 2 and self.block & (self.block - 1) == 0, "block", "a power of two")
        require(1 <= self.rounds <= 8, "rounds", "1 to 8")
        require(1.0 < self.spread <= 16.0, "spread", "more than 1 (signs alone hide nothing), at most 16")
        rounds = self.rounds if self.scheme == "mixing" else 0
        growth = self.spread ** (2 * (rounds + 1))
        if growth > _WORST_GROWTH:
            raise UsageError(
                f"spread = {self.spread:g} over rounds = {self.rounds} grows errors {growth:.3g} times an "
                f"axis; at most {_WORST_GROWTH:g}: lower one of them"
            )
        require(self.chunk >= 2 * self.block, "chunk", "at least two blocks")
        require(self.weight_uses >= 1, "weight_uses", "at least 1")
        require(1 <= self.probes <= 16, "probes", "1 to 16")
        require(self.min_size >= 0, "min_size", "0 or more")
        if self.min_size < self.block and not self.unsafe_small:
            raise UsageError(
                f"setting min_size = {self.min_size} is below block = {self.block}: an axis shorter than a "
                f"block is hardly mixed. Raise min_size, or say unsafe_small=True if that is meant"
            )

    def with_options(self, **options: Any) -> Config:
        """A copy with some settings replaced. Raises UsageError for a name there is none of."""
        known = {f.name for f in fields(self)}
        for name in options:
            if name not in known:
                raise UsageError(f"unknown setting {name!r}. There are: {', '.join(sorted(known))}")
        return replace(self, **options)

    def make_scheme(self) -> Scheme:
        """How the bases of a session with these settings are drawn."""
        return scheme_from(
            self.scheme,
            spread=self.spread,
            chunk=self.chunk,
            smallest=self.min_size,
            rounds=self.rounds,
            block=self.block,
        )
