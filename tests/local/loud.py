"""Checkpoints of which one input leaves a place's reach, and no other does: by a plan that is too small for it.

monkeypatch.setattr(plain_model, "planned", loud.narrow)
folder = loud.token(tiny.llama(tmp_path), "model.embed_tokens.weight", "dog")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from msgspec import structs

from puma.models.formats import Formats
from puma.reference.plan import Plan
from puma.reference.planning import planned
from tests.models import tiny

SIZE = 100.0  # of a row's numbers, so that its length is far beyond 2^LEAST


def narrow(*made: Any) -> Plan:
    """A model's plan, but for the first norm, whose rows are said to stay below 2^6."""
    plan = planned(*made)
    first = next(place.name for place in plan.places if place.kind == "norm")
    return structs.replace(plan, formats=Formats(places={first: 6}))


def token(folder: Path, table: str, word: str) -> Path:
    """From now on the row of a word is as large as that; tokens of tests.models.tiny are words."""
    number = (tiny.SPECIAL + tiny.WORDS).index(word)

    def change(state: tiny.State) -> None:
        state[table][number] = torch.tensor([SIZE, -SIZE]).repeat(state[table].shape[1] // 2)

    return tiny.edit(folder, change)
