"""Attack 15a: a network that was trained on runs of the attacker's own turns sealed rows into pictures.

    1. Draw batches of public examples. First half of the training: permute their columns, and teach the
       network (tempo/attacks/columns_net.py) to name the places.
    2. Second half: seal the batches under keys of one's own. Rows come back in an order nobody knows, so the
       loss is that of the best assignment of recovered rows to true ones (Hungarian method).
    3. Put what the worker saw through the network, and let its places of columns settle on the correlations
       of public data: P <- assignment that maximises A P A0 + logits, the projected power method for
       matching graphs (Onaran and Villar, arXiv 1707.00371).

Where rows are mixed the network can only learn what all batches have in common, which is the mean: that is
what a guess without the transcript would be, so rows are judged less their mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from tempo.attacks.attack import Attack, NothingToAttack
from tempo.attacks.columns_net import ColumnsNet, signed
from tempo.attacks.evenly import evenly
from tempo.attacks.knowledge import OwnRuns
from tempo.attacks.transcript import Transcript

_STEPS: Final = 240
_ROWS: Final = 256
#: Operands that are inverted, evenly taken, and rows of each.
_TARGETS: Final = 18
_COLUMNS: Final = 1024
_RATE: Final = 1e-2
#: Rounds of settling, and what the network's word weighs in them.
_SETTLE: Final = 8
_PRIOR: Final = 0.1
#: Rounds after which places must agree with public correlations that much, or there is nothing to settle.
_PATIENCE: Final = 2
_AGREES: Final = 0.2


@final
@dataclass(frozen=True, slots=True, eq=False)
class Recovered:
    """rows: of each operand by id, (R, K). others: public rows that the network never saw, against which a
    judge measures chance. mean: of public rows (K,). picture: height and width of a row, if it is one."""

    rows: dict[int, Tensor]
    others: Tensor
    mean: Tensor
    picture: tuple[int, int] | None


@final
class LearnedInversion(Attack[OwnRuns, Recovered]):
    name: ClassVar[str] = "learned-inversion"
    number: ClassVar[int] = 15
    title: ClassVar[str] = "Learned inversion: a trained network recovers inputs"
    adversary: ClassVar[str] = "a worker that runs the public scheme itself and trains on what it sees"
    side_knowledge: ClassVar[str] = "public data of the same distribution; the scheme's code"
    knowledge: ClassVar[type[OwnRuns]] = OwnRuns
    metric: ClassVar[str] = (
        "recovered rows that lie nearer to a true row of their operand than to any of another"
    )
    compute: ClassVar[str] = f"{_STEPS} training steps of {_ROWS} rows"

    def run(self, transcript: Transcript, knowledge: OwnRuns) -> Recovered:
        rows, seal = knowledge.rows, knowledge.seal_rows
        if rows is None or seal is None:
            raise NothingToAttack(
                "without public rows of a layer, and the scheme, there is nothing to train on"
            )
        x = rows.flatten(0, 1)
        operands = {
            p.x_id: p.x
            for p in transcript.passes()
            # What is sealed again for its gradient is the same batch once more.
            if p.w_id is not None and len(p.rows) == 1 and p.x.shape[1] == x.shape[1] <= _COLUMNS
        }
        if not operands:
            raise NothingToAttack(f"no X' of one group has {x.shape[1]} features, at most {_COLUMNS}")
        size = min(_ROWS, *(len(t) for t in operands.values()), len(x) // 4)
        train, held_out = x[: -len(x) // 4], x[-len(x) // 4 :]
        net = _trained(train, size, seal)
        ids = evenly(sorted(operands), _TARGETS)
        with torch.no_grad():
            a0 = _correlations(signed(train[: 4 * _ROWS]))
            found = {i: _settled(net, signed(operands[i][:_ROWS]), a0) for i in ids}
        return Recovered(found, held_out, train.mean(0), knowledge.picture)


def _trained(x: Tensor, size: int, seal: Callable[[Tensor], Tensor]) -> ColumnsNet:
    generator = torch.Generator().manual_seed(15)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(15)
        net = ColumnsNet(x.shape[1])
    mean, deviation = x.mean(0), x.std(0)
    with torch.no_grad():
        net.mean.copy_(mean)
        net.gain.copy_(deviation)
    live = deviation > 1e-6
    optimizer = torch.optim.Adam(net.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=_STEPS)
    for step in range(_STEPS):
        true = x[torch.randperm(len(x), generator=generator)[:size]]
        if step < _STEPS // 2:
            order = torch.randperm(x.shape[1], generator=generator)
            out, logits = net(signed(true[:, order]))
            loss = torch.nn.functional.cross_entropy(logits[live[order]], order[live[order]])
            loss = loss + (out - true).square().mean() / deviation.square().mean()
        else:
            out, _ = net(signed(seal(true)))
            place = assigned(out.detach() - mean, true - mean)
            loss = (out - true[place]).square().mean() / deviation.square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return net.eval()


def _settled(net: ColumnsNet, z: Tensor, a0_PP: Tensor) -> Tensor:
    _, logits = net(z)
    a, prior = _correlations(z), logits - logits.mean(1, keepdim=True)
    prior = prior / prior.std().clamp(min=1e-6)
    soft, places = torch.softmax(logits, 1), torch.empty(0).numpy()
    for turn in range(_SETTLE):
        pull = a @ (soft @ a0_PP if turn == 0 else a0_PP[places])
        pull = pull / pull.std().clamp(min=1e-6) + _PRIOR / (1 + turn) * prior
        now = linear_sum_assignment(pull.numpy(), maximize=True)[1]
        if len(places) and (now == places).all():
            break
        places = now
        if turn == _PATIENCE and _agreement(a, a0_PP[places][:, places]) < _AGREES:
            break
    unit = (z - z.mean(0)) / z.std(0).clamp(min=1e-3)
    out = torch.empty_like(unit)
    out[:, torch.from_numpy(places)] = unit
    return out * net.gain + net.mean


def _agreement(a: Tensor, b: Tensor) -> float:
    """Correlation of entries off the diagonals."""
    off = ~torch.eye(len(a), dtype=torch.bool)
    return float(torch.corrcoef(torch.stack([a[off], b[off]]))[0, 1].nan_to_num())


def _correlations(z: Tensor) -> Tensor:
    unit = (z - z.mean(0)) / z.std(0).clamp(min=1e-3)
    return unit.mT @ unit / len(unit)


def assigned(found_RK: Tensor, true_SK: Tensor) -> Tensor:
    """For each found row the true one that it is best assigned to, by cosine; R at most S."""
    a, b = (t / t.norm(dim=1, keepdim=True).clamp(min=1e-9) for t in (found_RK, true_SK))
    return torch.from_numpy(linear_sum_assignment((a @ b.mT).numpy(), maximize=True)[1])
