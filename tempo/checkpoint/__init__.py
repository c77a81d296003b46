"""Checkpoints of a run: all that it needs to go on, in one sealed file."""

from tempo.checkpoint.checkpoint import Resumed, read, write
from tempo.checkpoint.checkpoints import Checkpoints

__all__ = ["Checkpoints", "Resumed", "read", "write"]
