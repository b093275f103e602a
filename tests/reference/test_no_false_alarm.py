"""Texts that stay inside never raise a flag, however many: those of a small real model."""

from __future__ import annotations

import pytest
import torch

from puma.reference.fixed_session import FixedSession
from puma.reference.plain_model import PlainModel


@pytest.mark.parametrize("texts", [100, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_text_raises_a_flag(texts: int) -> None:
    """Tokens in no order, which drive a model further than language does."""
    clear = PlainModel()
    alone, draw = FixedSession(clear.config, clear.params), torch.Generator().manual_seed(1)
    for _ in range(texts // 50):
        ids = torch.randint(clear.config.vocab_size, (50, 12), generator=draw).tolist()
        alone.encode(ids, "hidden")
        assert alone.flagged == []
