"""Checkpoints of MPNet, as data: BERT with a number for each distance that is added to scores.

This file must not know of shares or files.
"""

from __future__ import annotations

from typing import Any

from puma.models.architectures.encoder import ENCODER
from puma.models.families.bert import (
    ALWAYS,
    BIAS,
    CLASSES,
    DENSE,
    NORM,
    ON_TOKENS,
    OWN_DENSE,
    POOLER,
    SIZES,
    SUPPORTED,
    Dialect,
    Settings,
    bert,
)  # fmt: skip
from puma.models.families.defaults import DEFAULTS
from puma.models.family import Family

Raw = dict[str, Any]
FIELDS = {ours: theirs for ours, theirs in SIZES.items() if ours != "type_vocab_size"}
BUCKETS = 32  # the library looks up no others, whatever config.json says
FIRST = 2  # positions count from here, whatever pad_token_id says
TABLE = "encoder.relative_attention_bias"
DIALECT = Dialect(
    "mpnet.",
    "encoder.layer.{}",
    (
        "attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o", "attention.LayerNorm",
        "intermediate.dense", "output.dense", "output.LayerNorm",
    ),
    {
        "Model": {"mpnet.pooler.dense": POOLER},
        "SequenceClassification": OWN_DENSE,
        "MultipleChoice": {"mpnet.pooler.dense": POOLER} | CLASSES,
        "MaskedLM": {
            "lm_head.dense": DENSE, "lm_head.layer_norm": NORM, "lm_head.decoder": f"{BIAS}.decoder", "lm_head": BIAS,
        },
    }
    | ON_TOKENS,
    r"mpnet\.pooler\..*|lm_head\..*",
    {f"mpnet.{TABLE}": f"bert.{TABLE}"},
    skip=FIRST,
    twice=("lm_head",),
)  # fmt: skip


def mpnet(task: str) -> Settings:
    """MPNet: positions count from 2, and a classification head has its own dense layer in the pooler's place."""

    def settings(raw: Raw, names: set[str]) -> Raw:
        longest = raw["max_position_embeddings"]
        found = bert(task, ALWAYS)(raw, names) | {"type_vocab_size": 0, "distances": BUCKETS, "barred": FIRST - 1}
        found |= {"context": longest - FIRST if isinstance(longest, int) else longest}
        return found | ({"pooler": True} if task == "SequenceClassification" else {})

    return settings


def families() -> dict[str, Family]:
    """Every architecture that config.json may name."""
    supported = SUPPORTED | {"relative_attention_num_buckets": (BUCKETS,)}
    return {
        f"MPNet{task}" if task == "Model" else f"MPNetFor{task}": Family(
            ENCODER, mpnet(task), DIALECT.names(task), FIELDS, supported, model_type="mpnet",
            defaults=DEFAULTS["mpnet"],
        )
        for task in DIALECT.heads
    }  # fmt: skip
