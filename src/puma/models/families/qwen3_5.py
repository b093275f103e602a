"""Checkpoints of Qwen3.5, most of whose layers have a memory instead of keys and values, as data.

This file must not know of shares or files.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from puma.models.architectures.decoder import DECODER
from puma.models.families.defaults import DEFAULTS
from puma.models.families.llama import FIELDS, LAYER, NAMES, activated, biased, settings
from puma.models.families.rotary import turned
from puma.models.family import Family, refuse

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


def qwen3_5(raw: Raw) -> Raw:
    """Qwen3.5: one layer of four has keys and values, and a gate behind them; a part of each of its heads turns."""
    delta = {ours: raw[f"linear_{theirs}"] for ours, theirs in SIZES.items()}
    found = {"head_norms": True, "output_gate": True, "delta": delta, "full": _full(raw)}
    return turned(raw, part=0.25, partial=True) | biased(raw) | found


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


def families() -> dict[str, Family]:
    """Every architecture that config.json may name."""
    kind = activated(qwen3_5)
    found: dict[str, Family] = {}
    for name, task in (("Qwen3_5ForCausalLM", "CausalLM"), ("Qwen3_5TextModel", "Model")):
        found[name] = Family(
            DECODER, settings(kind, task, patterned=True), QWEN3_5_NAMES, FIELDS, model_type="qwen3_5_text",
            defaults=DEFAULTS["qwen3_5_text"],
        )  # fmt: skip
    return found
