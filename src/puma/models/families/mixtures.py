"""Checkpoints of decoders with mixtures of experts: Mixtral, Qwen's, OLMoE, as data.

This file must not know of shares or files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from puma.models.architectures.decoder import DECODER, Decoder
from puma.models.families.defaults import ALIASES, DEFAULTS
from puma.models.families.llama import FIELDS, LAYER, NAMES, activated, biased, settings, windows
from puma.models.families.rotary import turned
from puma.models.family import Choices, Family, Names, refuse

Raw = dict[str, Any]
OURS = ("gate_proj", "up_proj", "down_proj")


def names(mlp: str = "mlp", router: str = "gate", parts: tuple[str, ...] = OURS) -> Callable[[Decoder], Names]:
    """LLaMA's names with those of a mixture, by how many experts a config has."""

    def named(config: Decoder) -> Names:
        found: dict[str, str] = {LAYER + f"{mlp}.{router}": LAYER + "mlp.router"}
        shared = {"shared_expert": "shared"} if config.shared_size else {}
        every = {f"experts.{e}": f"experts.{e}" for e in range(config.experts)} | shared
        for theirs, ours in every.items():
            found |= {
                LAYER + f"{mlp}.{theirs}.{part}": LAYER + f"mlp.{ours}.{name}"
                for part, name in zip(parts, OURS, strict=True)
            }
        if shared:
            found[LAYER + "mlp.shared_expert_gate"] = LAYER + "mlp.shared_gate"
        return replace(NAMES, modules=dict(NAMES.modules) | found)

    return named


def mixed(raw: Raw, experts: str, size: str, renormalised: Any) -> Raw:
    """The fields of a mixture."""
    return {
        "experts": raw[experts], "chosen": raw["num_experts_per_tok"], "expert_size": raw[size],
        "renormalised": renormalised,
    }  # fmt: skip


def mixtral(raw: Raw) -> Raw:
    """Mixtral: in every layer a mixture, of whose weights the chosen ones sum to 1; perhaps a window."""
    turning = turned(raw, theta=1e6) | {"window": raw.get("sliding_window", 0)}
    return turning | mixed(raw, "num_local_experts", "intermediate_size", True)


def olmoe(raw: Raw) -> Raw:
    """OLMoE: as Mixtral with OLMo 2's norms of queries and keys."""
    found = biased(raw) | {"head_norms": True, "whole_norms": True}
    return turned(raw) | found | mixed(raw, "num_experts", "intermediate_size", raw["norm_topk_prob"])


def qwen2_moe(raw: Raw) -> Raw:
    """Qwen 1.5 and 2 with experts, and one that all rows take; biases of queries, keys and values."""
    first = raw["max_window_layers"]
    window = raw.get("sliding_window", 0) if raw["use_sliding_window"] else 0
    near = windows(raw, window, lambda i: bool(window) and (i + 1) % 2 > 0 and i < first)
    found = {"qkv_bias": raw["qkv_bias"], "shared_size": raw["shared_expert_intermediate_size"]}
    return turned(raw) | near | found | _qwen(raw)


def qwen3_moe(raw: Raw) -> Raw:
    """Qwen 3 with experts: queries and keys are normalised; perhaps a window."""
    window = raw.get("sliding_window", 0) if raw["use_sliding_window"] else 0
    return turned(raw) | biased(raw) | {"head_norms": True, "window": window} | _qwen(raw)


def _qwen(raw: Raw) -> Raw:
    """Experts in every layer, or every so many, but for those that are named."""
    every, named, layers = raw["decoder_sparse_step"], raw.get("mlp_only_layers", []), raw["num_hidden_layers"]
    if not isinstance(every, int) or every < 1 or not isinstance(named, list):
        refuse("does not say in decoder_sparse_step and mlp_only_layers which layers have experts", "both only")
    counted = range(layers if isinstance(layers, int) and 0 < layers <= 1 << 12 else 0)
    dense = [i for i in counted if i in named or (i + 1) % every]
    return mixed(raw, "num_experts", "moe_intermediate_size", raw["norm_topk_prob"]) | {"dense": dense}


Kind = tuple[str, Callable[[Raw], Raw], Callable[[Decoder], Names], Mapping[str, tuple[Any, ...]]]
UNCLIPPED: Choices = {"clip_qkv": (None,)}
KINDS: dict[str, Kind] = {
    "Mixtral": ("mixtral", mixtral, names("block_sparse_moe", "gate", ("w1", "w3", "w2")), {}),
    "Olmoe": ("olmoe", olmoe, names(), UNCLIPPED),
    "Qwen2Moe": ("qwen2_moe", qwen2_moe, names(), {}),
    "Qwen3Moe": ("qwen3_moe", qwen3_moe, names(), {}),
}


def families() -> dict[str, Family]:
    """Every architecture that config.json may name."""
    found: dict[str, Family] = {}
    for name, (model_type, read, named, supported) in KINDS.items():
        for task in ("CausalLM", "Model"):
            reader = settings(activated(read), task, patterned=model_type == "qwen2_moe")
            found[f"{name}Model" if task == "Model" else f"{name}For{task}"] = Family(
                DECODER, reader, NAMES, FIELDS, supported, variant=named, model_type=model_type,
                defaults=DEFAULTS[model_type], aliases=ALIASES.get(model_type, {}),
            )  # fmt: skip
    return found
