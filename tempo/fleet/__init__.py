"""The master's side of the boundary: sends jobs to workers and survives what they do. Knows no key."""

from tempo.fleet.device import DeviceWorker
from tempo.fleet.fleet import Fleet
from tempo.fleet.process import ProcessWorker
from tempo.fleet.remote import RemoteWorker
from tempo.fleet.settings import Event, EventKind, FleetSettings, Standing, Stats
from tempo.fleet.spec import WorkerSpec, workers_from
from tempo.fleet.task import Done, Failed, Task
from tempo.fleet.worker import JobRefused, OperandsEvicted, Worker
from tempo.wire import TlsFiles

__all__ = [
    "DeviceWorker",
    "Done",
    "Event",
    "EventKind",
    "Failed",
    "Fleet",
    "FleetSettings",
    "JobRefused",
    "OperandsEvicted",
    "ProcessWorker",
    "RemoteWorker",
    "Standing",
    "Stats",
    "Task",
    "TlsFiles",
    "Worker",
    "WorkerSpec",
    "workers_from",
]
