"""Smaller configurations, by the names that configurations of transformers use.

A configuration is a dictionary of settings, some of which are configurations themselves. Widths, layers,
vocabularies, experts and images are cut by name; what a name does not tell stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

VOCABULARY = 128


@final
@dataclass(frozen=True, slots=True)
class Size:
    """What to cut to. width None: widths, heads and experts stay as they are."""

    width: int | None = 64
    layers: int = 2
    image: int = 64
    #: Of patches; None: as they are. A patch of 16 x 16 pixels is wider than a model of 64 features.
    patch: int | None = None


#: Smallest first. Where one cannot be built or run, the next is tried.
SIZES = (
    Size(image=32, patch=4),
    Size(),
    Size(layers=4),
    Size(width=None),
    Size(width=None, layers=4, image=224),
)

_WIDTH = re.compile(
    r"(hidden_size|d_model|n_embd|embed_dim|embedding_size|dim|hidden_dim|model_dim|emb_dim|width|lru_width"
    r"|projection_dim|(vision|text|encoder|decoder|attention|cross|prompt|audio|out|output|proj|mm)_hidden_size"
    r"|decoder_hidden_dim|(input|output)_embedding_size|backbone_hidden_size|d_embed|word_embed_proj_dim|feat_proj_dim|attention_hidden_size)"
)
_INNER = re.compile(
    r"(\w*intermediate_(size|dim)|\w*ffn_dim|d_ff|n_inner|ffn_hidden_size|mlp_dim|feedforward_dim|dim_feedforward"
    r"|d_inner|intermediate_ffn_size|ff_dim|mlp_hidden_size)"
)
_HEADS = re.compile(
    r"(\w*num_attention_heads|linear_num_(key|value)_heads|\w*num_heads|n_heads?|\w*attention_heads"
    r"|num_query_heads)"
)
_KV_HEADS = re.compile(r"\w*(num_key_value_heads|kv_heads|n_head_kv|num_kv_heads|attention_groups)")
_HEAD = re.compile(r"\w*(head_dim|d_kv|qk_nope_head_dim|v_head_dim|kv_channels|attention_head_size)")
_LAYERS = re.compile(
    r"(\w*num_hidden_layers|n_layers?|num_layers|\w+_layers|depth|num_\w*_blocks|num_blocks)"
)
_NOT_LAYERS = re.compile(
    r"(num_feature_levels|num_conv_layers|num_feat_extract_layers|first_\w+|\w*skip\w*|\w*conv\w*)"
)
_EXPERTS = re.compile(r"(num_experts|n_routed_experts|num_local_experts|moe_num_experts|num_routed_experts)")
_TOP = re.compile(
    r"(num_experts_per_tok|top_k|moe_k|moe_topk|num_selected_experts|num_experts_per_token|moe_top_k)"
)
_RANK = re.compile(r"\w*(lora_rank|rank)")
_POSITIONS = re.compile(r"(max_position_embeddings|n_positions|max_sequence_length|max_seq_len|n_ctx)")


def shrink(settings: Mapping[str, Any], size: Size) -> dict[str, Any]:
    """The settings that differ from those given; nested configurations whole."""
    out: dict[str, Any] = {}
    tokens = 0
    for name, value in settings.items():
        small: Any = value
        if name == "per_layer_config" and isinstance(value, Mapping):
            small = {layer: each for layer, each in value.items() if int(layer) < size.layers}
        elif isinstance(value, Mapping) and ("model_type" in value or name.endswith("_config")):
            small = {**value, **shrink(value, size)}
        elif name.endswith("token_id") or name.endswith("token_index"):
            if isinstance(value, int) and value >= VOCABULARY:
                tokens += 1
                small = VOCABULARY - tokens
            elif isinstance(value, list):
                small = [min(each, VOCABULARY - 1) for each in value if isinstance(each, int)]
        elif name == "prediction_length" and value is None:
            small = 8
        elif name == "num_time_features" and value == 0:
            small = 2  # of a time series' step; with none its layers have no width
        elif name == "vocab_size" and value is None:
            small = VOCABULARY
        elif isinstance(value, bool):
            continue
        elif isinstance(value, int):
            small = _integer(name, value, size, settings)
        elif isinstance(value, list | tuple) and value:
            small = _list(name, list(value), size)
        if small != value:
            out[name] = small
    if size.width is not None:
        _agree(out, settings, size.width)
    _stages(out, settings, size.layers)
    return out


def _integer(name: str, value: int, size: Size, settings: Mapping[str, Any]) -> int:
    if name in ("attention_window", "block_size", "axial_pos_shape", "local_attn_chunk_length"):
        return min(value, 16)
    if name.endswith("vocab_size") or re.fullmatch(r"num_\w+_labels", name):
        return min(value, VOCABULARY)
    if _POSITIONS.fullmatch(name):
        return min(value, 512)
    if name in ("image_size", "img_size"):
        patch = settings.get("patch_size", 0)
        whole = isinstance(patch, int) and patch >= 8 and size.patch is None
        return min(value, 4 * patch if whole else size.image)
    if name == "patch_size" and size.patch is not None:
        return min(value, size.patch)
    if _LAYERS.fullmatch(name) and not _NOT_LAYERS.fullmatch(name):
        return min(value, size.layers)
    if size.width is None:
        return value
    if _WIDTH.fullmatch(name) and not (name == "hidden_dim" and value > settings.get("dim", value)):
        return min(value, size.width)
    if _INNER.fullmatch(name):
        return min(value, 4 * size.width)
    if _KV_HEADS.fullmatch(name):
        return min(value, 2)
    if _HEADS.fullmatch(name):
        return min(value, 4)
    if _HEAD.fullmatch(name) or name == "rotary_dim":
        return min(value, size.width // 4)
    if _EXPERTS.fullmatch(name):
        return min(value, 4)
    if _TOP.fullmatch(name):
        return min(value, 2)
    if name in ("n_group", "topk_group", "num_expert_group", "n_groups", "mamba_n_groups"):
        return min(value, 1)
    if name in ("chunk_size", "mamba_chunk_size", "state_size", "mamba_d_state"):
        return min(value, size.width // 4)
    if name in ("window_size", "local_radius"):
        return min(value, 4)
    if name == "hidden_dim" and value > settings.get("dim", value):
        return min(value, 4 * size.width)
    if name in ("num_detection_tokens", "num_codebooks", "n_codebooks", "num_quantizers"):
        return min(value, 4)
    if name in ("codebook_size", "audio_vocab_size", "output_channels"):
        return min(value, size.width)
    if name == "num_kv_shared_layers":
        return 0
    if name == "mamba_d_ssm":
        return min(value, 2 * size.width)
    if name == "mamba_n_heads":
        return min(value, 4)
    return value


def _list(name: str, value: list[Any], size: Size) -> list[Any]:
    if name in ("layer_types", "layers_block_type") or name.endswith("_layer_types"):
        # Each kind once, as far as there is room.
        kinds = list(dict.fromkeys(value))
        return (kinds + value)[: size.layers] if len(value) > size.layers else value
    if name in ("depths", "num_blocks", "layers", "encoder_depths") and all(
        isinstance(v, int) for v in value
    ):
        return [min(each, 1) for each in value]
    if name == "attention_window":
        return [min(each, 16) for each in value][: size.layers]
    if name == "tubelet_size" and size.patch is not None:
        return [value[0], *(min(each, size.patch) for each in value[1:])]
    cut = {"image_size": size.image, "patch_size": size.patch}.get(name)
    if cut is not None and all(isinstance(v, int) for v in value):
        return [min(each, cut) for each in value]
    if name == "attention_types":
        return [[kinds, 1] for kinds, _ in value]
    return value


def _agree(out: dict[str, Any], settings: Mapping[str, Any], width: int) -> None:
    """Heads that do not share keys have as many of both."""
    for kv in ("num_key_value_heads", "num_kv_heads"):
        heads = settings.get("num_attention_heads")
        if kv in settings and settings[kv] == heads and isinstance(heads, int):
            out[kv] = out.get("num_attention_heads", heads)
    hidden, heads = (out.get(n, settings.get(n)) for n in ("hidden_size", "num_attention_heads"))
    if settings.get("head_dim", 0) is None and isinstance(hidden, int) and isinstance(heads, int):
        out["head_dim"] = hidden // heads
    # All heads of a state space are together as wide as what the width is expanded to.
    expand, heads = settings.get("expand"), out.get("num_heads", settings.get("num_heads"))
    if isinstance(expand, int) and isinstance(heads, int) and "head_dim" in settings:
        out["head_dim"] = width * expand // heads
    # Rotary sections are parts of a head's width: what is derived is derived anew.
    rope = settings.get("rope_parameters")
    if isinstance(rope, Mapping) and ("mrope_section" in rope or _sectioned(settings.get("model_type"))):
        half = int(width // 4 * rope.get("partial_rotary_factor", 1.0)) // 2
        rest = 3 * half // 8
        out["rope_parameters"] = {**rope, "mrope_section": [half - 2 * rest, rest, rest]}


def _sectioned(model_type: Any) -> bool:
    """Whether models of this type cut their heads into sections by default."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        return False
    return "mrope_section" in getattr(CONFIG_MAPPING[model_type], "ignore_keys_at_rope_validation", ())


def _stages(out: dict[str, Any], settings: Mapping[str, Any], layers: int) -> None:
    """A backbone that hands on what several of its layers give hands on that of as many of its last."""
    wanted, full = settings.get("out_indices"), settings.get("num_hidden_layers")
    if not isinstance(wanted, list | tuple) or not isinstance(full, int) or full <= layers:
        return
    if len(settings.get("stage_names") or ()) == full + 1 and len(wanted) <= layers:
        out["out_indices"] = list(range(layers - len(wanted) + 1, layers + 1))
        out["out_features"] = [f"stage{i}" for i in out["out_indices"]]
