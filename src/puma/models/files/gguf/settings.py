"""A GGUF file's fields as the settings that config.json has of the same model.

What a file does not say, llama.cpp takes from its code; so it is done here, with the rule's source named. A field that
is asked for by nobody would change the arithmetic, and is refused. This file must not know of families.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from puma.errors import CheckpointError, UnsupportedModel
from puma.models.files.gguf.header import Header
from puma.models.files.gguf.numbers import numbers
from puma.models.pooling import Mode, Pooling

Raw = dict[str, Any]
HARMLESS = (  # they say nothing that is computed
    "tensor_data_layout", "rope.scaling.finetuned", "pooling_type", "vocab_size",
    "rope.dimension_count_swa",
)  # fmt: skip
SAMPLING = "general.sampling"
DRAWN = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p",
         "penalty_repeat": "repetition_penalty"}  # fmt: skip
POOLED: dict[int, Mode] = {1: "mean", 2: "cls", 3: "lasttoken"}  # as llama.cpp counts them


class Settings:
    """The fields of one architecture, by their names after its own; it remembers which were asked for."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.architecture = str(header.fields.get("general.architecture", ""))
        self._prefix = self.architecture + "."
        self._asked = set[str](HARMLESS)

    def get(self, name: str, default: Any = None) -> Any:
        """A field of the kind of `default`, or that; None for a field that has no default, and is of any kind."""
        self._asked.add(name)
        found = self.header.fields.get(self._prefix + name)
        if found is None:
            return default
        kind = next((kind for kind in (bool, int, float, str) if isinstance(default, kind)), None)
        return found if kind is None else self._checked(name, found, kind)

    def need(self, name: str) -> int:
        """A whole number without which there is no model."""
        return self._checked(name, self._there(name), int)

    def one(self, name: str, default: int | None = None) -> int:
        """A whole number that may differ from layer to layer, and here must not."""
        found = self.get(name)
        if found is None:
            found = self._there(name) if default is None else default
        if isinstance(found, list):
            if not found or any(each != found[0] for each in found):
                self.refuse(name, "layers that are alike only")
            found = found[0]
        return self._checked(name, found, int)

    def small(self, name: str) -> float:
        """What is added to a variance."""
        return self._checked(name, self._there(name), float)

    def _there(self, name: str) -> Any:
        found = self.get(name)
        if found is None:
            what = f"{self.header.path} lacks the field {self._prefix}{name}"
            raise CheckpointError(what, "convert the model with llama.cpp's convert_hf_to_gguf.py")
        return found

    def _checked(self, name: str, found: Any, kind: type) -> Any:
        """A field of this kind; whole numbers are below 2^31, and others finite."""
        right = type(found) is kind or (kind is float and type(found) is int)
        if right and (kind is str or kind is bool or (math.isfinite(found) and abs(found) < 1 << 31)):
            return found
        what = f"{self.header.path} sets {self._prefix}{name} to something else than it is for"
        raise CheckpointError(what, "download or convert the model again")

    def has(self, tensor: str) -> bool:
        """Whether the file holds a tensor."""
        return tensor in self.header.places

    def shape(self, tensor: str) -> tuple[int, ...]:
        """The shape of a tensor that must be there."""
        if not self.has(tensor):
            raise CheckpointError(f"{self.header.path} holds no {tensor}", "download or convert the model again")
        return self.header.places[tensor].shape

    def listed(self, tensor: str) -> list[float] | None:
        """The numbers of a small tensor, if it is there."""
        place = self.header.places.get(tensor)
        return None if place is None else numbers(place).flatten().tolist()

    def check_all_asked(self) -> None:
        """UnsupportedModel for a field that says something of which nothing is known here."""
        for field, value in self.header.fields.items():
            name = field.removeprefix(self._prefix)
            if field != name and name not in self._asked and value not in (0, False, "", None, []):
                self.refuse(name, f"{self.architecture} without it only")

    def refuse(self, name: str, implemented: str) -> None:
        """Say which field is not implemented."""
        value = self.header.fields.get(self._prefix + name)
        shown = "a list" if isinstance(value, list) else repr(value)
        what = f"{self.header.path} sets {self._prefix}{name} to {shown}"
        raise UnsupportedModel(what, f"puma implements {implemented}")


def config(found: Settings, architecture: str) -> Raw:
    """What config.json would say of the model."""
    raw = READERS[found.architecture](found)
    found.check_all_asked()
    raw |= {"architectures": [architecture], "vocab_size": found.shape("token_embd.weight")[0]}
    return {name: value for name, value in raw.items() if value is not None}


def pooling(found: Settings) -> Pooling | None:
    """How states become a text's vector, if the file says that; a model that ranks has a head instead."""
    mode = POOLED.get(found.one("pooling_type", 0))
    return None if mode is None else Pooling(modes=(mode,))


def sampling(fields: Mapping[str, Any]) -> Raw:
    """What generation_config.json would say of chance; a file that names any of it is meant to be sampled from."""
    found = {ours: fields[f"{SAMPLING}.{theirs}"] for theirs, ours in DRAWN.items() if f"{SAMPLING}.{theirs}" in fields}
    return found | {"do_sample": True} if found else {}


def heads(found: Settings) -> tuple[int, int]:
    """How many heads queries have, and keys."""
    count = found.one("attention.head_count")
    return count, found.one("attention.head_count_kv", count)


def _sizes(found: Settings) -> Raw:
    """LLaMA's names of the sizes."""
    count, kv_count = heads(found)
    return {
        "hidden_size": found.need("embedding_length"),
        "intermediate_size": found.one("feed_forward_length"),
        "num_hidden_layers": found.need("block_count"),
        "num_attention_heads": count,
        "num_key_value_heads": kv_count,
        "max_position_embeddings": found.need("context_length"),
    }


def _causal(found: Settings) -> None:
    """Refuse a decoder that has been made to look ahead, as models for embeddings are."""
    if not found.get("attention.causal", True):
        found.refuse("attention.causal", "decoders that do not look ahead only")


def _decoder(found: Settings) -> Raw:
    """LLaMA and what resembles it."""
    _causal(found)
    raw = _sizes(found)
    size = found.get("attention.key_length", raw["hidden_size"] // max(raw["num_attention_heads"], 1))
    if found.get("attention.value_length", size) != size:
        found.refuse("attention.value_length", "values as wide as keys only")
    raw |= {
        "head_dim": size,
        "rms_norm_eps": found.small("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": not found.has("output.weight"),
    }
    turning = found.get("rope.dimension_count", size)
    if size < 1:
        found.refuse("attention.head_count", "heads that are not wider than the model only")
    return raw | ({"partial_rotary_factor": turning / size} if turning != size else {}) | _rotary(found, raw)


def _rotary(found: Settings, raw: Raw) -> Raw:
    """Rotary positions; frequencies that the file lists are scaled by numbers for each pair, as longrope's are."""
    theta, context = found.get("rope.freq_base", 10000.0), raw["max_position_embeddings"]
    original = found.get("rope.scaling.original_context_length", 0)
    listed = found.listed("rope_freqs.weight")
    short, long = (
        found.listed("rope_factors_short.weight") or listed,
        found.listed("rope_factors_long.weight") or listed,
    )
    scaling = _scaling(found, original)
    attention = found.get("rope.scaling.attn_factor")
    if short and long:
        if scaling.get("rope_type", "longrope") != "longrope":
            found.refuse("rope.scaling.type", "frequencies that are scaled once only")
        stated = original or context
        scaling = {"rope_type": "longrope", "short_factor": short, "long_factor": long, "factor": 1.0}
        scaling |= {"original_max_position_embeddings": stated, "attention_factor": attention or 1.0}
        top = {"original_max_position_embeddings": stated} if not listed else {}
        return {"rope_theta": theta, "rope_scaling": scaling} | top
    if attention not in (None, 1.0):
        found.refuse("rope.scaling.attn_factor", "it with frequencies of longrope only")
    return {"rope_theta": theta} | ({"rope_scaling": scaling} if scaling else {})


def _scaling(found: Settings, original: int) -> Raw:
    """What one number scales: linear and yarn, whose factor of cosines is the usual one."""
    kind, factor = found.get("rope.scaling.type", "none"), found.get("rope.scaling.factor", 1.0)
    old = found.get("rope.scale_linear", 1.0)
    if kind == "none" and old not in (0.0, 1.0):
        kind, factor = "linear", old
    fast, slow = found.get("rope.scaling.yarn_beta_fast"), found.get("rope.scaling.yarn_beta_slow")
    for name, usual in (
        ("yarn_ext_factor", (-1.0, 1.0)),
        ("yarn_attn_factor", (1.0,)),
        ("yarn_log_multiplier", (0.0,)),
    ):
        if found.get(f"rope.scaling.{name}", usual[0]) not in usual:
            found.refuse(f"rope.scaling.{name}", f"{name} = {usual[-1]} only")
    if kind not in ("none", "linear", "yarn", "longrope"):
        found.refuse("rope.scaling.type", "none, linear, yarn and longrope")
    if kind == "none" or (kind == "linear" and factor in (0.0, 1.0)):
        return {}
    if kind == "longrope" and not found.has("rope_factors_long.weight"):
        found.refuse("rope.scaling.type", "it with the factors that belong to it only")
    given = {"factor": factor, "original_max_position_embeddings": original, "beta_fast": fast, "beta_slow": slow}
    return {"rope_type": kind} | {name: value for name, value in given.items() if value}


def llama(found: Settings) -> Raw:
    """LLaMA, and Mistral without a window, which goes by the same name."""
    _check_window(found)
    return _decoder(found) | {
        "attention_bias": found.has("blk.0.attn_q.bias"),
        "mlp_bias": found.has("blk.0.ffn_up.bias"),
    }


def qwen(found: Settings) -> Raw:
    """Qwen 2 and 3."""
    _check_window(found)
    return _decoder(found)


def _check_window(found: Settings) -> None:
    """llama.cpp reads all positions in these architectures, whatever the file says of a window."""
    window = found.get("attention.sliding_window", 0)
    if window and window < found.need("context_length"):
        found.refuse("attention.sliding_window", "this architecture without a window only")


def smollm3(found: Settings) -> Raw:
    """SmolLM3: every fourth layer has no positions, which llama.cpp has from its code."""
    return llama(found) | {"no_rope_layer_interval": 4}


def olmo2(found: Settings) -> Raw:
    """OLMo 2; OLMo 3 goes by the same name, with a window."""
    _check_window(found)
    return _decoder(found)


def granite(found: Settings) -> Raw:
    """Granite: factors that the file need not name are 1, and that of scores is a head's usual one."""
    raw = llama(found)
    return raw | {
        "attention_multiplier": found.get("attention.scale", 0.0) or raw["head_dim"] ** -0.5,
        "embedding_multiplier": found.get("embedding_scale", 0.0) or 1.0,
        "residual_multiplier": found.get("residual_scale", 0.0) or 1.0,
        "logits_scaling": found.get("logit_scale", 0.0) or 1.0,
    }


def phi3(found: Settings) -> Raw:
    """Phi-3; its window is as in its config.json."""
    return _decoder(found) | {"sliding_window": found.get("attention.sliding_window", 0) or None}


def gemma2(found: Settings) -> Raw:
    """Gemma 2: soft caps of 50 and 30 where the file names none, as llama.cpp has them."""
    raw = _gemma(found, 46)
    raw["attn_logit_softcapping"] = found.get("attn_logit_softcapping", 50.0)
    raw["final_logit_softcapping"] = found.get("final_logit_softcapping", 30.0)
    return raw


def gemma3(found: Settings) -> Raw:
    """Gemma 3: what is said of rotary positions is said of layers without a window."""
    every = found.get("attention.sliding_window_pattern")
    every = 6 if every is None else every
    raw = _gemma(found, 62)
    if isinstance(every, list):
        kinds = {True: "sliding_attention", False: "full_attention"}
        raw["layer_types"] = [kinds[bool(near)] for near in every]
        every = raw["layer_types"].index(kinds[False]) + 1 if False in every else len(every) + 1
    raw["sliding_window_pattern"] = every
    raw["rope_local_base_freq"] = found.get("rope.freq_base_swa", 10000.0)
    raw["final_logit_softcapping"] = found.get("final_logit_softcapping")
    return raw


def _gemma(found: Settings, large: int) -> Raw:
    """What scales queries is said nowhere: the width of a head, save in the largest model.

    Source: llama.cpp's f_attention_scale of LLM_ARCH_GEMMA2 and LLM_ARCH_GEMMA3.
    """
    raw = _decoder(found)
    whole = raw["num_hidden_layers"] == large
    return raw | {
        "query_pre_attn_scalar": raw["hidden_size"] // max(raw["num_attention_heads"], 1) if whole else raw["head_dim"],
        "sliding_window": found.get("attention.sliding_window", 4096),
    }


def gpt2(found: Settings) -> Raw:
    """GPT-2, with its own names of the sizes."""
    _causal(found)
    sizes = _sizes(found)
    return {
        "n_embd": sizes["hidden_size"],
        "n_inner": sizes["intermediate_size"],
        "n_layer": sizes["num_hidden_layers"],
        "n_head": sizes["num_attention_heads"],
        "n_positions": sizes["max_position_embeddings"],
        "layer_norm_epsilon": found.small("attention.layer_norm_epsilon"),
        "tie_word_embeddings": not found.has("output.weight"),
    }


def neox(found: Settings) -> Raw:
    """GPT-NeoX and Pythia."""
    _causal(found)
    raw = _sizes(found)
    size = raw["hidden_size"] // max(raw["num_attention_heads"], 1)
    return (
        {name: value for name, value in raw.items() if name != "num_key_value_heads"}
        | {
            "layer_norm_eps": found.small("attention.layer_norm_epsilon"),
            "use_parallel_residual": found.get("use_parallel_residual", True),
            "rotary_pct": found.get("rope.dimension_count", size) / max(size, 1),
            "tie_word_embeddings": not found.has("output.weight"),
        }
        | _rotary(found, raw)
    )


def bert(found: Settings) -> Raw:
    """BERT, and RoBERTa without the positions before its first; it has its pooler only beside a head."""
    types = found.shape("token_types.weight")[0] if found.has("token_types.weight") else 0
    if found.has("cls.weight") and not types:
        hint = "take the original checkpoint: DistilBERT's head is another"
        raise UnsupportedModel(f"{found.header.path} holds a classification head and no token types", hint)
    if found.get("attention.causal", False):
        found.refuse("attention.causal", "encoders that see the whole text only")
    raw = {name: value for name, value in _sizes(found).items() if name != "num_key_value_heads"}
    labels = found.get("classifier.output_labels")
    labels = labels if isinstance(labels, list) else []
    return raw | {
        "layer_norm_eps": found.small("attention.layer_norm_epsilon"),
        "type_vocab_size": types,
        "id2label": {str(i): label for i, label in enumerate(labels)} or None,
    }


def t5(found: Settings) -> Raw:
    """T5, T5 1.1 and Flan-T5."""
    count, _ = heads(found)
    size = found.get("attention.key_length", found.need("embedding_length") // max(count, 1))
    if found.get("attention.value_length", size) != size:
        found.refuse("attention.value_length", "values as wide as keys only")
    layers = found.need("block_count")
    return {
        "d_model": found.need("embedding_length"),
        "d_kv": size,
        "d_ff": found.one("feed_forward_length"),
        "num_layers": layers,
        "num_decoder_layers": found.get("decoder_block_count", layers),
        "num_heads": count,
        "n_positions": found.need("context_length"),
        "relative_attention_num_buckets": found.need("attention.relative_buckets_count"),
        "layer_norm_epsilon": found.get(
            "attention.layer_norm_rms_epsilon", found.get("attention.layer_norm_epsilon", 1e-6)
        ),
        "decoder_start_token_id": found.get("decoder_start_token_id", 0),
        "feed_forward_proj": "gated-gelu" if found.has("enc.blk.0.ffn_gate.weight") else "relu",
        "tie_word_embeddings": not found.has("output.weight"),
    }


READERS: Mapping[str, Callable[[Settings], Raw]] = {
    "llama": llama,
    "qwen2": qwen,
    "qwen3": qwen,
    "phi3": phi3,
    "smollm3": smollm3,
    "olmo2": olmo2,
    "granite": granite,
    "gemma": _decoder,
    "gemma2": gemma2,
    "gemma3": gemma3,
    "gpt2": gpt2,
    "gptneox": neox,
    "bert": bert,
    "t5": t5,
}
