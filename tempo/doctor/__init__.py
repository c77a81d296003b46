"""What this machine and its workers are fit for: one small function per finding."""

from tempo.doctor.examine import examine_host
from tempo.doctor.finding import Finding, Status
from tempo.doctor.host import Host
from tempo.doctor.workers import WorkerFinding, examine_workers

__all__ = ["Finding", "Host", "Status", "WorkerFinding", "examine_host", "examine_workers"]
