"""Types of the fields that configs have in common: sizes within limits, the names of activations, rotary positions.

A config is the public shape of a model, which travels from the owner to the parties, who check it when they decode it;
each stands in its architecture's file. This file must not know any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta, Struct

Size = Annotated[int, Meta(ge=1, le=1 << 24)]
Layers = Annotated[int, Meta(ge=1, le=1 << 12)]  # each is built before the model's size can be told
MOST_HEAD = 1 << 12  # numbers of a head: as many angles as half of it are made for each layer
MOST_PREAMBLE = 1 << 14  # tokens
PREAMBLE = ".known"  # with which the names of a preamble's keys and values end
Labels = Annotated[tuple[Annotated[str, Meta(max_length=1024)], ...], Meta(max_length=1 << 16)]
OptionalSize = Annotated[int, Meta(ge=0, le=1 << 24)]
Positive = Annotated[float, Meta(gt=0)]
Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "silu", "relu", "clamped"]
Activated = Literal["tanh", "gelu", "gelu_tanh", "relu", "silu"]  # what needs no folding into what comes behind
Scored = Literal["", "softmax", "sigmoid", "identity"]


class Reading(Struct, frozen=True, kw_only=True):
    """How the logits of a head for classes are to be read, at the client alone: nothing of it is computed by parties.

    `asks`: they are of a question's answer, the logits of a token to be its first and its last one ("span"), or of one
    choice among several ("choice"). `scores` makes scores of them; "": softmax, or the sigmoid of a single one.
    `relevance` does so where texts are ranked for a query; "": the sigmoid of a single one, others as they are. A
    `prompt` goes before the query; or, with a `template`, query and text go into the model's chat template, perhaps up
    to where an `answer` would begin.
    """

    asks: Literal["", "span", "choice"] = ""
    scores: Scored = ""
    relevance: Scored = ""
    prompt: Annotated[str, Meta(max_length=1 << 14)] = ""
    template: bool = False
    answer: bool = False


AS_USUAL = Reading()


class Rope(Struct, frozen=True, kw_only=True):
    """Rotary positions: how many places of a head turn (0: all), and the frequencies' scaling by name.

    `original` is the context before scaling; `low` and `high` belong to llama3, `fast`, `slow` and `whole` to yarn,
    `factors` (one for each pair) to longrope. `attention` multiplies cosines and sines (0: yarn's formula, or 1).
    `beside`: the two places of a pair lie beside each other in a checkpoint.
    """

    theta: Positive = 10000.0
    size: OptionalSize = 0
    beside: bool = False
    scaling: Literal["default", "linear", "llama3", "yarn", "longrope"] = "default"
    factor: Positive = 1.0
    original: OptionalSize = 0
    low: Positive = 1.0
    high: Positive = 4.0
    fast: Positive = 32.0
    slow: Positive = 1.0
    whole: bool = True
    attention: Annotated[float, Meta(ge=0)] = 0.0
    factors: Annotated[tuple[Positive, ...], Meta(max_length=MOST_HEAD)] = ()


def repeating(kinds: Sequence[object]) -> int:
    """After how many of these they come again in the same order, up to the end."""
    return next(n for n in range(1, len(kinds) + 1) if kinds[n:] == kinds[: len(kinds) - n])
