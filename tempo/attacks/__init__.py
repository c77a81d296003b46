"""The attack suite: what the cloud could learn, measured on what a worker really received.

An attack sees a `Transcript` and its declared side knowledge. The truth is opened by judges alone
(`tempo/attacks/score`).
"""

from tempo.attacks.attack import Attack, NothingToAttack
from tempo.attacks.transcript import Transcript
from tempo.attacks.verdict import Finding, Trials, Verdict

__all__ = ["Attack", "Finding", "NothingToAttack", "Transcript", "Trials", "Verdict"]
