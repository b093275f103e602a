"""Checkpoints of decoders with mixtures of experts: Mixtral, Qwen's, OLMoE, gpt-oss, as data.

This file must not know of shares or files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from puma.models.architectures.decoder import DECODER, Decoder
from puma.models.families.defaults import ALIASES, DEFAULTS
from puma.models.families.llama import FIELDS, LAYER, NAMES, activated, biased, settings, windows
from puma.models.families.rotary import turned
from puma.models.family import Choices, Family, Grouped, Names, refuse

Raw = dict[str, Any]
OURS = ("gate_proj", "up_proj", "down_proj")
STACKED = {  # of all experts in one tensor, as the library has them once they are loaded
    ".mlp.experts.gate_up_proj": ("gate_proj", "up_proj"),
    ".mlp.experts.down_proj": ("down_proj",),
}


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
        return replace(NAMES, modules=dict(NAMES.modules) | found, stacked=STACKED if parts == OURS else {})

    return named


def mixed(raw: Raw, experts: str, size: str, renormalised: Any) -> Raw:
    """The fields of a mixture."""
    return {
        "experts": raw[experts], "chosen": raw["num_experts_per_tok"], "expert_size": raw[size],
        "renormalised": renormalised,
    }  # fmt: skip


EXPERT = LAYER + "mlp.experts.{}."
GATE_UP = (EXPERT + "gate_proj", EXPERT + "up_proj")


def _cut(tensor: Tensor) -> list[Tensor]:
    """Of each expert the rows of gate and up, which lie beside each other in the last dimension of (experts, in, 2 out)
    or (experts, 2 out)."""
    turned_ = [expert.T if expert.ndim == 2 else expert for expert in tensor.unbind(0)]
    return [expert[part::2] for expert in turned_ for part in (0, 1)]


GROUPED = {
    "gate_up_proj": Grouped(
        tuple(f"{name}.weight" for name in GATE_UP), lambda count, shape: (count, shape[1], 2 * shape[0]), _cut
    ),
    "gate_up_proj_bias": Grouped(
        tuple(f"{name}.bias" for name in GATE_UP), lambda count, shape: (count, 2 * shape[0]), _cut
    ),
    "down_proj": Grouped(
        (f"{EXPERT}down_proj.weight",), lambda count, shape: (count, *shape[::-1]), lambda t: [e.T for e in t.unbind(0)]
    ),
    "down_proj_bias": Grouped(
        (f"{EXPERT}down_proj.bias",), lambda count, shape: (count, *shape), lambda t: list(t.unbind(0))
    ),
}
GPT_OSS_NAMES = replace(
    NAMES,
    modules=dict(NAMES.modules)
    | {LAYER + "mlp.router": LAYER + "mlp.router", LAYER + "self_attn.sinks": LAYER + "self_attn.sinks"},
    grouped={f"{LAYER}mlp.experts.{name}": group for name, group in GROUPED.items()},
)


def gpt_oss(raw: Raw) -> Raw:
    """gpt-oss: experts with biases and clamped gates, heads that may look at nothing, a window in every other layer."""
    yarn = {"rope_type": "yarn", "factor": 32.0, "truncate": False, "original_max_position_embeddings": 4096}
    told = "rope_parameters" in raw or raw.get("rope_scaling")  # an empty object is none of the library's default
    same, chosen = raw.get("experts_per_token"), raw["num_experts_per_tok"]
    if same not in (None, chosen):  # not every version of the library reads the first one
        refuse(f"sets experts_per_token to {same!r} and num_experts_per_tok to {chosen!r}", "both alike only")
    near = windows(raw, raw.get("sliding_window", 0), lambda i: (i + 1) % 2 > 0)
    found = {"sinks": True, "activation": "clamped", "mlp_bias": True, "renormalised": True}
    turning = turned(raw if told else raw | {"rope_parameters": yarn}, theta=150000.0)
    return turning | biased(raw) | near | mixed(raw, "num_local_experts", "intermediate_size", True) | found


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
    return turned(raw) | near | found | every_so_many(raw)


def qwen3_moe(raw: Raw) -> Raw:
    """Qwen 3 with experts: queries and keys are normalised; perhaps a window."""
    window = raw.get("sliding_window", 0) if raw["use_sliding_window"] else 0
    return turned(raw) | biased(raw) | {"head_norms": True, "window": window} | every_so_many(raw)


def every_so_many(raw: Raw) -> Raw:
    """Experts in every layer, or every so many, but for those that are named."""
    every, named, layers = raw["decoder_sparse_step"], raw.get("mlp_only_layers", []), raw["num_hidden_layers"]
    if not isinstance(every, int) or every < 1 or not isinstance(named, list):
        refuse("does not say in decoder_sparse_step and mlp_only_layers which layers have experts", "both only")
    counted = range(layers if isinstance(layers, int) and 0 < layers <= 1 << 12 else 0)
    dense = [i for i in counted if i in named or (i + 1) % every]
    return mixed(raw, "num_experts", "moe_intermediate_size", raw["norm_topk_prob"]) | {"dense": dense}


Kind = tuple[str, Callable[[Raw], Raw], Callable[[Decoder], Names], Mapping[str, tuple[Any, ...]]]
CLAMPED: Choices = {"swiglu_alpha": (1.702,), "swiglu_limit": (7.0,)}
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
    for task in ("CausalLM", "Model"):
        found["GptOssModel" if task == "Model" else f"GptOssFor{task}"] = Family(
            DECODER, settings(gpt_oss, task, patterned=True), GPT_OSS_NAMES, FIELDS, CLAMPED, model_type="gpt_oss",
            defaults=DEFAULTS["gpt_oss"], aliases=ALIASES["gpt_oss"],
        )  # fmt: skip
    for name, (model_type, read, named, supported) in KINDS.items():
        for task in ("CausalLM", "Model"):
            reader = settings(activated(read), task, patterned=model_type == "qwen2_moe")
            found[f"{name}Model" if task == "Model" else f"{name}For{task}"] = Family(
                DECODER, reader, NAMES, FIELDS, supported, variant=named, model_type=model_type,
                defaults=DEFAULTS[model_type], aliases=ALIASES.get(model_type, {}),
            )  # fmt: skip
    return found
