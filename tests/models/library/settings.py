"""What people's config.json say, class by class: for each setting values to try, alone and together with others.

GONE leaves a setting out, None writes null. A base is a tiny model whose every setting is written; what is tried on it
need not make sense: either transformers and we agree on what it means, or we refuse it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.models import zoo

Raw = dict[str, Any]
GONE = "(not in config.json)"
YARN: Raw = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}
MINISTRAL: Raw = YARN | {"llama_4_scaling_beta": 0.1, "rope_theta": 100.0, "original_max_position_embeddings": 16}
LLAMA3: Raw = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 16}
LONG: Raw = {"short_factor": [1.0, 1.1, 1.3], "long_factor": [2.0, 3.0, 4.0]}
FLAT: list[Any] = [
    GONE, None, {"type": "default"}, {"type": "linear", "factor": 2.0}, {"rope_type": "linear"},
    {"type": "dynamic", "factor": 2.0}, YARN, YARN | {"attention_factor": 0.7}, YARN | {"factor": 0.5},
    YARN | {"factor": 0.5, "attention_factor": 1.5}, YARN | {"beta_fast": 4, "beta_slow": 2, "truncate": False},
    YARN | {"mscale": 1.0, "mscale_all_dim": 0.5}, YARN | {"mscale": 0.7}, YARN | {"rope_theta": 77.0},
    {"type": "yarn", "factor": 4.0}, {"type": "yarn", "factor": None, "original_max_position_embeddings": 16},
    LLAMA3, {name: LLAMA3[name] for name in LLAMA3 if "original" not in name}, {"type": "su", "factor": 2.0} | LONG,
    {"type": "longrope", "factor": 4.0} | LONG,
    {"rope_type": "longrope", "original_max_position_embeddings": 20} | LONG,
    {"rope_type": "longrope", "attention_factor": 1.3} | LONG, {"rope_theta": 50.0, "rope_type": "default"},
    {"rope_type": "default", "partial_rotary_factor": 0.67}, {"rope_type": "proportional"}, {"rope_type": "axial"},
    {"full_attention": {"rope_type": "default"}}, {"factor": 2.0}, {},
]  # fmt: skip
ROTARY: dict[str, list[Any]] = {
    "rope_theta": [GONE, 100.0, 10000], "rope_scaling": FLAT, "rope_parameters": FLAT,
    "original_max_position_embeddings": [GONE, 12, 64], "partial_rotary_factor": [GONE, 1.0, 0.67, 0.34],
}  # fmt: skip
KINDS: list[Any] = [
    GONE, None, ["full_attention"] * 3, ["sliding_attention"] * 3,
    ["full_attention", "sliding_attention", "full_attention"],
    ["sliding_attention", "full_attention", "full_attention"],
    ["full_attention", "sliding_attention", "sliding_attention"], ["full_attention"], ["chunked_attention"] * 3,
]  # fmt: skip
ACTIVATIONS = ["gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python_tanh", "quick_gelu", "relu", "silu"]
ACTIVATIONS += ["swish", "tanh", "mish", "gelu_10", "gelu_accurate", "relu2", "sigmoid", "linear", GONE]
WINDOW = {"sliding_window": [GONE, None, 3, 5, 100]}
HEADS: dict[str, list[Any]] = {
    "num_key_value_heads": [1, 2, 4, None], "tie_word_embeddings": [True, False, GONE], "rms_norm_eps": [GONE, 1e-3],
    "attention_bias": [GONE, True, False], "mlp_bias": [GONE, True, False], "head_dim": [GONE, None, 6, 8],
    "hidden_act": ACTIVATIONS, "pad_token_id": [GONE, None, 3], "vocab_size": [28, 40],
}  # fmt: skip
LABELS: dict[str, list[Any]] = {
    "id2label": [GONE, None, {"0": "a", "1": "b", "2": "c"}, {"0": None, "1": "b"}, {"1": "b", "2": "c"}, {"0": "x"}],
    "num_labels": [GONE, None, 1, 3, 4], "_num_labels": [GONE, 3], "label2id": [GONE, None, {"a": 0}],
    "problem_type": [GONE, "regression", "multi_label_classification"],
}  # fmt: skip
GEMMA = HEADS | ROTARY | LABELS | WINDOW | {
    "layer_types": KINDS, "hidden_activation": ACTIVATIONS, "hidden_act": [GONE, "silu"],
    "query_pre_attn_scalar": [GONE, 5, 24], "attn_logit_softcapping": [GONE, None, 8.0, 50.0],
    "final_logit_softcapping": [GONE, None, 5.0, 30.0], "use_bidirectional_attention": [GONE, None, False, True],
    "sliding_window_pattern": [GONE, 2, 3], "_sliding_window_pattern": [GONE, 2], "head_dim": [6, 8],
}  # fmt: skip
NESTED: list[Any] = [
    GONE, None, {}, {"full_attention": {"rope_type": "default", "rope_theta": 70.0}},
    {"sliding_attention": {"rope_theta": 30.0}},
    {"full_attention": None, "sliding_attention": {"rope_type": "default"}},
    {"full_attention": {"rope_type": "linear", "factor": 4.0}, "sliding_attention": {"rope_type": "default"}},
    {"full_attention": YARN, "sliding_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 20.0}},
    {"full_attention": LLAMA3, "sliding_attention": LLAMA3}, {"rope_type": "linear", "factor": 4.0}, YARN,
]  # fmt: skip
QWEN = HEADS | ROTARY | LABELS | WINDOW | {
    "use_sliding_window": [GONE, True, True, False], "max_window_layers": [GONE, 0, 1, 2, 5], "layer_types": KINDS,
}  # fmt: skip
ENCODING: dict[str, list[Any]] = LABELS | {
    "hidden_act": ACTIVATIONS, "type_vocab_size": [GONE, 1, 2, 3], "layer_norm_eps": [GONE, 1e-3, 1e-12],
    "pad_token_id": [GONE, None, 0, 1], "tie_word_embeddings": [GONE, True, False], "is_decoder": [GONE, False, True],
    "position_embedding_type": [GONE, "absolute"], "add_cross_attention": [GONE, False],
    "classifier_dropout": [GONE, None, 0.3], "chunk_size_feed_forward": [GONE, 0],
}  # fmt: skip
TRIED: dict[str, dict[str, list[Any]]] = {
    "llama": HEADS | ROTARY | LABELS | WINDOW | {"layer_types": KINDS, "pretraining_tp": [GONE, 1, 2]},
    "mistral": HEADS | ROTARY | LABELS | WINDOW | {"layer_types": KINDS},
    "qwen2": QWEN,
    "qwen3": QWEN,
    "phi3": HEADS | ROTARY | LABELS | WINDOW,
    "gemma2": GEMMA,
    "gemma3_text": GEMMA | {"rope_parameters": NESTED, "rope_local_base_freq": [GONE, 20.0]},
    "gpt2": LABELS | {
        "activation_function": ACTIVATIONS, "n_inner": [GONE, None, 20], "layer_norm_epsilon": [GONE, 1e-3],
        "scale_attn_weights": [GONE, True, False], "scale_attn_by_inverse_layer_idx": [GONE, True, False],
        "reorder_and_upcast_attn": [GONE, True], "add_cross_attention": [GONE, False, True],
        "tie_word_embeddings": [GONE, True, False], "pad_token_id": [GONE, None, 3], "n_ctx": [GONE, 16],
        "num_attention_heads": [GONE, 2], "num_hidden_layers": [GONE, 1], "hidden_act": [GONE, "silu"],
    },
    "gpt_neox": ROTARY | LABELS | {
        "hidden_act": ACTIVATIONS, "rotary_pct": [GONE, 0.34, 0.67, 1.0], "rotary_emb_base": [GONE, 50, 10000],
        "attention_bias": [GONE, True, False], "use_parallel_residual": [GONE, True, False],
        "layer_norm_eps": [GONE, 1e-3], "tie_word_embeddings": [GONE, True, False], "pad_token_id": [GONE, None, 3],
        "is_decoder": [GONE, True],
    },
    "opt": LABELS | {
        "activation_function": ACTIVATIONS, "do_layer_norm_before": [GONE, True, False], "enable_bias": [GONE, False],
        "layer_norm_elementwise_affine": [GONE, False], "_remove_final_layer_norm": [GONE, True],
        "word_embed_proj_dim": [GONE, None, 24, 12], "tie_word_embeddings": [GONE, True, False],
        "pad_token_id": [GONE, None, 1, 3], "ffn_dim": [20, 24],
    },
    "t5": {
        "feed_forward_proj": ["relu", "gated-gelu", "gated-silu", "gelu", "gated-relu", "silu", GONE],
        "dense_act_fn": [GONE, "gelu_new", "relu"], "is_gated_act": [GONE, True, False],
        "tie_word_embeddings": [GONE, True, False, None], "scale_decoder_outputs": [GONE, True, False],
        "num_decoder_layers": [GONE, None, 1, 2], "relative_attention_num_buckets": [GONE, 8, 32],
        "relative_attention_max_distance": [GONE, 20], "layer_norm_epsilon": [GONE, 1e-3],
        "decoder_start_token_id": [GONE, None, 0, 3], "pad_token_id": [GONE, 0, 5], "hidden_size": [GONE, 24],
        "head_dim": [GONE, 6], "num_heads": [4, 2],
    },
    "bert": ENCODING,
    "roberta": ENCODING,
    "xlm-roberta": ENCODING,
    "electra": ENCODING | {"embedding_size": [16, 24], "summary_activation": [GONE, "tanh"]},
    "albert": ENCODING | {
        "embedding_size": [16, 24], "num_hidden_groups": [GONE, 1, 2, 3], "inner_group_num": [GONE, 2],
    },
    "distilbert": LABELS | {
        "activation": ACTIVATIONS, "sinusoidal_pos_embds": [GONE, True], "tie_word_embeddings": [GONE, True, False],
        "n_heads": [2, 4], "num_hidden_layers": [GONE, 1], "pad_token_id": [GONE, None, 5],
        "hidden_act": [GONE, "relu"],
    },
    "mpnet": ENCODING | {"relative_attention_num_buckets": [GONE, 16, 32, 40]},
    "deberta-v2": ENCODING | {
        "relative_attention": [GONE, True, True, False], "position_buckets": [GONE, -1, 6, 8, 256],
        "max_relative_positions": [GONE, -1, 9, 16, 512], "pos_att_type": [GONE, None, "c2p|p2c", "p2c", ["c2p"], []],
        "position_biased_input": [GONE, True, False], "share_att_key": [GONE, True, False],
        "norm_rel_ebd": [GONE, "none", "layer_norm"], "conv_kernel_size": [GONE, 0, 3], "conv_groups": [GONE, 1, 2],
        "conv_act": [GONE, "gelu", "relu"], "pooler_hidden_act": [*ACTIVATIONS, "tanh"], "legacy": [GONE, True, False],
        "pooler_hidden_size": [GONE, 24], "embedding_size": [GONE, 24, 16], "attention_head_size": [GONE, 6, 8],
    },
    "modernbert": LABELS | {
        "hidden_activation": ACTIVATIONS, "norm_eps": [GONE, 1e-3], "norm_bias": [GONE, True, False],
        "attention_bias": [GONE, True, False], "mlp_bias": [GONE, True, False], "layer_types": KINDS,
        "local_attention": [GONE, 2, 5, 8], "global_attn_every_n_layers": [GONE, 1, 2, 3],
        "global_rope_theta": [GONE, 50.0], "local_rope_theta": [GONE, 70.0], "rope_parameters": NESTED,
        "rope_scaling": [GONE, None, YARN, {"type": "linear", "factor": 2.0}], "decoder_bias": [GONE, True, False],
        "classifier_pooling": [GONE, "cls", "mean"], "classifier_bias": [GONE, True, False],
        "classifier_activation": [*ACTIVATIONS, "tanh"], "tie_word_embeddings": [GONE, True, False],
        "pad_token_id": [GONE, None, 3], "position_embedding_type": [GONE, "absolute"],
        "sparse_prediction": [GONE, True], "hidden_act": [GONE, "relu"],
    },
    "nomic_bert": ENCODING | ROTARY | {"head_dim": [GONE, 6, 8]},
    "gte": ENCODING | ROTARY | {"type_vocab_size": [GONE, 0, 1, 2]},
    "clip_text_model": {
        "hidden_act": ACTIVATIONS, "projection_dim": [GONE, 8, 24], "layer_norm_eps": [GONE, 1e-3],
        "eos_token_id": [10], "attention_dropout": [GONE, 0.1], "max_position_embeddings": [20, 32],
    },
    "clip_vision_model": {
        "hidden_act": ACTIVATIONS, "projection_dim": [GONE, 8, 24], "layer_norm_eps": [GONE, 1e-3],
        "num_channels": [GONE, 1], "image_size": [8, 12, [8, 8]], "patch_size": [4, 2, [4, 4]],
    },
    "vit": LABELS | {
        "hidden_act": ACTIVATIONS, "qkv_bias": [GONE, True, False], "num_channels": [GONE, 1],
        "layer_norm_eps": [GONE, 1e-3], "image_size": [8, 12, [8, 8]], "patch_size": [4, 2, [4, 4]],
        "pooler_act": [GONE, "relu"],
    },
}  # fmt: skip
BART: dict[str, list[Any]] = LABELS | {
    "activation_function": ACTIVATIONS, "scale_embedding": [GONE, True, False], "encoder_layers": [1, 2],
    "decoder_attention_heads": [2, 3, 4], "encoder_ffn_dim": [16, 24], "tie_word_embeddings": [GONE, True, False],
    "decoder_start_token_id": [GONE, None, 0, 3], "pad_token_id": [GONE, None, 0, 1], "d_model": [20, 24],
    "normalize_before": [GONE, True], "num_attention_heads": [GONE, 2], "num_hidden_layers": [GONE, 1],
    "hidden_size": [GONE, 20],
}  # fmt: skip
TRIED |= {
    "bart": BART, "mbart": BART, "pegasus": BART, "m2m_100": BART,
    "marian": BART | {
        "decoder_vocab_size": [GONE, None, 28, 20], "share_encoder_decoder_embeddings": [GONE, True, False],
    },
}  # fmt: skip
TRIED["whisper"] = {
    name: values for name, values in BART.items() if name not in LABELS and not name.startswith(("norm", "pad"))
} | {
    "num_mel_bins": [4, 7], "max_source_positions": [5, 10], "max_target_positions": [9, 16],
    "use_weighted_layer_sum": [GONE, True], "apply_spec_augment": [GONE, False], "num_key_value_heads": [GONE, 2],
}  # fmt: skip
DECODING = HEADS | ROTARY | LABELS
PATTERNED = WINDOW | {"layer_types": KINDS, "sliding_window_pattern": [GONE, None, 2, 3, "LG"]}
BIASED = {"use_bias": [GONE, True, False]}
MIXED = {"num_experts": [3, 5], "num_experts_per_tok": [1, 3, 9], "norm_topk_prob": [GONE, True, False]}
SPARSE = {
    "decoder_sparse_step": [GONE, 1, 2, 3], "mlp_only_layers": [GONE, None, [], [1], [0, 2]],
    "moe_intermediate_size": [8, 12],
}  # fmt: skip
LAYERED = {"layer_norm_eps": [GONE, 1e-3]}
REMEMBERED = DECODING | {
    "linear_conv_kernel_dim": [GONE, 2, 3], "linear_num_key_heads": [1, 4], "linear_num_value_heads": [2, 3],
    "linear_key_head_dim": [4, 8], "linear_value_head_dim": [8], "full_attention_interval": [GONE, 2],
    "layer_types": [GONE, None, ["full_attention"] * 3, ["linear_attention"] * 3, ["sliding_attention"] * 3],
    "hidden_act": [GONE, "silu", "swish", "gelu", "relu"],
}  # fmt: skip
TRIED |= {
    "smollm3": DECODING | WINDOW | {
        "no_rope_layers": [GONE, None, [1, 0, 1], [0, 0, 0, 0], [1]], "no_rope_layer_interval": [GONE, 2, 3, 0],
        "use_sliding_window": [GONE, True, False], "layer_types": KINDS,
    },
    "olmo": DECODING | {"clip_qkv": [GONE, None, 0.3]},
    "olmo2": DECODING,
    "olmo3": DECODING | PATTERNED | {"rope_parameters": NESTED},
    "granite": DECODING | {
        "embedding_multiplier": [GONE, 12, 3.5, 0.2], "logits_scaling": [GONE, 8.0, 3], "residual_multiplier": [0.22],
        "attention_multiplier": [GONE, 0.0625],
    },
    "phi": DECODING | LAYERED | {"qk_layernorm": [GONE, True, False]},
    "stablelm": DECODING | LAYERED | {
        "qk_layernorm": [GONE, True, False], "use_parallel_residual": [GONE, True, False],
        "use_qkv_bias": [GONE, True, False],
    },
    "cohere": DECODING | LAYERED | {"use_qk_norm": [GONE, None, True], "logit_scale": [GONE, 0.25, None, -1.0]},
    "cohere2": DECODING | LAYERED | PATTERNED | {"logit_scale": [GONE, 0.25]},
    "exaone4": DECODING | PATTERNED,
    "starcoder2": DECODING | WINDOW | BIASED | {"norm_epsilon": [GONE, 1e-3], "layer_types": KINDS},
    "helium": DECODING,
    "glm": DECODING,
    "glm4": DECODING,
    "ministral": DECODING | WINDOW | {"layer_types": KINDS},
    "ministral3": DECODING | WINDOW | {"rope_parameters": [GONE, None, MINISTRAL, MINISTRAL | {"factor": 2.0}, YARN]},
    "seed_oss": DECODING | {"attention_out_bias": [GONE, True, False]},
    "ernie4_5": DECODING | BIASED,
    "mixtral": DECODING | WINDOW | {
        "num_local_experts": [GONE, 3, 5], "num_experts": [GONE, 4], "num_experts_per_tok": [GONE, 1, 3, 9],
    },
    "olmoe": DECODING | MIXED | {"clip_qkv": [GONE, None, 0.3], "num_local_experts": [GONE, 4]},
    "qwen2_moe": QWEN | MIXED | SPARSE | {
        "qkv_bias": [GONE, True, False], "shared_expert_intermediate_size": [12, 20],
    },
    "qwen3_moe": DECODING | WINDOW | MIXED | SPARSE | {"use_sliding_window": [GONE, True, False]},
    "gpt_oss": DECODING | WINDOW | {
        "num_local_experts": [3, 5], "num_experts_per_tok": [GONE, 1, 3, 9], "experts_per_token": [GONE, 1],
        "swiglu_limit": [GONE, 5.0], "swiglu_alpha": [GONE, 1.5], "layer_types": KINDS,
    },
    "qwen3_5_text": REMEMBERED,
    "qwen3_5_moe_text": REMEMBERED | MIXED | {"shared_expert_intermediate_size": [12, 20]},
    "qwen3_next": REMEMBERED | MIXED | SPARSE | {"shared_expert_intermediate_size": [12, 20]},
    "gemma": DECODING | {"use_bidirectional_attention": [GONE, None, False, True], "hidden_activation": [GONE, "silu"]},
}  # fmt: skip
GROUPED = zoo.GROUPED | {"num_hidden_layers": 3}
EIGHT = GROUPED | {"head_dim": 8, "pad_token_id": 0}  # of which a half, of pairs beside each other, is a whole number
EXPERTS = GROUPED | {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
SHARED = {"shared_expert_intermediate_size": 12}
REMEMBERING = GROUPED | {
    "head_dim": 8, "linear_key_head_dim": 6, "linear_value_head_dim": 4, "linear_num_key_heads": 2,
    "linear_num_value_heads": 4, "layer_types": ["linear_attention", "full_attention", "linear_attention"],
}  # fmt: skip
GPT2 = {"vocab_size": 28, "n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 32}
CAUSAL = ("CausalLM", "SequenceClassification", "Model")
HEADLESS = ("CausalLM", "Model")
TOKENS = (*CAUSAL, "TokenClassification")
EACH = (*TOKENS, "QuestionAnswering")
TASKS = ("Model", *zoo.TASKS)
TOWER = ("Model", "ModelWithProjection")
BASES: dict[str, tuple[Raw, tuple[str, ...]]] = {  # by model_type: settings, and names of classes
    "llama": (GROUPED, ("Llama", *EACH)),
    "mistral": (GROUPED, ("Mistral", *EACH)),
    "qwen2": (GROUPED, ("Qwen2", *EACH)),
    "qwen3": (GROUPED | {"head_dim": 6}, ("Qwen3", *EACH)),
    "phi3": (GROUPED | {"pad_token_id": 0, "eos_token_id": 2}, ("Phi3", *TOKENS)),
    "gemma2": (GROUPED | {"head_dim": 6, "sliding_window": 3}, ("Gemma2", *TOKENS)),
    "gemma3_text": (GROUPED | {"head_dim": 6, "sliding_window": 3}, ("Gemma3", *CAUSAL)),
    "smollm3": (GROUPED | {"pad_token_id": 0}, ("SmolLM3", *CAUSAL)),
    "olmo": (GROUPED, ("Olmo", *CAUSAL)),
    "olmo2": (GROUPED, ("Olmo2", *CAUSAL)),
    "olmo3": (GROUPED | {"sliding_window": 3}, ("Olmo3", *CAUSAL)),
    "granite": (GROUPED | {"residual_multiplier": 0.3, "logits_scaling": 4.0}, ("Granite", *HEADLESS)),
    "phi": (GROUPED | {"hidden_size": 32}, ("Phi", *CAUSAL)),
    "stablelm": (GROUPED | {"hidden_size": 32}, ("StableLm", *CAUSAL)),
    "cohere": (GROUPED, ("Cohere", *HEADLESS)),
    "cohere2": (GROUPED | {"sliding_window": 3}, ("Cohere2", *HEADLESS)),
    "exaone4": (GROUPED | {"sliding_window": 3}, ("Exaone4", *CAUSAL)),
    "starcoder2": (GROUPED, ("Starcoder2", *CAUSAL)),
    "helium": (GROUPED | {"head_dim": 6}, ("Helium", *CAUSAL)),
    "glm": (EIGHT, ("Glm", *CAUSAL)),
    "glm4": (EIGHT, ("Glm4", *CAUSAL)),
    "ministral": (GROUPED | {"sliding_window": 3, "head_dim": 6}, ("Ministral", *CAUSAL)),
    "ministral3": (GROUPED | {"head_dim": 6, "rope_parameters": MINISTRAL, "pad_token_id": 0}, ("Ministral3", *CAUSAL)),
    "seed_oss": (GROUPED | {"head_dim": 6}, ("SeedOss", *CAUSAL)),
    "ernie4_5": (GROUPED | {"head_dim": 6}, ("Ernie4_5", *HEADLESS)),
    "gemma": (GROUPED | {"head_dim": 6}, ("Gemma", *CAUSAL)),
    "mixtral": (EXPERTS | {"num_local_experts": 4}, ("Mixtral", *HEADLESS)),
    "olmoe": (EXPERTS, ("Olmoe", *HEADLESS)),
    "qwen2_moe": (EXPERTS | SHARED, ("Qwen2Moe", *HEADLESS)),
    "qwen3_moe": (EXPERTS | {"head_dim": 6, "norm_topk_prob": True}, ("Qwen3Moe", *HEADLESS)),
    "qwen3_5_text": (REMEMBERING, ("Qwen3_5", *HEADLESS)),
    "qwen3_5_moe_text": (REMEMBERING | EXPERTS | SHARED, ("Qwen3_5Moe", *HEADLESS)),
    "qwen3_next": (REMEMBERING | EXPERTS | SHARED, ("Qwen3Next", *HEADLESS)),
    "gpt_oss": (EXPERTS | {"num_local_experts": 4, "head_dim": 6, "sliding_window": 3}, ("GptOss", *HEADLESS)),
    "gpt2": (GPT2, ("GPT2", *EACH)),
    "gpt_neox": (zoo.SIZES | {"num_hidden_layers": 3, "rotary_pct": 0.67}, ("GPTNeoX", *EACH)),
    "opt": (zoo.OPT, ("OPT", *CAUSAL, "QuestionAnswering")),
    "t5": (zoo.T5 | {"num_layers": 2}, ("T5", "ConditionalGeneration", "Model", "EncoderModel")),
    "bart": (zoo.BART | {"eos_token_id": 10}, ("Bart", "ConditionalGeneration", "Model", "SequenceClassification")),
    "mbart": (zoo.BART, ("MBart", "ConditionalGeneration", "Model")),
    "marian": (zoo.BART | {"pad_token_id": 0}, ("Marian", "MTModel", "Model")),
    "pegasus": (zoo.BART, ("Pegasus", "ConditionalGeneration", "Model")),
    "m2m_100": (zoo.BART | {"pad_token_id": 1}, ("M2M100", "ConditionalGeneration", "Model")),
    "whisper": (zoo.WHISPER, ("Whisper", "ConditionalGeneration")),
    "bert": (zoo.SIZES, ("Bert", *TASKS, "NextSentencePrediction")),
    "roberta": (zoo.POSITIONS, ("Roberta", *TASKS)),
    "xlm-roberta": (zoo.POSITIONS, ("XLMRoberta", *TASKS)),
    "electra": (zoo.SIZES | {"embedding_size": 16}, ("Electra", *TASKS)),
    "albert": (zoo.SIZES | {"embedding_size": 16, "num_hidden_layers": 3}, ("Albert", *TASKS)),
    "distilbert": (zoo.DISTIL, ("DistilBert", *TASKS)),
    "mpnet": (zoo.MPNET, ("MPNet", *TASKS)),
    "deberta-v2": (zoo.DEBERTA, ("DebertaV2", *TASKS)),
    "modernbert": (zoo.MODERNBERT | {"num_hidden_layers": 3, "pad_token_id": 0}, ("ModernBert", *TASKS)),
    "nomic_bert": (zoo.SIZES, ("NomicBert", *TASKS[:4])),
    "gte": (zoo.SIZES, ("Gte", *TASKS[:4])),
    "clip_text_model": (zoo.CLIP_TEXT | {"eos_token_id": 10}, ("CLIPText", *TOWER)),
    "clip_vision_model": (zoo.CLIP_VISION, ("CLIPVision", *TOWER)),
    "vit": (zoo.VIT | {"image_size": 8, "patch_size": 4}, ("ViT", "ImageClassification", "Model")),
}
UNUSUAL = {
    "Qwen3_5Model": "Qwen3_5TextModel", "Qwen3_5MoeModel": "Qwen3_5MoeTextModel",
    "GPT2ForCausalLM": "GPT2LMHeadModel", "Gemma3Model": "Gemma3TextModel",
    "Gemma3ForSequenceClassification": "Gemma3TextForSequenceClassification",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A config.json to try."""

    model_type: str
    architecture: str
    changed: tuple[tuple[str, Any], ...]

    @property
    def raw(self) -> Raw:
        """What it holds."""
        base, _ = BASES[self.model_type]
        settings = base | dict(self.changed) | {"model_type": self.model_type, "architectures": [self.architecture]}
        return {name: value for name, value in settings.items() if value is not GONE}


def classes(model_type: str) -> list[str]:
    """The names in "architectures" of this kind of model."""
    kind, *tasks = BASES[model_type][1]
    whole = [kind + task if "Model" in task else f"{kind}For{task}" for task in tasks]
    return [UNUSUAL.get(name, name) for name in whole]


def bases() -> Iterator[Case]:
    """Every class as it is."""
    for model_type in BASES:
        for architecture in classes(model_type):
            yield Case(model_type, architecture, ())


def single(model_type: str) -> Iterator[Case]:
    """Every value of every setting, alone, of one class each."""
    named = classes(model_type)
    for setting, values in TRIED[model_type].items():
        for i, value in enumerate(values):
            task = 1 if setting in LABELS else i % len(named)
            yield Case(model_type, named[task], ((setting, value),))


def drawn(seed: int) -> Case:
    """A few settings together."""
    choice = random.Random(seed)
    model_type = choice.choice(list(BASES))
    tried = TRIED[model_type]
    settings = choice.sample(list(tried), k=min(len(tried), choice.randint(1, 5)))
    return Case(
        model_type, choice.choice(classes(model_type)), tuple((name, choice.choice(tried[name])) for name in settings)
    )
