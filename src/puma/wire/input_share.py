"""What inputs of all kinds have in common: as a client lays one out in the clear, and as each party gets its share.

Must not know what the rows mean, nor links or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from puma.crypto.prg import fresh_secret
from puma.errors import ProtocolError
from puma.models.begun import Begun
from puma.mpc.public import LookedUp
from puma.mpc.retrieval import COMPONENTS, Choice
from puma.mpc.share import Share, cat


@dataclass(frozen=True)
class Laid:
    """An input at the client, in the clear and checked: the rows of all prompts or images below each other.

    `lengths` are what the parties learn; `rows` token ids (n,) or numbers (n, width); `flags` ones and zeros that go
    with them in secret, or none; `begun` the ids (prompts, count) that each answer begins with, or none.
    """

    lengths: list[int]
    rows: Tensor
    flags: Sequence[int] = ()
    begun: Tensor | None = None

    @property
    def count(self) -> int:
        """Tokens that each answer begins with."""
        return 0 if self.begun is None else self.begun.shape[1]

    def __repr__(self) -> str:
        return f"Laid({len(self.lengths)} inputs)"


@dataclass(frozen=True)
class InputShare:
    """What one party gets: seeds of the words' masks, seeds of its choice bits, and a payload (empty at the dealer)."""

    masks: list[bytes]
    choices: list[bytes]
    payload: Tensor

    def __repr__(self) -> str:
        return f"InputShare({self.payload.numel()} bytes)"


@dataclass(frozen=True)
class Seeds:
    """All that is random about the shares of an input; may be drawn before it is known, and serves once."""

    choices: list[bytes]  # of the bits for m at P1, for l1 and l2 at P0
    masks: list[bytes]  # of the words, at P1 and P2

    def __repr__(self) -> str:
        return "Seeds(...)"

    @classmethod
    def fresh(cls) -> Seeds:
        """New ones from the operating system."""
        return cls([fresh_secret() for _ in range(COMPONENTS)], [fresh_secret(), fresh_secret()])

    def of(self, rank: int) -> tuple[list[bytes], list[bytes]]:
        """The seeds of the masks and of the choices that this party is given."""
        return [self.masks, self.masks[:1], self.masks[1:]][rank], [self.choices[1:], self.choices[:1], []][rank]


def check_seeds(rank: int, masks: Sequence[bytes], choices: Sequence[bytes], chosen: bool) -> None:
    """ProtocolError unless a party was given as many seeds as are its own; of pixels nothing is `chosen`."""
    wanted = ((2, 2), (1, 1), (1, 0))[rank]
    if (len(masks), len(choices)) != (wanted[0], wanted[1] if chosen else 0):
        raise ProtocolError(f"P{rank} was given {len(masks) + len(choices)} seeds, not its own", "open a new session")


@dataclass(frozen=True)
class Flagged:
    """Tokens, and secret ones and zeros about them: 1 for a token that is only padding (tokens,); or, row by row, for
    each column that a branch does not see (rows * columns,), as `Cache.branch` has it.
    """

    rows: Choice | LookedUp
    flags: Share

    def joined(self, others: Sequence[Flagged]) -> Flagged:
        """With the tokens of others below."""
        flags = cat([self.flags, *(other.flags for other in others)], 0)
        rows: Any = self.rows
        return Flagged(rows.joined([other.rows for other in others]), flags)


# What a party makes of an input: chosen rows, or rows of a public table, numbers, tokens with secret flags, prompts
# with begun answers.
Given = Choice | LookedUp | Share | Flagged | Begun
