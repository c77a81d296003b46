"""Suite `generate`: text generation with a GPT-2-sized model (random weights, nothing is fetched).

Prompts are read in one pass, then tokens are drawn greedily with a cache of keys and values. A step with
fewer than 64 sequences has fewer than 64 rows: such products stay in the TEE, and bytes say so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tempo.bench.baselines import Step, tee_only
from tempo.bench.budget import Budget
from tempo.bench.calibrate import SMALL, Sizes, constants
from tempo.bench.crew import Crew
from tempo.bench.protected import Bench
from tempo.bench.result import STEP_FIELDS, Result
from tempo.bench.steps import Case as StepCase
from tempo.bench.steps import StepRows
from tempo.bench.timing import Repeats
from tempo.bench.trace import Tracer
from tempo.bench.variant import Variant, usable, variants
from tempo.errors import UsageError

Say = Callable[[str], None]


@final
@dataclass(frozen=True, slots=True)
class Case:
    batch: int
    prompt: int
    tokens: int

    def __str__(self) -> str:
        return f"{self.batch} prompts of {self.prompt} tokens, {self.tokens} more each"


_REPEATS = Repeats(least=1, most=3, seconds=2.0)


@final
@dataclass(frozen=True, slots=True)
class Settings:
    cases: Sequence[Case] = (Case(64, 32, 8), Case(1, 256, 16))
    #: Of the model: vocabulary, positions, width, layers, heads. GPT-2 small has 50257, 1024, 768, 12, 12.
    model: tuple[int, int, int, int, int] = (50257, 1024, 768, 12, 12)
    crews: Sequence[Crew] = (Crew.parse("1"),)
    variants: tuple[Variant, ...] = variants("mixing,monomial")
    repeats: Repeats = _REPEATS
    budget_s: float = 600.0
    sizes: Sizes | None = None


FAST = Settings(
    cases=(Case(64, 16, 2),),
    model=(512, 64, 128, 2, 4),
    repeats=Repeats(1, 2, 0.5),
    budget_s=120.0,
    sizes=SMALL,
)


@final
class Generate(nn.Module):
    """Prompts (batch, length) to the tokens that follow them. tokens = 0: the prompt alone is read."""

    def __init__(self, model: nn.Module, tokens: int) -> None:
        super().__init__()
        self.model = model
        self.tokens = tokens

    def forward(self, prompts: Tensor) -> Tensor:
        out: Any = self.model(prompts, use_cache=True)
        drawn = [out.logits[:, -1:].argmax(-1)]
        for _ in range(self.tokens):
            out = self.model(drawn[-1], past_key_values=out.past_key_values, use_cache=True)
            drawn.append(out.logits[:, -1:].argmax(-1))
        return torch.cat(drawn, 1)


def run(settings: Settings, say: Say = print, tracer: Tracer | None = None) -> Result:
    result, budget = Result("generate", STEP_FIELDS), Budget(settings.budget_s)
    result.note(
        "samples_per_second are tokens: of the prompts in phase prompt, drawn ones in phase prompt and tokens"
    )
    result.note("steps with fewer than 64 sequences have fewer than 64 rows: their products stay in the TEE")
    chosen = usable(settings.variants, budget)
    vocabulary, *_ = settings.model
    model = gpt2(settings.model)
    for crew, part in budget.parts(settings.crews):
        workers = crew.start()
        with ExitStack() as only_now:
            for worker in workers:
                only_now.enter_context(closing(worker))
            say(f"generate: measuring this machine and {crew}")
            known = constants(crew, workers, settings.sizes)
        result.constants[crew.text] = known.fields()
        with ExitStack() as stack:
            benches = [
                (each, stack.enter_context(Bench(crew, tracer=tracer, **each.options))) for each in chosen
            ]
            for case in settings.cases:
                prompts = torch.randint(
                    vocabulary, (case.batch, case.prompt), generator=torch.Generator().manual_seed(0)
                )
                for tokens in (0, case.tokens):
                    name = f"{case.batch} prompts of {case.prompt}, {tokens} more, workers {crew.text}"
                    step = Step(Generate(model, tokens), prompts)
                    flops = _flops(step)
                    estimate = 4 * (1 + len(benches)) * flops / known.tee_flops["fp32"] * 3
                    if not part.fits(name, estimate):
                        continue
                    say(f"generate: {name}")
                    phase = "prompt and tokens" if tokens else "prompt"
                    samples = case.batch * (tokens or case.prompt)
                    rows = StepRows(
                        result,
                        StepCase("GPT-2", [case.batch, case.prompt, tokens], phase, samples, flops),
                        crew,
                        known,
                    )
                    rows.tee_only({a: tee_only(step, a, settings.repeats) for a in known.tee_flops})
                    for variant, bench in benches:
                        rows.tempo(variant, bench.measure(step, settings.repeats, f"{name}, {variant}"))
    result.skipped = budget.skipped
    return result


def gpt2(sizes: tuple[int, int, int, int, int]) -> nn.Module:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError:
        raise UsageError("bench generate needs transformers: pip install transformers==5.23.0") from None
    vocabulary, positions, width, layers, heads = sizes
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=vocabulary, n_positions=positions, n_embd=width, n_layer=layers, n_head=heads,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model: nn.Module = GPT2LMHeadModel(config).eval()
    return model


def _flops(step: Step) -> float:
    with FlopCounterMode(display=False) as counter:
        step.run()
    return float(counter.get_total_flops())
