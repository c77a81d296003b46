"""What staying below the bound could do: training with a worker that adds to every reply as much as is hardly
ever found, in the worst direction that it can know, beside plain rounding noise.

The worker tries its lie against probes of its own and takes the largest that none of them finds. It knows no
basis, so it does not know where a direction of the reply lies in the layer; what commutes with every basis it
can do all the same: make all of a result larger or smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tempo import Session
from tempo.bench.budget import Budget
from tempo.bench.liar import Liar, added, tolerance
from tempo.bench.result import Result
from tempo.demo.data import ImageSet, digits, load_images
from tempo.demo.train import accuracy
from tempo.fleet import FleetSettings
from tempo.integrity import Verifier
from tempo.integrity.freivalds import judge, prove
from tempo.ops import Job
from tempo.secrecy.keys import SessionKey

Say = Callable[[str], None]

#: Probes that the liar tries a lie against, and replies between two such trials.
_TRIES: Final = 400
_ANEW: Final = 97

#: Unit rows (T, N) that are added to a reply (T, N).
Direction = Callable[[Tensor], Tensor]


def _unit(d: Tensor) -> Tensor:
    norms = torch.linalg.vector_norm(d, dim=1, keepdim=True)
    return d.div(norms.clamp_min(torch.finfo(d.dtype).tiny))


def smaller(y: Tensor) -> Tensor:
    """Every row shortened: gradients that are too small, in every basis."""
    return -_unit(y)


def larger(y: Tensor) -> Tensor:
    return _unit(y)


def constant(y: Tensor) -> Tensor:
    """The same in every reply and row, so that it adds up from step to step, were the basis the same."""
    return _unit(torch.ones_like(y))


def sign(y: Tensor) -> Tensor:
    """Against the sign of every entry."""
    return -_unit(y.sign())


def strongest(y: Tensor) -> Tensor:
    """All of it taken off the strongest direction of the reply, which is that of the layer in its basis."""
    v = torch.ones(y.shape[1], dtype=y.dtype)
    for _ in range(4):
        v = y.mT @ (y @ v)
        v = v / torch.linalg.vector_norm(v).clamp_min(torch.finfo(v.dtype).tiny)
    return -torch.outer((y @ v).sign(), v)


DIRECTIONS: Final[dict[str, Direction]] = {
    "below: smaller": smaller,
    "below: larger": larger,
    "below: one direction": constant,
    "below: against the signs": sign,
    "below: off the strongest": strongest,
}


@final
class Below(Liar):
    """Moves every row by the same number of its tolerances: the largest of `sizes` that none of its own
    probes finds, which it tries anew for each kind of job now and then; or by nothing."""

    def __init__(self, name: str, sizes: Sequence[float], direction: Direction) -> None:
        super().__init__(name)
        self._sizes = sizes
        self._direction = direction
        self._found: dict[tuple[object, ...], float] = {}
        self.replies = 0
        self._relative = 0.0
        self._total = 0.0

    def forge(self, job: Job, true: Tensor) -> Tensor:
        y = true.reshape(-1, true.shape[-1]).to(torch.float64)
        d = tolerance(job, true)[:, None] * self._direction(y)
        kind = (job.op, true.shape, true.dtype)
        if kind not in self._found or self.replies % _ANEW == 0:
            self._found[kind] = self._largest(job, true, d)
        d *= self._found[kind]
        self.replies += 1
        self._total += self._found[kind]
        self._relative += float(torch.linalg.vector_norm(d) / torch.linalg.vector_norm(y))
        return added(true, d)

    def _largest(self, job: Job, true: Tensor, d: Tensor) -> float:
        proof = prove(Verifier(SessionKey(), _TRIES), [job])[job]
        for size in self._sizes:
            if judge(proof, added(true, size * d)).passed.all():
                return size
        return 0.0

    @property
    def size(self) -> float:
        """In tolerances, mean over replies."""
        return self._total / max(1, self.replies)

    @property
    def relative(self) -> float:
        """||D|| / ||reply||, mean over replies."""
        return self._relative / max(1, self.replies)


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """sizes: that the liar tries, in tolerances, the largest first. wires: in which numbers operands cross.
    mnist: else scikit-learn's digits."""

    steps: int = 150
    batch: int = 128
    sizes: Sequence[float] = (0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03, 0.02, 0.01)
    wires: Sequence[str] = ("fp32", "bf16")
    directions: Sequence[str] = tuple(DIRECTIONS)
    mnist: bool = True
    cache: Path | None = None


@final
@dataclass(frozen=True, slots=True)
class Trained:
    losses: list[float]
    accuracy: float


def network() -> nn.Module:
    """No ReLU: its kinks amplify rounding (docs/numerics.md, section 4). The last layer stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(784, 256), nn.SiLU(), nn.Linear(256, 128), nn.SiLU(), nn.Linear(128, 10)
        )


def trained(model: nn.Module, images: ImageSet, settings: Settings) -> Trained:
    """An ordinary loop, the same batches every time; in the dtype of the model."""
    g, losses = torch.Generator().manual_seed(3), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    dtype = next(model.parameters()).dtype
    for _ in range(settings.steps):
        picked = torch.randint(len(images.train_x), (settings.batch,), generator=g)
        loss = F.cross_entropy(model(images.train_x[picked].to(dtype)), images.train_y[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return Trained(losses, accuracy(model.float(), images, 2000))


def protected(images: ImageSet, settings: Settings, worker: Liar, wire: str) -> tuple[Trained, int]:
    """On this one worker; and how many of its replies were refused. Its quarantine is over at once: the
    worst that could be for the model."""
    fleet = FleetSettings(quarantine_s=1e-6)
    with Session([worker], wire=wire, fleet=fleet) as session:
        model = session.protect(network())
        found = trained(model, images, settings)
        return found, session.report().checks_failed


def run(settings: Settings, result: Result, budget: Budget, say: Say) -> None:
    images = load_images(None, say, settings.cache) if settings.mnist else digits()
    plain = trained(network(), images, settings)
    exact = trained(network().double(), images, settings)
    result.extra["below"] = {"data": images.name, "steps": settings.steps, "batch": settings.batch}

    def add(name: str, dtype: str, found: Trained, worker: Below | None = None, refused: int = 0) -> None:
        result.add(
            op="training",
            dtype=dtype,
            tamper=name,
            relative_size=None if worker is None else worker.relative,
            trials=None if worker is None else worker.replies,
            detected=None if worker is None else refused,
            operands=images.name,
            tolerances=None if worker is None else worker.size,
            accuracy=found.accuracy,
            loss=sum(found.losses[-10:]) / len(found.losses[-10:]),
            loss_difference=max(abs(a - b) for a, b in zip(found.losses, plain.losses, strict=True)),
        )

    add("none: plain", "float32", plain)
    add("none: plain", "float64", exact)
    for wire in settings.wires:
        dtype = {"fp32": "float32", "bf16": "bfloat16"}[wire]
        for name in ("none: honest", *settings.directions):
            if not budget.fits(f"training, {name}, {wire}", 0.02 * settings.steps):
                continue
            say(f"integrity: training on {images.name}, {name}, wire {wire}")
            # Without sizes nothing is added: the honest worker, by the same code.
            sizes, direction = (settings.sizes, DIRECTIONS[name]) if name in DIRECTIONS else ((), larger)
            worker = Below("liar", sizes, direction)
            found, refused = protected(images, settings, worker, wire)
            add(name, dtype, found, worker, refused)
