"""Checkpoints of NomicBERT and GTE, as data: BERT whose positions turn and whose inner layers have gates.

Files have fused matrices and their first names, or those of the library. This file must not know of shares or files.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from puma.models.architectures.encoder import ENCODER
from puma.models.families.bert import (
    ALWAYS,
    BIAS,
    CLASSES,
    DENSE,
    FOLLOWING,
    LAYER,
    NORM,
    POOLER,
    SIZES,
    SUPPORTED,
    Dialect,
    Settings,
    bert,
)  # fmt: skip
from puma.models.families.defaults import ALIASES, DEFAULTS
from puma.models.families.rotary import turned
from puma.models.family import GATES, Family, Names, chosen, refuse

Raw = dict[str, Any]
PARTS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "post_attention_layernorm",
    "mlp.gate_proj", "mlp.down_proj", "post_mlp_layernorm",
)  # fmt: skip
QKV = PARTS[:3]
THETAS = {"nomic_bert": 1000.0, "gte": 160000.0}
NOMIC = Dialect(
    "nomic_bert.",
    "layers.{}",
    PARTS,
    {
        "Model": {},
        "SequenceClassification": {"nomic_bert.pooler.dense": POOLER} | CLASSES,
        "TokenClassification": CLASSES,
        "MaskedLM": {
            "cls.predictions.transform.layer_norm": NORM, **{name: name for name in (DENSE, BIAS, f"{BIAS}.decoder")},
        },
    },
    r"cls\..*|nomic_bert\.pooler\..*",
    {"nomic_bert.layers.{}.mlp.up_proj": f"{LAYER}intermediate.up"},
    twice=("cls.predictions",),
)  # fmt: skip
GTE = Dialect(
    "gte.",
    "layers.{}",
    PARTS,
    {
        "Model": {},
        "SequenceClassification": {"gte.pooler.dense": POOLER} | CLASSES,
        "TokenClassification": CLASSES,
        "MaskedLM": {
            "lm_head.dense": DENSE, "lm_head.layer_norm": NORM, "lm_head.decoder.weight": f"{BIAS}.decoder.weight",
            "lm_head.decoder": BIAS,
        },
    },
    r"lm_head\..*|gte\.pooler\..*",
    {"gte.layers.{}.mlp.up_proj": f"{LAYER}intermediate.up"},
)  # fmt: skip
NOMIC_NAMES = {  # as the model's own code had them
    r"(?<![^.])encoder\.layers\.": "layers.",
    r"(?<![^.])emb_ln\.": "embeddings.LayerNorm.",
    r"\.attn\.out_proj\.": ".self_attn.o_proj.",
    r"\.mlp\.fc11\.": ".mlp.up_proj.",
    r"\.mlp\.fc12\.": ".mlp.gate_proj.",
    r"\.mlp\.fc2\.": ".mlp.down_proj.",
    r"\.norm1\.": ".post_attention_layernorm.",
    r"\.norm2\.": ".post_mlp_layernorm.",
}
GTE_NAMES = {
    r"^new\.": "",
    r"(?<![^.])encoder\.layer\.": "layers.",
    r"\.attention\.o_proj\.": ".self_attn.o_proj.",
    r"\.attn_ln\.": ".post_attention_layernorm.",
    r"\.mlp_ln\.": ".post_mlp_layernorm.",
    r"^lm_head\.norm\.": "lm_head.layer_norm.",
}
FUSED = {
    "nomic_bert": {"attn.Wqkv": QKV},
    "gte": {"attention.qkv_proj": QKV, "mlp.up_gate_proj": ("mlp.up_proj", "mlp.gate_proj")},
}
FIRST_SETTINGS: dict[str, tuple[Any, ...]] = {  # of the model's own code, which the library does not read
    "activation_function": ("swiglu",), "qkv_proj_bias": (False,), "mlp_fc1_bias": (False,), "mlp_fc2_bias": (False,),
    "prenorm": (False,), "parallel_block": (False,), "use_rms_norm": (False,), "rotary_emb_fraction": (1.0,),
    "rotary_emb_interleaved": (False,), "causal": (False,), "num_experts": (0,), "moe_every_n_layers": (0,),
}  # fmt: skip


def named(kind: str, task: str) -> Names:
    """The dialect's names, and what files call the same."""
    dialect, renamed = {"nomic_bert": (NOMIC, NOMIC_NAMES), "gte": (GTE, GTE_NAMES)}[kind]
    return replace(dialect.names(task), renamed=renamed, fused=FUSED[kind])


def rotary(kind: str, task: str) -> Settings:
    """Positions that turn, gates and no biases in NomicBERT, some in GTE; poolers are a classification head's."""
    nomic = kind == "nomic_bert"

    def settings(raw: Raw, names: set[str]) -> Raw:
        size, heads = raw["hidden_size"], raw["num_attention_heads"]
        if (
            isinstance(size, int)
            and isinstance(heads, int)
            and heads
            and raw.get("head_dim", size // heads) * heads != size
        ):
            refuse(f"sets head_dim to {raw['head_dim']!r}", "hidden_size over num_attention_heads only")
        raw = {"tie_word_embeddings": True} | raw  # which the library has for one of them as no setting
        found = bert(task, FOLLOWING if nomic else ALWAYS)(raw, names)
        found |= {"activation": chosen(raw, "hidden_act", "gelu", GATES), "gated": True, "mlp_bias": False}
        found |= {"qkv_bias": not nomic, "out_bias": not nomic, "down_bias": not nomic}
        found |= {"learned": False, "pooler": task == "SequenceClassification"}
        return found | turned(raw, THETAS[kind])

    return settings


def families() -> dict[str, Family]:
    """Every architecture that config.json may name."""
    kinds = {"NomicBert": ("nomic_bert", SUPPORTED | FIRST_SETTINGS), "Gte": ("gte", SUPPORTED)}
    return {
        f"{kind}{task}" if task == "Model" else f"{kind}For{task}": Family(
            ENCODER, rotary(name, task), named(name, task), SIZES, supported, model_type=name,
            defaults=DEFAULTS[name], aliases=ALIASES.get(name, {}),
        )
        for kind, (name, supported) in kinds.items()
        for task in NOMIC.heads
    }  # fmt: skip
