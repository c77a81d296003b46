"""Serving a model: requests that arrive together run as one batch."""

from tempo.serving.batcher import Batcher

__all__ = ["Batcher"]
