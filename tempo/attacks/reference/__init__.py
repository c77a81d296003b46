"""The reference runs: real data and real models, so that an attack's success here means something.

images     a small CNN from scratch on real images
mlp        a perceptron from scratch on the same, every layer but the last at the workers
head       the same, the last layer offloaded against better advice
steps      the same, late steps of one batch each
kinds      the same, asked with batches of one kind of image
finetune   a pre-trained encoder fine-tuned on real e-mails; its first weights are public
text       a small language model whose weights are public, asked and fine-tuned
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from tempo.attacks.reference.finetune import fine_tuned
from tempo.attacks.reference.images import cnn, head, kinds, mlp, steps
from tempo.attacks.reference.subject import Phase, Public, Subject
from tempo.attacks.reference.text import language_model
from tempo.fetch import Say

#: How each is made. Raises DataError where its data cannot be had.
REFERENCES: Final[Mapping[str, Callable[[Say], Subject]]] = MappingProxyType(
    {
        "images": cnn,
        "mlp": mlp,
        "head": head,
        "steps": steps,
        "kinds": kinds,
        "finetune": fine_tuned,
        "text": language_model,
    }
)

__all__ = ["REFERENCES", "Phase", "Public", "Subject"]
