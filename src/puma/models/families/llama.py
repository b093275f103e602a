"""Checkpoints of gated decoders: LLaMA, Mistral, Qwen 2 and 3, Phi-3, Gemma 2 and 3, as data.

This file must not know of shares or files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from puma.models.architectures.decoder import DECODER
from puma.models.families.defaults import DEFAULTS
from puma.models.families.rotary import nested_in, scaled, turned
from puma.models.family import GATES, GELUS, Family, Names, chosen, headed, refuse

Raw = dict[str, Any]
Settings = Callable[[Raw, set[str]], Raw]
FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "context": "max_position_embeddings",
    "eps": "rms_norm_eps",
    "tied": "tie_word_embeddings",
    "mlp_bias": "mlp_bias",
}
TASKS = ("CausalLM", "SequenceClassification", "Model")
ON_TOKENS = ("TokenClassification", "QuestionAnswering")
ANSWERING = {r"^transformer\.": "model."}  # what classes that answer questions call the whole model
MISSING = {"Phi3": ON_TOKENS[1:], "Gemma2": ON_TOKENS[1:], "Gemma3": ON_TOKENS}  # classes that the library has not
WINDOWED = "sliding_attention"
MOST_LAYERS = 1 << 12
LAYER = "model.layers.{}."
ATTENTION = tuple(f"{LAYER}self_attn.{name}_proj" for name in "qkv")
UNFUSED = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "self_attn.q_norm",
    "self_attn.k_norm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm",
)  # fmt: skip
OUTSIDE = {name: name for name in ("model.embed_tokens", "model.norm", "lm_head", "score")}
NAMES = Names(
    OUTSIDE | {LAYER + name: LAYER + name for name in (*UNFUSED, "post_attention_layernorm")},
    prefix="model.",
    ignored=r"lm_head\..*",
)
PHI3_NAMES = replace(
    NAMES,
    modules=dict(NAMES.modules)
    | {name: () for name in (*ATTENTION, f"{LAYER}mlp.gate_proj", f"{LAYER}mlp.up_proj")}
    | {
        f"{LAYER}self_attn.qkv_proj": ATTENTION,
        f"{LAYER}mlp.gate_up_proj": (f"{LAYER}mlp.gate_proj", f"{LAYER}mlp.up_proj"),
    },
)
GEMMA_NAMES = replace(
    NAMES,
    modules=OUTSIDE
    | {LAYER + name: LAYER + name for name in UNFUSED}
    | {
        f"{LAYER}post_attention_layernorm": f"{LAYER}self_attn_norm",
        f"{LAYER}pre_feedforward_layernorm": f"{LAYER}post_attention_layernorm",
        f"{LAYER}post_feedforward_layernorm": f"{LAYER}mlp_norm",
    },
    ignored=rf"{NAMES.ignored}|(model\.)?(vision_tower|multi_modal_projector)\..*",
    offset=True,
)


def llama(raw: Raw) -> Raw:
    """LLaMA 1, 2 and 3."""
    return turned(raw) | biased(raw)


def mistral(raw: Raw) -> Raw:
    """Mistral: every layer sees a window."""
    return turned(raw) | {"window": raw.get("sliding_window", 0)}


def qwen2(raw: Raw) -> Raw:
    """Qwen 2: biases of queries, keys and values, and perhaps a window in the layers from one on."""
    window, first = raw.get("sliding_window", 0) if raw["use_sliding_window"] else 0, raw["max_window_layers"]
    return turned(raw) | {"qkv_bias": True} | windows(raw, window, lambda i: bool(window) and i >= first)


def qwen3(raw: Raw) -> Raw:
    """Qwen 3: queries and keys are normalised."""
    return qwen2(raw) | biased(raw) | {"head_norms": True}


def phi3(raw: Raw) -> Raw:
    """Phi-3 and 4: fused matrices, perhaps a window; scaled positions are longrope's, whatever they were called."""
    nested, names = nested_in(raw), {"su": "longrope", "yarn": "longrope"}
    kind = nested.get("rope_type", nested.get("type", "default"))
    raw = {name: raw[name] for name in raw if name not in ("rope_scaling", "rope_parameters")}
    raw |= {"rope_scaling": nested | {"rope_type": names.get(kind, kind)}}
    return turned(raw, partial=True) | {"window": raw.get("sliding_window", 0)}


def gemma2(raw: Raw) -> Raw:
    """Gemma 2: norms around both halves, soft caps, a window in every other layer."""
    return turned(raw) | _gemma(raw, 2) | {"attention_cap": raw.get("attn_logit_softcapping", 0.0)}


def gemma3(raw: Raw) -> Raw:
    """Gemma 3: as Gemma 2 with normalised queries and keys for caps; layers with a window turn in their own way.

    Positions are nested by kind of layer; what an old config.json says flat is of layers without a window. There is a
    setting for a cap of scores, too, which the library does not compute. EmbeddingGemma sees both sides, half of a
    window on either.
    """
    window, both = raw.get("sliding_window"), bool(raw.get("use_bidirectional_attention"))
    raw = raw | {"sliding_window": window // 2 + 1} if both and isinstance(window, int) else raw
    nested, flat = raw.get("rope_parameters") or {}, raw.get("rope_scaling") or {}
    full = {"rope_theta": raw.get("rope_theta", 1e6)} | said(nested.get("full_attention")) | said(flat)
    near = {"rope_theta": raw.get("rope_local_base_freq", 1e4)} | said(nested.get("sliding_attention"))
    turning = {"rope": scaled(full, raw), "local_rope": scaled(near, raw)}
    if "longrope" in (rope.get("scaling") for rope in turning.values()):
        refuse("sets rope_type to 'longrope'", "it in families without windows only")
    return _gemma(raw, raw.get("sliding_window_pattern", 6)) | turning | {"head_norms": True, "both": both}


def said(nested: Any) -> Raw:
    """What an object says, without what is null."""
    return {name: value for name, value in (nested or {}).items() if value is not None}


def biased(raw: Raw) -> Raw:
    """Biases of all matrices of attention, if `attention_bias` says so."""
    return {"qkv_bias": raw["attention_bias"], "out_bias": raw["attention_bias"]}


def _gemma(raw: Raw, every: int) -> Raw:
    if not isinstance(every, int) or every < 1:
        refuse(f"sets sliding_window_pattern to {every!r}", "whole numbers from 1 on")
    return biased(raw) | windows(raw, raw.get("sliding_window", 0), lambda i: (i + 1) % every > 0) | {
        "activation": chosen(raw, "hidden_activation", "gelu_pytorch_tanh", GELUS),
        "post_norms": True,
        "query_scale": raw["query_pre_attn_scalar"] ** -0.5,
        "embedding_scale": raw["hidden_size"] ** 0.5 if isinstance(raw["hidden_size"], int) else 0.0,
        "logit_cap": raw.get("final_logit_softcapping", 0.0),
    }  # fmt: skip


def windows(raw: Raw, window: int, usual: Callable[[int], bool]) -> Raw:
    """Which layers see a window: as layer_types says, or those that are `usual`."""
    layers, kinds = raw["num_hidden_layers"], raw.get("layer_types")
    if not isinstance(layers, int) or layers > MOST_LAYERS:  # refused later, as a field
        return {}
    if kinds is None:
        kinds = [WINDOWED if usual(i) else "full_attention" for i in range(layers)]
    if not isinstance(kinds, list) or len(kinds) != layers:
        refuse("does not name the kind of each layer in layer_types", "one for each of num_hidden_layers only")
    for i, kind in enumerate(kinds):
        if kind not in (WINDOWED, "full_attention"):
            refuse(f"makes layer {i} one of {kind!r}", f"layers of full_attention and {WINDOWED} only")
    if WINDOWED not in kinds:
        return {"window": 0}
    if not window:
        refuse("names layers that see a window, and no sliding_window", "both together only")
    full = tuple(i for i, kind in enumerate(kinds) if kind != WINDOWED)
    every = full[0] + 1 if full else 0
    if every and full == tuple(range(every - 1, layers, every)):
        return {"window": window, "full_every": every}
    return {"window": window, "full": full}


def _alike(raw: Raw, settings: Raw) -> None:
    """Refuse layers of several kinds in a family that has one; the library would not look at them."""
    kind = WINDOWED if settings.get("window") else "full_attention"
    for i, named in enumerate(raw.get("layer_types") or ()):
        if named != kind:
            refuse(f"makes layer {i} one of {named}", f"layers of {kind} only in this family and with these settings")


def settings(kind: Callable[[Raw], Raw], task: str, patterned: bool = False) -> Settings:
    """The settings of a kind of decoder with the head of this task; `patterned`: its layers may differ."""

    def read(raw: Raw, names: set[str]) -> Raw:
        found = kind(raw)
        if found.get("both") and task != "Model":
            refuse("sets use_bidirectional_attention", "it in models without a head only")
        if not patterned:
            _alike(raw, found)
        if task == "SequenceClassification":
            return found | headed(task, raw) | {"padding": raw.get("pad_token_id")}
        if task in ON_TOKENS:
            bias = task == "QuestionAnswering" or raw.get("token_classification_bias", True)
            return found | headed(task, raw) | {"label_bias": bias}
        return found | ({"headless": True} if task == "Model" else {})

    return read


def with_head(names: Names, task: str, tokens: str = "score") -> Names:
    """The names of checkpoints with the head of this task; that for classes of `tokens` is called so."""
    if task not in ON_TOKENS:
        return names
    theirs = tokens if task == "TokenClassification" else "qa_outputs"
    modules = {module: ours for module, ours in names.modules.items() if ours != "score"}
    return replace(names, modules=modules | {theirs: "score"})


def activated(kind: Callable[[Raw], Raw]) -> Callable[[Raw], Raw]:
    """A kind of decoder whose gate has the activation that config.json names."""
    return lambda raw: kind(raw) | {"activation": chosen(raw, "hidden_act", "silu", GATES)}


def families() -> dict[str, Family]:
    """Every architecture that config.json may name."""
    causal = {"use_bidirectional_attention": (False,)}
    kinds: dict[str, tuple[str, Callable[[Raw], Raw], Names, dict[str, tuple[Any, ...]]]] = {
        "Llama": ("llama", activated(llama), NAMES, {}),
        "Mistral": ("mistral", activated(mistral), NAMES, {}),
        "Qwen2": ("qwen2", activated(qwen2), NAMES, {}),
        "Qwen3": ("qwen3", activated(qwen3), NAMES, {}),
        "Phi3": ("phi3", activated(phi3), PHI3_NAMES, {}),
        "Gemma2": ("gemma2", gemma2, GEMMA_NAMES, causal),
        "Gemma3": ("gemma3_text", gemma3, GEMMA_NAMES, {}),
    }
    found: dict[str, Family] = {}
    for kind, (name, read, names, supported) in kinds.items():
        for task in (*TASKS, *ON_TOKENS):
            if task in MISSING.get(kind, ()):
                continue
            reader = settings(read, task, patterned=name[:4] in ("qwen", "gemm"))
            called = f"{kind}{task}" if task == "Model" else f"{kind}For{task}"
            theirs = with_head(replace(names, renamed=ANSWERING), task)
            found[called] = Family(DECODER, reader, theirs, FIELDS, supported, model_type=name, defaults=DEFAULTS[name])
    for task in ("ForSequenceClassification", "Model"):  # without Text these read images, too
        found[f"Gemma3Text{task}"] = found.pop(f"Gemma3{task}")
    return found
