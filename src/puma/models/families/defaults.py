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
DEFAULTS: dict[str, Raw] = {  # by what config.json calls model_type
    "llama": LLAMA, "mistral": MISTRAL, "qwen2": QWEN2, "qwen3": QWEN3, "phi3": PHI3, "gemma2": GEMMA2,
    "gemma3_text": GEMMA3, "gpt2": GPT2, "gpt_neox": NEOX, "opt": OPT, "t5": T5, "bert": BERT, "roberta": ROBERTA,
    "xlm-roberta": XLM_ROBERTA, "electra": ELECTRA, "albert": ALBERT, "distilbert": DISTILBERT, "vit": VIT,
    "mpnet": MPNET, "deberta-v2": DEBERTA, "nomic_bert": NOMIC, "gte": GTE, "modernbert": MODERNBERT,
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
    "nomic_bert": {
        "n_embd": "hidden_size", "n_head": "num_attention_heads", "n_layer": "num_hidden_layers",
        "n_inner": "intermediate_size", "layer_norm_epsilon": "layer_norm_eps", "rotary_emb_base": "rope_theta",
    },
    "distilbert": {"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"},
}  # fmt: skip
