"""What a session is: whoever answers token ids, so that those who ask and compare need not know which one they hold.

Three parties behind links are one (`Session`), a model in this process in float or in fixed point is another
(`reference`). This file must not know how any of them computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from torch import Tensor

from puma.client.cost import Cost
from puma.models.config import Config


class TokenSession(Protocol):
    """Answers prompts of token ids, each at least one and all below the vocabulary; an image is its rows of pixels.

    All methods raise UsageError, or InputError below it, for what cannot be asked, and the session lives on.
    """

    approximation: str  # which functions are computed, of nn.paper.PROFILES

    @property
    def config(self) -> Config | None:
        """The model's, once there is one."""
        ...

    @property
    def cost(self) -> Cost | None:
        """What the last request cost; None before the first, and where nothing is sent."""
        ...

    def continued(self, prompts: Sequence[Sequence[int]], tokens: int) -> Iterator[list[int]]:
        """The next token of each prompt, step by step, so many times; the likeliest unless something else is asked."""
        ...

    def encode(
        self, prompts: Sequence[Any], output: str, types: Sequence[Sequence[int]] = (), skip: int = 0
    ) -> list[Tensor]:
        """Of each prompt one of wire.messages.OUTPUTS, as float64; `types` are the token types of each, or none;
        the first `skip` tokens of each do not count in its vector."""
        ...

    def fill(
        self, prompts: Sequence[Sequence[int]], masked: Sequence[Sequence[int]], top: int = 1,
        types: Sequence[Sequence[int]] = (),
    ) -> list[list[list[int]]]:  # fmt: skip
        """Of each prompt, for each of its masked places, the `top` most likely tokens, best first."""
        ...
