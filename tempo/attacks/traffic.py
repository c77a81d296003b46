"""Attack 22: what sizes and times of messages say. Contents are not looked at: all schemes are alike.

    request bytes = 4 (T K [+ G N K, the first time W' is sent]) + header      PRODUCT
                  = 4 T N + header                                             GRAD_W, X' being kept
    reply bytes   = 4 T N, 4 T K, 4 G N K + header                             PRODUCT, GRAD_X, GRAD_W

Under `shares` an entry is five residues of a byte each, and an operand comes as two shares: two seeds at one
worker, a seed and residues at the others. Where requests hold seeds alone, replies tell T N, and the length
of the header says how many operands came.

    1. For every request and its reply, look which layer of the public architecture, which operation and which
       number of rows T explain both sizes. Where several do, T is what explains most messages of the run.
    2. Rows: T of each forward product is the length of its sequences or the size of its batch.
    3. Steps: a layer's W' that is sent anew is a weight that an optimizer changed.
    4. `tell` compares the sizes of a run with those of runs of one's own, and says which it is most like.

Nothing says which optimizer it was: its state never leaves the TEE. (Traffic analysis of encrypted protocols:
Dyer et al., IEEE S&P 2012, on why padding alone rarely helps.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log, log2
from typing import ClassVar, Final, final

from tempo.attacks.attack import Attack, NothingToAttack
from tempo.attacks.knowledge import LayerFacts, Nothing
from tempo.attacks.transcript import Frame, Transcript
from tempo.ops import Op

#: A header is at most this long, and longer by so much for each group, whose number of rows it names.
_HEADER: Final = 256
#: A reply names its job, and no more.
_REPLY_HEADER: Final = 48
_PER_GROUP: Final = 8
_WIDTHS: Final = (4, 2)  # bytes of an element
#: Names of the requests of a product, of floats or of shares: which scheme is used is no secret.
_COMPUTE: Final = "compute"
_RING: Final = "ring"
#: Bytes of an entry of a share, and of the seeds of an operand with their names.
_RESIDUES: Final = 5
_SEEDS: Final = 2 * 34
#: A header of a job of shares without seeds, for one group, and what longer numbers may add.
_RING_HEADER: Final = 117
_LONGER: Final = 24


@final
@dataclass(frozen=True, slots=True)
class Explained:
    """A request that fits a forward product. seconds: when it came, by which a judge knows which it was."""

    worker: str
    seconds: float
    layer: int
    rows: int
    step: int


@final
@dataclass(frozen=True, slots=True, eq=False)
class Overheard:
    """rows, step: of each X by id. weight: the id of the W' it met. Ids are for the judge; the attack reads
    none but to name what it is talking of."""

    rows: dict[int, int]
    step: dict[int, int]
    weight: dict[int, int]


@final
class Traffic(Attack[Nothing, Overheard]):
    name: ClassVar[str] = "traffic"
    number: ClassVar[int] = 22
    title: ClassVar[str] = "Traffic: rows of each product and boundaries of steps from sizes alone"
    adversary: ClassVar[str] = "whoever sees encrypted messages pass"
    side_knowledge: ClassVar[str] = "the public architecture"
    knowledge: ClassVar[type[Nothing]] = Nothing
    metric: ClassVar[str] = "products whose number of rows, or step, is named exactly"
    compute: ClassVar[str] = "a division for each message and layer"

    def run(self, transcript: Transcript, knowledge: Nothing) -> Overheard:
        if not knowledge.architecture or not transcript.frames:
            raise NothingToAttack(
                "without the architecture, or without messages, there are no sizes to explain"
            )
        found = {(e.worker, e.seconds): e for e in explained(transcript.frames, knowledge.architecture)}
        named = [(s, found.get((s.worker, s.seconds[0]))) for s in transcript.seen if s.op is Op.PRODUCT]
        return Overheard(
            {s.left_id: e.rows if e else 0 for s, e in named},
            {s.left_id: e.step if e else -1 for s, e in named},
            {s.left_id: s.right_id for s, e in named},
        )


def explained(frames: Sequence[Frame], layers: Sequence[LayerFacts]) -> list[Explained]:
    """Forward products among these messages, in order, with their rows and optimizer steps."""
    out: list[Explained] = []
    # W' of each layer that was sent so far, by worker: each worker gets its own copy.
    sent: Counter[tuple[str, int]] = Counter()
    gradients = _gradients(frames, layers)
    pairs = [
        (request, [f for f in _fits(request, reply, layers) if f[2] or request not in gradients])
        for request, reply in _pairs(frames)
    ]
    common = Counter(rows for _, fits in pairs for rows in {rows for _, rows, _ in fits})
    for request, fits in pairs:
        if not fits:
            continue
        # Layers of one shape look alike: the one whose weight is due, which is the least often sent.
        layer, rows, fresh = min(
            fits, key=lambda f: (not f[2], -common[f[1]], sent[request.worker, f[0]], f[0])
        )
        if fresh:
            sent[request.worker, layer] += 1
        out.append(Explained(request.worker, request.seconds, layer, rows, sent[request.worker, layer] - 1))
    return out


def _fits(request: Frame, reply: Frame, layers: Sequence[LayerFacts]) -> Iterator[tuple[int, int, bool]]:
    """Layer, rows, and whether W' came with it."""
    for number, layer in enumerate(layers):
        for width in (_RESIDUES,) if request.kind == _RING else _WIDTHS:
            rows = reply.nbytes // (width * layer.n)
            if rows and reply.nbytes - width * rows * layer.n <= _REPLY_HEADER:
                for fresh in (True, False):
                    if _asks(request, layer, rows, width, fresh=fresh):
                        yield number, rows, fresh


def _asks(request: Frame, layer: LayerFacts, rows: int, width: int, *, fresh: bool) -> bool:
    """Would a request for that product be so long?"""
    weight = fresh * layer.groups * layer.n * layer.k
    header = _HEADER + _PER_GROUP * layer.groups
    if 0 < request.nbytes - width * (rows * layer.k + weight) <= header:
        return True
    seeds = request.nbytes - _RING_HEADER - (1 + fresh) * _SEEDS
    return request.kind == _RING and -_LONGER <= seeds <= _LONGER + _PER_GROUP * (layer.groups - 1)


def _gradients(frames: Sequence[Frame], layers: Sequence[LayerFacts]) -> set[Frame]:
    """Requests of shares for dW: dY as seeds is as long as X. The reply has a weight's size, and beside it
    stands the request for dX, which brings no operand at all."""
    of_worker: dict[str, list[tuple[Frame, Frame]]] = {}
    for pair in _pairs(frames):
        if pair[0].kind == _RING:
            of_worker.setdefault(pair[0].worker, []).append(pair)
    out: set[Frame] = set()
    for pairs in of_worker.values():
        bare = [request.nbytes <= _RING_HEADER + _LONGER for request, _ in pairs]
        for i, (request, reply) in enumerate(pairs):
            sized = any(
                0 <= reply.nbytes - _RESIDUES * each.groups * each.n * each.k <= _REPLY_HEADER
                for each in layers
            )
            if sized and any(bare[max(0, i - 1) : i + 2]):
                out.add(request)
    return out


def _pairs(frames: Sequence[Frame]) -> Iterator[tuple[Frame, Frame]]:
    """Requests that are large enough to hold an operand, with the reply that came next from that worker."""
    waiting: dict[str, list[Frame]] = {}
    for frame in sorted(frames, key=lambda f: f.seconds):
        queue = waiting.setdefault(frame.worker, [])
        if frame.direction == "arrived" and frame.kind in (_COMPUTE, _RING):
            queue.append(frame)
        elif frame.direction == "left" and frame.kind == "result" and queue:
            yield queue.pop(0), frame


def tell(frames: Sequence[Frame], examples: Sequence[Sequence[Frame]]) -> int:
    """Which of the example runs the sizes are most like: the least Jensen-Shannon divergence of their
    distributions, in classes of an eighth of a power of two. Raises NothingToAttack without messages."""
    if not frames or not examples or not all(examples):
        raise NothingToAttack("there are no messages to compare")
    mine = _sizes(frames)
    distances = [_divergence(mine, _sizes(each)) for each in examples]
    return distances.index(min(distances))


def _sizes(frames: Sequence[Frame]) -> dict[tuple[str, int], float]:
    counts = Counter((f.direction, round(8 * log2(f.nbytes + 1))) for f in frames)
    return {size: count / len(frames) for size, count in counts.items()}


def _divergence(a: dict[tuple[str, int], float], b: dict[tuple[str, int], float]) -> float:
    middle = {size: (a.get(size, 0.0) + b.get(size, 0.0)) / 2 for size in a.keys() | b.keys()}
    return sum(p * log(p / middle[size]) for of in (a, b) for size, p in of.items()) / 2
