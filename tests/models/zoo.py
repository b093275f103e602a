"""Tiny random checkpoints of every family, written by transformers itself, which is also the reference.

    folder = zoo.write(tmp_path, "mistral")

The tokenizer is that of tests.models.tiny, and knows [MASK].
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from tests.models import tiny

VOCABULARY = tiny.VOCABULARY + 1  # [MASK] is the last token

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
}
GROUPED = SIZES | {"num_key_value_heads": 2}
GEMMA = GROUPED | {"head_dim": 8, "query_pre_attn_scalar": 5, "sliding_window": 4}
POSITIONS = SIZES | {"max_position_embeddings": 34}  # two of them before the first
DISTIL = {"vocab_size": VOCABULARY, "dim": 24, "hidden_dim": 20, "n_layers": 2, "n_heads": 4}
DISTIL |= {"max_position_embeddings": 32}
OPT = {name: SIZES[name] for name in SIZES if name != "intermediate_size"} | {"ffn_dim": 20, "word_embed_proj_dim": 24}


EXPERTS = GROUPED | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
MEMORY: dict[str, Any] = {"linear_key_head_dim": 6, "linear_value_head_dim": 4, "linear_num_key_heads": 2}
MEMORY |= {"linear_num_value_heads": 4, "layer_types": ["linear_attention", "full_attention", "linear_attention"]}
FAINT = {"rms_norm_eps": 1e-4}


def rope(kind: str, **settings: Any) -> dict[str, Any]:
    """LLaMA with scaled rotary positions."""
    return GROUPED | {"rope_parameters": {"rope_type": kind, "rope_theta": 100.0, "factor": 4.0} | settings}


CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-linear": ("LlamaForCausalLM", rope("linear")),
    "llama-3": (
        "LlamaForCausalLM",
        rope("llama3", low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16),
    ),
    "llama-yarn": ("LlamaForCausalLM", rope("yarn", original_max_position_embeddings=8)),
    "mistral": ("MistralForCausalLM", GROUPED | {"sliding_window": 3}),
    "mistral-no-window": ("MistralForCausalLM", GROUPED | {"sliding_window": None}),
    "qwen2": ("Qwen2ForCausalLM", GROUPED),
    "qwen3": ("Qwen3ForCausalLM", GROUPED | {"head_dim": 10, "tie_word_embeddings": True}),
    "phi3": ("Phi3ForCausalLM", GROUPED | {"pad_token_id": 0, "sliding_window": 5, "eos_token_id": 2}),
    "gemma2": (
        "Gemma2ForCausalLM",
        GEMMA | {"num_hidden_layers": 3, "attn_logit_softcapping": 8.0, "final_logit_softcapping": 5.0},
    ),
    "gemma3": ("Gemma3ForCausalLM", GEMMA | {"num_hidden_layers": 3, "sliding_window_pattern": 2}),
    "smollm3": ("SmolLM3ForCausalLM", GROUPED | {"pad_token_id": 0, "no_rope_layer_interval": 2}),
    "olmo": ("OlmoForCausalLM", GROUPED),
    "olmo2": ("Olmo2ForCausalLM", GROUPED),
    "olmo3": ("Olmo3ForCausalLM", GROUPED | {"num_hidden_layers": 4, "sliding_window": 3}),
    "granite": (
        "GraniteForCausalLM",
        GROUPED
        | {"embedding_multiplier": 3.5, "attention_multiplier": 0.2, "residual_multiplier": 0.3, "logits_scaling": 4.0}
        | {"tie_word_embeddings": True},
    ),
    "phi": ("PhiForCausalLM", GROUPED | {"hidden_size": 32}),
    "stablelm": ("StableLmForCausalLM", GROUPED | {"hidden_size": 32, "use_qkv_bias": True}),
    "cohere": ("CohereForCausalLM", GROUPED | {"logit_scale": 0.25}),
    "cohere2": ("Cohere2ForCausalLM", GROUPED | {"num_hidden_layers": 4, "sliding_window": 3}),
    "starcoder2": ("Starcoder2ForCausalLM", GROUPED),
    "exaone4": ("Exaone4ForCausalLM", GROUPED | {"num_hidden_layers": 4, "sliding_window": 3}),
    "glm4": ("Glm4ForCausalLM", GROUPED | {"head_dim": 8, "pad_token_id": 0}),
    "gemma": ("GemmaForCausalLM", GROUPED | {"head_dim": 8}),
    "mixtral": ("MixtralForCausalLM", GROUPED | {"num_local_experts": 4}),
    "olmoe": ("OlmoeForCausalLM", GROUPED | {"num_experts": 5, "num_experts_per_tok": 2}),
    "qwen2-moe": ("Qwen2MoeForCausalLM", EXPERTS | {"shared_expert_intermediate_size": 8, "mlp_only_layers": [1]}),
    "qwen3-moe": ("Qwen3MoeForCausalLM", EXPERTS | {"norm_topk_prob": True}),
    "gpt-oss": (
        "GptOssForCausalLM",
        GROUPED | {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 3},
    ),
    "qwen3.5": ("Qwen3_5ForCausalLM", GROUPED | {"head_dim": 8, "num_hidden_layers": 3} | MEMORY | FAINT),
    "qwen3.5-moe": (
        "Qwen3_5MoeForCausalLM",
        EXPERTS | {"head_dim": 8, "num_hidden_layers": 3, "shared_expert_intermediate_size": 12} | MEMORY | FAINT,
    ),
    "qwen3-next": (
        "Qwen3NextForCausalLM",
        EXPERTS
        | {"head_dim": 8, "num_hidden_layers": 3, "shared_expert_intermediate_size": 12, "mlp_only_layers": [1]}
        | MEMORY
        | FAINT,
    ),
    "neox": ("GPTNeoXForCausalLM", SIZES | {"rotary_pct": 0.67}),
    "neox-serial": ("GPTNeoXForCausalLM", SIZES | {"use_parallel_residual": False, "rotary_pct": 1.0}),
    "opt": ("OPTForCausalLM", OPT),
    "gpt2-hub": (
        "GPT2LMHeadModel",
        {"vocab_size": VOCABULARY, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 32},
    ),
}
T5 = {"vocab_size": VOCABULARY, "d_model": 24, "d_kv": 6, "d_ff": 20, "num_heads": 4, "decoder_start_token_id": 0}
SEQ2SEQ: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": (
        "T5ForConditionalGeneration",
        T5 | {"num_layers": 2, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 9},
    ),
    "t5-gated": (
        "T5ForConditionalGeneration",
        T5
        | {"num_layers": 1, "num_decoder_layers": 2, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
}
BART = {"vocab_size": VOCABULARY, "d_model": 24, "encoder_ffn_dim": 20, "decoder_ffn_dim": 16}
BART |= {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
BART |= {"max_position_embeddings": 32, "decoder_start_token_id": 0, "forced_eos_token_id": None, "eos_token_id": 2}
SEQ2SEQ |= {
    "bart": ("BartForConditionalGeneration", BART),
    "mbart": (
        "MBartForConditionalGeneration",
        BART | {"encoder_layers": 1, "scale_embedding": True, "decoder_attention_heads": 2},
    ),
    "marian": ("MarianMTModel", BART | {"scale_embedding": True, "activation_function": "swish"}),
    "pegasus": ("PegasusForConditionalGeneration", BART | {"activation_function": "relu"}),
    "m2m100": ("M2M100ForConditionalGeneration", BART | {"pad_token_id": 1}),
}
WHISPER = {name: BART[name] for name in BART if "embed" not in name and "position" not in name}
WHISPER |= {"num_mel_bins": 6, "max_source_positions": 8, "max_target_positions": 24, "pad_token_id": 0}
WHISPER |= {"bos_token_id": 0, "begin_suppress_tokens": None, "encoder_layers": 1}
SOUND: dict[str, tuple[str, dict[str, Any]]] = {"whisper": ("WhisperForConditionalGeneration", WHISPER)}
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "roberta": ("RobertaModel", POSITIONS | {"type_vocab_size": 1}),
    "xlm-roberta": ("XLMRobertaModel", POSITIONS | {"type_vocab_size": 1}),
    "distilbert": ("DistilBertModel", DISTIL),
    "distilbert-relu": ("DistilBertModel", DISTIL | {"activation": "relu"}),
    "electra": ("ElectraModel", SIZES | {"embedding_size": 16}),
    "electra-large": ("ElectraModel", SIZES | {"embedding_size": 24}),
    "albert": ("AlbertModel", SIZES | {"embedding_size": 16, "num_hidden_layers": 4}),
    "albert-groups": ("AlbertModel", SIZES | {"embedding_size": 24, "num_hidden_layers": 4, "num_hidden_groups": 2}),
}
DEBERTA = SIZES | {
    "relative_attention": True, "position_buckets": 6, "max_relative_positions": 16, "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False, "share_att_key": True, "norm_rel_ebd": "layer_norm",
}  # fmt: skip
MODERNBERT = SIZES | {"local_attention": 4, "num_hidden_layers": 4, "cls_token_id": 2, "sep_token_id": 3}
MPNET = POSITIONS | {"pad_token_id": 1}
ENCODERS |= {
    "mpnet": ("MPNetModel", MPNET),
    "deberta": ("DebertaV2Model", DEBERTA),
    "deberta-convolution": ("DebertaV2Model", DEBERTA | {"conv_kernel_size": 3, "conv_act": "gelu"}),
    "deberta-v2": (
        "DebertaV2Model",
        DEBERTA | {"position_buckets": -1, "share_att_key": False, "type_vocab_size": 2, "norm_rel_ebd": "none"},
    ),
    "embeddinggemma": (
        "Gemma3TextModel",
        GEMMA | {"num_hidden_layers": 3, "sliding_window_pattern": 2, "use_bidirectional_attention": True},
    ),
    "modernbert": ("ModernBertModel", MODERNBERT),
    "nomic": ("NomicBertModel", SIZES),
    "gte": ("GteModel", SIZES | {"type_vocab_size": 0}),
}
SETTINGS = {
    "Bert": SIZES,
    "Roberta": POSITIONS,
    "DistilBert": DISTIL,
    "Electra": SIZES | {"embedding_size": 16},
    "Albert": SIZES | {"embedding_size": 16},
    "MPNet": MPNET,
    "DebertaV2": DEBERTA,
    "ModernBert": MODERNBERT,
    "NomicBert": SIZES,
    "Gte": SIZES,
}
TASKS = ("SequenceClassification", "TokenClassification", "MaskedLM", "QuestionAnswering", "MultipleChoice")
FEWER = {"NomicBert": TASKS[:3], "Gte": TASKS[:3]}
HEADS = {
    f"{kind}-{task}": (f"{kind}For{task}", settings)
    for kind, settings in SETTINGS.items()
    for task in FEWER.get(kind, TASKS)
}
HEADS |= {
    "ModernBert-mean": ("ModernBertForSequenceClassification", MODERNBERT | {"classifier_pooling": "mean"}),
}
TEXTS = {"bart-classifier": ("BartForSequenceClassification", BART | {"eos_token_id": 3})}
HEADS |= {"Bert-NextSentencePrediction": ("BertForNextSentencePrediction", SIZES)}
LAST: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-classifier": ("LlamaForSequenceClassification", GROUPED),
    "qwen3-classifier": ("Qwen3ForSequenceClassification", GROUPED),
    "gpt2-classifier": ("GPT2ForSequenceClassification", {"n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 32}),
    "neox-classifier": ("GPTNeoXForSequenceClassification", SIZES | {"rotary_pct": 0.34}),
}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 32}
EACH: dict[str, tuple[str, dict[str, Any]]] = {  # heads for all tokens of decoders
    "llama-tokens": ("LlamaForTokenClassification", GROUPED),
    "gemma2-tokens": ("Gemma2ForTokenClassification", GEMMA),
    "gpt2-tokens": ("GPT2ForTokenClassification", GPT2),
    "neox-tokens": ("GPTNeoXForTokenClassification", SIZES | {"rotary_pct": 0.67}),
    "llama-answers": ("LlamaForQuestionAnswering", GROUPED),
    "mistral-answers": ("MistralForQuestionAnswering", GROUPED),
    "gpt2-answers": ("GPT2ForQuestionAnswering", GPT2),
    "opt-answers": ("OPTForQuestionAnswering", OPT),
}
VIT = {name: SIZES[name] for name in SIZES if "vocab" not in name and "max" not in name}
IMAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTForImageClassification", VIT | {"image_size": 12, "patch_size": 4}),
    "vit-grey": ("ViTForImageClassification", VIT | {"image_size": 8, "patch_size": 2, "num_channels": 1}),
}
SEEN = {"hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4}
CLIP_TEXT = SIZES | {"projection_dim": 10, "eos_token_id": 3, "bos_token_id": 2, "pad_token_id": 0}
CLIP_VISION = SEEN | {"image_size": 8, "patch_size": 4, "projection_dim": 10}
CLIP: dict[str, tuple[str, dict[str, Any]]] = {
    "clip-text": ("CLIPTextModelWithProjection", CLIP_TEXT),
    "clip-text-bare": ("CLIPTextModel", CLIP_TEXT | {"hidden_act": "gelu"}),
    "clip-vision": ("CLIPVisionModelWithProjection", CLIP_VISION),
    "clip-vision-bare": ("CLIPVisionModel", CLIP_VISION | {"num_channels": 1}),
}
ALL = CLIP | IMAGES | CAUSAL | SEQ2SEQ | SOUND | TEXTS | ENCODERS | HEADS | LAST | EACH


def write(folder: Path, name: str, **changed: Any) -> Path:
    """A checkpoint in a folder, with weights of the size that training leaves and a tokenizer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        architecture, settings = ALL[name]
        kind = getattr(transformers, architecture)
        labels = {0: "bad", 1: "fair", 2: "good"} if "Classification" in architecture else None
        special = {"pad_token_id": 0} if "Roberta" not in architecture else {}
        named = {"id2label": labels} if labels else {}
        model = kind(kind.config_class(**special | settings | named | changed))
        fill(model)
        model.save_pretrained(folder)
    encoder = name not in CAUSAL | SEQ2SEQ | SOUND | LAST | EACH
    words = tiny.tokenizer("[CLS] $A [SEP]" if encoder else "<s> $A")
    words.add_special_tokens(["[MASK]"])
    words.save(str(folder / "tokenizer.json"))
    return folder


def fill(model: Any) -> None:
    """Random numbers in place of the initial ones, under which norms and biases would not matter."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in model.named_parameters():
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim > 1:
            tensor.data = noise * (
                0.5 if "embed" in name or "wte" in name or "wpe" in name else tensor.shape[-1] ** -0.5
            )
        else:
            one = tensor.data.mean().round() if name.endswith("weight") else 0.0
            tensor.data = 0.2 * noise + one
    for name, tensor in model.named_buffers():
        if name == "final_logits_bias":
            tensor.copy_(0.2 * torch.randn(tensor.shape, generator=generator))
    for module in model.modules():
        if hasattr(module, "create_weight"):  # of positions, which nobody learns
            module.weight.data = module.create_weight()
    model.tie_weights()
