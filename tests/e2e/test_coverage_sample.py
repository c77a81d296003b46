"""A sample of docs/coverage.md: real architectures, one protected step each. `make coverage` judges all of
them."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from benchmarks.coverage.judge import PASS, judge
from benchmarks.coverage.page import share, well
from benchmarks.coverage.transformers_models import recipe

#: Text, vision, speech; encoders, decoders, both; experts, convolutions, attention of several kinds.
SAMPLE = ["bert", "gpt2", "llama", "t5", "vit", "clip", "whisper", "mixtral", "deberta-v2", "convnext"]


@pytest.mark.parametrize("family", SAMPLE)
@pytest.mark.filterwarnings("ignore")
def test_a_protected_step_is_plain_pytorchs(family):
    verdict = judge(recipe(family)).to_dict()
    assert verdict["status"] == PASS, verdict["reason"]
    # Below zero: the counter does not see grouped products of experts, Tempo does.
    assert verdict["unlisted_flops"] <= 0
    assert well(verdict), (share(verdict), verdict["kept"])
