"""Where answers end before they have all tokens that were asked for. It must not know sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from puma.client.model_info import ModelInfo
from puma.errors import UsageError

Stop = Literal["eos"] | None
Ended = Callable[[Sequence[int]], bool]  # whether the texts have come to their end with these tokens


def until(model: ModelInfo, stop: Stop, prompts: int) -> Ended | None:
    """Whether all of these prompts have come to their end, asked after each step; None to go on regardless."""
    if stop is None:
        return None
    if not isinstance(stop, str) or stop != "eos":
        what = repr(stop) if isinstance(stop, str) else f"something of type {type(stop).__name__}"
        raise UsageError(f"cannot stop at {what}", "choose eos, or leave it out")
    if not model.eos:
        raise UsageError(f"{model.name} names no token that ends a text", "ask for a fixed number of tokens")
    over = [False] * prompts

    def ended(step: Sequence[int]) -> bool:
        over[:] = [before or new in model.eos for before, new in zip(over, step, strict=True)]
        return all(over)

    return ended
