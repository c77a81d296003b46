"""Tempo: confidential deep learning on GPUs nobody has to trust. The public names, nothing else.

They are loaded when asked for, so that a worker, which imports this package too, loads no module
that knows keys.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tempo.config import Config
    from tempo.errors import TempoError
    from tempo.facade import Session
    from tempo.fleet import FleetSettings, TlsFiles
    from tempo.report import Report
    from tempo.run.current import data_key, session

__version__ = "0.1.0"

_HOMES = {
    "Config": "tempo.config",
    "FleetSettings": "tempo.fleet",
    "Report": "tempo.report",
    "Session": "tempo.facade",
    "TempoError": "tempo.errors",
    "TlsFiles": "tempo.fleet",
    "data_key": "tempo.run.current",
    "session": "tempo.run.current",
}

__all__ = [
    "Config",
    "FleetSettings",
    "Report",
    "Session",
    "TempoError",
    "TlsFiles",
    "__version__",
    "data_key",
    "session",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tempo' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
