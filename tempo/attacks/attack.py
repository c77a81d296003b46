"""An attack: a transcript and declared side knowledge in, a guess out. It never sees the truth.

    guess  = attack.run(transcript, knowledge)      tempo/attacks            the adversary
    trials = scorer.score(guess, truth)             tempo/attacks/score      the judge

The two halves live in different files, and only the judge's may import `tempo.attacks.truth` (a test enforces
it).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

from tempo.attacks.knowledge import Nothing
from tempo.attacks.transcript import Transcript

K = TypeVar("K", bound=Nothing, contravariant=True)
G = TypeVar("G", covariant=True)


class NothingToAttack(Exception):
    """The transcript holds no operand that this attack is about; the text says which it looked for."""


class Attack(ABC, Generic[K, G]):
    """Abstract: one final subclass for each attack."""

    #: For tables and `--only`: short, lower case, hyphens.
    name: ClassVar[str]
    #: Its number in the list of docs/secrecy.md.
    number: ClassVar[int]
    title: ClassVar[str]
    #: Who attacks, and with which means.
    adversary: ClassVar[str]
    #: In words; the type `knowledge` says it to the machine.
    side_knowledge: ClassVar[str]
    knowledge: ClassVar[type[Nothing]]
    #: What the score measures, from 0 to 1 unless it says otherwise.
    metric: ClassVar[str]
    #: Operations, samples or seconds that the attacker spent.
    compute: ClassVar[str]

    @abstractmethod
    def run(self, transcript: Transcript, knowledge: K) -> G:
        """The guess. Raises NothingToAttack. Deterministic: generators are seeded with constants, since an
        attack that must be lucky is run more often instead."""
