"""Is a reply the product of what was sent? A value or an error, never a boolean."""

from tempo.integrity.exact import ExactProof, ExactVerifier, ExactWitness
from tempo.integrity.freivalds import Checks, Verifier
from tempo.integrity.guarantee import Guarantee
from tempo.integrity.proof import Witness
from tempo.integrity.tolerance import Tolerance, product_tolerance

__all__ = [
    "Checks",
    "ExactProof",
    "ExactVerifier",
    "ExactWitness",
    "Guarantee",
    "Tolerance",
    "Verifier",
    "Witness",
    "product_tolerance",
]
