"""Does a protected training step give what plain PyTorch gives, and how much of it left the TEE?

In float64 the results are equal but for 1e-9 of a tensor's norm, where the model itself computes in
float64. Some round to float32 on the way (a softmax, a norm), and some refuse float64. For those, plain
PyTorch takes the step once more with every weight moved a little, and protection may change a tensor by
GROWTH (tempo/numerics.py) times as much as that does:

    ||protected - plain|| <= GROWTH max(||moved - plain||, u ||plain||), u = 2^-36 (float64), 2^-24 (float32)

In float64 Tempo errs far less than u; but it takes as much for some of the model's roundings to go the
other way, as some do under protection. A model that does not round moves by some u only: then both bounds
are about the same.

Some multiply in float32 whatever their weights are in (a router of experts). There Tempo's error is that of
float32, and the step is taken and held in float32.
"""

from __future__ import annotations

import gc
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from operator import itemgetter
from time import perf_counter
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from benchmarks.coverage.subject import SEED, NotRunnableError, Recipe
from tempo import Session
from tempo.errors import UnsupportedError
from tempo.integrity.tolerance import UNIT_ROUNDOFF
from tempo.numerics import GROWTH

EXACT = 1e-9
#: How much weights are moved, relative to themselves.
UNITS = {torch.float64: 2.0**-36, torch.float32: UNIT_ROUNDOFF[torch.float32]}
#: Share of the linear flops that is wanted at the workers.
WANTED = 0.8
#: Of what stays, that goes with offload_attention=True.
_ACTIVATIONS = ("product of two activations", "a softmax stands between")
PASS, FAIL, REFUSED, NOT_RUN = "passes", "fails", "refused", "not run"

Step = dict[str, Tensor | None]


@final
@dataclass(frozen=True, slots=True)
class Verdict:
    library: str
    family: str
    member: str
    status: str
    #: Why it is refused, fails or is not run; empty where it passes.
    reason: str = ""
    #: "float64", or "rounding bound": how it was compared.
    compared: str = ""
    #: Largest difference, of its allowance: at most 1 where it passes.
    worst: float = 0.0
    worst_tensor: str = ""
    parameters: int = 0
    tensors: int = 0
    #: Of one step, by PyTorch's counter.
    counted_flops: int = 0
    #: Counted by PyTorch, and neither offloaded nor listed as kept.
    unlisted_flops: int = 0
    #: The next two in true flops: the counter takes the weight gradient of a grouped convolution for that
    #: of a full one, which for a depthwise one is as many times too much as it has channels.
    offloaded_flops: int = 0
    #: By reason, what stayed.
    kept: dict[str, int] = field(default_factory=dict)
    #: Offloaded where products of two activations are sent too (offload_attention=True); None where that
    #: was not asked, because enough is offloaded without.
    with_attention_flops: int | None = None
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(recipe: Recipe, **settings: Any) -> Verdict:
    """settings: of the session, beside those that send all that can be sent."""
    start = perf_counter()
    of = (recipe.library, recipe.family, recipe.member)
    recipe, dtype, plain, flops, sizes = _runnable(recipe)
    known = {"parameters": sizes[0], "tensors": sizes[1], "counted_flops": flops}
    try:
        mine, account = _protected(recipe, dtype, settings)
    except UnsupportedError as error:
        seconds = perf_counter() - start
        return Verdict(*of, REFUSED, str(error), seconds=seconds, **known)  # type: ignore[arg-type]
    except Exception as error:
        seconds = perf_counter() - start
        return Verdict(*of, FAIL, brief(error), seconds=seconds, **known)  # type: ignore[arg-type]
    compared, worst, name = _held(recipe, dtype, mine, plain)
    if compared != "float64" and dtype == torch.float64 and multiplies_in_float32(recipe):
        dtype = torch.float32  # its own products are in it, whatever its weights are in
        plain, mine = _plain(recipe, dtype)[0], _protected(recipe, dtype, settings)[0]
        compared, worst, name = _held(recipe, dtype, mine, plain)
    listed, offloaded, kept = account
    with_attention = None
    few = offloaded < WANTED * (offloaded + sum(kept.values()))
    if worst <= 1 and few and any(reason in str(kept) for reason in _ACTIVATIONS):
        again, (_, with_attention, _) = _protected(recipe, dtype, settings | {"offload_attention": True})
        compared, worst, name = max(
            _held(recipe, dtype, again, plain), (compared, worst, name), key=itemgetter(1)
        )
    if worst > 1 and _held(recipe, dtype, _plain(recipe, dtype)[0], plain)[1] > 1:
        raise NotRunnableError("plain PyTorch differs from itself with the same seed")
    status, reason = (PASS, "") if worst <= 1 else (FAIL, f"{name} differs")
    if not recipe.training:
        compared += ", as in evaluation"
    return Verdict(
        *of,
        status,
        reason,
        compared,
        worst,
        name,
        offloaded_flops=offloaded,
        kept=kept,
        unlisted_flops=flops - listed,
        with_attention_flops=with_attention,
        seconds=perf_counter() - start,
        **known,
    )


def _held(recipe: Recipe, dtype: torch.dtype, mine: Step, plain: Step) -> tuple[str, float, str]:
    """(how compared, largest difference of its allowance, whose)."""
    worst, name = _compare(mine, plain, None, dtype)
    if worst <= 1:
        return "float64", worst, name
    moved = _plain(recipe, dtype, perturb=True)[0]
    return "rounding bound", *_compare(mine, plain, moved, dtype)


def _runnable(recipe: Recipe) -> tuple[Recipe, torch.dtype, Step, int, tuple[int, int]]:
    """The first way in which plain PyTorch takes a step: float64 before float32, training before evaluation
    (some want labels, or lengths of their own, for training)."""
    refusal: Exception | None = None
    for training in (True, False):
        for dtype in (torch.float64, torch.float32):
            way = replace(recipe, training=training)
            try:
                return (way, dtype, *_plain(way, dtype))
            except Exception as error:
                refusal = refusal or error
    if isinstance(refusal, NotRunnableError):
        raise refusal
    raise NotRunnableError(f"plain PyTorch: {brief(refusal) if refusal else ''}") from refusal


def brief(error: BaseException) -> str:
    """Type and first line."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300] if text else ''}"


def _plain(recipe: Recipe, dtype: torch.dtype, *, perturb: bool = False) -> tuple[Step, int, tuple[int, int]]:
    model = recipe.model(dtype)
    if perturb:
        moved(model)
    with FlopCounterMode(display=False) as counter:
        step = _step(recipe, model, dtype)
    parameters = sum(p.numel() for p in model.parameters())
    return step, counter.get_total_flops(), (parameters, len(step))


def multiplies_in_float32(recipe: Recipe) -> bool:
    """Whether a model of float64 weights has products of float32 operands."""
    with _Products() as products:
        _step(recipe, recipe.model(torch.float64), torch.float64)
    return torch.float32 in products.dtypes


class _Products(TorchDispatchMode):
    """Dtypes of the products within."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in flop_registry:
            self.dtypes |= {a.dtype for a in args if isinstance(a, Tensor)}
        return func(*args, **(kwargs or {}))


def moved(model: nn.Module) -> None:
    """Every weight by a rounding of itself, up or down, in place."""
    draw = torch.Generator().manual_seed(SEED + 3)
    with torch.no_grad():
        for p in model.parameters():
            if p.is_floating_point():
                sign = torch.randint(0, 2, p.shape, generator=draw, dtype=torch.float64) * 2 - 1
                # In float64: in float32 the factor would be 1.
                p.copy_(p.double() * (1 + UNITS[p.dtype] * sign))


def _protected(
    recipe: Recipe, dtype: torch.dtype, settings: dict[str, Any]
) -> tuple[Step, tuple[int, int, dict[str, int]]]:
    """The step, and its flops: those listed as the counter counts; truly offloaded; truly kept by reason."""
    model = recipe.model(dtype)
    with Session("cpu", placement="always", min_size=0, unsafe_small=True, **settings) as session:
        step = _step(recipe, session.protect(model), dtype)
        report = session.report()
        session.unprotect(model)  # some models share an activation with all of their kind
    if report.checks_failed or report.events:
        raise AssertionError(f"an honest worker failed {report.checks_failed} checks: {report.events[:1]}")
    kept: Counter[str] = Counter()
    offloaded = 0
    for row in report.rows:
        # Two gradients of a product cost what two products cost.
        most = 2 * row.forward_flops if row.forward_flops else row.backward_flops
        flops = row.forward_flops + min(row.backward_flops, most)
        if row.offloaded:
            offloaded += flops
        else:
            kept[f"{row.operation}: {row.reason}"] += flops
    listed = report.offloaded_flops + report.kept_flops
    return step, (listed, offloaded, {why: flops for why, flops in kept.items() if flops})


def _step(recipe: Recipe, model: nn.Module, dtype: torch.dtype) -> Step:
    """The loss, the gradient of every parameter, and every buffer afterwards."""
    loss = recipe.loss(model, dtype)
    if not torch.isfinite(loss):
        raise NotRunnableError("the loss is not finite")
    loss.backward()
    step: Step = {"loss": loss.detach()}
    for name, p in model.named_parameters():
        if p.requires_grad:
            step[name] = p.grad
    step |= {f"buffer {name}": b.clone() for name, b in model.named_buffers()}
    gc.collect()
    return step


def _compare(mine: Step, plain: Step, yardstick: Step | None, dtype: torch.dtype) -> tuple[float, str]:
    """(largest difference of its allowance, whose). What is zero but for rounding counts against the largest
    gradient."""
    if mine.keys() != plain.keys():
        return float("inf"), f"{next(iter(mine.keys() ^ plain.keys()))}: only in one of the two"
    gradients = [t for name, t in plain.items() if t is not None and not name.startswith("buffer")]
    floor = 1e-6 * max((float(t.double().norm()) for t in gradients[1:]), default=0.0)
    worst, which = 0.0, ""
    for name, b in plain.items():
        a = mine[name]
        if (a is None) != (b is None):
            return float("inf"), f"{name}: a gradient in one of the two alone"
        if a is None or b is None:
            continue
        ratio = _ratio(a, b, None if yardstick is None else yardstick[name], floor, dtype)
        if not ratio <= worst:
            worst, which = ratio, name
    return worst, which


def _ratio(a: Tensor, b: Tensor, perturbed: Tensor | None, floor: float, dtype: torch.dtype) -> float:
    if a.shape != b.shape:
        return float("inf")
    if a.is_complex():
        a, b = torch.view_as_real(a), torch.view_as_real(b)
        perturbed = None if perturbed is None else torch.view_as_real(perturbed)
    a, b = a.double(), b.double()
    same = (a == b) | (a.isnan() & b.isnan())
    if not bool((same | (a.isfinite() & b.isfinite())).all()):
        return float("inf")
    a, b = a.masked_fill(same, 0.0), b.where(b.isfinite(), torch.zeros(()).double())
    off, size = float((a - b.masked_fill(same, 0.0)).norm()), max(float(b.norm()), floor)
    if off == 0:
        return 0.0
    if perturbed is None:
        return off / (EXACT * size) if size else float("inf")
    moved = perturbed.double() - b
    moved = moved.masked_fill(~moved.isfinite(), 0.0)
    return off / (GROWTH * max(float(moved.norm()), UNITS[dtype] * size))
