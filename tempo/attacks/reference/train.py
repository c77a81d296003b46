"""Plain training in the TEE, once: trained weights are cached, by a digest of what made them."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from tempo.attacks.reference.subject import Batch, Loss, Optimizer, state_of
from tempo.fetch import Say, cache_folder

#: Raise it when a change of the code below, or of a reference, changes what is trained.
_VERSION: Final = 1


def trained(
    model: nn.Module,
    loss: Loss,
    draw: Callable[[torch.Generator], Batch],
    optimizer: Optimizer,
    steps: int,
    *,
    what: str,
    settings: Mapping[str, Any],
    say: Say,
    cache: Path | None = None,
) -> None:
    """Train in place, or load what an earlier run trained.

    draw: a batch. settings: all that decides the result besides the code, for the digest, such as the data's
    name and the model's sizes. The generator that draws batches is seeded here; the caller's is left alone.
    """
    about = {"what": what, "steps": steps, "version": _VERSION, "torch": torch.__version__, **settings}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    path = (cache or cache_folder()) / f"trained-{what}-{digest[:16]}.npz"
    state = _load(path, model)
    if state is not None:
        model.load_state_dict(state)
        return
    say(f"Training {what} in plain PyTorch: {steps} steps, once")
    generator = torch.Generator().manual_seed(0)
    made = optimizer(model.parameters())
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(steps):
            loss(model, draw(generator)).backward()
            made.step()
            made.zero_grad()
    _save(path, state_of(model), say)


def _load(path: Path, model: nn.Module) -> dict[str, Tensor] | None:
    """None where there is none, or it does not fit."""
    wanted = model.state_dict()
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (OSError, ValueError, EOFError):
        return None
    fits = found.keys() == wanted.keys() and all(found[n].shape == wanted[n].shape for n in wanted)
    return found if fits else None


def _save(path: Path, state: Mapping[str, Tensor], say: Say) -> None:
    """Where the cache cannot be written, the next run trains again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=".trained-")
        with os.fdopen(fd, "wb") as file:
            np.savez(file, **{key: t.numpy() for key, t in state.items()})  # type: ignore[arg-type]
        Path(name).replace(path)  # atomic
    except OSError as error:
        say(f"Trained weights were not kept ({error.strerror}): set XDG_CACHE_HOME to a folder with room")
