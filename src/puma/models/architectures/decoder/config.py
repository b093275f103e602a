"""What a causal decoder computes: its config, with the variants of blocks and positions that there are.

It travels from the owner to the parties, who check it when they decode it. This file must not know tensors.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import force_setattr

from puma.models.fields import (
    MOST_HEAD,
    MOST_PREAMBLE,
    Activation,
    Labels,
    Layers,
    OptionalSize,
    Positive,
    Reading,
    Rope,
    Size,
    repeating,
)
from puma.models.formats import Formats
from puma.models.pooling import Pooling


class Delta(Struct, frozen=True, kw_only=True):
    """Layers of linear attention by the gated delta rule: a convolution over so many `taps`, heads of keys, of which
    each serves as many heads of values.
    """

    taps: Annotated[int, Meta(ge=2, le=64)] = 4
    key_heads: Size
    value_heads: Size
    key_size: Size
    value_size: Size

    def __post_init__(self) -> None:
        if self.value_heads % self.key_heads:
            raise ValueError("value_heads is not a multiple of key_heads")

    @property
    def keys(self) -> int:
        """Numbers of all keys of a token."""
        return self.key_heads * self.key_size

    @property
    def values(self) -> int:
        """Numbers of all values of a token."""
        return self.value_heads * self.value_size


class Decoder(Struct, frozen=True, kw_only=True, tag_field="model_type", tag="decoder"):
    """A causal decoder whose blocks normalise first; the defaults are LLaMA's.

    What may be left out as 0 is filled in or switched off: `kv_heads`, `head_dim`; `query_scale` (head_dim ** -0.5),
    `window` (of local attention), `full_every` (every so many layers one without a window) or `full` (these layers),
    `local_rope` (how layers with a window turn, if not as the others), `attention_cap` and `logit_cap` (soft caps),
    `embedding_scale`. `rope` None: positions are learned; layers that are `unturned` have none. `layer_scaled`: scores
    are divided by the layer's number. What each half of a block adds is multiplied by `residual_scale`, and the logits
    by `logit_scale`.
    With `experts` the layers that are not `dense` have a mixture of so many of `expert_size`, of which a row takes
    `chosen` ones with weights that sum to 1 if `renormalised`, and perhaps one of `shared_size` that all rows take.
    With `delta` all layers that are not `full` have a memory instead of keys and values. `output_gate`: what attention
    gives is multiplied by a sigmoid. `sinks`: each head may look at nothing, by a score of its own. `both`: rows see
    others on both sides.
    `labels` names the classes of a classification head, which then takes the place of the logits and reads the last
    token that is not `padding`, or with `each_token` every one; `label_bias`: it has a bias. `headless`: there is
    neither. `pooling` is what makes one vector of a text. `preamble` are tokens, known to everybody, with which prompts
    may begin: their keys and values are parameters like any other, so that nobody computes them again.
    """

    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    layers: Layers
    heads: Size
    kv_heads: OptionalSize = 0
    head_dim: OptionalSize = 0
    context: Size = 2048
    norm: Literal["rms", "layer"] = "rms"
    eps: Positive = 1e-6
    activation: Activation = "silu"
    gated: bool = True
    affine: Literal["whole", "weight", "none"] = "whole"  # of norms: weights, and of layer norms biases
    parallel: bool = False  # both halves of a block read the same state
    shared_norm: bool = False  # and the same norm, with its affine
    pre_norms: bool = True  # norms of what the halves of a block read
    post_norms: bool = False  # norms of what each half of a block adds, too
    head_norms: bool = False  # RMSNorm of each query and key
    whole_norms: bool = False  # these are of all heads of a token together
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    rope: Rope | None = Rope()
    query_scale: Annotated[float, Meta(ge=0)] = 0.0
    window: OptionalSize = 0
    full_every: OptionalSize = 0
    full: Annotated[tuple[OptionalSize, ...], Meta(max_length=1 << 12)] = ()
    local_rope: Rope | None = None
    unturned: Annotated[tuple[OptionalSize, ...], Meta(max_length=1 << 12)] = ()
    attention_cap: Annotated[float, Meta(ge=0, le=128)] = 0.0
    logit_cap: Annotated[float, Meta(ge=0, le=128)] = 0.0
    embedding_scale: Annotated[float, Meta(ge=0, le=512)] = 0.0
    residual_scale: Positive = 1.0
    logit_scale: Positive = 1.0
    layer_scaled: bool = False
    delta: Delta | None = None
    output_gate: bool = False
    sinks: bool = False
    both: bool = False
    experts: Annotated[int, Meta(ge=0, le=1 << 12)] = 0
    chosen: OptionalSize = 0
    expert_size: OptionalSize = 0
    shared_size: OptionalSize = 0
    renormalised: bool = True
    dense: Annotated[tuple[OptionalSize, ...], Meta(max_length=1 << 12)] = ()
    tied: bool = False
    labels: Labels = ()
    each_token: bool = False
    label_bias: bool = False
    reading: Reading = Reading()
    padding: OptionalSize | None = None
    headless: bool = False
    pooling: Pooling = Pooling()
    preamble: Annotated[tuple[OptionalSize, ...], Meta(max_length=MOST_PREAMBLE)] = ()
    formats: Formats = Formats()

    def __post_init__(self) -> None:
        force_setattr(self, "kv_heads", self.kv_heads or self.heads)
        force_setattr(self, "head_dim", self.head_dim or self.hidden_size // self.heads)
        force_setattr(self, "query_scale", self.query_scale or self.head_dim**-0.5)
        if self.heads % self.kv_heads:
            raise ValueError("heads is not a multiple of kv_heads")
        if self.head_dim > MOST_HEAD:
            raise ValueError(f"head_dim above {MOST_HEAD} is not implemented")
        if self.head_dim == 0 or (self.rope and self.head_dim % 2):
            raise ValueError("head_dim is not an even number")
        for turning in filter(None, (self.rope, self.local_rope)):
            if turning.size % 2 or turning.size > self.head_dim:
                raise ValueError("the rotary part of head_dim is not an even number within it")
            if turning.scaling == "longrope" and len(turning.factors) != (turning.size or self.head_dim) // 2:
                raise ValueError("longrope has not a factor for each pair")
        if any(0 < cap < 4 for cap in (self.attention_cap, self.logit_cap)):
            raise ValueError("a soft cap below 4 is not implemented")
        if self.both and (not self.headless or self.delta):
            raise ValueError("a model that sees both sides has no head here, nor layers with a memory")
        if self.activation == "relu" and self.gated:
            raise ValueError("activation relu has no gated form")
        if self.activation == "clamped" and not (self.gated and self.experts):
            raise ValueError("clamped gates are of experts only")
        if self.shared_norm and not (self.parallel and self.pre_norms):
            raise ValueError("a norm is shared by halves that are computed side by side only")
        if self.parallel and not self.pre_norms:
            raise ValueError("halves that are computed side by side read a norm only")

        if self.preamble and (self.delta or self.labels or self.headless or self.formats.open):
            raise ValueError("a preamble is for models that generate, remember every token and have secret weights")
        if self.preamble and (len(self.preamble) >= self.context or max(self.preamble) >= self.vocab_size):
            raise ValueError("the preamble is longer than the context, or holds what is no token")
        if self.delta and (self.window or not self.pre_norms):
            raise ValueError("layers with a memory among layers with a window, or without norms, are not implemented")
        if self.experts and not (0 < self.chosen <= self.experts and self.expert_size):
            raise ValueError("a mixture has not as many experts as a row takes, or they have no size")
        if self.experts and (not self.gated or self.parallel or (self.mlp_bias and (self.dense or self.shared_size))):
            raise ValueError("a mixture of experts without gates, or beside other blocks, is not implemented")

    def mixed(self, layer: int) -> bool:
        """Whether a layer has a mixture of experts."""
        return bool(self.experts) and layer not in self.dense

    @property
    def inner_size(self) -> int:
        """Numbers of a row inside the widest MLP there is, or all experts of a mixture."""
        mixed = self.experts * self.expert_size + self.shared_size
        return max(mixed, self.intermediate_size if len(self.dense) or not mixed else 0)

    @property
    def norm_bias(self) -> bool:
        """Whether norms have biases, which matrices take up that read them."""
        return self.norm == "layer" and self.affine == "whole"

    @property
    def rescaled(self) -> bool:
        """Whether a tied head reads a norm of its own: its table holds a part of the embedding's scale, which the head
        must take out again, or its logits are scaled.
        """
        silent = bool(self.labels) or self.headless
        return self.tied and not silent and (bool(self.embedding_scale % 1) or self.logit_scale != 1)

    @property
    def embedding_factor(self) -> int:
        """The whole number that rows of the embedding are multiplied by, if any; what is left lies in the table."""
        return max(1, round(self.embedding_scale)) if self.embedding_scale else 0

    def local(self, layer: int) -> bool:
        """Whether a layer sees its window only."""
        return bool(self.window) and not self._whole(layer)

    def recurrent(self, layer: int) -> bool:
        """Whether a layer has a memory instead of keys and values."""
        return self.delta is not None and not self._whole(layer)

    def _whole(self, layer: int) -> bool:
        regular = self.full_every and (layer + 1) % self.full_every == 0
        return bool(regular) or layer in self.full

    def turning(self, layer: int) -> Rope | None:
        """How the positions of a layer turn, if they do."""
        if layer in self.unturned:
            return None
        return self.local_rope or self.rope if self.local(layer) else self.rope

    @property
    def period(self) -> int:
        """After how many layers they cost the same again, whatever the prompt; 0 where that is not known."""
        layers = range(self.layers)
        return repeating([(self.local(i), self.recurrent(i), self.mixed(i), self.turning(i) is None) for i in layers])
