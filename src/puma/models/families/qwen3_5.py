"""Checkpoints of Qwen3.5 and Qwen3-Next, most of whose layers have a memory instead of keys and values, as data.

This file must not know of shares or files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from puma.models.architectures.decoder import DECODER, Decoder
from puma.models.families.defaults import DEFAULTS
from puma.models.families.llama import FIELDS, LAYER, NAMES, biased, settings
from puma.models.families.mixtures import STACKED, every_so_many, mixed, names
from puma.models.families.rotary import turned
from puma.models.family import Choices, Family, Names, refuse

Raw = dict[str, Any]
MEMORY, ATTENTION = LAYER + "linear_attn.", LAYER + "self_attn."
OURS = {
    "in_proj_qkv": "qkv_proj", "in_proj_z": "z_proj", "in_proj_b": "b_proj", "in_proj_a": "a_proj", "conv1d": "conv",
    "A_log": "rate_log", "dt_bias": "shift", "norm": "scale", "out_proj": "out_proj",
}  # fmt: skip
MODULES: dict[str, Any] = {MEMORY + theirs: ATTENTION + ours for theirs, ours in OURS.items()}
MODULES[ATTENTION + "q_proj"] = (ATTENTION + "q_proj", ATTENTION + "gate")
QWEN3_5_NAMES = replace(
    NAMES,
    modules=dict(NAMES.modules) | MODULES,
    interleaved=frozenset({ATTENTION + "q_proj"}),
    offset=True,
    ignored=r"lm_head\..*|mtp\..*|(?:model\.)?visual\..*",
)
# Qwen3-Next has these of each head of keys beside each other, and not one kind below the other.
FUSED = {
    MEMORY + "in_proj_qkvz": (ATTENTION + "qkv_proj", ATTENTION + "z_proj"),
    MEMORY + "in_proj_ba": (ATTENTION + "b_proj", ATTENTION + "a_proj"),
}
PARTS = tuple(MEMORY + name for name in ("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a"))


def qwen3_5(raw: Raw) -> Raw:
    """Qwen3.5: one layer of four has keys and values, and a gate behind them; a part of each of its heads turns."""
    delta = {ours: raw[f"linear_{theirs}"] for ours, theirs in SIZES.items()}
    found = {"head_norms": True, "output_gate": True, "delta": delta, "full": _full(raw)}
    return turned(raw, part=0.25, partial=True) | biased(raw) | found


def qwen3_5_moe(raw: Raw) -> Raw:
    """Qwen3.5 with experts in every layer, and one that all rows take."""
    found = mixed(raw, "num_experts", "moe_intermediate_size", True)
    inner = {"shared_size": raw["shared_expert_intermediate_size"], "intermediate_size": raw["moe_intermediate_size"]}
    return qwen3_5(raw) | found | inner


def qwen3_next(raw: Raw) -> Raw:
    """Qwen3-Next: the same in all layers or some."""
    return qwen3_5(raw) | every_so_many(raw) | {"shared_size": raw["shared_expert_intermediate_size"]}


SIZES = {
    "taps": "conv_kernel_dim", "key_heads": "num_key_heads", "value_heads": "num_value_heads",
    "key_size": "key_head_dim", "value_size": "value_head_dim",
}  # fmt: skip


def _full(raw: Raw) -> list[int]:
    """The layers with keys and values: as layer_types says, or every fourth one."""
    layers, kinds, every = raw["num_hidden_layers"], raw.get("layer_types"), raw.get("full_attention_interval", 4)
    if not isinstance(layers, int) or not 0 < layers <= 1 << 12:  # refused later, as a field
        return []
    if not isinstance(every, int) or every < 1:
        refuse(f"sets full_attention_interval to {every!r}", "whole numbers from 1 on")
    if kinds is None:
        return list(range(every - 1, layers, every))
    if not isinstance(kinds, list) or len(kinds) != layers:
        refuse("does not name the kind of each layer in layer_types", "one for each of num_hidden_layers only")
    unknown = next((kind for kind in kinds if kind not in ("full_attention", "linear_attention")), None)
    if unknown is not None:
        refuse(f"makes a layer one of {unknown!r}", "layers of full_attention and linear_attention only")
    return [i for i, kind in enumerate(kinds) if kind == "full_attention"]


def _with_experts(config: Decoder) -> Names:
    """Qwen3.5's, with those of a mixture."""
    return replace(QWEN3_5_NAMES, modules=dict(names()(config).modules) | MODULES, stacked=STACKED)


def _next_names(config: Decoder) -> Names:
    """The same, but what the memory reads."""
    found = _with_experts(config)
    modules = {name: ours for name, ours in found.modules.items() if name not in PARTS}
    cut = dict(zip(FUSED, (partial(_cut_rows, config), partial(_cut_gates, config)), strict=True))
    return replace(found, modules=modules | FUSED, cut=cut)


def _cut_rows(config: Decoder, tensor: Tensor) -> list[Tensor]:
    """Of each head of keys the rows of its query, its key, and the values and gates of the heads that it serves."""
    assert config.delta
    keys, values = config.delta.key_size, config.delta.values // config.delta.key_heads
    q, k, v, z = _by_heads(config, tensor, [keys, keys, values, values])
    return [torch.cat([q, k, v]), z]


def _cut_gates(config: Decoder, tensor: Tensor) -> list[Tensor]:
    """Of each head of keys the rows of writing and of decay of the heads of values that it serves."""
    assert config.delta
    served = config.delta.value_heads // config.delta.key_heads
    return _by_heads(config, tensor, [served, served])


def _by_heads(config: Decoder, tensor: Tensor, sizes: list[int]) -> list[Tensor]:
    assert config.delta
    heads = tensor.reshape(config.delta.key_heads, -1, tensor.shape[-1])
    return [part.reshape(-1, tensor.shape[-1]) for part in heads.split(sizes, 1)]


Kind = tuple[Callable[[Raw], Raw], Callable[[Decoder], Names] | None, str]
KINDS: dict[str, Kind] = {  # by model_type: settings, names where they depend on these, and what the class is called
    "qwen3_5_text": (qwen3_5, None, "Qwen3_5{}"),
    "qwen3_5_moe_text": (qwen3_5_moe, _with_experts, "Qwen3_5Moe{}"),
    "qwen3_next": (qwen3_next, _next_names, "Qwen3Next{}"),
}
SILU: Choices = {"hidden_act": ("silu", "swish")}  # what has been convolved goes through it, too


def families() -> dict[str, Family]:
    """Every architecture that config.json may name."""
    found: dict[str, Family] = {}
    for model_type, (read, named, called) in KINDS.items():
        body = "Model" if model_type == "qwen3_next" else "TextModel"
        for name, task in (("ForCausalLM", "CausalLM"), (body, "Model")):
            found[called.format(name)] = Family(
                DECODER, settings(read, task, patterned=True), QWEN3_5_NAMES, FIELDS, SILU, variant=named,
                model_type=model_type, defaults=DEFAULTS[model_type],
            )  # fmt: skip
    return found
