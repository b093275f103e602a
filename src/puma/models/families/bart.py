"""Checkpoints of encoders with a decoder: BART, mBART, Marian, Pegasus, M2M100 and NLLB, as data.

This file must not know of shares or files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from puma.models.architectures.seq2seq import SEQ2SEQ
from puma.models.families.defaults import ALIASES, DEFAULTS
from puma.models.family import Choices, Family, Names, chosen, headed, refuse

Raw = dict[str, Any]
M = "model."
FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "d_model",
    "intermediate_size": "decoder_ffn_dim",
    "layers": "decoder_layers",
    "heads": "decoder_attention_heads",
    "encoder_size": "encoder_ffn_dim",
    "encoder_layers": "encoder_layers",
    "encoder_heads": "encoder_attention_heads",
    "context": "max_position_embeddings",
    "tied": "tie_word_embeddings",
}
BART: Raw = {}
MBART: Raw = {"pre_norms": True}
MARIAN: Raw = {"embedded_norm": False, "positions": "halves"}
PEGASUS: Raw = MARIAN | {"pre_norms": True}
M2M100: Raw = PEGASUS | {"positions": "offset"}
KINDS: dict[str, tuple[str, Raw]] = {  # the first word of each class: its model_type and what is fixed in it
    "Bart": ("bart", BART),
    "MBart": ("mbart", MBART),
    "Marian": ("marian", MARIAN),
    "Pegasus": ("pegasus", PEGASUS),
    "M2M100": ("m2m_100", M2M100),
}
ANSWERING = {"Marian": "MTModel"}
SHARED: Choices = {"share_encoder_decoder_embeddings": (True,)}
BIAS = "final_logits_bias"
IGNORED = r"(model\.)?(en|de)coder\.(version|embed_positions\.weights?)|lm_head\..*"


def modules() -> dict[str, str]:
    """Modules of a checkpoint, in all variants that there are, and those of the model."""
    found = {f"{M}shared": "shared", "lm_head": "lm_head", BIAS: BIAS}
    found |= {f"classification_head.{name}": f"classifier.{name}" for name in ("dense", "out_proj")}
    for stack in ("encoder", "decoder"):
        theirs, ours = f"{M}{stack}.", f"{stack}."
        outside = {"embed_positions": "positions", "layernorm_embedding": "embedded_norm", "layer_norm": "norm"}
        found |= {theirs + name: ours + other for name, other in outside.items()}
        theirs, ours = f"{theirs}layers.{{}}.", f"{ours}layers.{{}}."
        for attention, name in (("self_attn", "self_attn"), ("encoder_attn", "cross_attn")):
            found |= {f"{theirs}{attention}.{part}_proj": f"{ours}{name}.{part}_proj" for part in "qkv"}
            found[f"{theirs}{attention}.out_proj"] = f"{ours}{name}.o_proj"
        inside = {"fc1": "mlp.up_proj", "fc2": "mlp.down_proj", "self_attn_layer_norm": "attention_norm"}
        inside |= {"encoder_attn_layer_norm": "cross_norm", "final_layer_norm": "mlp_norm"}
        found |= {theirs + name: ours + other for name, other in inside.items()}
    return found


def names(headless: bool, skip: int) -> Names:
    """The names; of learned positions the first ones may be no part of the model."""
    copies = [f"{M}{stack}.embed_tokens.weight" for stack in ("encoder", "decoder")]
    return Names(
        modules(), prefix=M, ignored=IGNORED + (rf"|(model\.)?decoder\..*|{BIAS}" if headless else rf"|{BIAS}"),
        copies=tuple(copies[: 1 if headless else 2]),
        skip={f"{M}{stack}.embed_positions": skip for stack in ("encoder", "decoder")},
    )  # fmt: skip


def settings(fixed: Raw, raw: Raw, tensors: set[str]) -> Raw:
    """What is common to all; a bias of the logits shows in the tensors."""
    width = raw["d_model"]
    scale = math.sqrt(width) if raw["scale_embedding"] and isinstance(width, int) and width > 0 else 0.0
    if fixed.get("positions") == "offset" and raw["pad_token_id"] != 1:
        refuse(f"sets pad_token_id to {raw['pad_token_id']!r}", "pad_token_id = 1 only, as positions count behind it")
    found = {"activation": chosen(raw, "activation_function", "gelu"), "embedding_scale": scale}
    return fixed | found | {"padding": 1 if fixed.get("positions") == "offset" else None}


def answering(fixed: Raw, raw: Raw, tensors: set[str]) -> Raw:
    """A model that answers."""
    held = not tensors or any(name.rpartition(".")[2] == BIAS for name in tensors)  # perhaps behind what wraps names
    biased = fixed.get("positions") != "offset" and held
    return settings(fixed, raw, tensors) | choosing(raw) | {"starts": begins(raw), "head_bias": biased}


def body(fixed: Raw, raw: Raw, tensors: set[str]) -> Raw:
    """The encoder, which is all that is asked for states."""
    return settings(fixed, raw, tensors) | {"headless": True}


def classes(fixed: Raw, raw: Raw, tensors: set[str]) -> Raw:
    """A head for classes of texts, three of them unless they are counted."""
    counted = any(raw.get(name) is not None for name in ("id2label", "num_labels", "_num_labels"))
    raw = raw if counted else raw | {"num_labels": 3}
    return settings(fixed, raw, tensors) | {"starts": begins(raw)} | headed("SequenceClassification", raw)


def begins(raw: Raw) -> tuple[Any, ...]:
    """The tokens that every answer begins with: the first one, and perhaps one that is forced to follow."""
    first, forced = raw.get("decoder_start_token_id"), raw.get("forced_bos_token_id")
    if first is None:
        refuse("names no decoder_start_token_id", "a model whose answers begin with a token that it names")
    return (first,) if forced is None else (first, forced)


def choosing(raw: Raw) -> Raw:
    """The tokens that are never chosen, or not as an answer's first one, as far as each is a token by itself."""
    ends = raw.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [ends]
    words = [ids for ids in raw.get("bad_words_ids") or () if len(ids) == 1 and ids[0] not in ends]
    barred = {*_known(raw, raw.get("suppress_tokens")), *_known(raw, [token for (token,) in words])}
    first = {*_known(raw, raw.get("begin_suppress_tokens"))} - barred
    return {"barred": sorted(barred), "barred_first": sorted(first)}


def _known(raw: Raw, tokens: Iterable[int] | None) -> list[int]:
    """Those of the vocabulary; of others nothing can be suppressed."""
    return [token for token in tokens or () if 0 <= token < raw["vocab_size"]]


def family(kind: str, what: Any, fixed: Raw, supported: Mapping[str, tuple[Any, ...]]) -> Family:
    """One class of checkpoints; `what` makes the config's fields of its settings."""
    skip = 2 if fixed.get("positions", "learned") == "learned" else 0
    return Family(
        SEQ2SEQ, lambda raw, tensors: what(fixed, raw, tensors), names(what is body, skip), FIELDS, model_type=kind,
        defaults=DEFAULTS[kind], supported=supported, aliases=ALIASES["bart"],
    )  # fmt: skip


def families() -> dict[str, Family]:
    """All of them, with their heads and without."""
    found = dict[str, Family]()
    for name, (kind, fixed) in KINDS.items():
        supported = SHARED if name == "Marian" else {}
        found[name + ANSWERING.get(name, "ForConditionalGeneration")] = family(kind, answering, fixed, supported)
        found[f"{name}Model"] = family(kind, body, fixed, supported)
    return found | {"BartForSequenceClassification": family("bart", classes, BART, {})}
