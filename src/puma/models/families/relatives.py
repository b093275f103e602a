"""Checkpoints of decoders that are LLaMA with a small edit: SmolLM3, OLMo, Granite, Cohere, GLM and others, as data.

This file must not know of shares or files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from puma.models.architectures.decoder import DECODER
from puma.models.families.defaults import DEFAULTS
from puma.models.families.llama import (
    FIELDS,
    LAYER,
    NAMES,
    OUTSIDE,
    PHI3_NAMES,
    TASKS,
    UNFUSED,
    activated,
    biased,
    said,
    settings,
    windows,
)  # fmt: skip
from puma.models.families.rotary import nested_in, scaled, turned
from puma.models.family import ACTIVATIONS, GELUS, Choices, Family, Names, chosen, refuse

Raw = dict[str, Any]
LAYERED = {name: theirs for name, theirs in FIELDS.items() if name != "eps"} | {"eps": "layer_norm_eps"}
AROUND = {"post_attention_layernorm": "self_attn_norm", "post_feedforward_layernorm": "mlp_norm"}
BEHIND = replace(  # norms behind the halves of a block only
    NAMES,
    modules=OUTSIDE
    | {LAYER + name: LAYER + name for name in UNFUSED if name != "input_layernorm"}
    | {LAYER + theirs: LAYER + name for theirs, name in AROUND.items()},
)
GLM_NAMES = replace(
    NAMES,
    modules={name: found for name, found in PHI3_NAMES.modules.items() if "qkv_proj" not in name}
    | {name: found for name, found in NAMES.modules.items() if name.endswith(("q_proj", "k_proj", "v_proj"))},
)
GLM4_NAMES = replace(
    GLM_NAMES,
    modules=dict(GLM_NAMES.modules)
    | {LAYER + "post_self_attn_layernorm": LAYER + "self_attn_norm", LAYER + "post_mlp_layernorm": LAYER + "mlp_norm"},
)


def renamed(modules: Mapping[str, str]) -> Names:
    """LLaMA's names but for these modules, by those."""
    return replace(NAMES, modules={modules.get(name, name): found for name, found in NAMES.modules.items()})


STARCODER_NAMES = renamed({LAYER + "mlp.up_proj": LAYER + "mlp.c_fc", LAYER + "mlp.down_proj": LAYER + "mlp.c_proj"})
PHI_NAMES = renamed({
    LAYER + "self_attn.o_proj": LAYER + "self_attn.dense", LAYER + "mlp.up_proj": LAYER + "mlp.fc1",
    LAYER + "mlp.down_proj": LAYER + "mlp.fc2", "model.norm": "model.final_layernorm",
})  # fmt: skip


def beside(raw: Raw, theta: float = 1e4, part: float = 1.0, partial: bool = False) -> Raw:
    """Rotary positions of pairs whose places lie beside each other."""
    found = turned(raw, theta, part, partial)
    return found | {"rope": found["rope"] | {"beside": True}}


def counted(raw: Raw) -> range:
    """The layers; a config whose number of them is none is refused later, as a field."""
    layers = raw["num_hidden_layers"]
    return range(layers if isinstance(layers, int) and 0 < layers <= 1 << 12 else 0)


def smollm3(raw: Raw) -> Raw:
    """SmolLM3: layers without positions, every fourth one unless a list says which."""
    every, listed = raw["no_rope_layer_interval"], raw.get("no_rope_layers")
    if not isinstance(every, int) or every < 1:
        refuse(f"sets no_rope_layer_interval to {every!r}", "whole numbers from 1 on")
    if listed is not None and (not isinstance(listed, list) or len(listed) < len(counted(raw))):
        refuse("does not say of each layer in no_rope_layers whether it turns", "one number for each of them only")
    still = [i for i in counted(raw) if not (listed[i] if listed else (i + 1) % every)]
    window = raw.get("sliding_window", 0) if raw["use_sliding_window"] else 0
    near = windows(raw, window, lambda i: bool(window) and i in still)
    return turned(raw, theta=2e6) | biased(raw) | near | {"unturned": still}


def olmo(raw: Raw) -> Raw:
    """OLMo: layer norms without numbers of their own."""
    return turned(raw) | biased(raw) | {"norm": "layer", "affine": "none", "eps": 1e-5}


def olmo2(raw: Raw) -> Raw:
    """OLMo 2: norms behind both halves of a block instead of before, and of all queries and keys together."""
    return turned(raw) | biased(raw) | {"pre_norms": False, "post_norms": True, "head_norms": True, "whole_norms": True}


def olmo3(raw: Raw) -> Raw:
    """OLMo 3: as OLMo 2, with a window in three layers of four; what scales positions does so in the others."""
    nested = raw.get("rope_parameters") or {}
    full = (
        {"rope_theta": raw.get("rope_theta", 5e5)} | said(nested.get("full_attention")) | said(raw.get("rope_scaling"))
    )
    near = {"rope_theta": 5e5} | said(nested.get("sliding_attention"))
    turning = {"rope": scaled(full, raw), "local_rope": scaled(near, raw)}
    if "longrope" in (rope.get("scaling") for rope in turning.values()):
        refuse("sets rope_type to 'longrope'", "it in families without windows only")
    return olmo2(raw | {"rope_parameters": None, "rope_scaling": None}) | turning | patterned(raw, 4)


def patterned(raw: Raw, every: Any) -> Raw:
    """A window in all layers but every so many, unless layer_types says which."""
    if not isinstance(every, int) or every < 1:
        every = (
            0 if raw.get("layer_types") else refuse(f"sets a pattern of windows to {every!r}", "a whole number only")
        )
    return windows(raw, raw.get("sliding_window", 0), lambda i: (i + 1) % every > 0)


def granite(raw: Raw) -> Raw:
    """Granite: the embedding, scores, what each half of a block adds and the logits have a factor each."""
    return turned(raw) | biased(raw) | {
        "embedding_scale": raw["embedding_multiplier"],
        "query_scale": raw["attention_multiplier"],
        "residual_scale": raw["residual_multiplier"],
        "logit_scale": 1 / raw["logits_scaling"],
    }  # fmt: skip


def phi(raw: Raw) -> Raw:
    """Phi 1, 1.5 and 2: both halves read one layer norm, half of each head turns, and the head has a bias."""
    return turned(raw, part=0.5, partial=True) | {
        "norm": "layer", "parallel": True, "shared_norm": True, "gated": False, "qkv_bias": True, "out_bias": True,
        "mlp_bias": True, "head_bias": True, "activation": chosen(raw, "hidden_act", "gelu_new", ACTIVATIONS),
    }  # fmt: skip


def stablelm(raw: Raw) -> Raw:
    """StableLM: layer norms, and a part of each head turns."""
    both = raw["use_parallel_residual"]
    found = {"norm": "layer", "qkv_bias": raw["use_qkv_bias"], "parallel": both, "shared_norm": both}
    return turned(raw, part=0.25, partial=True) | found


def cohere(raw: Raw) -> Raw:
    """Command-R: both halves read one layer norm without a bias; the logits have a factor."""
    return beside(raw, theta=5e5) | _cohere(raw)


def cohere2(raw: Raw) -> Raw:
    """Command-R7B, Command A: as before, with a window in three layers of four; the others have no positions."""
    raw = {name: value for name, value in raw.items() if name != "head_dim"}  # which the library does not look at
    near = patterned(raw, raw.get("sliding_window_pattern", 4))
    return beside(raw) | _cohere(raw) | near | {"unturned": _full(raw, near)}


def _cohere(raw: Raw) -> Raw:
    return biased(raw) | {
        "norm": "layer", "affine": "weight", "parallel": True, "shared_norm": True, "logit_scale": raw["logit_scale"],
    }  # fmt: skip


def _full(raw: Raw, near: Raw) -> list[int]:
    """The layers without a window, of what `windows` found."""
    every = near.get("full_every", 0)
    full = range(every - 1, len(counted(raw)), every) if every else near.get("full", ())
    return list(full if near.get("window") else counted(raw))


def exaone4(raw: Raw) -> Raw:
    """EXAONE 4: as OLMo 2, with norms of each query; where some layers have windows, the others have no positions."""
    near = patterned(raw, raw.get("sliding_window_pattern")) if raw.get("sliding_window") else {}
    still = _full(raw, near) if near else []
    found = {"pre_norms": False, "post_norms": True, "head_norms": True, "unturned": still}
    return turned(raw) | found | (near or windows(raw, 0, lambda i: False))


def starcoder2(raw: Raw) -> Raw:
    """StarCoder 2: layer norms, no gate, perhaps a window."""
    biases = dict.fromkeys(("qkv_bias", "out_bias", "mlp_bias"), raw["use_bias"])
    activation = chosen(raw, "hidden_act", "gelu_pytorch_tanh", ACTIVATIONS)
    found = {"norm": "layer", "gated": False, "activation": activation, "window": raw.get("sliding_window", 0)}
    return turned(raw) | biases | found


def helium(raw: Raw) -> Raw:
    """Helium: turning pairs lie beside each other."""
    return beside(raw, theta=1e5) | {"qkv_bias": raw["attention_bias"]}


def glm(raw: Raw) -> Raw:
    """GLM-4: half of each head turns, pairs beside each other; gate and up are one matrix."""
    return beside(raw, part=0.5, partial=True) | {"qkv_bias": raw["attention_bias"]}


def glm4(raw: Raw) -> Raw:
    """GLM-4-0414: the same with norms behind both halves of a block, too."""
    return glm(raw) | {"post_norms": True}


def ministral(raw: Raw) -> Raw:
    """Ministral 8B: windows in the layers that layer_types names, or in all."""
    window = raw.get("sliding_window", 0)
    return turned(raw) | windows(raw, window, lambda i: bool(window))


def ministral3(raw: Raw) -> Raw:
    """Ministral 3 up to its original context: beyond it queries grow with their position."""
    nested, outer = nested_in(raw), raw.get("original_max_position_embeddings")
    if not isinstance(nested.get("original_max_position_embeddings"), int):
        refuse("does not set original_max_position_embeddings in rope_parameters", "it with this number only")
    longest = raw["max_position_embeddings"]
    stated = (longest, nested["original_max_position_embeddings"], outer)  # of which the outer one may win
    shorter = min(size for size in stated if isinstance(size, int)) if isinstance(longest, int) else longest
    return turned(raw) | {"context": shorter, "window": raw.get("sliding_window", 0)}


def seed_oss(raw: Raw) -> Raw:
    """Seed-OSS: biases of queries, keys and values, and perhaps one of what attention adds."""
    return turned(raw) | {"qkv_bias": raw["attention_bias"], "out_bias": raw["attention_out_bias"]}


def ernie(raw: Raw) -> Raw:
    """ERNIE 4.5: turning pairs lie beside each other."""
    biases = dict.fromkeys(("qkv_bias", "out_bias", "mlp_bias"), raw["use_bias"])
    return beside(raw, theta=5e5) | biases


def gemma(raw: Raw) -> Raw:
    """Gemma 1: GeGLU and a scaled embedding; its "gelu" means the tanh form."""
    width, named = raw["hidden_size"], raw["hidden_act"]
    scale = width**0.5 if isinstance(width, int) else 0.0
    activation = chosen(
        raw | {"hidden_act": "gelu_pytorch_tanh" if named == "gelu" else named}, "hidden_act", "", GELUS
    )
    return turned(raw) | biased(raw) | {"activation": activation, "embedding_scale": scale}


@dataclass(frozen=True)
class Kind:
    """What differs between these families, beside their settings."""

    model_type: str
    read: Callable[[Raw], Raw]
    names: Names = NAMES
    supported: Choices = field(default_factory=dict[str, tuple[Any, ...]])
    fields: dict[str, str] = field(default_factory=lambda: FIELDS)
    patterned: bool = False  # whether its layers may differ
    classifies: bool = True  # whether the library has a head with classes for it


NO_NORMS: Choices = {"qk_layernorm": (False,), "use_qk_norm": (False,)}
KINDS = {
    "SmolLM3": Kind("smollm3", activated(smollm3), patterned=True),
    "Olmo": Kind("olmo", activated(olmo), supported={"clip_qkv": (None,)}),
    "Olmo2": Kind("olmo2", activated(olmo2), BEHIND),
    "Olmo3": Kind("olmo3", activated(olmo3), BEHIND, patterned=True),
    "Granite": Kind("granite", activated(granite), classifies=False),
    "Phi": Kind("phi", phi, PHI_NAMES, NO_NORMS, LAYERED),
    "StableLm": Kind("stablelm", activated(stablelm), supported=NO_NORMS, fields=LAYERED),
    "Cohere": Kind("cohere", activated(cohere), supported=NO_NORMS, fields=LAYERED, classifies=False),
    "Cohere2": Kind("cohere2", activated(cohere2), fields=LAYERED, patterned=True, classifies=False),
    "Exaone4": Kind("exaone4", activated(exaone4), BEHIND, patterned=True),
    "Starcoder2": Kind("starcoder2", starcoder2, STARCODER_NAMES, fields=LAYERED | {"eps": "norm_epsilon"}),
    "Helium": Kind("helium", activated(helium)),
    "Glm": Kind("glm", activated(glm), GLM_NAMES),
    "Glm4": Kind("glm4", activated(glm4), GLM4_NAMES),
    "Ministral": Kind("ministral", activated(ministral), patterned=True),
    "Ministral3": Kind("ministral3", activated(ministral3)),
    "SeedOss": Kind("seed_oss", activated(seed_oss)),
    "Ernie4_5": Kind("ernie4_5", activated(ernie), classifies=False),
    "Gemma": Kind("gemma", gemma, replace(NAMES, offset=True), {"use_bidirectional_attention": (False,)}),
}  # fmt: skip


def families() -> dict[str, Family]:
    """Every architecture that config.json may name."""
    found: dict[str, Family] = {}
    for name, kind in KINDS.items():
        for task in TASKS if kind.classifies else ("CausalLM", "Model"):
            found[f"{name}Model" if task == "Model" else f"{name}For{task}"] = Family(
                DECODER, settings(kind.read, task, kind.patterned), kind.names, kind.fields, kind.supported,
                model_type=kind.model_type, defaults=DEFAULTS[kind.model_type],
            )  # fmt: skip
    return found
