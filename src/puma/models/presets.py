"""Sizes of published models, for dry runs and benchmarks without their weights.

The settings are those of the published config.json of each, and of a sentence encoder how it pools; what they leave out
is as the library has it. It must not know checkpoints: what it names is nobody's file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from msgspec import structs

from puma.errors import UsageError
from puma.models.architectures import with_layers
from puma.models.config import Bert, Config, Gpt2, Llama
from puma.models.families import FAMILIES
from puma.models.pooling import Dense, Mode, Pooling

SIZES: dict[str, Config] = {
    "bert-base": Bert(vocab_size=30522, hidden_size=768, intermediate_size=3072, layers=12, heads=12),
    "bert-large": Bert(vocab_size=30522, hidden_size=1024, intermediate_size=4096, layers=24, heads=16),
    # RoBERTa's sizes with BERT's layout, which costs the same.
    "roberta-base": Bert(
        vocab_size=50265,
        hidden_size=768,
        intermediate_size=3072,
        layers=12,
        heads=12,
        context=514,
        type_vocab_size=1,
        eps=1e-5,
    ),
    "gpt2": Gpt2(vocab_size=50257, width=768, layers=12, heads=12),
    "gpt2-medium": Gpt2(vocab_size=50257, width=1024, layers=24, heads=16),
    "gpt2-large": Gpt2(vocab_size=50257, width=1280, layers=36, heads=20),
    "llama-7b": Llama(vocab_size=32000, hidden_size=4096, intermediate_size=11008, layers=32, heads=32),
}


def _sizes(hidden: int, inner: int, layers: int, heads: int, context: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "max_position_embeddings": context,
    }  # fmt: skip


def _bert(hidden: int, inner: int, layers: int, kind: str = "Model", **more: Any) -> dict[str, Any]:
    return {"architectures": [f"Bert{kind}"], "vocab_size": 30522} | _sizes(hidden, inner, layers, 12, 512) | more


def _qwen3(hidden: int, inner: int, layers: int, heads: int, tied: bool) -> dict[str, Any]:
    return _sizes(hidden, inner, layers, heads, 40960) | {
        "architectures": ["Qwen3ForCausalLM"], "vocab_size": 151936, "num_key_value_heads": 8, "head_dim": 128,
        "rope_theta": 1e6, "rms_norm_eps": 1e-6, "tie_word_embeddings": tied,
    }  # fmt: skip


def _seq2seq(kind: str, words: int, width: int, inner: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    sides = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in (
        ("ffn_dim", inner), ("layers", layers), ("attention_heads", heads)
    )}  # fmt: skip
    return {"architectures": [kind], "vocab_size": words, "d_model": width} | sides | more


def _whisper(width: int, layers: int, heads: int, words: int = 51865, **more: Any) -> dict[str, Any]:
    kind = "WhisperForConditionalGeneration"
    return _seq2seq(kind, words, width, 4 * width, layers, heads, decoder_start_token_id=50258) | more


_XLM_LARGE = _sizes(1024, 4096, 24, 16, 8194) | {
    "vocab_size": 250002, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1,
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "llama-3.1-8b": _sizes(4096, 14336, 32, 32, 131072)
    | {
        "architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "num_key_value_heads": 8, "rms_norm_eps": 1e-5,
        "rope_theta": 5e5, "tie_word_embeddings": False,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    },
    "qwen3-0.6b": _qwen3(1024, 3072, 28, 16, True),
    "qwen3-4b": _qwen3(2560, 9728, 36, 32, True),
    "qwen3-8b": _qwen3(4096, 12288, 36, 32, False),
    "mistral-7b": _sizes(4096, 14336, 32, 32, 32768)
    | {
        "architectures": ["MistralForCausalLM"], "vocab_size": 32768, "num_key_value_heads": 8, "rms_norm_eps": 1e-5,
        "rope_theta": 1e6, "sliding_window": None, "tie_word_embeddings": False,
    },
    "gemma-3-4b": _sizes(2560, 10240, 34, 8, 131072)
    | {
        "architectures": ["Gemma3ForCausalLM"], "vocab_size": 262208, "num_key_value_heads": 4, "head_dim": 256,
        "query_pre_attn_scalar": 256, "sliding_window": 1024, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
        "rope_local_base_freq": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "hidden_activation": "gelu_pytorch_tanh",
    },
    "qwen3-30b-a3b": _sizes(2048, 6144, 48, 32, 40960)
    | {
        "architectures": ["Qwen3MoeForCausalLM"], "vocab_size": 151936, "num_key_value_heads": 4, "head_dim": 128,
        "rope_theta": 1e6, "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "num_experts": 128,
        "num_experts_per_tok": 8, "moe_intermediate_size": 768, "norm_topk_prob": True,
    },
    "gpt-oss-20b": _sizes(2880, 2880, 24, 64, 131072)
    | {
        "architectures": ["GptOssForCausalLM"], "vocab_size": 201088, "num_key_value_heads": 8, "head_dim": 64,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "num_local_experts": 32, "num_experts_per_tok": 4,
        "sliding_window": 128,
    },
    "smollm2-135m": _sizes(576, 1536, 30, 9, 8192)
    | {
        "architectures": ["LlamaForCausalLM"], "vocab_size": 49152, "num_key_value_heads": 3, "rms_norm_eps": 1e-5,
        "rope_theta": 1e5, "tie_word_embeddings": True,
    },
    "minilm-l6": _bert(384, 1536, 6),
    "bge-small": _bert(384, 1536, 12),
    "bge-base": _bert(768, 3072, 12),
    "bge-m3": _XLM_LARGE | {"architectures": ["XLMRobertaModel"]},
    "bge-reranker-v2-m3": _XLM_LARGE | {
        "architectures": ["XLMRobertaForSequenceClassification"], "id2label": {"0": "LABEL_0"},
    },
    "e5-base": _bert(768, 3072, 12),
    "qwen3-embedding-0.6b": _qwen3(1024, 3072, 28, 16, True)
    | {"architectures": ["Qwen3Model"], "vocab_size": 151669, "max_position_embeddings": 32768},
    "embeddinggemma-300m": _sizes(768, 1152, 24, 3, 2048)
    | {
        "architectures": ["Gemma3TextModel"], "vocab_size": 262144, "num_key_value_heads": 1, "head_dim": 256,
        "query_pre_attn_scalar": 256, "sliding_window": 512, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
        "rope_local_base_freq": 1e4, "hidden_activation": "gelu_pytorch_tanh", "use_bidirectional_attention": True,
    },
    "mpnet-base": _sizes(768, 3072, 12, 12, 514)
    | {"architectures": ["MPNetModel"], "vocab_size": 30527, "layer_norm_eps": 1e-5, "pad_token_id": 1},
    "modernbert-base": _sizes(768, 1152, 22, 12, 8192) | {"architectures": ["ModernBertModel"], "vocab_size": 50368},
    "deberta-v3-base": _sizes(768, 3072, 12, 12, 512)
    | {
        "architectures": ["DebertaV2Model"], "vocab_size": 128100, "relative_attention": True, "position_buckets": 256,
        "norm_rel_ebd": "layer_norm", "share_att_key": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0,
        "max_relative_positions": -1, "position_biased_input": False, "layer_norm_eps": 1e-7,
    },
    "ms-marco-minilm-l6": _bert(384, 1536, 6, "ForSequenceClassification", id2label={"0": "LABEL_0"}),
    "clip-text": _sizes(512, 2048, 12, 8, 77)
    | {"architectures": ["CLIPTextModelWithProjection"], "vocab_size": 49408, "projection_dim": 512},
    "clip-image": _sizes(768, 3072, 12, 12, 0)
    | {
        "architectures": ["CLIPVisionModelWithProjection"], "image_size": 224, "patch_size": 32, "projection_dim": 512,
    },
    "bart-base": _seq2seq("BartForConditionalGeneration", 50265, 768, 3072, 6, 12),
    "bart-large-cnn": _seq2seq("BartForConditionalGeneration", 50264, 1024, 4096, 12, 16, forced_bos_token_id=0),
    "bart-large-mnli": _seq2seq(
        "BartForSequenceClassification", 50265, 1024, 4096, 12, 16,
        id2label={"0": "contradiction", "1": "neutral", "2": "entailment"},
    ),
    "opus-mt": _seq2seq(
        "MarianMTModel", 58101, 512, 2048, 6, 8, max_position_embeddings=512, scale_embedding=True,
        activation_function="swish", bad_words_ids=[[58100]],
    ),
    "mbart-large-50": _seq2seq(
        "MBartForConditionalGeneration", 250054, 1024, 4096, 12, 16, scale_embedding=True, activation_function="relu",
        decoder_start_token_id=2,
    ),
    "nllb-600m": _seq2seq("M2M100ForConditionalGeneration", 256206, 1024, 4096, 12, 16),
    "whisper-tiny": _whisper(384, 4, 6),
    "whisper-base": _whisper(512, 6, 8),
    "whisper-small": _whisper(768, 12, 12),
    "whisper-large-v3": _whisper(1280, 32, 20, 51866, num_mel_bins=128),
    "vit-base": {
        "architectures": ["ViTForImageClassification"], "hidden_size": 768, "intermediate_size": 3072,
        "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 224, "patch_size": 16,
        "id2label": {str(i): f"LABEL_{i}" for i in range(1000)},
    },
}  # fmt: skip
_MODES: dict[str, Mode] = {
    "minilm-l6": "mean",
    "bge-small": "cls",
    "bge-base": "cls",
    "bge-m3": "cls",
    "e5-base": "mean",
    "qwen3-embedding-0.6b": "lasttoken",
    "mpnet-base": "mean",
}
POOLING = {name: Pooling(modes=(mode,)) for name, mode in _MODES.items()} | {
    "embeddinggemma-300m": Pooling(
        modes=("mean",), dense=(Dense(outputs=3072, bias=False), Dense(outputs=768, bias=False))
    )
}


class Presets(Mapping[str, Config]):
    """The config of each published model by its name; what has a config.json is read when it is asked for."""

    def __getitem__(self, name: str) -> Config:
        if name in SIZES:
            return SIZES[name]
        return _read(name)

    def __contains__(self, name: object) -> bool:
        return name in SIZES or name in SETTINGS

    def __iter__(self) -> Iterator[str]:
        yield from SIZES
        yield from SETTINGS

    def __len__(self) -> int:
        return len(SIZES) + len(SETTINGS)


PRESETS = Presets()


@cache
def _read(name: str) -> Config:
    raw = SETTINGS[name]
    config = FAMILIES[raw["architectures"][0]].read(dict(raw), set())
    return structs.replace(config, pooling=POOLING[name]) if name in POOLING else config


def preset(name: str, layers: int | None = None) -> Config:
    """The config of a published model, perhaps with another number of layers."""
    if name not in PRESETS:
        raise UsageError(f"there is no preset {name}", f"choose one of {', '.join(PRESETS)}")
    return with_layers(PRESETS[name], layers) if layers else PRESETS[name]


__all__ = ["PRESETS", "preset", "with_layers"]
