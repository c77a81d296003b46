"""All findings about this machine, in the order in which they are shown."""

from __future__ import annotations

from tempo.doctor import hardware, software, trust
from tempo.doctor.finding import Finding
from tempo.doctor.host import Host
from tempo.kernels import native_status


def examine_host(host: Host) -> list[Finding]:
    return [
        software.python(),
        software.pytorch(),
        software.kernels(native_status()),
        software.compiler(host),
        hardware.processor(host),
        hardware.cores(host),
        hardware.memory(host),
        hardware.huge_pages(host),
        hardware.gpus(hardware.cuda_names()),
        trust.tee(host),
        trust.evidence(host),
        trust.clock(),
        trust.entropy(),
    ]
