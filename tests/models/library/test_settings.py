"""Every config.json that is loaded means to us what it means to transformers; all others are refused by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from puma.models.families import FAMILIES
from tests.models.library import compare
from tests.models.library.settings import BASES, GONE, TRIED, Case, bases, classes, drawn, single

YARN = {"rope_scaling": {"type": "yarn", "factor": 4.0}, "original_max_position_embeddings": 8}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LONG = {"type": "longrope", "short_factor": [1.0, 1.2, 1.4], "long_factor": [2.0, 2.0, 2.0]}
FAULTS: list[tuple[str, str, dict[str, object]]] = [  # each was wrong in silence, or refused, once
    ("llama", "ForCausalLM", YARN),
    ("qwen2", "ForCausalLM", {"rope_scaling": LLAMA3, "original_max_position_embeddings": 16}),
    ("mistral", "ForCausalLM", {"sliding_window": GONE}),
    ("gemma2", "ForCausalLM", {"attn_logit_softcapping": GONE, "final_logit_softcapping": GONE}),
    ("gemma3_text", "ForCausalLM", {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0}}}),
    ("gemma3_text", "ForCausalLM", {"attn_logit_softcapping": 8.0}),
    ("qwen2", "ForCausalLM", {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}),
    ("phi3", "ForCausalLM", {"rope_scaling": LONG, "original_max_position_embeddings": 16}),
    ("phi3", "ForCausalLM", {"partial_rotary_factor": 0.67}),
    ("llama", "ForCausalLM", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
    ("gpt2", "LMHeadModel", {"scale_attn_by_inverse_layer_idx": True, "activation_function": "quick_gelu"}),
    ("gpt_neox", "ForCausalLM", {"attention_bias": False}),
    ("gpt_neox", "ForCausalLM", {"rope_theta": 33.0}),
    ("bert", "ForSequenceClassification", {"num_labels": 3}),
    ("llama", "ForSequenceClassification", {"id2label": {"1": "b", "2": None}}),
    ("vit", "ForImageClassification", {"qkv_bias": False, "hidden_act": "quick_gelu"}),
    ("clip_text_model", "ModelWithProjection", {"projection_dim": 8}),
    ("clip_vision_model", "Model", {"hidden_act": "gelu", "num_channels": 1}),
    ("clip_vision_model", "ModelWithProjection", {"patch_size": 2}),
    ("t5", "ForConditionalGeneration", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    ("ministral3", "ForCausalLM", {"original_max_position_embeddings": 12}),
    ("whisper", "ForConditionalGeneration", {"activation_function": "relu"}),
    ("whisper", "ForConditionalGeneration", {"num_key_value_heads": 2}),
    ("gpt_oss", "ForCausalLM", {"rope_parameters": {}}),
    ("modernbert", "ForMaskedLM", {"rope_scaling": {"type": "linear", "factor": 2.0}}),
]


@pytest.mark.parametrize(("model_type", "task", "settings"), FAULTS)
def test_what_people_have(model_type: str, task: str, settings: dict[str, object], tmp_path: Path) -> None:
    case = Case(model_type, BASES[model_type][1][0] + task, tuple(settings.items()))
    assert compare.tried(case, tmp_path / "it") == compare.EQUAL


def test_a_number_of_experts_that_is_said_twice(tmp_path: Path) -> None:
    """Of two that differ versions of the library read another one; real files have both alike."""
    alike, other = (Case("gpt_oss", "GptOssModel", (("experts_per_token", count),)) for count in (2, 1))
    assert compare.tried(alike, tmp_path / "alike") == compare.EQUAL
    assert "experts_per_token" in compare.tried(other, tmp_path / "other")


@pytest.mark.parametrize("model_type", ["llama", "opt", "t5", "albert"])
def test_a_class_without_its_head_is_its_states(model_type: str, tmp_path: Path) -> None:
    (body,) = (case for case in bases() if case.architecture == f"{BASES[model_type][1][0]}Model" and not case.changed)
    assert compare.tried(body, tmp_path / "it") == compare.EQUAL


@pytest.mark.parametrize("seed", range(30))
def test_settings_together(seed: int, tmp_path: Path) -> None:
    compare.tried(drawn(seed), tmp_path / "it")


@pytest.mark.slow
@pytest.mark.parametrize("model_type", BASES)
def test_every_value_of_every_setting(model_type: str, tmp_path: Path) -> None:
    """None differs; and most are understood, so that a fault that refuses everything is seen."""
    found = [compare.tried(case, tmp_path / str(i)) for i, case in enumerate(single(model_type))]
    assert found.count(compare.EQUAL) > len(found) / 2


@pytest.mark.slow
@pytest.mark.parametrize("start", range(1000, 5000, 100))
def test_many_settings_together(start: int, tmp_path: Path) -> None:
    for seed in range(start, start + 100):
        compare.tried(drawn(seed), tmp_path / str(seed))


def test_every_family_is_tried() -> None:
    tried = {name for model_type in BASES for name in classes(model_type)}
    encoders = {f"{kind}ForPreTraining" for kind in ("Bert", "Albert", "Electra")}
    assert tried == FAMILIES.keys() - encoders - {"PatchEncoder"}
    assert BASES.keys() == TRIED.keys()


@pytest.mark.parametrize("model_type", BASES)
def test_defaults_are_the_librarys(model_type: str) -> None:
    """What a config.json leaves out means what the config class of transformers has."""
    with compare.quiet() as transformers:
        for name in classes(model_type):
            family, config = FAMILIES[name], getattr(transformers, name).config_class
            whole = {field.name: field.default for field in dataclasses.fields(config)}
            assert family.defaults
            aliases = {other: own for other, own in config.attribute_map.items() if other not in family.defaults}
            assert aliases.items() <= family.aliases.items(), "a setting has another name, which would not be read"
            assert {setting: whole[setting] for setting in family.defaults} == family.defaults
