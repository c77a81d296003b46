"""Finds the linear operations of a model without running them: what `protect` would send, and what stays.

The user's model goes forward once with the interceptor and the lowerings of production on it, and a
placement that writes down each call and keeps it. Tensors have shapes but no data where the model
allows that; a model that looks at values is run for real, and its buffers are put back.

Nothing is sent. Calls that a checkpoint recomputes in backward are not seen.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tempo.config import Config
from tempo.errors import TempoError, UsageError
from tempo.nn.flops import attention_flops
from tempo.nn.interceptor import Interceptor
from tempo.nn.offload import Offload
from tempo.nn.placement import Account, Candidate, Never, Placement, Places, Rules
from tempo.nn.protect import protect, unprotect
from tempo.plan.other import OtherWork
from tempo.report import OpRow

_PLANNED: Final = "may be offloaded"


@final
@dataclass(frozen=True, slots=True)
class Op:
    """A linear operation of one forward pass. shape: of its product, (G, R, K, N)."""

    module: str
    operation: str
    shape: tuple[int, int, int, int]
    itemsize: int
    #: Its lowering amplifies errors: it is sent in finer numbers than the session allows.
    delicate: bool
    #: Of the layer computed directly: forward, and one gradient.
    flops: int
    want_x: bool
    want_w: bool
    #: Shares its encoded W with an op before it.
    weight_shared: bool
    #: The weight is no parameter: it is encoded for each product.
    weight_computed: bool

    @property
    def products(self) -> int:
        """Of a step: forward, and the gradients that are wanted."""
        return 1 + self.want_x + self.want_w

    @property
    def step_flops(self) -> int:
        return self.flops * self.products


@final
@dataclass(frozen=True, slots=True)
class KeptOp:
    """Linear operations that stay whatever they cost, and why."""

    module: str
    operation: str
    shape: str
    reason: str
    calls: int
    #: Of a step; both gradients are counted, also where one is not wanted.
    flops: int


@final
@dataclass(frozen=True, slots=True)
class Trace:
    ops: tuple[Op, ...]
    kept: tuple[KeptOp, ...]
    #: Elements written by all that is not linear, in the forward pass.
    other_elements: int
    parameters: int
    training: bool


@final
class _Recorder(Placement):
    def __init__(self) -> None:
        self.ops: list[Op] = []
        self._weights: set[tuple[int, str, int]] = set()

    def keep(self, candidate: Candidate) -> str | None:
        self.ops.append(op_of(candidate, shared=self._shared(candidate)))
        return _PLANNED

    def _shared(self, candidate: Candidate) -> bool:
        if candidate.weight is None:
            return False
        key = (candidate.weight, candidate.lowering.name, candidate.lowering.shape.groups)
        known = key in self._weights
        self._weights.add(key)
        return known


def op_of(candidate: Candidate, *, shared: bool) -> Op:
    s = candidate.lowering.shape
    return Op(
        module=candidate.module,
        operation=candidate.lowering.name,
        shape=(s.groups, s.rows, s.k, s.n),
        itemsize=candidate.dtype.itemsize,
        delicate=candidate.lowering.delicate,
        flops=candidate.lowering.flops,
        want_x=candidate.want_x,
        want_w=candidate.want_w,
        weight_shared=shared,
        weight_computed=candidate.weight is None,
    )


def trace(
    model: nn.Module,
    inputs: Any,
    config: Config,
    *,
    inference: bool = False,
    keep: Iterable[str] = (),
    place: Mapping[str, str] | None = None,
) -> Trace:
    """inputs: a tensor, a tuple of arguments or a dict of keyword arguments. keep, place: as
    `Session.protect` takes them. Raises what `protect` raises, UsageError if the model does not run."""
    args, kwargs = arguments(inputs)
    look = _Look(model, config, inference, keep if isinstance(keep, str) else tuple(keep), place or {})
    return look.on_shapes(args, kwargs) or look.on_data(args, kwargs)


def arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of the example inputs."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)), {}


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """One forward pass of a model that is put back as it was."""

    model: nn.Module
    config: Config
    inference: bool
    keep: Iterable[str]
    place: Mapping[str, str]

    def on_shapes(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Trace | None:
        """None where the model looks at values, or holds what shapes alone cannot stand for."""
        try:
            # Even so a buffer that meets no example input is changed in place.
            with _undone(self.model), FakeTensorMode(allow_non_fake_inputs=True) as mode:
                return self._run(_fake(mode, args), _fake(mode, kwargs))
        except TempoError:
            raise
        except Exception:
            return None

    def on_data(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Trace:
        try:
            with _undone(self.model):
                return self._run(args, kwargs)
        except TempoError:
            raise
        except Exception as error:
            raise UsageError(
                f"the model does not run on its example inputs: {type(error).__name__}"
            ) from error

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Trace:
        model, inference = self.model, self.inference
        recorder, account, other = _Recorder(), Account(), OtherWork()
        named = {"always": recorder, "auto": recorder, "never": Never()}
        rules = Rules(self.config.min_size, self.config.offload_attention)
        interceptor = Interceptor(Offload(None, rules, account, Places("always", named)))
        modes = {module: module.training for module in model.modules()}
        protect(model, interceptor, keep=self.keep, unsafe_offload=(), place=self.place)
        try:
            if inference:
                model.eval()
            with torch.set_grad_enabled(not inference), other:
                model(*args, **kwargs)
        finally:
            unprotect(model)
            for module, training in modes.items():
                module.training = training
        times = 1 if inference else 3
        kept = [
            KeptOp(r.module, r.operation, r.shape, r.reason, r.calls, _kept_flops(r) * times)
            for r in account.rows()
            if r.reason != _PLANNED
        ]
        return Trace(
            tuple(recorder.ops),
            tuple(kept),
            other.elements,
            sum(p.numel() for p in model.parameters()),
            training=not inference,
        )


def _kept_flops(row: OpRow) -> int:
    """Of the forward pass. PyTorch's counter, and so the account, is blind to attention's fused kernel."""
    if row.operation == "attention" and row.forward_flops == 0:
        q, k, v = ([int(size) for size in shape.split("x")] for shape in row.shape.split()[:3])
        return row.calls * attention_flops(q, k, v).forward
    return row.forward_flops


def _fake(mode: FakeTensorMode, value: Any) -> Any:
    if isinstance(value, Tensor):
        return mode.from_tensor(value)
    if isinstance(value, dict):
        return {name: _fake(mode, each) for name, each in value.items()}
    return type(value)(_fake(mode, each) for each in value) if type(value) in (tuple, list) else value


@contextlib.contextmanager
def _undone(model: nn.Module) -> Iterator[None]:
    """Put buffers and PyTorch's generator back: a look at a model must not change its training."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                if name in buffers:
                    buffer.copy_(buffers[name])


def merged(ops: Iterable[Op]) -> list[tuple[Op, int, list[str]]]:
    """Ops that cost the same, with their count and the modules they are in, in order of appearance."""
    counts: Counter[Op] = Counter()
    modules: dict[Op, list[str]] = {}
    for op in ops:
        alike = replace(op, module="")
        counts[alike] += 1
        modules.setdefault(alike, []).append(op.module)
    return [(op, count, modules[op]) for op, count in counts.items()]
