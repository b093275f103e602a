"""Whether a model's numbers stay where fixed point holds: its plan, and a run in the clear on sample text.

The plan says what holds for every input and what was only seen; the run looks at all places in fixed point, for its
text. This file must not know how the findings are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from puma.errors import InputError
from puma.measure.forecast import forecast
from puma.models import inputs, text
from puma.models.formats import Formats
from puma.mpc.clear import Note
from puma.reference import calibration
from puma.reference.fixed_session import FixedSession
from puma.reference.plain_model import PlainModel
from puma.reference.plan import Plan
from puma.wire.messages import Encode, Generate, Input

SOUNDS = 2  # of a model that hears
SAMPLE = (
    "Once upon a time there was a little girl named Lily, who loved to play outside in the park with her dog.",
    "The quarterly report shows revenue of 4,815,162 dollars, up 23.42 percent; see https://example.org/a?b=c#d.",
    "def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)  # 0 1 1 2 3 5 8 13 21 34",
    "!!!! ???? .... ---- #### **** the the the the the the the the the the the the the the the the the the the",
    "An uncommonly good film, if a little long: warm, funny and, in its last half hour, quietly devastating.",
    "0123 4752 9999 1000 5050 CABBAC ABCCBA",
)


@dataclass(frozen=True)
class Cost:
    """Bytes and rounds of a request of so many `tokens`, and those without a plan; of a decoder for one new token."""

    tokens: int
    bytes: int
    rounds: int
    default_bytes: int
    default_rounds: int


@dataclass(frozen=True)
class Findings:
    """The plan, what it costs, and how near each place of the run came to its limit."""

    plan: Plan
    cost: Cost
    notes: list[Note]
    texts: int
    tokens: int

    @property
    def broken(self) -> list[Note]:
        """Places where the run left its range, the first one first."""
        return [note for note in self.notes if note.used >= 1]


def samples(model: PlainModel, texts: Sequence[str] = SAMPLE) -> list[text.Tokens]:
    """Token ids of those texts that the model has tokens for, cut to its context."""
    if inputs(model.config).kind == "audio":
        return calibration.samples(model, model.checkpoint.folder)[:SOUNDS]
    found = []
    for sample in texts:
        try:
            tokens = text.encode(model.tokenizer, model.config, sample)
        except InputError:  # an alphabet of a few signs has no word of it
            continue
        most = model.config.context
        found.append(text.Tokens(tokens.ids[:most], tokens.types[:most]))
    return found


def check(model: PlainModel, plan: Plan, prompts: Sequence[text.Tokens], approximation: str = "spline") -> Findings:
    """Run each text by itself, by this plan, and say how near every place came."""
    alone = FixedSession(model.config, model.params, approximation)
    for tokens in prompts:
        if model.causal:
            list(alone.continued([tokens.ids], 1))  # the head, too
        alone.encode([tokens.ids], "hidden" if model.causal else model.output, [tokens.types])
    tokens = sum(len(tokens.ids) for tokens in prompts)
    return Findings(plan, cost(model, approximation), alone.notes, len(prompts), tokens)


def cost(model: PlainModel, approximation: str = "spline") -> Cost:
    """What a usual request costs by the model's plan and by the formats of a model without one."""
    read = inputs(model.config)
    length = read.rows or min(128, model.config.context)
    given = Input([read.length(length)], [], [], approximation=approximation, begun=read.begun if model.causal else 0)
    request = Generate(given, 1) if model.causal else Encode(given, "hidden")
    usual = msgspec.structs.replace(model.config, formats=Formats())
    here, there = (forecast(config, request) for config in (model.config, usual))
    return Cost(length, here.total, here.rounds, there.total, there.rounds)
