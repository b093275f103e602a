"""What an encoder and a decoder with LayerNorm compute: the config, with the variants of blocks and positions.

It travels from the owner to the parties, who check it when they decode it. This file must not know tensors.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import force_setattr

from puma.models.architectures.decoder import Decoder
from puma.models.fields import Activation, Labels, Layers, OptionalSize, Positive, Reading, Size
from puma.models.formats import Formats
from puma.models.pooling import Pooling

ATTENDED = 1 << 21  # scores of a window at a time
Tokens = Annotated[tuple[OptionalSize, ...], Meta(max_length=1 << 12)]


class Sound(Struct, frozen=True, kw_only=True):
    """What is heard instead of read: twice as many rows as there are positions, of so many `bands` of a spectrum.

    `spoken`: an answer begins with a language and a task.
    """

    bands: Annotated[int, Meta(ge=1, le=1024)] = 80
    spoken: bool = True


class Seq2Seq(Struct, frozen=True, kw_only=True, tag_field="model_type", tag="seq2seq"):
    """An encoder and a decoder that reads it, with LayerNorm and absolute positions; the defaults are BART's.

    What may be left out as 0 is filled in: `encoder_size` (intermediate_size), `encoder_heads` (heads), `answers`
    (context; tokens of an answer and of what it begins with), `embedding_scale` (none). `pre_norms`: blocks normalise
    first, and the halves have a norm behind them; else each half of a block is normalised after it has been added.
    `embedded_norm`: rows of the embedding are normed before the first block. `positions` other than learned ones are
    made by the owner. `padding` is a token at which the positions of a text would not count on. `key_bias`: a
    checkpoint's keys have a bias. The head is the table of words if `tied`, and has a
    bias if `head_bias`.

    Every answer begins with the tokens `starts`; tokens that are `barred` are never chosen, those `barred_first` not
    as the first one. `labels` names the classes of texts, which the decoder's last state tells once it has read the
    text itself. `headless`: there is the encoder alone. `pooling` is what makes one vector of a text. `sound`: the
    encoder hears, and `context` is how many rows two convolutions leave it.
    """

    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    layers: Layers
    encoder_layers: Layers
    heads: Size
    encoder_size: OptionalSize = 0
    encoder_heads: OptionalSize = 0
    context: Size = 1024
    answers: OptionalSize = 0
    activation: Activation = "gelu"
    eps: Positive = 1e-5
    pre_norms: bool = False
    embedded_norm: bool = True
    positions: Literal["learned", "halves", "offset"] = "learned"
    key_bias: bool = True
    padding: OptionalSize | None = None
    embedding_scale: Annotated[float, Meta(ge=0, le=512)] = 0.0
    tied: bool = True
    head_bias: bool = False
    starts: Annotated[tuple[OptionalSize, ...], Meta(min_length=1, max_length=16)] = (2,)
    sound: Sound | None = None
    barred: Tokens = ()
    barred_first: Tokens = ()
    headless: bool = False
    labels: Labels = ()
    reading: Reading = Reading()
    pooling: Pooling = Pooling()
    formats: Formats = Formats()

    def __post_init__(self) -> None:
        force_setattr(self, "encoder_size", self.encoder_size or self.intermediate_size)
        force_setattr(self, "encoder_heads", self.encoder_heads or self.heads)
        force_setattr(self, "answers", self.answers or self.context)
        if self.hidden_size % self.heads or self.hidden_size % self.encoder_heads:
            raise ValueError("hidden_size is not a multiple of heads")
        if max(self.starts, default=0) >= self.vocab_size:
            raise ValueError("decoder_start_token_id lies outside the vocabulary")
        if len(self.starts) > self.answers:
            raise ValueError("answers begin with more tokens than they may have")
        if len({*self.barred, *self.barred_first}) >= self.vocab_size:
            raise ValueError("no token is left to be chosen")
        if self.sound and (not self.generates or not self.pre_norms or self.embedded_norm):
            raise ValueError("a model that hears normalises first and answers")
        if self.labels and self.headless:
            raise ValueError("classes are told by the decoder, and there is none")
        self._halves(self.encoder_heads, self.encoder_size)  # which check the rest
        self._halves(self.heads, self.intermediate_size)

    @property
    def norm(self) -> str:
        """Of which kind norms are."""
        return "layer"

    @property
    def head_dim(self) -> int:
        """Columns of one of the decoder's heads."""
        return self.hidden_size // self.heads

    @property
    def encoder(self) -> Decoder:
        """What the halves of the encoder's blocks have in common with those of decoders."""
        return self._halves(self.encoder_heads, self.encoder_size)

    @property
    def decoder(self) -> Decoder:
        """The same of the decoder's."""
        return self._halves(self.heads, self.intermediate_size)

    def _halves(self, heads: int, inner: int) -> Decoder:
        return Decoder(
            vocab_size=self.vocab_size, hidden_size=self.hidden_size, intermediate_size=inner, layers=1, heads=heads,
            rope=None, eps=self.eps, norm="layer", gated=False, activation=self.activation, qkv_bias=True,
            out_bias=True, mlp_bias=True,
        )  # fmt: skip

    @property
    def inner_size(self) -> int:
        """Numbers of a row inside the widest MLP there is."""
        return max(self.intermediate_size, self.encoder_size)

    @property
    def turns(self) -> int:
        """In how many turns the encoder's rows ask, where it hears: a window makes more scores than memory holds."""
        whole = self.encoder_heads * self.context**2
        return min(self.context, -(-whole // ATTENDED)) if self.sound else 1

    def attended(self, length: int) -> int:
        """Scores of so long an input at a time."""
        return max(self.heads, self.encoder_heads) * length * -(-length // self.turns)

    @property
    def embedding_factor(self) -> int:
        """The whole number that rows of the embedding are multiplied by, if any; what is left lies in the table."""
        return max(1, round(self.embedding_scale)) if self.embedding_scale else 1

    @property
    def generates(self) -> bool:
        """Whether it has a head for tokens."""
        return not (self.headless or self.labels)

    @property
    def unnormed(self) -> bool:
        """Whether the first matrices read the embedding itself."""
        return not (self.pre_norms or self.embedded_norm)

    @property
    def period(self) -> int:
        """After how many layers they cost the same again, whatever the prompt; 0 where that is not known."""
        return int(self.layers == self.encoder_layers)
