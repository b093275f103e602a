"""In which shape, ring and fraction each answer of a request leaves the parties: public, and known to all beforehand.

The engine brings its answers into these formats and the client takes nothing else, so that no party can say alone how
the words of an answer are to be read. This file must not know links, nor how anything is computed.
"""

from __future__ import annotations

from typing import NamedTuple

from puma.models import heads
from puma.models.config import Config
from puma.mpc.fixed import ACTIVATION, LOGIT_RING, NONLINEAR, RING, WEIGHT, index_bits
from puma.mpc.watch import FLAG_RING
from puma.wire.messages import NEXT, Encode, Generate, Result
from puma.wire.request_shapes import by_token

RING_OF_ANSWERS = RING - WEIGHT  # of numbers with ACTIVATION fraction bits: what opening a product leaves


class Format(NamedTuple):
    """The format of one result: its shape, ring bits and fraction bits; indices lie below `below`, 0 for numbers.

    `flagged`: behind it comes the flag of each of so many prompts, in a result of its own.
    """

    shape: tuple[int, ...]
    bits: int
    frac: int
    below: int = 0
    flagged: int = 0

    @property
    def header(self) -> Result:
        """How each party must announce it."""
        return Result(self.shape, self.bits, self.frac)

    @property
    def flags(self) -> Format:
        """Of what follows: of each prompt a word that is 0 if all its numbers kept to their reaches."""
        return Format((self.flagged,), FLAG_RING, 0)


def answers(config: Config, request: Generate | Encode) -> list[Format]:
    """All results of a request, in their order; a paced one may end after any of them."""
    if isinstance(request, Encode):
        *before, last = _encoded(config, request)
        return [*before, last._replace(flagged=len(request.input.lengths))]
    prompts = len(request.input.lengths)
    if not request.reveal:
        return [_indices(config, prompts)._replace(flagged=prompts)] * request.tokens
    first, later = (_logits(config, n)._replace(flagged=prompts) for n in (prompts, prompts * request.beams))
    return [first, *[later] * (request.tokens - 1)][: request.tokens]


def _encoded(config: Config, request: Encode) -> list[Format]:
    prompts, tokens = len(request.input.lengths), request.input.tokens
    if request.output == "tokens":
        return [_indices(config, len(request.rows))] * request.top
    if request.output == NEXT:
        return [_logits(config, tokens)]
    each = by_token(config, request.output)
    width = _width(config, request.output)
    return [numbers((tokens if each else prompts, width))]


def _width(config: Config, output: str) -> int:
    if output == "logits":
        return len(heads(config).labels)
    return heads(config).pooling.width(config.hidden_size) if output == "pooled" else config.hidden_size


def numbers(shape: tuple[int, ...]) -> Format:
    """Numbers that were opened with ACTIVATION fraction bits."""
    return Format(shape, RING_OF_ANSWERS, ACTIVATION)


def _indices(config: Config, count: int) -> Format:
    return Format((count,), index_bits(config.vocab_size), 0, config.vocab_size)


def _logits(config: Config, rows: int) -> Format:
    """Logits that were soft-capped come out of a spline, in its format."""
    shape = (rows, config.vocab_size)
    return Format(shape, LOGIT_RING, NONLINEAR) if heads(config).capped else numbers(shape)
