"""Settings of a session: frozen, checked when made, unit and meaning beside each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch

from tempo.errors import UsageError
from tempo.fleet import FleetSettings
from tempo.integrity.guarantee import LEAST_MISS, STATED_MISS, probes_for
from tempo.nn.placement import PLACES
from tempo.ops import Arithmetic
from tempo.secrecy.form import Precision
from tempo.secrecy.hardening import Hardening
from tempo.secrecy.scheme import SCHEMES, SHARES, Scheme, scheme_from

#: Condition of a basis that a session accepts, by the least arithmetic: float32 results keep four digits
#: in the worst case of an axis, coarser ones one and a half.
_WORST_GROWTH = {"fp32": 1024.0, "tf32": 64.0, "bf16": 8.0}

#: Uses of one key of W that mixing bears. Known operands of R rows give R (K - R) linear equations each for
#: the K^2 entries of B (K features): four determine it where features are in general position, two were
#: enough to tell real activations, which fill fewer dimensions (attack 24, docs/secrecy.md).
MOST_USES = 1
#: Of a check where neither `probes` nor `integrity` says.
_PROBES = 2

_WIRE = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Raises UsageError where a value is not one of those allowed."""

    #: How operands are hidden: "mixing", "shares" (proven, over workers of three owners), or the paper's
    #: "monomial" (broken: for comparison).
    scheme: str = "mixing"
    #: With "shares": workers may all have one owner, who then sees everything. For trials and tests.
    unsafe_one_owner: bool = False
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
    #: Rounds of mixing on axes of features.
    rounds: int = 2
    #: Rounds of mixing on axes of rows; each after the first costs the master one more pass.
    row_rounds: int = 2
    #: Magnitudes of secret coefficients are log-uniform in [1/spread, spread].
    spread: float = 2.0**0.5
    #: Strongest directions of each W that stay in the TEE as a low-rank product (tempo/secrecy/deflate.py), 0
    #: to 64, and never more than a quarter of the shorter side of W. Against public weights. This one and the
    #: next five are knobs of mixing; docs/secrecy.md says what each buys and costs.
    deflate: int = 0
    #: Secret random directions added to each X and taken off its products, 0 to 64 (tempo/secrecy/cover.py).
    #: Against public weights, and against up to as many exact linear constraints of X.
    decoys: int = 0
    #: Norm of what decoys and filled columns add to a row, in units of the rows' own, less the centre.
    decoy_size: float = 1.0
    #: Features that are alike in all rows (dead units) and get secret random entries, at most so many.
    fill: int = 0
    #: Each basis is as a whole larger by a secret factor, log-uniform in [1/gain, gain]: hides the absolute
    #: size of operands. 1: none.
    gain: float = 16.0
    #: Share of rows of X or dY that may repeat within a group; with more the operation stays in the TEE.
    #: 1: nobody looks.
    repeats: float = 0.5
    #: Rows within which row permutations stay.
    chunk: int = 8192
    #: Pieces of X (micro-batches, requests, chunks of one operation) sealed against one encoded W before W
    #: gets a fresh key. A changed W always does, and no operation is split over two.
    weight_uses: int = 1
    #: Allow mixing more uses than `MOST_USES`, from where known operands open the others (docs/secrecy.md).
    unsafe_many_uses: bool = False
    #: Dtype in which float32 operands and results cross the boundary: "fp32", or "bf16" for half the bytes
    #: and tensor cores, with 8 bits of precision (docs/numerics.md, section 5).
    wire: str = "fp32"
    #: What a worker may round float32 operands to before it multiplies them: "fp32" (nothing), "tf32",
    #: "bf16". Sums are float32. What is sent as bfloat16 is multiplied as sent.
    arithmetic: str = "fp32"
    #: Independent probes of each check; 2 if nothing is said. A lie is missed with the power of that.
    probes: int | None = None
    #: t: a reply with a row that is further off than ten times the tolerance is missed with probability t at
    #: most, and so is whatever `report()` states. Chooses the number of probes: instead of `probes`.
    integrity: float | None = None
    #: Deadlines and quarantine.
    fleet: FleetSettings = field(default_factory=FleetSettings)

    def __post_init__(self) -> None:
        def require(holds: bool, name: str, expected: str) -> None:
            if not holds:
                raise UsageError(f"setting {name} = {getattr(self, name)!r}: expected {expected}")

        if self.scheme == "none":
            raise UsageError("scheme 'none' sends everything in the clear. If that is meant: 'unsafe_none'")
        schemes = (*SCHEMES, SHARES)
        require(self.scheme in schemes, "scheme", f"one of {', '.join(schemes)}")
        if self.scheme == SHARES:
            self._check_shares(require)
        else:
            require(not self.unsafe_one_owner, "unsafe_one_owner", f"False: it is for scheme {SHARES!r}")
        require(self.placement in PLACES, "placement", f"one of {', '.join(PLACES)}")
        require(self.block >= 2 and self.block & (self.block - 1) == 0, "block", "a power of two")
        require(1 <= self.rounds <= 8, "rounds", "1 to 8")
        require(1 <= self.row_rounds <= 8, "row_rounds", "1 to 8")
        require(1.0 < self.spread <= 16.0, "spread", "more than 1 (signs alone hide nothing), at most 16")
        self._check_precision(require)
        require(0 <= self.deflate <= 64, "deflate", "0 to 64 directions")
        require(0 <= self.decoys <= 64, "decoys", "0 to 64 directions")
        require(0.1 <= self.decoy_size <= 8.0, "decoy_size", "0.1 to 8 times the norm of a row")
        require(0 <= self.fill <= 1024, "fill", "0 to 1024 features")
        require(1.0 <= self.gain <= 1024.0, "gain", "1 to 1024")
        require(0.0 <= self.repeats <= 1.0, "repeats", "a share, 0 to 1")
        require(self.chunk >= 2 * self.block, "chunk", "at least two blocks")
        require(self.weight_uses >= 1, "weight_uses", "at least 1")
        if self.scheme == "mixing" and self.weight_uses > MOST_USES and not self.unsafe_many_uses:
            raise UsageError(
                f"setting weight_uses = {self.weight_uses}: whoever knows some operands sealed against one W "
                f"learns of the others. At most {MOST_USES}, or say unsafe_many_uses=True if that is meant"
            )
        self._check_integrity(require)
        require(self.min_size >= 0, "min_size", "0 or more")
        if self.scheme != SHARES and self.min_size < self.block and not self.unsafe_small:
            raise UsageError(
                f"setting min_size = {self.min_size} is below block = {self.block}: an axis shorter than a "
                f"block is hardly mixed. Raise min_size, or say unsafe_small=True if that is meant"
            )

    def _check_shares(self, require: Callable[[bool, str, str], None]) -> None:
        """Shares are integers: nothing of them may be rounded, and nobody has measured them for a plan."""
        require(self.wire == "fp32", "wire", f"'fp32': scheme {SHARES!r} sends residues")
        require(self.arithmetic == "fp32", "arithmetic", f"'fp32': scheme {SHARES!r} is exact")
        require(self.placement != "auto", "placement", f"'always' or 'never': no plan covers {SHARES!r} yet")

    def _check_integrity(self, require: Callable[[bool, str, str], None]) -> None:
        require(self.probes is None or 1 <= self.probes <= 16, "probes", "1 to 16")
        if self.integrity is not None:
            between = f"a probability from {LEAST_MISS:g} to 0.5"
            require(LEAST_MISS <= self.integrity <= 0.5, "integrity", between)
            if self.probes is not None:
                raise UsageError(
                    f"integrity = {self.integrity:g} chooses the number of probes, and probes = "
                    f"{self.probes} gives it: leave one of them out"
                )

    def _check_precision(self, require: Callable[[bool, str, str], None]) -> None:
        require(self.wire in _WIRE, "wire", f"one of {', '.join(_WIRE)}")
        allowed = ", ".join(each.value for each in Arithmetic)
        require(self.arithmetic in {each.value for each in Arithmetic}, "arithmetic", f"one of {allowed}")
        if self.wire == "bf16" and self.arithmetic == "tf32":
            raise UsageError(
                "wire = 'bf16' sends operands that arithmetic = 'tf32' has nothing to round of: leave "
                "arithmetic out, or send float32 (wire = 'fp32')"
            )
        least = self.arithmetic if self.wire == "fp32" else self.wire
        rounds = max(self.rounds, self.row_rounds) if self.scheme == "mixing" else 0
        growth, most = self.spread ** (2 * (rounds + 1)), _WORST_GROWTH[least]
        if self.scheme != "unsafe_none" and growth > most * (1 + 1e-9):
            raise UsageError(
                f"spread = {self.spread:g} over {rounds} rounds grows errors {growth:.3g} times an "
                f"axis; at most {most:g} with {least}: lower one of them"
            )

    @property
    def repetitions(self) -> int:
        """Probes of each check: as given, as `integrity` needs, or two."""
        if self.integrity is not None:
            return probes_for(self.integrity)
        return _PROBES if self.probes is None else self.probes

    @property
    def miss(self) -> float:
        """The probability that `report()` states a perturbation for."""
        return STATED_MISS if self.integrity is None else self.integrity

    @property
    def precision(self) -> Precision:
        """`wire` and `arithmetic` as the engine takes them."""
        return Precision(_WIRE[self.wire], Arithmetic(self.arithmetic))

    def with_options(self, **options: Any) -> Config:
        """A copy with some settings replaced. Raises UsageError for a name there is none of."""
        known = {f.name for f in fields(self)}
        for name in options:
            if name not in known:
                raise UsageError(f"unknown setting {name!r}. There are: {', '.join(sorted(known))}")
        return replace(self, **options)

    def chosen(self) -> dict[str, Any]:
        """The scheme, and every setting that is not the default."""
        usual = Config()
        return {"scheme": self.scheme} | {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if getattr(self, f.name) != getattr(usual, f.name)
        }

    @property
    def hardening(self) -> Hardening:
        """The knobs of mixing as the engine takes them."""
        names = [knob.name for knob in fields(Hardening)]
        return Hardening(**{name: getattr(self, name) for name in names})

    def make_scheme(self) -> Scheme:
        """How the bases of a session with these settings are drawn. Raises UsageError for scheme "shares",
        which has none."""
        return scheme_from(
            self.scheme,
            spread=self.spread,
            chunk=self.chunk,
            smallest=self.min_size,
            rounds=self.rounds,
            row_rounds=self.row_rounds,
            block=self.block,
            hardening=self.hardening,
        )
