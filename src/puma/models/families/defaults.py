"""What the library takes where config.json leaves a setting out: the fields of its config classes (transformers 5).

Checkpoints rely on it: what equals a default need not be written. A test compares each with the class. Settings that
must be null to say something are in `family.NULLABLE`. This file must not know what the settings mean.
"""

from __future__ import annotations

from typing import Any

Raw = dict[str, Any]
LLAMA: Raw = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False,
}  # fmt: skip
GATED = {name: LLAMA[name] for name in LLAMA if name not in ("attention_bias", "mlp_bias")}
MISTRAL = GATED | {
    "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096,
}  # fmt: skip
QWEN2 = GATED | {
    "vocab_size": 151936, "intermediate_size": 22016, "num_key_value_heads": 32, "max_position_embeddings": 32768,
    "use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28,
}  # fmt: skip
QWEN3 = QWEN2 | {"head_dim": 128, "attention_bias": False}
PHI3 = GATED | {
    "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192, "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "pad_token_id": 32000,
}  # fmt: skip
SMOLLM3 = LLAMA | {
    "vocab_size": 128256, "hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16,
    "num_key_value_heads": 4, "max_position_embeddings": 32768, "tie_word_embeddings": True, "pad_token_id": 128004,
    "use_sliding_window": False, "no_rope_layer_interval": 4,
}  # fmt: skip
UNSCALED = {name: GATED[name] for name in GATED if name != "rms_norm_eps"}
OLMO = UNSCALED | {"vocab_size": 50304, "attention_bias": False, "pad_token_id": 1}
OLMO2 = OLMO | {"rms_norm_eps": 1e-5}
GRANITE = LLAMA | {
    "embedding_multiplier": 1.0, "logits_scaling": 1.0, "residual_multiplier": 1.0, "attention_multiplier": 1.0,
}  # fmt: skip
PHI = UNSCALED | {
    "vocab_size": 51200, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24,
    "hidden_act": "gelu_new", "layer_norm_eps": 1e-5,
}  # fmt: skip
STABLELM = UNSCALED | {
    "vocab_size": 50304, "hidden_size": 2560, "intermediate_size": 6912, "num_key_value_heads": 32,
    "max_position_embeddings": 4096, "layer_norm_eps": 1e-5, "use_qkv_bias": False, "use_parallel_residual": False,
}  # fmt: skip
COHERE = UNSCALED | {
    "vocab_size": 256000, "hidden_size": 8192, "intermediate_size": 22528, "num_hidden_layers": 40,
    "num_attention_heads": 64, "max_position_embeddings": 8192, "layer_norm_eps": 1e-5, "tie_word_embeddings": True,
    "attention_bias": False, "logit_scale": 0.0625, "pad_token_id": 0,
}  # fmt: skip
STARCODER2 = UNSCALED | {
    "vocab_size": 49152, "hidden_size": 3072, "intermediate_size": 12288, "num_hidden_layers": 30,
    "num_attention_heads": 24, "num_key_value_heads": 2, "hidden_act": "gelu_pytorch_tanh",
    "max_position_embeddings": 4096, "norm_epsilon": 1e-5, "use_bias": True, "tie_word_embeddings": True,
}  # fmt: skip
HELIUM = LLAMA | {
    "vocab_size": 48000, "hidden_size": 2560, "intermediate_size": 7040, "num_hidden_layers": 24,
    "num_attention_heads": 20, "num_key_value_heads": 20, "head_dim": 128, "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-8, "pad_token_id": 3,
}  # fmt: skip
EXAONE4 = GATED | {
    "vocab_size": 102400, "intermediate_size": 16384, "num_key_value_heads": 32, "rms_norm_eps": 1e-5,
    "sliding_window": 4096, "sliding_window_pattern": 4,
}  # fmt: skip
GLM = GATED | {
    "vocab_size": 151552, "intermediate_size": 13696, "num_hidden_layers": 40, "num_key_value_heads": 2,
    "head_dim": 128, "max_position_embeddings": 131072, "rms_norm_eps": 0.00000015625, "attention_bias": True,
    "pad_token_id": 151329,
}  # fmt: skip
MINISTRAL3 = GATED | {
    "vocab_size": 131072, "intermediate_size": 14336, "num_hidden_layers": 34, "num_key_value_heads": 8,
    "head_dim": 128, "max_position_embeddings": 262144, "rms_norm_eps": 1e-5, "pad_token_id": 11,
}  # fmt: skip
SEED_OSS = LLAMA | {
    "vocab_size": 155136, "intermediate_size": 27648, "num_hidden_layers": 64, "num_attention_heads": 80,
    "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 524288, "attention_bias": True,
    "attention_out_bias": False, "pad_token_id": 1,
}  # fmt: skip
ERNIE = GATED | {
    "vocab_size": 103424, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 18,
    "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 128, "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "use_bias": False, "pad_token_id": 0,
}  # fmt: skip
GEMMA = GATED | {
    "vocab_size": 256000, "hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192, "tie_word_embeddings": True, "attention_bias": False, "pad_token_id": 0,
}  # fmt: skip
MIXTRAL = GATED | {
    "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
    "num_experts_per_tok": 2, "num_local_experts": 8,
}  # fmt: skip
OLMOE = OLMO2 | {
    "hidden_size": 2048, "intermediate_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 16,
    "max_position_embeddings": 4096, "num_experts_per_tok": 8, "num_experts": 64, "norm_topk_prob": False,
}  # fmt: skip
QWEN2_MOE = QWEN2 | {
    "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24, "num_attention_heads": 16,
    "num_key_value_heads": 16, "decoder_sparse_step": 1, "moe_intermediate_size": 1408,
    "shared_expert_intermediate_size": 5632, "num_experts_per_tok": 4, "num_experts": 60, "norm_topk_prob": False,
    "qkv_bias": True,
}  # fmt: skip
QWEN3_MOE = {name: QWEN2[name] for name in QWEN2 if name != "max_window_layers"} | {
    "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 24, "num_key_value_heads": 4,
    "attention_bias": False, "decoder_sparse_step": 1, "moe_intermediate_size": 768, "num_experts_per_tok": 8,
    "num_experts": 128, "norm_topk_prob": False,
}  # fmt: skip
QWEN3_5 = GATED | {
    "vocab_size": 248320, "intermediate_size": 12288, "num_attention_heads": 16, "num_key_value_heads": 4,
    "head_dim": 256, "max_position_embeddings": 32768, "attention_bias": False, "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
}  # fmt: skip
QWEN3_5_MOE = {name: QWEN3_5[name] for name in QWEN3_5 if name != "intermediate_size"} | {
    "hidden_size": 2048, "num_hidden_layers": 40, "num_key_value_heads": 2, "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512, "num_experts_per_tok": 8, "num_experts": 256,
}  # fmt: skip
QWEN3_NEXT = QWEN3_5_MOE | {
    "vocab_size": 151936, "intermediate_size": 5632, "num_hidden_layers": 48, "decoder_sparse_step": 1,
    "num_experts_per_tok": 10, "num_experts": 512, "norm_topk_prob": True,
}  # fmt: skip
GPT_OSS = UNSCALED | {
    "vocab_size": 201088, "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 36,
    "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5, "num_local_experts": 128, "num_experts_per_tok": 4, "sliding_window": 128,
    "attention_bias": True, "swiglu_alpha": 1.702, "swiglu_limit": 7.0,
}  # fmt: skip
GEMMA2: Raw = {
    "vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "attention_bias": False,
    "query_pre_attn_scalar": 256, "sliding_window": 4096, "final_logit_softcapping": 30.0,
    "attn_logit_softcapping": 50.0, "pad_token_id": 0,
}  # fmt: skip
GEMMA3 = {name: GEMMA2[name] for name in GEMMA2 if "softcapping" not in name} | {
    "vocab_size": 262208, "max_position_embeddings": 131072,
}  # fmt: skip
GPT2: Raw = {
    "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12,
    "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False, "tie_word_embeddings": True,
}  # fmt: skip
NEOX: Raw = {
    "vocab_size": 50432, "hidden_size": 6144, "num_hidden_layers": 44, "num_attention_heads": 64,
    "intermediate_size": 24576, "hidden_act": "gelu", "max_position_embeddings": 2048, "layer_norm_eps": 1e-5,
    "tie_word_embeddings": False, "use_parallel_residual": True, "attention_bias": True,
}  # fmt: skip
OPT: Raw = {
    "vocab_size": 50272, "hidden_size": 768, "num_hidden_layers": 12, "ffn_dim": 3072, "max_position_embeddings": 2048,
    "num_attention_heads": 12, "activation_function": "relu", "tie_word_embeddings": True, "pad_token_id": 1,
}  # fmt: skip
T5: Raw = {
    "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8,
    "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "relu", "pad_token_id": 0,
}  # fmt: skip
BART: Raw = {
    "vocab_size": 50265, "max_position_embeddings": 1024, "encoder_layers": 12, "encoder_ffn_dim": 4096,
    "encoder_attention_heads": 16, "decoder_layers": 12, "decoder_ffn_dim": 4096, "decoder_attention_heads": 16,
    "activation_function": "gelu", "d_model": 1024, "scale_embedding": False, "pad_token_id": 1,
    "tie_word_embeddings": True, "decoder_start_token_id": 2, "eos_token_id": 2,
}  # fmt: skip
MBART = {name: BART[name] for name in BART if name != "decoder_start_token_id"}
MARIAN = BART | {
    "vocab_size": 58101, "pad_token_id": 58100, "decoder_start_token_id": 58100, "eos_token_id": 0,
    "share_encoder_decoder_embeddings": True,
}  # fmt: skip
PEGASUS = BART | {"pad_token_id": 0, "decoder_start_token_id": 0, "eos_token_id": 1}
M2M100 = BART | {"vocab_size": 128112, "activation_function": "relu", "scale_embedding": True}
WHISPER: Raw = {
    "vocab_size": 51865, "num_mel_bins": 80, "encoder_layers": 4, "encoder_attention_heads": 6, "decoder_layers": 4,
    "decoder_attention_heads": 6, "decoder_ffn_dim": 1536, "encoder_ffn_dim": 1536, "decoder_start_token_id": 50257,
    "activation_function": "gelu", "d_model": 384, "max_source_positions": 1500, "max_target_positions": 448,
    "eos_token_id": 50256, "tie_word_embeddings": True,
}  # fmt: skip
BERT: Raw = {
    "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "hidden_act": "gelu", "max_position_embeddings": 512, "type_vocab_size": 2,
    "layer_norm_eps": 1e-12, "tie_word_embeddings": True, "pad_token_id": 0,
}  # fmt: skip
ROBERTA = BERT | {"vocab_size": 50265, "pad_token_id": 1}
XLM_ROBERTA = BERT | {"pad_token_id": 1}
ELECTRA = BERT | {"embedding_size": 128, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024}
ALBERT = BERT | {
    "vocab_size": 30000, "embedding_size": 128, "hidden_size": 4096, "num_hidden_groups": 1, "inner_group_num": 1,
    "num_attention_heads": 64, "intermediate_size": 16384, "hidden_act": "gelu_new",
}  # fmt: skip
DISTILBERT: Raw = {
    "vocab_size": 30522, "max_position_embeddings": 512, "n_layers": 6, "n_heads": 12, "dim": 768, "hidden_dim": 3072,
    "activation": "gelu", "tie_word_embeddings": True, "pad_token_id": 0,
}  # fmt: skip
MPNET = {name: BERT[name] for name in BERT if name != "type_vocab_size"} | {
    "vocab_size": 30527, "pad_token_id": 1, "relative_attention_num_buckets": 32,
}  # fmt: skip
DEBERTA = BERT | {
    "vocab_size": 128100, "hidden_size": 1536, "num_hidden_layers": 24, "num_attention_heads": 24,
    "intermediate_size": 6144, "type_vocab_size": 0, "layer_norm_eps": 1e-7, "relative_attention": False,
    "max_relative_positions": -1, "position_biased_input": True, "pooler_hidden_act": "gelu", "legacy": True,
}  # fmt: skip
NOMIC = {name: BERT[name] for name in BERT if name != "tie_word_embeddings"} | {
    "vocab_size": 30528, "hidden_act": "silu", "max_position_embeddings": 2048,
}  # fmt: skip
GTE = BERT | {"vocab_size": 250048, "max_position_embeddings": 8192, "type_vocab_size": 1, "pad_token_id": 1}
MODERNBERT: Raw = {
    "vocab_size": 50368, "hidden_size": 768, "intermediate_size": 1152, "num_hidden_layers": 22,
    "num_attention_heads": 12, "hidden_activation": "gelu", "max_position_embeddings": 8192, "norm_eps": 1e-5,
    "norm_bias": False, "attention_bias": False, "mlp_bias": False, "local_attention": 128, "decoder_bias": True,
    "classifier_pooling": "cls", "classifier_bias": False, "classifier_activation": "gelu", "tie_word_embeddings": True,
}  # fmt: skip
VIT: Raw = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "hidden_act": "gelu", "layer_norm_eps": 1e-12, "image_size": 224, "patch_size": 16, "num_channels": 3,
    "qkv_bias": True,
}  # fmt: skip
CLIP_TEXT: Raw = {
    "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "projection_dim": 512, "num_hidden_layers": 12,
    "num_attention_heads": 8, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}  # fmt: skip
CLIP_VISION: Raw = {
    "hidden_size": 768, "intermediate_size": 3072, "projection_dim": 512, "num_hidden_layers": 12,
    "num_attention_heads": 12, "num_channels": 3, "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}  # fmt: skip
DEFAULTS: dict[str, Raw] = {  # by what config.json calls model_type
    "llama": LLAMA, "mistral": MISTRAL, "qwen2": QWEN2, "qwen3": QWEN3, "phi3": PHI3, "gemma2": GEMMA2,
    "gemma3_text": GEMMA3, "gpt2": GPT2, "gpt_neox": NEOX, "opt": OPT, "t5": T5, "bert": BERT, "roberta": ROBERTA,
    "xlm-roberta": XLM_ROBERTA, "electra": ELECTRA, "albert": ALBERT, "distilbert": DISTILBERT, "vit": VIT,
    "smollm3": SMOLLM3, "olmo": OLMO, "olmo2": OLMO2, "olmo3": OLMO2 | {"sliding_window": 4096}, "granite": GRANITE,
    "phi": PHI, "stablelm": STABLELM, "cohere": COHERE, "cohere2": COHERE | {"sliding_window": 4096},
    "starcoder2": STARCODER2, "helium": HELIUM, "exaone4": EXAONE4, "glm": GLM, "glm4": GLM, "ministral": MISTRAL,
    "ministral3": MINISTRAL3, "seed_oss": SEED_OSS, "ernie4_5": ERNIE, "gemma": GEMMA,
    "mixtral": MIXTRAL, "olmoe": OLMOE, "qwen2_moe": QWEN2_MOE, "qwen3_moe": QWEN3_MOE, "qwen3_5_text": QWEN3_5,
    "qwen3_5_moe_text": QWEN3_5_MOE, "qwen3_next": QWEN3_NEXT,
    "mpnet": MPNET, "deberta-v2": DEBERTA, "nomic_bert": NOMIC, "gte": GTE, "modernbert": MODERNBERT,
    "clip_text_model": CLIP_TEXT, "clip_vision_model": CLIP_VISION,
    "gpt_oss": GPT_OSS, "bart": BART, "mbart": MBART, "marian": MARIAN, "pegasus": PEGASUS, "m2m_100": M2M100,
    "whisper": WHISPER,
}  # fmt: skip
ALIASES: dict[str, dict[str, str]] = {
    "gpt2": {
        "hidden_size": "n_embd", "max_position_embeddings": "n_positions", "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
    "t5": {
        "hidden_size": "d_model", "num_attention_heads": "num_heads", "num_hidden_layers": "num_layers",
        "head_dim": "d_kv",
    },
    "bart": {
        "hidden_size": "d_model", "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "encoder_layers",
    },
    "whisper": {
        "hidden_size": "d_model", "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "encoder_layers", "num_key_value_heads": "encoder_attention_heads",
    },
    "mixtral": {"num_experts": "num_local_experts"},
    "gpt_oss": {"num_experts": "num_local_experts"},
    "olmoe": {"num_local_experts": "num_experts"},
    "qwen3_moe": {"num_local_experts": "num_experts"},
    "nomic_bert": {
        "n_embd": "hidden_size", "n_head": "num_attention_heads", "n_layer": "num_hidden_layers",
        "n_inner": "intermediate_size", "layer_norm_epsilon": "layer_norm_eps", "rotary_emb_base": "rope_theta",
    },
    "distilbert": {"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"},
}  # fmt: skip
