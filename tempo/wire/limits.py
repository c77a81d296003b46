"""What a peer may claim. Each number is checked before memory is touched or a loop is entered."""

from __future__ import annotations

#: Version of the protocol. Peers with different versions refuse each other: skew is an error with a
#: name, never a misread field.
VERSION = 3

#: Bytes of a header. Blocks: a header that swallows memory before anything of it was understood.
MAX_HEADER = 1 << 20
#: Bytes of a payload. Blocks: the "10 GB reply"; an honest operand or result is split into chunks.
MAX_PAYLOAD = 4 << 30
#: Sizes of one operand. Blocks: products of sizes that overflow the strides of a tensor.
MAX_SIZE = (1 << 31) - 1
#: Axes of one operand: (T, features) or (G, N, K).
MAX_DIMS = 3
#: Groups of one job. Blocks: a tiny job with a loop over groups that never ends.
MAX_GROUPS = 1 << 16
#: Ids in one Release. Longer lists are split by the sender.
MAX_IDS = 4096
#: Largest id of a job or an operand.
MAX_ID = (1 << 63) - 1
#: Operands that a worker keeps. Blocks: a flood of empty operands, which cost no bytes of tensors.
MAX_OPERANDS = 1 << 16

#: Seconds that the rest of a frame may take once its first byte is there, beside its payload's own
#: time. Blocks: a peer that sends half a frame and keeps the other side waiting.
FRAME_SECONDS = 60.0
#: Bytes per second that a payload is expected to reach on the slowest link.
MIN_RATE = 1_000_000.0

#: Seconds for the TLS handshake, and again for Hello. Blocks: peers that connect and stay silent.
HANDSHAKE_SECONDS = 10.0
#: Handshakes under way on one worker. Over it a random one is dropped for the newcomer. Blocks: a flood of
#: strangers that takes memory and threads, or keeps the master out for long.
MAX_HANDSHAKES = 16


def frame_seconds(payload: int) -> float:
    """Time that a whole frame may take."""
    return FRAME_SECONDS + payload / MIN_RATE
