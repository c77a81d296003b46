"""Suite `serve`: requests to a service that runs them in batches, under Tempo and in the TEE alone.

So many clients send one request after the other, each when the last was answered (a closed loop), through the
batcher that a service would use (tempo/serving). What is measured is what a client sees: seconds from sending
to the reply, and how many replies come in a second.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from tempo.bench.budget import Budget
from tempo.bench.crew import Crew
from tempo.bench.generate import Generate, gpt2
from tempo.bench.protected import Bench
from tempo.bench.result import SERVE_FIELDS, Result
from tempo.bench.variant import Variant, usable, variants
from tempo.serving import Batcher

Say = Callable[[str], None]
#: From the requests of a batch to their replies.
Run = Callable[[Sequence[Tensor]], Sequence[Tensor]]


@final
@dataclass(frozen=True, slots=True)
class Case:
    """kind: "classify" (size: rows of a request) or "generate" (size: tokens of a prompt). clients: that ask
    at the same time. each: requests of one client. most: requests in a batch."""

    kind: str
    size: int
    clients: int
    each: int
    most: int

    def __str__(self) -> str:
        what = "rows" if self.kind == "classify" else "tokens of prompt"
        return f"{self.kind}, {self.clients} clients, {self.size} {what} a request, batches of {self.most}"


@final
@dataclass(frozen=True, slots=True)
class Settings:
    cases: Sequence[Case] = (
        Case("classify", 16, 1, 40, 64),
        Case("classify", 16, 64, 20, 64),
        Case("generate", 32, 64, 6, 64),
    )
    #: Width of the classifier's layers.
    width: int = 2048
    #: Of the language model: vocabulary, positions, width, layers, heads; and tokens drawn for a request.
    model: tuple[int, int, int, int, int] = (8192, 128, 512, 4, 8)
    tokens: int = 4
    crews: Sequence[Crew] = (Crew.parse("1"),)
    variants: tuple[Variant, ...] = variants("mixing")
    wait_s: float = 0.005
    budget_s: float = 300.0


FAST = Settings(
    cases=(Case("classify", 16, 16, 2, 16), Case("generate", 8, 64, 1, 64)),
    width=256,
    model=(512, 64, 128, 2, 4),
    tokens=2,
    budget_s=120.0,
)


@final
@dataclass(frozen=True, slots=True)
class Served:
    """latencies: seconds of each request. seconds: of all of them. batches: that they ran in."""

    latencies: list[float]
    seconds: float
    batches: int

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds

    def latency(self, share: float) -> float:
        """Seconds that so large a share of the requests took at most: the nearest rank, 0 < share <= 1."""
        return sorted(self.latencies)[math.ceil(share * len(self.latencies)) - 1]


def run(settings: Settings, say: Say = print) -> Result:
    result, budget = Result("serve", SERVE_FIELDS), Budget(settings.budget_s)
    result.note("a closed loop: each client sends its next request when the last was answered")
    result.note("products with fewer than 64 rows stay in the TEE: offloaded_share says how much did not")
    result.note("under mixing each product that is sent encodes its weight anew (weight_uses = 1)")
    chosen = usable(settings.variants, budget)
    for crew, part in budget.parts(settings.crews):
        estimate = 1.0
        for case in settings.cases:
            if not part.fits(f"{case}, workers {crew.text}", estimate):
                continue
            start = time.perf_counter()
            model, answer, requests = _service(case, settings)
            rows = _Rows(result, case, crew, list(requests[0].shape), settings)
            alone = {}
            for arithmetic in ("fp32", "bf16"):
                say(f"serve: {case}, in the TEE, {arithmetic}")
                alone[arithmetic] = _load(_within(answer, arithmetic), requests, case, settings)
            rows.tee_only(alone)
            for variant in chosen:
                say(f"serve: {case}, {variant}, workers {crew.text}")
                rows.tempo(variant, model, answer, requests)
            estimate = max(estimate, time.perf_counter() - start)
    result.skipped = budget.skipped
    return result


@final
class _Rows:
    def __init__(self, result: Result, case: Case, crew: Crew, shape: list[int], settings: Settings) -> None:
        self._result, self._case, self._crew = result, case, crew
        self._shape, self._settings = shape, settings
        self._tee = 0.0  # requests a second in the TEE alone, in its faster arithmetic

    def tee_only(self, alone: Mapping[str, Served]) -> None:
        """By arithmetic, all at once: each is measured against the fastest."""
        self._tee = max(served.rate for served in alone.values())
        for arithmetic, served in alone.items():
            self._add(served, "tee-only", arithmetic=arithmetic, verify=False, workers=0, bytes=0)

    def tempo(self, variant: Variant, model: nn.Module, answer: Run, requests: Sequence[Tensor]) -> None:
        with ExitStack() as stack:
            session = stack.enter_context(Bench(self._crew, **variant.options)).session
            session.protect(model)
            stack.callback(session.unprotect, model)
            answer(requests[: self._case.most])  # workers load torch meanwhile
            before = session.report()
            served = _load(answer, requests, self._case, self._settings)
            after = session.report()
        sent, kept = (
            getattr(after, name) - getattr(before, name) for name in ("offloaded_flops", "kept_flops")
        )
        traffic = after.bytes_sent + after.bytes_received - before.bytes_sent - before.bytes_received
        self._add(
            served,
            "tempo",
            scheme=variant.scheme,
            arithmetic=variant.arithmetic,
            verify=True,
            workers=self._crew.count,
            bytes=traffic,
            offloaded_share=sent / max(1, sent + kept),
        )

    def _add(self, served: Served, mode: str, **values: Any) -> None:
        case, rate = self._case, served.rate
        self._result.add(
            op=case.kind,
            shape=self._shape,
            mode=mode,
            workers_are=self._crew.text,
            clients=case.clients,
            requests=len(served.latencies),
            batches=served.batches,
            seconds=served.seconds,
            latency_p50_seconds=served.latency(0.5),
            latency_p95_seconds=served.latency(0.95),
            latency_max_seconds=served.latency(1.0),
            requests_per_second=rate,
            samples_per_second=rate * (case.size if case.kind == "classify" else self._settings.tokens + 1),
            speedup_over_tee_only=rate / self._tee,
            **values,
        )


def _service(case: Case, settings: Settings) -> tuple[nn.Module, Run, list[Tensor]]:
    """The model, what answers a batch of requests with it, and one request for each client."""
    draw = torch.Generator().manual_seed(0)
    if case.kind == "generate":
        language = gpt2(settings.model)
        asked = torch.randint(settings.model[0], (case.clients, case.size), generator=draw)

        def generate(requests: Sequence[Tensor]) -> Sequence[Tensor]:
            with torch.inference_mode():
                drawn: Tensor = Generate(language, settings.tokens)(torch.stack(list(requests)))
            return drawn.unbind()

        return language, generate, list(asked.unbind())
    torch.manual_seed(0)
    width = settings.width
    classifier = nn.Sequential(
        *(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 10))
    ).eval()

    def classify(requests: Sequence[Tensor]) -> Sequence[Tensor]:
        with torch.inference_mode():
            y: Tensor = classifier(torch.cat(list(requests)))
        replies: Sequence[Tensor] = y.split([len(request) for request in requests])
        return replies

    return classifier, classify, list(torch.randn(case.clients, case.size, width, generator=draw).unbind())


def _within(answer: Run, arithmetic: str) -> Run:
    def run(requests: Sequence[Tensor]) -> Sequence[Tensor]:
        with torch.autocast("cpu", torch.bfloat16) if arithmetic == "bf16" else nullcontext():
            return answer(requests)

    return run


def _load(answer: Run, requests: Sequence[Tensor], case: Case, settings: Settings) -> Served:
    """Every client's requests, after one batch that is not measured."""
    answer(requests[: case.most])

    async def main() -> Served:
        latencies: list[float] = []
        waiting = max(1, case.clients)
        async with Batcher(answer, most=case.most, wait_s=settings.wait_s, waiting=waiting) as batcher:

            async def client(request: Tensor) -> None:
                for _ in range(case.each):
                    sent = time.perf_counter()
                    await batcher.submit(request)
                    latencies.append(time.perf_counter() - sent)

            start = time.perf_counter()
            await asyncio.gather(*map(client, requests))
            seconds = time.perf_counter() - start
            return Served(latencies, seconds, batcher.batches)

    return asyncio.run(main())
