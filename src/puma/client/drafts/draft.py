"""What a draft is, who makes it, and how one is told apart from the next.

A `Source` makes drafts for any text, a `Drafter` follows one text as it grows. This file must not know how tokens are
guessed, nor who verifies them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from puma.client.drafts.tempo import Tempo
from puma.client.sampling import Sampling


class Draft(NamedTuple):
    """Tokens that may follow a text. `chances` (vocabulary,) of each are the distribution from which it was drawn; None
    where there was no choice.

    Each token comes behind the one before it, or behind the one that `parents` names: 0 is the text's latest token, 1
    the first drafted one and so on. Of tokens behind the same one at most one can be right; such drafts are not drawn.
    """

    tokens: Sequence[int] = ()
    chances: Sequence[Tensor] | None = None
    parents: Sequence[int] | None = None

    @property
    def follows(self) -> list[int]:
        """The parents of all tokens."""
        return [*(range(len(self.tokens)) if self.parents is None else self.parents)]

    def within(self, most: int, deep: int) -> Draft:
        """The first ones of it, up to so many, of which no more than `deep` follow each other."""
        parents, depth, count = self.follows, [0], 0
        while count < min(most, len(self.tokens)) and depth[parents[count]] < deep:
            depth.append(depth[parents[count]] + 1)
            count += 1
        chances = None if self.chances is None else self.chances[:count]
        return Draft(self.tokens[:count], chances, None if self.parents is None else parents[:count])

    def __repr__(self) -> str:
        return f"Draft({len(self.tokens)} tokens)"


NOTHING = Draft()


class Drafter(Protocol):
    """One text and what may follow it."""

    def propose(self, most: int, deep: int) -> Draft:
        """Up to so many tokens, no more than `deep` behind each other, as many as are worth their time; often none."""
        ...

    def learn(self, tokens: Sequence[int]) -> None:
        """The text goes on with these, whatever was proposed."""
        ...


class Source(Protocol):
    """Makes drafts."""

    name: str

    def begin(self, ids: Sequence[int], how: Sampling, tempo: Tempo) -> Drafter:
        """For a prompt of these token ids, whose answer is chosen in this way, at the pace of these parties."""
        ...


@dataclass
class Counted:
    """What became of the drafts of a request: tokens that were drafted and accepted, in so many steps of a text."""

    drafted: int = 0
    accepted: int = 0
    steps: int = 0
    tokens: int = 0  # that these steps gave

    @property
    def a_step(self) -> float:
        """Tokens that a step gave on average; 1 without drafts."""
        return self.tokens / self.steps if self.steps else 1.0

    def told(self) -> dict[str, float]:
        """As JSON."""
        named = {"drafted": self.drafted, "accepted": self.accepted, "steps": self.steps}
        return named | {"tokens_a_step": self.a_step}

    def note(self, drafted: int, gained: int) -> None:
        """A step of one text; it has gained so many tokens, of which one was not drafted."""
        self.drafted, self.accepted = self.drafted + drafted, self.accepted + max(gained - 1, 0)
        self.steps, self.tokens = self.steps + 1, self.tokens + gained
