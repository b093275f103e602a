"""What an architecture answers for itself: what a model of it reads, which questions it takes, how it is computed.

Whoever stands above asks these answers and never which class a config is of, so that a new architecture is one file in
`architectures/`. It must not know of checkpoints, shares or parties.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import msgspec
from torch import Tensor

from puma.models.fields import AS_USUAL, Reading
from puma.models.formats import Formats, places, rings
from puma.models.pooling import MEAN, Pooling

Shapes = dict[str, tuple[int, ...]]
Params = Mapping[str, Tensor]


class Bound(NamedTuple):
    """What no input exceeds: of the matrix of this name its results, what they are multiplied to, or how far apart."""

    name: str
    size: float
    what: str


@dataclass(frozen=True)
class Inputs:
    """What a model reads of one text or image: rows of `width` numbers, which `kind` brings to the parties.

    `context` is the length of the longest input, in rows as the model computes them. `rows` is how many a client sends
    of each, where all are alike, as patches of an image are; 0 where an input has a row for each of its tokens.
    """

    kind: Literal["tokens", "pixels", "audio"]  # wire/inputs.py has a module for each
    width: int  # the vocabulary, the pixels of a patch, or the bands of a spectrum
    context: int
    rows: int = 0
    types: int = 1  # of tokens: 0 and so on up to this
    pads: Literal["", "front", "behind"] = ""  # where tokens of a text can be padding in secret, if anywhere
    apart: bool = False  # whether an answer has a context of its own
    answers: int = 0  # the length of that, if it is another one
    begins: tuple[int, ...] = ()  # tokens that every answer begins with, where it is apart
    begun: int = 0  # how many tokens clients usually let an answer go on with
    spoken: bool = False  # whether these name a language and a task
    padding: int | None = None  # a token that does not count where a text ends with it
    barred: int | None = None  # a token that no text may hold
    ends: int | None = None  # the token that a text ends with, whatever follows; -1 if that is its largest one
    row: int = 0  # numbers of a token's row of a public table, which a client looks up itself; 0 of a secret one

    @property
    def tokenized(self) -> bool:
        """Whether a tokenizer makes it out of texts."""
        return self.kind == "tokens"

    def sent(self, lengths: Sequence[int]) -> int:
        """Rows that a client sends of inputs of these lengths."""
        return len(lengths) * self.rows if self.rows else sum(lengths)

    def length(self, sent: int) -> int:
        """Rows that the model computes for an input of which so many are sent."""
        return self.context if self.rows else sent

    def room(self, length: int) -> int:
        """How many tokens may follow so long an input; the last one is never fed back."""
        if self.apart:
            return (self.answers or self.context) - max(1, len(self.begins)) + 1
        return self.context - length + 1


@dataclass(frozen=True)
class Heads:
    """Which questions a model takes, besides those for its states."""

    generates: bool = False  # the next token, again and again
    scores: bool = False  # the logits of every token's next one
    labels: tuple[str, ...] = ()  # classes of a text or image
    each_token: bool = False  # these are of tokens instead
    reading: Reading = AS_USUAL  # what their logits say
    predicts: bool = False  # the tokens that stood where some are masked
    pooling: Pooling = MEAN  # of states to a text's vector
    capped: bool = False  # whether logits are soft-capped, and so come out of a spline
    place: str = "lm_head"  # of the logits of words
    barred: tuple[int, ...] = ()  # tokens that are never chosen
    barred_first: tuple[int, ...] = ()  # tokens that are not chosen as an answer's first one

    @property
    def encodes(self) -> bool:
        """Whether it is asked for states or classes, and not for text."""
        return not self.generates


@dataclass(frozen=True)
class Architecture:
    """What is needed to share and run models of one architecture, whatever family a checkpoint is of.

    The `model` has `states(rows, lengths, types, padding)`, and for each of its heads a method: it is called itself
    with rows and a cache if it generates; `every`, `classify` and `predict` are the others. Its module `embed`
    (pooling.py) makes one vector of a text's states.
    """

    kind: str  # "causal", "encoder" or "image", for people
    config: type[Any]
    model: Callable[..., Any]  # (config, name -> parameter) -> the model, ready to call
    plain: Callable[[Any], Shapes]  # names and shapes before folding, norms included
    fold: Callable[[Any, dict[str, Any]], dict[str, Any]]  # at the owner: those tensors -> parameters
    inputs: Callable[[Any], Inputs]
    heads: Callable[[Any], Heads]
    bounds: Callable[[Any, Params], Iterator[Bound]]  # of folded parameters, for all inputs; see bounds.py
    stacks: tuple[str, ...] = ("layers",)  # fields of the config that count layers
    table: str = ""  # the parameter that a tied head shares
    foreseen: bool = False  # whether a cache's columns are all that the cost and masks of a step depend on

    def foresees(self, config: Any) -> bool:
        """The same of a model of this config: what a layer with a memory holds is more than columns."""
        return self.foreseen and not getattr(config, "delta", None)

    def cuts(self, config: Any) -> bool:
        """Whether the last tokens of a text can be taken back: not from a memory of constant size."""
        return not getattr(config, "delta", None)

    def parameters(self, config: Any) -> Shapes:
        """Names and shapes of what the owner shares."""
        return self.model(config).shapes()

    def rings(self, config: Any) -> dict[str, int]:
        """The ring of each of these, by the config's formats."""
        return rings(self.model(config))

    def layers(self, config: Any) -> int:
        """How many layers the largest part of a model has."""
        return max(getattr(config, stack) for stack in self.stacks)

    def with_layers(self, config: Any, layers: int) -> Any:
        """The same model with another number of layers."""
        bare = msgspec.structs.replace(config, **dict.fromkeys(self.stacks, layers), formats=Formats())
        if not (config.formats.places or config.formats.adapted):
            return msgspec.structs.replace(bare, formats=config.formats)
        model = self.model(bare)
        formats = config.formats.within(places(model), [name for name, _ in model.modules()])
        return msgspec.structs.replace(bare, formats=formats)

    def window(self, config: Any) -> int:
        """How many tokens those layers see that do not see all; 0 if there are none."""
        return getattr(config, "window", 0)

    def entries(self, config: Any, columns: int) -> int:
        """How many scores a row has that sees so many columns."""
        return columns + bool(getattr(config, "sinks", False))

    def kept(self, config: Any) -> int:
        """Numbers that a generation keeps of each token: keys and values of all layers."""
        return 2 * self.layers(config) * getattr(config, "kv_heads", config.heads) * config.head_dim

    def largest(self, config: Any, length: int, rows: int) -> int:
        """Numbers of one input of this length in the largest tensor of a run that computes so many `rows` in all."""
        widest = getattr(config, "inner_size", config.intermediate_size)
        attended = getattr(config, "attended", None)
        inner, scores = rows * widest, attended(length) if attended else config.heads * length**2
        return max(inner, scores, self.inputs(config).width)
