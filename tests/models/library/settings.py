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
    "vit": LABELS | {
        "hidden_act": ACTIVATIONS, "qkv_bias": [GONE, True, False], "num_channels": [GONE, 1],
        "layer_norm_eps": [GONE, 1e-3], "image_size": [8, 12, [8, 8]], "patch_size": [4, 2, [4, 4]],
        "pooler_act": [GONE, "relu"],
    },
}  # fmt: skip
GROUPED = zoo.GROUPED | {"num_hidden_layers": 3}
GPT2 = {"vocab_size": 28, "n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 32}
CAUSAL = ("CausalLM", "SequenceClassification", "Model")
TOKENS = (*CAUSAL, "TokenClassification")
EACH = (*TOKENS, "QuestionAnswering")
TASKS = ("Model", *zoo.TASKS)
BASES: dict[str, tuple[Raw, tuple[str, ...]]] = {  # by model_type: settings, and names of classes
    "llama": (GROUPED, ("Llama", *EACH)),
    "mistral": (GROUPED, ("Mistral", *EACH)),
    "qwen2": (GROUPED, ("Qwen2", *EACH)),
    "qwen3": (GROUPED | {"head_dim": 6}, ("Qwen3", *EACH)),
    "phi3": (GROUPED | {"pad_token_id": 0, "eos_token_id": 2}, ("Phi3", *TOKENS)),
    "gemma2": (GROUPED | {"head_dim": 6, "sliding_window": 3}, ("Gemma2", *TOKENS)),
    "gemma3_text": (GROUPED | {"head_dim": 6, "sliding_window": 3}, ("Gemma3", *CAUSAL)),
    "gpt2": (GPT2, ("GPT2", *EACH)),
    "gpt_neox": (zoo.SIZES | {"num_hidden_layers": 3, "rotary_pct": 0.67}, ("GPTNeoX", *EACH)),
    "opt": (zoo.OPT, ("OPT", *CAUSAL, "QuestionAnswering")),
    "t5": (zoo.T5 | {"num_layers": 2}, ("T5", "ConditionalGeneration", "Model", "EncoderModel")),
    "bert": (zoo.SIZES, ("Bert", *TASKS, "NextSentencePrediction")),
    "roberta": (zoo.POSITIONS, ("Roberta", *TASKS)),
    "xlm-roberta": (zoo.POSITIONS, ("XLMRoberta", *TASKS)),
    "electra": (zoo.SIZES | {"embedding_size": 16}, ("Electra", *TASKS)),
    "albert": (zoo.SIZES | {"embedding_size": 16, "num_hidden_layers": 3}, ("Albert", *TASKS)),
    "distilbert": (zoo.DISTIL, ("DistilBert", *TASKS)),
    "vit": (zoo.VIT | {"image_size": 8, "patch_size": 4}, ("ViT", "ImageClassification", "Model")),
}
UNUSUAL = {
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
    named = [kind + task if task.endswith("Model") else f"{kind}For{task}" for task in tasks]
    return [UNUSUAL.get(name, name) for name in named]


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
