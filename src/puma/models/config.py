"""The public shapes of models: what travels from the owner to the parties, who check it when they decode it.

A config says what is computed and knows no checkpoint's dialect: each family's file translates config.json into one of
these (`llama.py`, `bert.py` and so on). It must not know of weights, files or parties.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import force_setattr

Size = Annotated[int, Meta(ge=1, le=1 << 24)]
OptionalSize = Annotated[int, Meta(ge=0, le=1 << 24)]
Positive = Annotated[float, Meta(gt=0)]
Activation = Literal["gelu", "gelu_tanh", "silu", "relu"]


class Rope(Struct, frozen=True, kw_only=True):
    """Rotary positions: how many places of a head turn (0: all), and the frequencies' scaling by name.

    `original` is the context before scaling; `low` and `high` belong to llama3, `fast`, `slow`, `whole` and `attention`
    (the factor of cosines and sines, 0: by formula) to yarn.
    """

    theta: Positive = 10000.0
    size: OptionalSize = 0
    scaling: Literal["default", "linear", "llama3", "yarn"] = "default"
    factor: Positive = 1.0
    original: OptionalSize = 0
    low: Positive = 1.0
    high: Positive = 4.0
    fast: Positive = 32.0
    slow: Positive = 1.0
    whole: bool = True
    attention: float = 0.0


class Decoder(Struct, frozen=True, kw_only=True, tag_field="model_type", tag="decoder"):
    """A causal decoder whose blocks normalise first; the defaults are LLaMA's.

    What may be left out as 0 is filled in or switched off: `kv_heads`, `head_dim`; `query_scale` (head_dim ** -0.5),
    `window` (of local attention), `full_every` (every so many layers one without a window), `local_theta` (the rotary
    base of layers with one), `attention_cap` and `logit_cap` (soft caps), `embedding_scale`. `rope` None: positions are
    learned. `labels` names the classes of a classification head, which then takes the place of the logits.
    """

    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    layers: Size
    heads: Size
    kv_heads: OptionalSize = 0
    head_dim: OptionalSize = 0
    context: Size = 2048
    norm: Literal["rms", "layer"] = "rms"
    eps: Positive = 1e-6
    activation: Activation = "silu"
    gated: bool = True
    parallel: bool = False  # both halves of a block read the same state
    post_norms: bool = False  # norms of what each half of a block adds, too
    head_norms: bool = False  # RMSNorm of each query and key
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    rope: Rope | None = Rope()
    query_scale: Annotated[float, Meta(ge=0)] = 0.0
    window: OptionalSize = 0
    full_every: OptionalSize = 0
    local_theta: Annotated[float, Meta(ge=0)] = 0.0
    attention_cap: Annotated[float, Meta(ge=0, le=128)] = 0.0
    logit_cap: Annotated[float, Meta(ge=0, le=128)] = 0.0
    embedding_scale: Annotated[float, Meta(ge=0, le=512)] = 0.0
    tied: bool = False
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        force_setattr(self, "kv_heads", self.kv_heads or self.heads)
        force_setattr(self, "head_dim", self.head_dim or self.hidden_size // self.heads)
        force_setattr(self, "query_scale", self.query_scale or self.head_dim**-0.5)
        if self.heads % self.kv_heads:
            raise ValueError("heads is not a multiple of kv_heads")
        if self.head_dim == 0 or (self.rope and self.head_dim % 2):
            raise ValueError("head_dim is not an even number")
        if self.rope and (self.rope.size % 2 or self.rope.size > self.head_dim):
            raise ValueError("the rotary part of head_dim is not an even number within it")
        if any(0 < cap < 4 for cap in (self.attention_cap, self.logit_cap)):
            raise ValueError("a soft cap below 4 is not implemented")
        if self.activation == "relu" and self.gated:
            raise ValueError("activation relu has no gated form")

    def local(self, layer: int) -> bool:
        """Whether a layer sees its window only."""
        return bool(self.window) and not (self.full_every and (layer + 1) % self.full_every == 0)

    @property
    def alike(self) -> bool:
        """Whether all layers cost the same, whatever the prompt."""
        return not self.window


class Encoder(Struct, frozen=True, kw_only=True, tag_field="model_type", tag="encoder"):
    """An encoder whose layers normalise last; the defaults are BERT's.

    `embedding_size` (0: hidden_size) is that of a table that is `projected` to hidden_size; `groups` are layers with
    weights of their own, if fewer than layers (0: all are). `labels` names the classes of a head for texts, or with
    `each_token` for tokens; `predicts` is a head for masked tokens, whose matrix is the embedding table if `tied`.
    """

    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    layers: Size
    heads: Size
    context: Size = 512
    type_vocab_size: OptionalSize = 2
    embedding_size: OptionalSize = 0
    projected: bool = False
    groups: OptionalSize = 0
    activation: Activation = "gelu"
    eps: Positive = 1e-12
    pooler: bool = True
    pooler_activation: Literal["tanh", "gelu", "relu"] = "tanh"
    labels: tuple[str, ...] = ()
    each_token: bool = False
    predicts: bool = False
    tied: bool = True

    def __post_init__(self) -> None:
        force_setattr(self, "embedding_size", self.embedding_size or self.hidden_size)
        if self.hidden_size % self.heads:
            raise ValueError("hidden_size is not a multiple of heads")
        if self.embedding_size != self.hidden_size and not self.projected:
            raise ValueError("embedding_size is not hidden_size, and nothing projects it")
        if self.labels and not (self.pooler or self.each_token):
            raise ValueError("a classification head needs the pooler")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.heads

    @property
    def distinct(self) -> int:
        """Layers with weights of their own."""
        return min(self.groups or self.layers, self.layers)

    @property
    def alike(self) -> bool:
        """Whether all layers cost the same, whatever the prompt."""
        return True


class T5(Struct, frozen=True, kw_only=True, tag_field="model_type", tag="t5"):
    """T5: `layers` are the decoder's; `buckets` of distances up to `distance`; `start` is what an answer begins with.

    `scaled` multiplies the states before the head by hidden_size ** -0.5. There is no limit to distances; `context` is
    one for prompts and one for answers.
    """

    vocab_size: Size
    hidden_size: Size
    head_dim: Size
    intermediate_size: Size
    layers: Size
    encoder_layers: Size
    heads: Size
    context: Size = 512
    buckets: Annotated[int, Meta(ge=4, le=1024)] = 32
    distance: Size = 128
    eps: Positive = 1e-6
    activation: Activation = "relu"
    gated: bool = False
    tied: bool = True
    scaled: bool = True
    start: OptionalSize = 0
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.start >= self.vocab_size:
            raise ValueError("decoder_start_token_id lies outside the vocabulary")
        if self.distance <= self.buckets // 2:
            raise ValueError("distance is not larger than half of buckets")
        self.block  # noqa: B018  (checks the rest)

    @property
    def block(self) -> Decoder:
        """What the blocks have in common with those of decoders."""
        return Decoder(
            vocab_size=self.vocab_size, hidden_size=self.hidden_size, intermediate_size=self.intermediate_size,
            layers=1, heads=self.heads, head_dim=self.head_dim, query_scale=1.0, rope=None, eps=self.eps,
            activation=self.activation, gated=self.gated,
        )  # fmt: skip

    @property
    def alike(self) -> bool:
        """Whether all layers cost the same, whatever the prompt."""
        return self.layers == self.encoder_layers


class Vit(Struct, frozen=True, kw_only=True, tag_field="model_type", tag="vit"):
    """ViT for square images of `channels`; `labels` names the classes."""

    hidden_size: Size
    intermediate_size: Size
    layers: Size
    heads: Size
    image_size: Annotated[int, Meta(ge=1, le=4096)] = 224
    patch_size: Annotated[int, Meta(ge=1, le=256)] = 16
    channels: Annotated[int, Meta(ge=1, le=16)] = 3
    activation: Activation = "gelu"
    eps: Positive = 1e-12
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.hidden_size % self.heads:
            raise ValueError("hidden_size is not a multiple of heads")
        if self.image_size % self.patch_size:
            raise ValueError("image_size is not a multiple of patch_size")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.heads

    @property
    def patches(self) -> int:
        """Rows of pixels that an image makes."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def context(self) -> int:
        """Rows of an image: its patches, and one before them."""
        return self.patches + 1

    @property
    def vocab_size(self) -> int:
        """Numbers in a row of the input, where other models have their vocabulary: the pixels of a patch."""
        return self.channels * self.patch_size**2

    @property
    def block(self) -> Decoder:
        """What the blocks have in common with those of decoders."""
        return Decoder(
            vocab_size=self.vocab_size, hidden_size=self.hidden_size, intermediate_size=self.intermediate_size,
            layers=1, heads=self.heads, rope=None, eps=self.eps, norm="layer", gated=False,
            activation=self.activation, qkv_bias=True, out_bias=True, mlp_bias=True,
        )  # fmt: skip

    @property
    def alike(self) -> bool:
        """Whether all layers cost the same, whatever the prompt."""
        return True


class PatchEncoder(Vit, frozen=True, kw_only=True, tag="patches"):
    """An encoder of patches alone that normalises last, as torch's nn.MultiheadAttention is mostly used."""

    @property
    def context(self) -> int:
        """Rows of an image: its patches."""
        return self.patches

    @property
    def layer(self) -> Encoder:
        """What the layers have in common with those of encoders of texts."""
        return Encoder(
            vocab_size=self.vocab_size, hidden_size=self.hidden_size, intermediate_size=self.intermediate_size,
            layers=self.layers, heads=self.heads, eps=self.eps, activation=self.activation,
        )  # fmt: skip


Config = Decoder | Encoder | T5 | Vit | PatchEncoder
Llama, Bert = Decoder, Encoder  # by the names of those whose settings are the defaults


def Gpt2(*, width: int, inner: int = 0, activation: Activation = "gelu_tanh", **sizes: Any) -> Decoder:
    """A Decoder with GPT-2's settings and GPT-2's names of its sizes."""
    settings: dict[str, Any] = {"context": 1024, "eps": 1e-5, "tied": True} | sizes
    return Decoder(
        hidden_size=width, intermediate_size=inner or 4 * width, activation=activation, norm="layer", gated=False,
        qkv_bias=True, out_bias=True, mlp_bias=True, rope=None, **settings,
    )  # fmt: skip


def widest(config: Config) -> int:
    """The width of an MLP's inner layer."""
    return config.intermediate_size


def with_layers(config: Config, layers: int) -> Config:
    """The same model with another number of layers."""
    if isinstance(config, T5):
        return msgspec.structs.replace(config, layers=layers, encoder_layers=layers)
    return msgspec.structs.replace(config, layers=layers)
