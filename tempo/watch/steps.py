"""Steps of a user's loop, told by PyTorch itself: each call of an optimizer's `step`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook


@final
class Steps:
    """Calls `done` after each step of any optimizer of this process, in its thread, until closed. Loops of
    Trainer, Lightning or accelerate step the same optimizers."""

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done
        self._handle = register_optimizer_step_post_hook(self._stepped)

    def _stepped(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._done()

    def close(self) -> None:
        self._handle.remove()
