"""When texts that are generated have come to their end. It must not know links or models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from puma.errors import UsageError

Stop = Literal["eos"] | None
Ended = Callable[[Sequence[int]], bool]  # whether the texts have come to their end with these tokens


def until(stop: Stop, eos: Sequence[int], prompts: int, name: str) -> Ended | None:
    """Whether all of these prompts have come to their end, asked after each step; None to go on regardless.

    UsageError for another stop, and for a model of this name that has no token for an end.
    """
    if stop is None:
        return None
    if not isinstance(stop, str) or stop != "eos":
        what = repr(stop) if isinstance(stop, str) else f"something of type {type(stop).__name__}"
        raise UsageError(f"cannot stop at {what}", "choose eos, or leave it out")
    if not eos:
        raise UsageError(f"{name} names no token that ends a text", "ask for a fixed number of tokens")
    over = [False] * prompts

    def ended(step: Sequence[int]) -> bool:
        over[:] = [before or new in eos for before, new in zip(over, step, strict=True)]
        return all(over)

    return ended


def up_to_end(ids: Sequence[int], eos: Sequence[int]) -> list[int]:
    """Up to the token that ends the text, and with it."""
    last = next((i for i, new in enumerate(ids) if new in eos), len(ids))
    return [*ids[: last + 1]]
