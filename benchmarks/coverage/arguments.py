"""What a model of transformers is called with: drawn by the names of its forward's parameters."""

from __future__ import annotations

import inspect
from collections.abc import Container, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.coverage.subject import SEED

_BATCH, _TOKENS, _FRAMES, _SAMPLES = 3, 24, 64, 4000
_TEXTS = ("input_ids", "decoder_input_ids", "qformer_input_ids")
#: Ordinary tokens: special ones have ids above, or below.
_LOW, _HIGH = 10, 100


def candidates(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Arguments to be tried in this order, until a forward takes them."""
    names = inspect.signature(model.forward).parameters
    config: Any = model.config
    main = getattr(model, "main_input_name", "input_ids")
    draw = torch.Generator().manual_seed(SEED)
    kinds = ["pixel_values", "input_features", "input_values", "input_ids", "inputs_embeds", "hidden_states"]
    text = {n: _tokens(draw) for n in _TEXTS if n in names}
    order = [main, *(kind for kind in kinds if kind != main and kind in names)]
    yield from _patches(names, config, draw)
    yield from _series(names, config, draw)
    if "spatial_shapes" in names and "pixel_attention_mask" in names:
        patch = 3 * (_find(config, "patch_size") or 16) ** 2
        known = {"pixel_attention_mask": torch.ones(_BATCH, 16).long()}
        known["spatial_shapes"] = torch.tensor([[4, 4]] * _BATCH)
        yield {"pixel_values": torch.randn(_BATCH, 16, patch, generator=draw), **known, **text}
    for first in order:
        rest = {name: value for name, value in text.items() if name != first}
        if first in ("pixel_values", "pixel_values_videos", "input_features", "input_values", "audio_values"):
            for value in _media(first, config, draw):
                if "input_ids" in rest and "attention_mask" in names:
                    yield {first: value, **rest, "attention_mask": torch.ones(_BATCH, _TOKENS).long()}
                if "input_ids" in rest:  # a text tower beside it, or one token stream for both
                    yield {first: value, **rest}
                yield {first: value, **{n: v for n, v in rest.items() if n != "input_ids"}}
        elif first in ("inputs_embeds", "hidden_states"):
            width = _find(config, "hidden_size", "d_model", "n_embd", "embed_dim", "dim")
            if isinstance(width, int):
                yield {first: torch.randn(_BATCH, _TOKENS, width, generator=draw), **rest}
                yield {first: torch.randn(_BATCH, _TOKENS, width, generator=draw)}
        elif first in names:
            if "xpath_tags_seq" not in names:
                yield {first: text.get(first, _tokens(draw)), **rest}
            boxes = torch.tensor([10, 10, 60, 40]).expand(_BATCH, _TOKENS, 4).contiguous()
            if "xpath_tags_seq" in names:
                depth = _find(config, "max_depth")
                paths = [torch.randint(0, 100, (_BATCH, _TOKENS, depth), generator=draw) for _ in range(2)]
                tags, places = paths
                yield {first: _tokens(draw), "xpath_tags_seq": tags, "xpath_subs_seq": places}
            if "bbox" in names:
                yield {first: _tokens(draw), "bbox": boxes}
            mask = torch.ones(_BATCH, _TOKENS, dtype=torch.long)
            if "attention_mask" in names:
                yield {first: text.get(first, _tokens(draw)), "attention_mask": mask, **rest}
    if "query_embeds" in names:  # between two towers
        queries, seen = (_find(config, n) for n in ("hidden_size", "encoder_hidden_size"))
        query = torch.randn(_BATCH, 8, queries, generator=draw)
        yield {"query_embeds": query, "encoder_hidden_states": torch.randn(_BATCH, 16, seen, generator=draw)}
    dummy = getattr(model, "dummy_inputs", None)
    if isinstance(dummy, dict):
        yield dummy


def _tokens(draw: torch.Generator) -> Tensor:
    return torch.randint(_LOW, _HIGH, (_BATCH, _TOKENS), generator=draw)


def _patches(names: Container[str], config: Any, draw: torch.Generator) -> Iterator[dict[str, Any]]:
    """Of two images, each cut into flat patches that stand one below the other."""
    grid = next((name for name in ("grid_thw", "image_grid_thw") if name in names), None)
    pixels = next((n for n in ("hidden_states", "pixel_values", "pixel_values_videos") if n in names), None)
    if grid is None or pixels is None or "input_ids" in names:
        return
    patch, frames = _find(config, "patch_size"), _find(config, "temporal_patch_size") or 1
    channels = _find(config, "in_channels", "in_chans", "num_channels") or 3
    sizes = torch.tensor([[1, 4, 4], [1, 4, 8]])
    for depth in (frames, 1):
        width = channels * depth * patch * patch
        yield {pixels: torch.randn(16 + 32, width, generator=draw), grid: sizes}
    yield {pixels: torch.randn(16 + 32, channels, patch, patch, generator=draw), grid: sizes}


def _series(names: Container[str], config: Any, draw: torch.Generator) -> Iterator[dict[str, Any]]:
    """Time series, of several lengths, with what some want to know of each step."""
    if "past_values" not in names:
        return
    context = _find(config, "context_length") or _find(config, "prediction_length") or 64
    context = min(context, 512)
    channels = _find(config, "num_input_channels", "input_size") or 1
    if "past_time_features" in names:
        ahead, lags = _find(config, "prediction_length"), max(_find(config, "lags_sequence") or [0])
        features = _find(config, "num_time_features") or 0
        past = torch.randn(_BATCH, context + lags, generator=draw)
        yield {
            "past_values": past,
            "past_time_features": torch.randn(*past.shape, features, generator=draw),
            "past_observed_mask": torch.ones(past.shape),
            "future_values": torch.randn(_BATCH, ahead, generator=draw),
            "future_time_features": torch.randn(_BATCH, ahead, features, generator=draw),
        }
    yield {"past_values": torch.randn(_BATCH, context, channels, generator=draw)}
    yield {"past_values": torch.randn(_BATCH, context, generator=draw)}


def _media(name: str, config: Any, draw: torch.Generator) -> Iterator[Tensor]:
    if name.startswith("pixel_values"):
        side = _find(config, "image_size", "img_size")
        channels = _find(config, "num_channels", "in_channels", "in_chans", "image_channels")
        channels = channels if isinstance(channels, int) else 3
        wanted = tuple(side) if isinstance(side, list | tuple) else (side, side)
        frames = _find(config, "num_frames", "frames_per_clip")
        for height, width in (
            (wanted if isinstance(wanted[0], int) else (64, 64)),
            (64, 64),
            (128, 128),
            (224, 224),
        ):
            if isinstance(frames, int):
                yield torch.randn(2, frames, channels, height, width, generator=draw)
            yield torch.randn(_BATCH, channels, height, width, generator=draw)
    elif name == "input_features":
        names = ("num_mel_bins", "input_feat_per_channel", "feature_size", "n_mels", "input_dim")
        bins = _find(config, *names, "feature_projection_input_dim")
        bins = bins if isinstance(bins, int) else 80
        length = _find(config, "max_source_positions")
        for frames in (min(2 * length, 3000) if isinstance(length, int) else _FRAMES, _FRAMES, 256):
            yield torch.randn(_BATCH, bins, frames, generator=draw)
            yield torch.randn(_BATCH, frames, bins, generator=draw)
    else:
        length = _find(config, "max_length")
        yield torch.randn(_BATCH, _SAMPLES, generator=draw)
        yield torch.randn(_BATCH, 1, _SAMPLES, generator=draw)
        if isinstance(bins := _find(config, "num_mel_bins"), int):
            yield torch.randn(_BATCH, length if isinstance(length, int) else 128, bins, generator=draw)
            yield torch.randn(_BATCH, 1, 1024, bins, generator=draw)


def _find(config: Any, *names: str) -> Any:
    """A setting by one of its names, of the configuration or of one within it."""
    for name in names:
        if (value := getattr(config, name, None)) is not None:
            return value
    for sub in getattr(config, "sub_configs", {}):
        inner = getattr(config, sub, None)
        if inner is not None and inner is not config and (value := _find(inner, *names)) is not None:
            return value
    return None
