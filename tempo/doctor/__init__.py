"""What this machine and its workers are fit for: one small function per finding."""

from tempo.doctor.certificates import own
from tempo.doctor.examine import examine_host
from tempo.doctor.finding import Finding, Status
from tempo.doctor.host import Host
from tempo.doctor.settings import Described, described
from tempo.doctor.workers import WorkerFinding, examine_workers

__all__ = [
    "Described",
    "Finding",
    "Host",
    "Status",
    "WorkerFinding",
    "described",
    "examine_host",
    "examine_workers",
    "own",
]
