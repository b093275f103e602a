"""What a client has of a request: generated text, or a vector or logits, with what it cost. It must not know how."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from puma.client.cost import Cost
from puma.client.evidence.receipt import Receipt


@dataclass(frozen=True)
class Answer:
    """Generated text, its token ids and what the request cost, with its other prompts; what the parties signed."""

    text: str
    token_ids: list[int]
    cost: Cost
    receipt: Receipt | None = None


@dataclass(frozen=True)
class Encoding:
    """A text's vector, or class logits, and what the request cost, with the other texts in it; how many tokens of the
    text were left out, because it was too long and might be cut; and what the parties signed of it."""

    values: Tensor
    cost: Cost
    left_out: int = 0
    receipt: Receipt | None = None
