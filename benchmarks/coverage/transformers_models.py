"""Architectures of transformers: each model type by one class, in the smallest configuration that runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.coverage.arguments import candidates
from benchmarks.coverage.shrink import SIZES, Size, shrink
from benchmarks.coverage.subject import SEED, NotRunnableError, Recipe, tensors
from benchmarks.coverage.torchvision_schemas import declare

_MOST_PARAMETERS = 60_000_000

#: Which class stands for a model type: with its head where there is one.
_TASKS = (
    *("SPEECH_SEQ_2_SEQ", "SEQ_TO_SEQ_CAUSAL_LM", "CAUSAL_LM", "MASKED_LM", "CTC"),
    *("ZERO_SHOT_IMAGE_CLASSIFICATION", "IMAGE_CLASSIFICATION", "AUDIO_CLASSIFICATION"),
    *("SEMANTIC_SEGMENTATION", "DEPTH_ESTIMATION", "VIDEO_CLASSIFICATION", "OBJECT_DETECTION"),
    *("SEQUENCE_CLASSIFICATION", "IMAGE_TEXT_TO_TEXT"),
)


def families() -> list[str]:
    """Model types of which there is a class to build."""
    declare()
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    known: set[str] = set(modeling_auto.MODEL_MAPPING_NAMES)
    for task in _TASKS:
        known |= set(getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES"))
    return sorted(known & set(CONFIG_MAPPING_NAMES))


def recipe(family: str) -> Recipe:
    """Raises NotRunnableError where no configuration runs."""
    declare()
    refusals: list[str] = []
    for model_class in _classes(family):
        for size in SIZES:
            try:
                found = _at(family, model_class, size)
            except NotRunnableError as error:
                refusals.append(f"{model_class.__name__}: {error}")
            except Exception as error:
                refusals.append(f"{model_class.__name__}: {type(error).__name__}: {str(error)[:200]}")
            else:
                return found
    raise NotRunnableError(refusals[0] if refusals else "no class to build")


def _drawn(model: nn.Module) -> None:
    """Codebooks are buffers, and zero until they are trained: all that is quantised would be alike."""
    for name, buffer in model.named_buffers():
        if "codebook" in name and name.rpartition(".")[2] in ("embed", "embed_sum"):
            # Shorter than what is quantised: else the shortest is nearest to everything.
            buffer.normal_(std=1e-3)


def _classes(family: str) -> list[type[Any]]:
    import transformers
    from transformers.models.auto import modeling_auto

    names: list[str] = []
    mappings = [f"MODEL_FOR_{task}_MAPPING_NAMES" for task in _TASKS]
    for mapping in (*mappings, "MODEL_MAPPING_NAMES"):
        found = getattr(modeling_auto, mapping).get(family)
        if found is not None:
            names += [found] if isinstance(found, str) else list(found)
    unique = list(dict.fromkeys(names))
    chosen = dict.fromkeys(unique[:1] + unique[-1:])
    return [cls for name in chosen if (cls := getattr(transformers, name, None)) is not None]


def _at(family: str, model_class: type[Any], size: Size) -> Recipe:
    config_class: type[Any] = model_class.config_class
    full = config_class().to_dict()
    smaller = shrink(full, size)
    settings = {
        name: value for name, value in smaller.items() if name not in ("model_type", "transformers_version")
    }

    def make() -> nn.Module:
        config = config_class(**settings)
        if hasattr(config, "use_cache"):
            config.use_cache = False
        model: nn.Module = model_class(config)
        _drawn(model)
        return model

    with torch.device("meta"):
        count = sum(p.numel() for p in make().parameters())
    if count > _MOST_PARAMETERS:
        raise NotRunnableError(f"{count / 1e6:.0f} M parameters in the smallest configuration")
    torch.manual_seed(SEED)
    model = make().eval()
    refusal = ""
    for inputs in candidates(model):
        try:
            with torch.no_grad():
                out = model(**inputs)
        except Exception as error:
            refusal = refusal or f"{type(error).__name__}: {str(error).strip()[:200]}"
            continue
        if tensors(out):
            shrunk = {"width": size.width, "layers": size.layers, "inputs": sorted(inputs)}
            return Recipe("transformers", family, model_class.__name__, make, inputs, shrunk)
    raise NotRunnableError(refusal or "takes none of the generic inputs")
