"""Configurations of transformers, cut by the names of their settings."""

from __future__ import annotations

from benchmarks.coverage.shrink import VOCABULARY, Size, shrink


def test_configurations_are_cut_by_name():
    full = {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 12,
        "intermediate_size": 3072,
        "vocab_size": 50257,
        "eos_token_id": 50256,
        "hidden_dropout_prob": 0.1,
        "use_cache": True,
        "layer_types": ["a"] * 11 + ["b"],
        "vision_config": {"model_type": "vit", "hidden_size": 1024, "image_size": 224, "patch_size": 16},
    }
    small = shrink(full, Size())
    assert small["hidden_size"] == 64
    assert small["num_attention_heads"] == small["num_key_value_heads"] == 4
    assert small["eos_token_id"] < small["vocab_size"] == VOCABULARY
    assert small["layer_types"] == ["a", "b"]
    assert small["vision_config"] == {
        "model_type": "vit",
        "hidden_size": 64,
        "image_size": 64,
        "patch_size": 16,
    }
    assert "use_cache" not in small
    assert "hidden_size" not in shrink(full, Size(width=None))


def test_what_a_name_does_not_tell_agrees_all_the_same():
    state = shrink(
        {"hidden_size": 4096, "expand": 2, "num_heads": 128, "head_dim": 64, "n_groups": 8}, Size()
    )
    assert state["num_heads"] * state["head_dim"] == 2 * state["hidden_size"]
    assert state["num_heads"] % state["n_groups"] == 0
    none = shrink({"hidden_size": 4096, "num_attention_heads": 32, "head_dim": None}, Size())
    assert none["head_dim"] * none["num_attention_heads"] == none["hidden_size"]
    wide = shrink({"dim": 768, "hidden_dim": 3072}, Size())
    assert wide == {"dim": 64, "hidden_dim": 256}
    backbone = {
        "num_hidden_layers": 12,
        "stage_names": ["stem", *(f"stage{i}" for i in range(1, 13))],
        "out_indices": [3, 6, 9, 12],
        "out_features": ["stage3", "stage6", "stage9", "stage12"],
    }
    assert shrink(backbone, Size(layers=4))["out_indices"] == [1, 2, 3, 4]
    assert "out_indices" not in shrink(backbone, Size(layers=2))
    assert shrink({"per_layer_config": {"05": {}, "00": {"x": 1}}}, Size())["per_layer_config"] == {
        "00": {"x": 1}
    }


def test_rotary_sections_fill_what_is_turned_of_a_head():
    for factor, wanted in ((None, 8), (0.5, 4)):
        rope = {"mrope_section": [16, 24, 24]} | ({} if factor is None else {"partial_rotary_factor": factor})
        small = shrink({"hidden_size": 4096, "rope_parameters": rope}, Size())["rope_parameters"]
        assert sum(small["mrope_section"]) == wanted
        assert min(small["mrope_section"]) > 0
