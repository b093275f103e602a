"""Presets have the published numbers of parameters."""

from __future__ import annotations

from math import prod

import pytest

from puma.errors import UsageError
from puma.models import architecture
from puma.models.presets import PRESETS, preset

PARAMETERS = {
    "bert-base": 109_482_240,
    "bert-large": 335_141_888,
    "roberta-base": 124_645_632,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "llama-7b": 6_738_415_616,
}


@pytest.mark.parametrize("name", PRESETS)
def test_published_sizes(name: str) -> None:
    config = preset(name)
    assert sum(prod(shape) for shape in architecture(config).plain(config).values()) == PARAMETERS[name]


def test_other_depths() -> None:
    assert preset("llama-7b", 3).layers == 3
    assert preset("llama-7b").layers == 32
    with pytest.raises(UsageError, match="no preset bert"):
        preset("bert")
