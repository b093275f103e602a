"""Texts that stay inside never raise a flag, however many: those of small real models, with a plan and without one.

`python -m benchmarks.accuracy --only alarms` does the same and fills docs/accuracy.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.accuracy import flags
from puma.reference.plain_model import PlainModel


@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize("texts", [100, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_text_raises_a_flag(texts: int, planned: bool) -> None:
    """Tokens in no order, which drive a model further than language does."""
    clear = PlainModel()
    if planned:
        clear.plan()
    draw = torch.Generator().manual_seed(1)
    rows = torch.randint(clear.config.vocab_size, (texts, 12), generator=draw).tolist()
    assert flags.flagged(clear.config, clear.params, rows) == 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", flags.MODELS)
def test_ten_thousand_texts_of_a_real_model(name: str, real: Callable[[str], Path]) -> None:
    """729 words are all that one of them knows."""
    clear = PlainModel(real(name))
    clear.plan()
    found = flags.given(name, clear, real(name).parent, flags.TEXTS)
    assert len(found) == (729 if "sort" in name else flags.TEXTS)
    assert flags.flagged(clear.config, clear.params, found) == 0


def test_sentences_are_many_and_short(real: Callable[[str], Path]) -> None:
    found = list(itertools.islice(flags.sentences(real("glue").parent), 20_000))
    assert len(found) > flags.TEXTS and sorted(map(len, found))[len(found) // 2] < 120
