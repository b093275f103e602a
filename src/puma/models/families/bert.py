"""Checkpoints of encoders: BERT, RoBERTa, DistilBERT, ELECTRA and ALBERT, as data.

Heads that a checkpoint holds and its architecture does not name (BERT's next sentence, RoBERTa's unused pooler) are
left aside. This file must not know of shares or files.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from puma.models.architectures.encoder import ENCODER
from puma.models.families.defaults import ALIASES, DEFAULTS
from puma.models.family import Family, Names, chosen, headed, refuse

Raw = dict[str, Any]
SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "context": "max_position_embeddings",
    "type_vocab_size": "type_vocab_size",
    "eps": "layer_norm_eps",
}
DISTIL_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "dim",
    "intermediate_size": "hidden_dim",
    "layers": "n_layers",
    "heads": "n_heads",
    "context": "max_position_embeddings",
}
SUPPORTED: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "inner_group_num": (1,),
}
LAYER = "bert.encoder.layer.{}."
EMBEDDINGS = ("word_embeddings", "position_embeddings", "token_type_embeddings", "LayerNorm")
PARTS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)


def modules(prefix: str, layer: str, parts: tuple[str, ...], heads: dict[str, str]) -> dict[str, str]:
    """The modules of a checkpoint whose layers lie at `layer` and call PARTS by other names."""
    found = {f"{prefix}embeddings.{name}": f"bert.embeddings.{name}" for name in EMBEDDINGS}
    found |= {f"{prefix}{layer}.{theirs}": LAYER + ours for theirs, ours in zip(parts, PARTS, strict=True)}
    return found | heads


POOLER, MAPPING, CLASSES = "bert.pooler.dense", "bert.embeddings.mapping", {"classifier": "classifier"}
ON_TOKENS = {"TokenClassification": CLASSES, "QuestionAnswering": {"qa_outputs": "classifier"}}
DENSE, NORM, BIAS = "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions"
OWN_DENSE = {"classifier.dense": POOLER, "classifier.out_proj": "classifier"}


@dataclass(frozen=True)
class Dialect:
    """How a kind of encoder names its modules: those of a layer, others of its own, and those of each task's head."""

    prefix: str
    layer: str
    parts: tuple[str, ...]
    heads: dict[str, dict[str, str]]
    ignored: str
    own: dict[str, str] = field(default_factory=dict)
    skip: int = 0  # positions before the first
    twice: tuple[str, ...] = ()  # what has a bias that is tied to that of its decoder, which is what is read

    def names(self, task: str) -> Names:
        """All of them for one task."""
        found = modules(self.prefix, self.layer, self.parts, self.own | self.heads.get(task, {}))
        skip = {f"{self.prefix}embeddings.position_embeddings": self.skip}
        instead = {f"{name}.bias": f"{name}.decoder.bias" for name in self.twice if task == "MaskedLM"}
        return Names(found, self.prefix, ignored=self.ignored, skip=skip, instead=instead)


DIALECTS = {
    "Bert": Dialect(
        "bert.",
        "encoder.layer.{}",
        PARTS,
        {
            "Model": {POOLER: POOLER},
            "SequenceClassification": {POOLER: POOLER} | CLASSES,
            "MultipleChoice": {POOLER: POOLER} | CLASSES,
            "NextSentencePrediction": {POOLER: POOLER, "cls.seq_relationship": "classifier"},
            "MaskedLM": {name: name for name in (DENSE, NORM, BIAS, f"{BIAS}.decoder")},
        }
        | ON_TOKENS,
        r"cls\..*|bert\.pooler\..*",
        twice=("cls.predictions",),
    ),
    "Roberta": Dialect(
        "roberta.",
        "encoder.layer.{}",
        PARTS,
        {
            "Model": {"roberta.pooler.dense": POOLER},
            "SequenceClassification": OWN_DENSE,
            "MultipleChoice": {"roberta.pooler.dense": POOLER} | CLASSES,
            "MaskedLM": {
                "lm_head.dense": DENSE,
                "lm_head.layer_norm": NORM,
                "lm_head.decoder": f"{BIAS}.decoder",
                "lm_head": BIAS,
            },
        }
        | ON_TOKENS,
        r"roberta\.pooler\..*|lm_head\..*",
        skip=2,
        twice=("lm_head",),
    ),
    "DistilBert": Dialect(
        "distilbert.",
        "transformer.layer.{}",
        (
            "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "sa_layer_norm", "ffn.lin1",
            "ffn.lin2", "output_layer_norm",
        ),
        {
            "SequenceClassification": {"pre_classifier": POOLER} | CLASSES,
            "MultipleChoice": {"pre_classifier": POOLER} | CLASSES,
            "MaskedLM": {"vocab_transform": DENSE, "vocab_layer_norm": NORM, "vocab_projector": BIAS}
            | {"vocab_projector.weight": f"{BIAS}.decoder.weight"},
        }
        | ON_TOKENS,
        r"vocab_.*",
    ),
    "Electra": Dialect(
        "electra.",
        "encoder.layer.{}",
        PARTS,
        {
            "SequenceClassification": OWN_DENSE,
            "MultipleChoice": {"sequence_summary.summary": POOLER} | CLASSES,
            "MaskedLM": {
                "generator_predictions.dense": DENSE,
                "generator_predictions.LayerNorm": NORM,
                "generator_lm_head": BIAS,
                "generator_lm_head.weight": f"{BIAS}.decoder.weight",
            },
            "PreTraining": {"discriminator_predictions.dense": ""},
        }
        | ON_TOKENS,
        r"generator_.*|discriminator_.*",
        {"electra.embeddings_project": MAPPING},
    ),
    "Albert": Dialect(
        "albert.",
        "encoder.albert_layer_groups.{}.albert_layers.0",
        (
            "attention.query", "attention.key", "attention.value", "attention.dense", "attention.LayerNorm", "ffn",
            "ffn_output", "full_layer_layer_norm",
        ),
        {
            "Model": {"albert.pooler": POOLER},
            "SequenceClassification": {"albert.pooler": POOLER} | CLASSES,
            "MultipleChoice": {"albert.pooler": POOLER} | CLASSES,
            "MaskedLM": {"predictions.dense": DENSE, "predictions.LayerNorm": NORM, "predictions": BIAS}
            | {"predictions.decoder": f"{BIAS}.decoder"},
            "PreTraining": {"sop_classifier.classifier": ""},
        }
        | ON_TOKENS,
        r"predictions\..*|sop_classifier\..*|albert\.pooler\..*",
        {"albert.encoder.embedding_hidden_mapping_in": MAPPING},
        twice=("predictions",),
    ),
}  # fmt: skip
POOLED = ("SequenceClassification", "MultipleChoice", "NextSentencePrediction")
Settings = Callable[[Raw, set[str]], Raw]
FOLLOWING = ("gelu", "gelu_tanh", "relu", "silu")  # what a head for masked tokens computes as the layers do
ALWAYS = ("gelu",)  # where it is of one kind, whatever the layers compute


def _headed(task: str, raw: Raw, act: str = "hidden_act", activations: tuple[str, ...] = FOLLOWING) -> Raw:
    """What the name of an architecture says of its heads; that for masked tokens has one of these activations."""
    if task == "MaskedLM":
        if chosen(raw, act, "gelu") not in activations:
            refuse(f"sets {act} to {raw[act]!r}", f"{' or '.join(activations)} with a head for masked tokens")
        return {"predicts": True, "tied": raw["tie_word_embeddings"], "pooler": False}
    return headed(task, raw) | ({"pooler": False} if task in ON_TOKENS else {})


def _summary(raw: Raw) -> Raw:
    """ELECTRA's head for choices: a dense layer on the first token, with any activation or none."""
    kind, projects = raw.get("summary_type", "first"), raw.get("summary_use_proj", True)
    if (kind, projects, raw.get("summary_activation", "gelu")) != ("first", True, "gelu"):
        refuse("summarises texts in another way", "summary_type first, with a projection and gelu only")
    return {"pooler_activation": "gelu"}


def _has(names: set[str], pattern: str) -> bool:
    """Whether a checkpoint holds a tensor; before there is one, that it does."""
    return not names or any(re.search(pattern, name) for name in names)


def bert(task: str, activations: tuple[str, ...] = FOLLOWING) -> Settings:
    """BERT: the pooler is there if its tensors are."""

    def settings(raw: Raw, names: set[str]) -> Raw:
        found = {"activation": chosen(raw, "hidden_act", "gelu"), "pooler": _has(names, r"pooler\.dense\.weight$")}
        return found | _headed(task, raw, activations=activations)

    return settings


def roberta(task: str) -> Settings:
    """RoBERTa: positions count from 2, and a classification head has its own dense layer in the pooler's place."""

    def settings(raw: Raw, names: set[str]) -> Raw:
        found, longest = bert(task, ALWAYS)(raw, names), raw["max_position_embeddings"]
        found |= {"context": longest - 2 if isinstance(longest, int) else longest, "barred": 1}
        if raw.get("pad_token_id") != 1:
            what = f"sets pad_token_id to {raw.get('pad_token_id')}"
            refuse(what, "pad_token_id = 1 only, from which positions count")
        return found | ({"pooler": True} if task == "SequenceClassification" else {})

    return settings


def distilbert(task: str) -> Settings:
    """DistilBERT: no token types, no pooler but a classification head's."""

    def settings(raw: Raw, names: set[str]) -> Raw:
        found = {"activation": chosen(raw, "activation", "gelu"), "type_vocab_size": 0, "pooler_activation": "relu"}
        return found | {"pooler": task in POOLED} | _headed(task, raw, "activation")

    return settings


def electra(task: str) -> Settings:
    """ELECTRA: an embedding of its own size, and a classification head with GeLU in the pooler's place."""

    def settings(raw: Raw, names: set[str]) -> Raw:
        size = raw["embedding_size"]
        found = {"activation": chosen(raw, "hidden_act", "gelu"), "pooler_activation": "gelu"}
        found |= {"pooler": task in POOLED, "embedding_size": size}
        if task == "MultipleChoice":
            found |= _summary(raw)
        return found | {"projected": size != raw["hidden_size"]} | _headed(task, raw, activations=ALWAYS)

    return settings


def albert(task: str) -> Settings:
    """ALBERT: a small embedding, always projected, and layers that share their weights."""

    def settings(raw: Raw, names: set[str]) -> Raw:
        found = {"activation": chosen(raw, "hidden_act", "gelu_new"), "projected": True}
        found |= {"embedding_size": raw["embedding_size"], "groups": raw["num_hidden_groups"]}
        return found | {"pooler": _has(names, r"pooler\.weight$")} | _headed(task, raw)

    return settings


def matrix(raw: Raw, part: str) -> Raw:
    """An encoder with a matrix of its tokens' states beside it: the weight of each token, or a vector (BGE-M3)."""
    if (raw.get("architectures") or [""])[0] != "XLMRobertaModel":
        refuse(f"describes no XLMRobertaModel, beside which a {part} lies", "it of BGE-M3 only")
    count = 1 if part == "sparse_linear" else raw.get("hidden_size", 768)
    labels = {"0": "weight"} if count == 1 else {str(i): str(i) for i in range(count)}
    return raw | {"architectures": ["XLMRobertaForTokenClassification"], "id2label": labels}


def families() -> dict[str, Family]:
    """Every architecture that config.json may name."""
    kinds: dict[str, tuple[Callable[[str], Settings], str, str]] = {
        "Bert": (bert, "Bert", "bert"),
        "Roberta": (roberta, "Roberta", "roberta"),
        "XLMRoberta": (roberta, "Roberta", "xlm-roberta"),
        "DistilBert": (distilbert, "DistilBert", "distilbert"),
        "Electra": (electra, "Electra", "electra"),
        "Albert": (albert, "Albert", "albert"),
    }
    found: dict[str, Family] = {}
    for kind, (settings, dialect, model_type) in kinds.items():
        sizes = DISTIL_SIZES if kind == "DistilBert" else SIZES
        for task in ("Model", "MaskedLM", *POOLED, *ON_TOKENS):
            if task == "NextSentencePrediction" and kind != "Bert":
                continue
            name = f"{kind}{task}" if task == "Model" else f"{kind}For{task}"
            found[name] = Family(
                ENCODER, settings(task), DIALECTS[dialect].names(task), sizes, SUPPORTED, model_type=model_type,
                defaults=DEFAULTS[model_type], aliases=ALIASES.get(model_type, {}),
            )  # fmt: skip
    for kind in ("Bert", "Albert", "Electra"):  # their encoders, for hidden states
        found[f"{kind}ForPreTraining"] = found[f"{kind}Model"]
    return found
