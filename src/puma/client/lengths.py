"""How long the parties are told that texts are, where their own lengths shall be secret. It must not know links."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from puma.errors import InputError, UsageError
from puma.models import inputs
from puma.models.config import Config
from puma.nn.paper import MPCFORMER

HINT = "make the lengths public"


def secret_length(
    config: Config | None, prompts: Sequence[Sequence[int]], types: Sequence[Sequence[int]], padded: int,
    tokens: int = 0,
) -> int:  # fmt: skip
    """The common length that the parties learn instead of the prompts': `padded`, or else the next power of two from 16
    on, or the longest that leaves room for so many new `tokens`.

    UsageError for token types, which are public, and for models whose answer padding would change.
    """
    longest = max(map(len, prompts), default=1)
    if config is not None:
        check_padding(config, tokens > 0)
    most = config.context - max(0, tokens - 1) if config else 1  # the last new token is never fed back
    if any(chain(*types)):
        raise UsageError(
            "public token types would tell where texts end", "make the lengths public, or send single texts"
        )
    width = padded or min(most, max(16, 1 << (longest - 1).bit_length()))
    if not longest <= width <= most:
        raise InputError(
            f"texts of up to {longest} tokens cannot be padded to {width}",
            f"choose {longest} to {most}" if longest <= most else "shorten them, or ask for fewer tokens",
        )
    return width


def told(
    config: Config | None, approximation: str, lengths: str, prompts: Sequence[Sequence[int]],
    types: Sequence[Sequence[int]], padded: int, tokens: int = 0,
) -> int:  # fmt: skip
    """The length that the parties are told of all prompts, if that is another than their own; 0 if `lengths` are
    public."""
    if lengths != "secret":
        return 0
    check_approximation(approximation)
    return secret_length(config, prompts, types, padded, tokens)


def check_padding(config: Config, generates: bool) -> None:
    """UsageError unless padding can be hidden from a model that is asked to continue texts, or to encode them."""
    if generates and inputs(config).pads != "front":
        raise UsageError("only decoders with rotary positions can continue prompts of secret length", HINT)
    if not generates and inputs(config).pads != "behind":
        raise UsageError("only encoders can be asked about texts of secret length", HINT)


def check_approximation(approximation: str) -> None:
    """UsageError for functions that cannot hide a score."""
    if approximation == MPCFORMER:
        raise UsageError("mpcformer's softmax has no exponential, and so cannot hide padding", HINT)
