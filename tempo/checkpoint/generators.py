"""The states of the generators that a training script draws from: PyTorch's, NumPy's, Python's.

With them a run that is resumed sees the same batches and the same dropout. Keys are drawn from none of these.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def states() -> dict[str, Any]:
    version, words, gauss = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "python": [version, list(words), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
    }


def restore(found: dict[str, Any]) -> None:
    torch.set_rng_state(found["torch"])
    version, words, gauss = found["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = found["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
