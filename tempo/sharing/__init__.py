"""The scheme `shares`: products of secret-shared operands over workers of two or three owners."""

from tempo.sharing.engine import SharesEngine
from tempo.sharing.owners import Owners

__all__ = ["Owners", "SharesEngine"]
