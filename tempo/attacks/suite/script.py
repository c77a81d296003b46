"""A user's own model for the suite: a function of a script or module, and what it returns.

    def subject():
        return model, batches            # batch: (inputs, labels), or a dict that the model takes and finds
        return model, batches, loss      # its own loss in; or loss(model, batch) -> scalar
        return Subject(...)              # everything, public weights too

The first batches are run, in training steps; what is left is what the public knows: data of the same
distribution, and batches that were not run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tempo.attacks.reference.subject import Batch, Loss, Phase, Public, Subject
from tempo.errors import UsageError
from tempo.plan.models import named

STEPS: Final = 3
#: Batches that are asked of a loader which may have no end.
_MOST: Final = 64
_FORMS: Final = "expected (model, batches), (model, batches, loss) or a tempo.attacks.reference.Subject"


def subject_of(name: str, steps: int = STEPS) -> Subject:
    """name: script.py:function or module:function; a script alone means its function `subject`.

    Raises UsageError where it is not as described above, OutsideError for a script that cannot be read.
    """
    whole = f"{name}:subject" if name.endswith(".py") else name
    if ":" not in whole:
        raise UsageError(f"--script {name}: expected script.py, script.py:function or module:function")
    made = named(whole, _FORMS)()
    if isinstance(made, Subject):
        return made
    if not isinstance(made, tuple) or len(made) not in (2, 3) or not isinstance(made[0], nn.Module):
        raise UsageError(f"{whole} returned {type(made).__name__}; {_FORMS}")
    model, batches, loss = made if len(made) == 3 else (*made, default_loss)
    if not isinstance(batches, Iterable) or not callable(loss):
        raise UsageError(f"{whole} returned no batches, or a loss that is no function; {_FORMS}")
    return _subject(whole, model, list(islice(batches, _MOST)), loss, steps)


def _subject(name: str, model: nn.Module, batches: list[Batch], loss: Loss, steps: int) -> Subject:
    if len(batches) < steps:
        raise UsageError(f"{name} returned {len(batches)} batches; at least {steps} are run")
    run, rest = batches[:steps], batches[steps:]
    # What is not a pair of tensors is no data to train on, and still candidates.
    pairs = [b for b in rest if isinstance(b, tuple | list) and all(isinstance(t, Tensor) for t in b[:2])]
    whole = bool(rest) and len(pairs) == len(rest) and all(len(b) == 2 for b in pairs)
    same = whole and len({(tuple(x.shape[1:]), tuple(y.shape[1:])) for x, y in pairs}) == 1
    return Subject(
        name="script",
        title=f"{name}, {steps} training steps",
        model=model,
        loss=loss,
        phases=(Phase(tuple(run)),),
        public=Public(
            inputs=torch.cat([x for x, _ in pairs]) if same else None,
            labels=torch.cat([y for _, y in pairs]) if same else None,
            decoys=tuple(rest),
        ),
    )


def default_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross entropy for (inputs, integer labels), mean square for (inputs, other targets), and the model's
    own loss for a dict. Raises UsageError for anything else."""
    if isinstance(batch, Mapping):
        loss = getattr(model(**batch), "loss", None)
        if isinstance(loss, Tensor):
            return loss
        raise UsageError("the model finds no loss in a batch that is a dict: return (model, batches, loss)")
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise UsageError("a batch is no pair (inputs, labels): return (model, batches, loss)")
    inputs, targets = batch
    out: Any = model(inputs)
    if targets.is_floating_point():
        return F.mse_loss(out, targets)
    # The classes of language models come last.
    return (
        F.cross_entropy(out.flatten(0, -2), targets.flatten())
        if out.ndim > 2
        else F.cross_entropy(out, targets)
    )
