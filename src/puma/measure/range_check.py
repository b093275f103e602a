"""Whether a model's numbers stay where fixed point holds: the owner's proofs, and a run in the clear on sample text.

Proofs hold for every input but bound some ranges only; the run looks at all of them, for its text. This file must not
know how the findings are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from puma.errors import InputError
from puma.models import ranges, text
from puma.mpc.clear import Note
from puma.reference.fixed_session import FixedSession
from puma.reference.plain_model import PlainModel

SAMPLE = (
    "Once upon a time there was a little girl named Lily, who loved to play outside in the park with her dog.",
    "The quarterly report shows revenue of 4,815,162 dollars, up 23.42 percent; see https://example.org/a?b=c#d.",
    "def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)  # 0 1 1 2 3 5 8 13 21 34",
    "!!!! ???? .... ---- #### **** the the the the the the the the the the the the the the the the the the the",
    "An uncommonly good film, if a little long: warm, funny and, in its last half hour, quietly devastating.",
    "0123 4752 9999 1000 5050 CABBAC ABCCBA",
)


@dataclass(frozen=True)
class Proof:
    """What no input can exceed at a matrix, and the limit."""

    where: str
    what: str
    bound: float
    limit: float


@dataclass(frozen=True)
class Findings:
    """Proofs, and how near each place of the run came to its limit."""

    proofs: list[Proof]
    notes: list[Note]
    texts: int
    tokens: int

    @property
    def broken(self) -> list[Note]:
        """Places where the run left its range, the first one first."""
        return [note for note in self.notes if note.used >= 1]


def samples(model: PlainModel, texts: Sequence[str] = SAMPLE) -> list[text.Tokens]:
    """Token ids of those texts that the model has tokens for, cut to its context."""
    found = []
    for sample in texts:
        try:
            tokens = text.encode(model.tokenizer, model.config, sample)
        except InputError:  # an alphabet of a few signs has no word of it
            continue
        most = model.config.context
        found.append(text.Tokens(tokens.ids[:most], tokens.types[:most]))
    return found


def check(model: PlainModel, prompts: Sequence[text.Tokens], approximation: str = "spline") -> Findings:
    """Raise RangeError if a proof fails; else run each text by itself and say how near every place came."""
    proofs = [Proof(name, what, bound, limit) for name, bound, limit, what in ranges.bounds(model.config, model.params)]
    alone = FixedSession(model.config, model.params, approximation)
    for tokens in prompts:
        if model.causal:
            list(alone.continued([tokens.ids], 1))  # the head, too
        alone.encode([tokens.ids], "hidden" if model.causal else model.output, [tokens.types])
    return Findings(proofs, alone.notes, len(prompts), sum(len(tokens.ids) for tokens in prompts))
