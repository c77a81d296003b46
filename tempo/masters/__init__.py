"""Several masters train one model: data parallel between TEEs, each with workers of its own.

    dist.init_process_group("gloo")                       plainly, between machines that trust their network
    tempo.masters.join(tls, peer, listen, attestation)    here: a ring of connections under mutual TLS 1.3,
                                                          each end attested before anything is sent

After it `torch.distributed` and DistributedDataParallel work as they are, under `torchrun` too. What crosses
is gradients and parameters in the clear within TLS, so the other end must be a master that was measured.
"""

from tempo.masters.attestation import Attestation, Attested, UnsafeUnattested
from tempo.masters.backend import Traffic
from tempo.masters.join import join, traffic

__all__ = ["Attestation", "Attested", "Traffic", "UnsafeUnattested", "join", "traffic"]
