"""The untrusted side: computes on what it is sent, and knows no key. Imports wire, ops and errors only."""

from tempo.worker.executor import Executor, TooLarge, Unsupported
from tempo.worker.malicious import Lie, LieKind, MaliciousWorker
from tempo.worker.server import Answer, send_result, serve
from tempo.worker.store import OperandStore

__all__ = [
    "Answer",
    "Executor",
    "Lie",
    "LieKind",
    "MaliciousWorker",
    "OperandStore",
    "TooLarge",
    "Unsupported",
    "send_result",
    "serve",
]
