"""The attacks that `tempo attack` runs, in the order of docs/secrecy.md."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, final

from tempo.attacks.adaptive_covariances import AdaptiveCovariances
from tempo.attacks.adaptive_known import AdaptiveKnown
from tempo.attacks.attack import Attack
from tempo.attacks.blind_separation import BlindSeparation
from tempo.attacks.directions import DirectionMatching
from tempo.attacks.exact_constraints import ExactConstraints
from tempo.attacks.gradient_inversion import GradientInversion
from tempo.attacks.invariants import MonomialInvariants
from tempo.attacks.known_plaintext import KnownPlaintextAttack
from tempo.attacks.labels import LabelRecovery
from tempo.attacks.layer_linking import LayerLinking
from tempo.attacks.learned_distinguishing import LearnedDistinguishing
from tempo.attacks.learned_inversion import LearnedInversion
from tempo.attacks.moments import SecondMoments
from tempo.attacks.products import KeyShiftProducts
from tempo.attacks.reuse import KeyReuse
from tempo.attacks.row_blocks import DependentRows
from tempo.attacks.score.adaptive_covariances import AdaptiveCovariancesScorer
from tempo.attacks.score.adaptive_known import AdaptiveKnownScorer
from tempo.attacks.score.blind_separation import BlindSeparationScorer
from tempo.attacks.score.directions import DirectionsScorer
from tempo.attacks.score.exact_constraints import ExactConstraintsScorer
from tempo.attacks.score.gradient_inversion import GradientInversionScorer
from tempo.attacks.score.invariants import InvariantsScorer
from tempo.attacks.score.known_plaintext import KnownPlaintextScorer
from tempo.attacks.score.labels import LabelsScorer
from tempo.attacks.score.layer_linking import LayerLinkingScorer
from tempo.attacks.score.learned_distinguishing import LearnedDistinguishingScorer
from tempo.attacks.score.learned_inversion import LearnedInversionScorer
from tempo.attacks.score.moments import MomentsScorer
from tempo.attacks.score.products import ProductsScorer
from tempo.attacks.score.reuse import ReuseScorer
from tempo.attacks.score.row_blocks import DependentRowsScorer
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.score.similarity import SimilarityScorer
from tempo.attacks.score.sinkhorn import SinkhornScorer
from tempo.attacks.score.spatial import SpatialScorer
from tempo.attacks.score.tokens import TokensScorer
from tempo.attacks.score.traffic import TrafficScorer
from tempo.attacks.score.zero_pattern import ZeroPatternScorer
from tempo.attacks.similarity import SimilarityInvariants
from tempo.attacks.sinkhorn import Sinkhorn
from tempo.attacks.spatial import Spatial
from tempo.attacks.tokens import Tokens
from tempo.attacks.traffic import Traffic
from tempo.attacks.zero_pattern import ZeroPattern


class Visible(StrEnum):
    """Where docs/secrecy.md lists what an attack finds as visible by construction."""

    NEVER = "never"
    #: Under mixing with key shift.
    KEY_SHIFT = "key-shift"
    #: Under mixing and shares.
    ALWAYS = "always"

    def under(self, scheme: str, *, key_shift: bool) -> bool:
        match self:
            case Visible.NEVER:
                return False
            case Visible.KEY_SHIFT:
                return scheme == "mixing" and key_shift
            case Visible.ALWAYS:
                return scheme in ("mixing", "shares")


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """references: those it is run on, by name; the first is the one that the fast suite takes. also: settings
    that this attack is run under too, besides every scheme by itself, where nobody asks for others."""

    attack: Attack[Any, Any]
    scorer: Scorer[Any]
    references: tuple[str, ...]
    visible: Visible = Visible.NEVER
    also: tuple[str, ...] = ()


#: The cheapest knob against what leaks by the strongest directions of X.
_DECOYS: Final = ("mixing:decoys=8",)

ATTACKS: Final[tuple[Entry, ...]] = (
    Entry(Sinkhorn(), SinkhornScorer(), ("finetune", "text")),
    Entry(KeyShiftProducts(), ProductsScorer(), ("steps", "mlp", "images", "finetune")),
    Entry(LabelRecovery(), LabelsScorer(), ("head",)),
    Entry(ZeroPattern(), ZeroPatternScorer(), ("steps",)),
    Entry(LayerLinking(), LayerLinkingScorer(), ("mlp",)),
    Entry(MonomialInvariants(), InvariantsScorer(), ("finetune", "text")),
    Entry(DirectionMatching(), DirectionsScorer(), ("finetune", "text")),
    Entry(BlindSeparation(), BlindSeparationScorer(), ("images", "mlp", "text")),
    Entry(KnownPlaintextAttack(), KnownPlaintextScorer(), ("kinds", "mlp", "text"), also=_DECOYS),
    Entry(KeyReuse(), ReuseScorer(), ("kinds", "mlp", "text")),
    Entry(SecondMoments(), MomentsScorer(), ("finetune", "text"), also=("mixing:deflate=8", *_DECOYS)),
    Entry(SimilarityInvariants(), SimilarityScorer(), ("steps", "finetune"), Visible.KEY_SHIFT),
    Entry(Spatial(), SpatialScorer(), ("images",)),
    Entry(LearnedInversion(), LearnedInversionScorer(), ("mlp", "images")),
    Entry(LearnedDistinguishing(), LearnedDistinguishingScorer(), ("kinds", "mlp"), also=_DECOYS),
    Entry(Tokens(), TokensScorer(), ("text", "finetune")),
    Entry(GradientInversion(), GradientInversionScorer(), ("mlp",)),
    Entry(DependentRows(), DependentRowsScorer(), ("finetune", "text")),
    Entry(ExactConstraints(), ExactConstraintsScorer(), ("finetune", "images", "mlp"), Visible.ALWAYS),
    Entry(Traffic(), TrafficScorer(), ("text", "finetune"), Visible.ALWAYS),
    Entry(AdaptiveCovariances(), AdaptiveCovariancesScorer(), ("kinds", "text")),
    Entry(AdaptiveKnown(), AdaptiveKnownScorer(), ("kinds", "text")),
)
