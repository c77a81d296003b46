"""What a judge is: a guess and the truth in, trials out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from tempo.attacks.attack import Attack
from tempo.attacks.truth import Truth
from tempo.attacks.verdict import Trials

G = TypeVar("G", contravariant=True)


class Scorer(ABC, Generic[G]):
    """Abstract: one final subclass for each attack."""

    #: The attack whose guesses it judges.
    attack: ClassVar[type[Attack[Any, Any]]]

    @abstractmethod
    def score(self, guess: G, truth: Truth) -> dict[str, Trials]:
        """Trials for each kind of operand: its name for the table, such as "W of linear layers"."""

    def pictures(self, guess: G, truth: Truth) -> list[tuple[str, Tensor, Tensor]]:
        """What was recovered beside what was true: a title, and two images (H, W). None by default."""
        return []
