"""The public shapes of models: one frozen struct per architecture, read from a checkpoint's config.json.

A config travels from the owner to the parties, so decoding one checks it.  It must not know of weights,
files or parties.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import force_setattr

from puma.errors import UnsupportedModel

Size = Annotated[int, Meta(ge=1, le=1 << 24)]
OptionalSize = Annotated[int, Meta(ge=0, le=1 << 24)]
Positive = Annotated[float, Meta(gt=0)]
Gelu = Literal["gelu", "gelu_new", "gelu_pytorch_tanh"]  # exact, and two names of the approximation by tanh

# Settings of config.json that change the arithmetic, and their values that are implemented; absent is fine.
SUPPORTED: dict[str, dict[str, tuple[Any, ...]]] = {
    "llama": {
        "hidden_act": ("silu", "swish"),
        "rope_type": ("default",),
        "partial_rotary_factor": (1,),
    },
    "gpt2": {
        "activation_function": get_args(Gelu),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    },
    "bert": {
        "hidden_act": get_args(Gelu),
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
    },
}

LLAMA = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "context": "max_position_embeddings",
    "eps": "rms_norm_eps",
    "tied": "tie_word_embeddings",
}
GPT2 = {
    "width": "n_embd",
    "inner": "n_inner",
    "layers": "n_layer",
    "heads": "n_head",
    "context": "n_positions",
    "activation": "activation_function",
    "eps": "layer_norm_epsilon",
    "tied": "tie_word_embeddings",
}
BERT = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "context": "max_position_embeddings",
    "activation": "hidden_act",
    "eps": "layer_norm_eps",
}


class Llama(Struct, frozen=True, kw_only=True, rename=LLAMA, tag_field="model_type", tag="llama"):
    """LLaMA: `kv_heads` and `head_dim` may be left out, and are filled in."""

    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    layers: Size
    heads: Size
    kv_heads: OptionalSize = 0
    head_dim: OptionalSize = 0
    context: Size = 2048
    eps: Positive = 1e-6
    rope_theta: Positive = 10000.0
    attention_bias: bool = False
    mlp_bias: bool = False
    tied: bool = False

    def __post_init__(self) -> None:
        force_setattr(self, "kv_heads", self.kv_heads or self.heads)
        force_setattr(self, "head_dim", self.head_dim or self.hidden_size // self.heads)
        if self.heads % self.kv_heads:
            raise ValueError("num_attention_heads is not a multiple of num_key_value_heads")
        if self.head_dim == 0 or self.head_dim % 2:
            raise ValueError("head_dim is not an even number")


class Gpt2(Struct, frozen=True, kw_only=True, rename=GPT2, tag_field="model_type", tag="gpt2"):
    """GPT-2: `inner` may be left out, and is filled in."""

    vocab_size: Size
    width: Size
    layers: Size
    heads: Size
    inner: OptionalSize = 0
    context: Size = 1024
    activation: Gelu = "gelu_new"
    eps: Positive = 1e-5
    tied: bool = True

    def __post_init__(self) -> None:
        force_setattr(self, "inner", self.inner or 4 * self.width)
        if self.width % self.heads:
            raise ValueError("n_embd is not a multiple of n_head")

    @property
    def head_dim(self) -> int:
        return self.width // self.heads


class Bert(Struct, frozen=True, kw_only=True, rename=BERT, tag_field="model_type", tag="bert"):
    """BERT: `labels` names the classes of a classification head, empty where there is none."""

    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    layers: Size
    heads: Size
    context: Size = 512
    type_vocab_size: Size = 2
    activation: Gelu = "gelu"
    eps: Positive = 1e-12
    pooler: bool = True
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.hidden_size % self.heads:
            raise ValueError("hidden_size is not a multiple of num_attention_heads")
        if self.labels and not self.pooler:
            raise ValueError("a classification head needs the pooler")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.heads


Config = Llama | Gpt2 | Bert


def widest(config: Config) -> int:
    """The width of an MLP's inner layer."""
    return config.inner if isinstance(config, Gpt2) else config.intermediate_size


def with_layers(config: Config, layers: int) -> Config:
    """The same model with another number of layers."""
    return msgspec.structs.replace(config, layers=layers)


def read(raw: dict[str, Any]) -> Config:
    """The config in a decoded config.json; refuses what would be computed wrongly."""
    settings = normalise(raw)
    for name, values in SUPPORTED.get(settings.get("model_type", ""), {}).items():
        if name in settings and settings[name] not in values:
            choices = " or ".join(str(value) for value in values)
            raise UnsupportedModel(
                f"config.json sets {name} to {settings[name]!r}", f"puma implements {name} = {choices} only"
            )
    try:
        return msgspec.convert(settings, Config)
    except msgspec.ValidationError as error:
        raise UnsupportedModel(f"config.json: {error}", "check the folder's config.json") from error


def normalise(raw: dict[str, Any]) -> dict[str, Any]:
    """Settings under one name each: null is absent; rotary ones come nested under two names, or flat."""
    settings = {name: value for name, value in raw.items() if value is not None}
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    settings["rope_type"] = rope.get("rope_type", rope.get("type", "default"))
    for name in ("rope_theta", "partial_rotary_factor"):
        if name in rope:
            settings[name] = rope[name]
    return settings
