"""How long the parties are told that texts are, where their own lengths shall be secret. It must not know links."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from puma.errors import InputError, UsageError
from puma.models.config import Config


def secret_length(
    config: Config | None, prompts: Sequence[Sequence[int]], types: Sequence[Sequence[int]], padded: int
) -> int:
    """The common length that the parties learn instead of the prompts'; token types, which are public, are refused."""
    longest, context = max(map(len, prompts), default=1), config.context if config else 1
    if any(chain(*types)):
        raise UsageError(
            "public token types would tell where texts end", "make the lengths public, or send single texts"
        )
    width = padded or min(context, max(16, 1 << (longest - 1).bit_length()))
    if not longest <= width <= context:
        raise InputError(
            f"texts of up to {longest} tokens cannot be padded to {width}", f"choose {longest} to {context}"
        )
    return width
