"""Writes a checkpoint's folder as a GGUF file, as llama.cpp's converter would: by the package's own table of names.

    path = ggufs.write(tmp_path / "model.gguf", folder)

What the converter changes of tensors is done here as it does it; reading must undo it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy
import torch
from safetensors.torch import load_file

F32 = gguf.GGMLQuantizationType.F32
ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "phi3": "phi3",
    "smollm3": "smollm3",
    "olmo2": "olmo2",
    "granite": "granite",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gpt2": "gpt2",
    "gpt_neox": "gptneox",
    "bert": "bert",
    "roberta": "bert",
    "distilbert": "bert",
    "t5": "t5",
}
SUFFIXES = (".weight", ".bias")
Extra = Callable[[gguf.GGUFWriter], object]


def write(path: Path, folder: Path, kind: Any = F32, extra: Extra | None = None) -> Path:
    """The model of a folder in a file; `kind` is that of its matrices, `extra` adds fields such as a tokenizer's."""
    config = json.loads((folder / "config.json").read_text())
    name = ARCHITECTURES[config["model_type"]]
    writer = gguf.GGUFWriter(path, name)
    _settings(writer, name, config)
    if extra:
        extra(writer)
    for tensor, found in _tensors(name, config, load_file(folder / "model.safetensors")).items():
        array = found.float().contiguous().numpy()
        if kind is F32 or found.ndim < 2:
            writer.add_tensor(tensor, array)
        else:
            writer.add_tensor(tensor, gguf.quantize(array, kind), raw_dtype=kind)
    finish(writer)
    return path


def finish(writer: gguf.GGUFWriter) -> None:
    """Write everything to the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _settings(writer: gguf.GGUFWriter, name: str, config: dict[str, Any]) -> None:
    def said(*names: str, default: Any = None) -> Any:
        return next((config[key] for key in names if config.get(key) is not None), default)

    heads = said("num_attention_heads", "n_head", "n_heads", "num_heads")
    width = said("hidden_size", "n_embd", "dim", "d_model")
    layers = said("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    skipped = 2 if config["model_type"] == "roberta" else 0
    writer.add_context_length(said("max_position_embeddings", "n_positions", default=512) - skipped)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(said("intermediate_size", "n_inner", "hidden_dim", "d_ff", default=4 * width))
    writer.add_head_count(heads)
    size = said("head_dim", "d_kv", default=width // heads)
    if name == "t5":
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
        writer.add_layer_norm_rms_eps(config["layer_norm_epsilon"])
        writer.add_key_length(size)
        writer.add_value_length(size)
        writer.add_relative_attn_buckets_count(config["relative_attention_num_buckets"])
        writer.add_decoder_start_token_id(config["decoder_start_token_id"])
        writer.add_decoder_block_count(said("num_decoder_layers", default=layers))
        return
    if name in ("gpt2", "gptneox", "bert"):
        writer.add_layer_norm_eps(said("layer_norm_eps", "layer_norm_epsilon", default=1e-12))
        if name == "bert":
            writer.add_causal_attention(False)
            writer.add_pooling_type(gguf.PoolingType.MEAN)
        if name == "gptneox":
            turning = config.get("rope_parameters") or {}
            part = turning.get("partial_rotary_factor", config.get("rotary_pct", 0.25))
            writer.add_rope_dimension_count(int(part * size))
            writer.add_parallel_residual(config["use_parallel_residual"])
            writer.add_rope_freq_base(turning.get("rope_theta", 10000.0))
        return
    writer.add_head_count_kv(said("num_key_value_heads", default=heads))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(size)
    if config.get("head_dim"):
        writer.add_key_length(size)
        writer.add_value_length(size)
    _rotary(writer, config, size)
    if name in ("phi3", "gemma2", "gemma3"):
        writer.add_sliding_window(config.get("sliding_window") or 0)
    if name == "granite":
        writer.add_attention_scale(config["attention_multiplier"])
        writer.add_embedding_scale(config["embedding_multiplier"])
        writer.add_residual_scale(config["residual_multiplier"])
        writer.add_logit_scale(config["logits_scaling"])
    if name == "gemma3":
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config["layer_types"]])
    if name == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])


def _rotary(writer: gguf.GGUFWriter, config: dict[str, Any], size: int) -> None:
    turning = config.get("rope_parameters") or {}
    if "full_attention" in turning:
        near, turning = turning["sliding_attention"], turning["full_attention"]
        writer.add_rope_freq_base_swa(near["rope_theta"])
    writer.add_rope_freq_base(turning.get("rope_theta", config.get("rope_theta", 10000.0)))
    kind = turning.get("rope_type", "default")
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(turning["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(turning["original_max_position_embeddings"])
    if kind == "llama3":
        writer.add_tensor("rope_freqs.weight", numpy.array(_llama3(turning, size), numpy.float32))


def _llama3(turning: dict[str, Any], size: int) -> list[float]:
    """What frequencies are divided by."""
    found = []
    for i in range(0, size, 2):
        wave = 2 * math.pi * turning["rope_theta"] ** (i / size)
        turns = turning["original_max_position_embeddings"] / wave
        low, high = turning["low_freq_factor"], turning["high_freq_factor"]
        share = min(max((turns - low) / (high - low), 0), 1)
        found.append(1 / ((1 - share) / turning["factor"] + share))
    return found


def _tensors(name: str, config: dict[str, Any], state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    arch = next(arch for arch, label in gguf.MODEL_ARCH_NAMES.items() if label == name)
    names = gguf.get_tensor_name_map(arch, 64)
    found = {}
    for theirs, tensor in state.items():
        bare = theirs
        for prefix in ("bert.", "roberta.", "distilbert."):
            bare = bare.removeprefix(prefix)
        if "pooler" in bare or bare.startswith(("encoder.embed_tokens", "decoder.embed_tokens")):
            continue
        ours = names.get_name(bare, SUFFIXES) or names.get_name("transformer." + bare, SUFFIXES)
        ours = ours or names.get_name("model." + bare, SUFFIXES) or names.get_name("gpt_neox." + bare, SUFFIXES)
        assert ours, theirs
        found[ours] = _changed(name, config, ours, tensor)
    return found


def _changed(name: str, config: dict[str, Any], tensor: str, found: torch.Tensor) -> torch.Tensor:
    """As the converter leaves it."""
    part = tensor.split(".")[-2]
    if name in ("llama", "smollm3", "granite") and part in ("attn_q", "attn_k"):
        heads = config["num_attention_heads" if part == "attn_q" else "num_key_value_heads"]
        halves = found.reshape(heads, 2, found.shape[0] // heads // 2, *found.shape[1:])
        return halves.swapaxes(1, 2).reshape(found.shape)
    if name == "gpt2" and tensor.endswith(
        ("attn_qkv.weight", "attn_output.weight", "ffn_up.weight", "ffn_down.weight")
    ):
        return found.T
    if name.startswith("gemma") and tensor.endswith("norm.weight"):
        return found + 1
    if name == "gptneox" and part == "attn_qkv":
        heads, width = config["num_attention_heads"], config["hidden_size"]
        by_head = found.reshape(heads, 3, width // heads, *found.shape[1:])
        return torch.cat([by_head[:, i].reshape(width, *found.shape[1:]) for i in range(3)])
    if config["model_type"] == "roberta" and part == "position_embd":
        return found[2:]
    return found
