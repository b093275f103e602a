"""Presets have the published numbers of parameters."""

from __future__ import annotations

from math import prod
from typing import Any

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
    "llama-3.1-8b": 8_030_261_248,
    "qwen3-0.6b": 596_049_920,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "mistral-7b": 7_248_023_552,
    "gemma-3-4b": 3_880_263_168,  # of the text model
    "qwen3-30b-a3b": 30_532_122_624,
    "gpt-oss-20b": 20_914_757_184,
    "smollm2-135m": 134_515_008,
    "minilm-l6": 22_713_216,
    "bge-small": 33_360_000,
    "bge-base": 109_482_240,
    "bge-m3": 567_754_752 - 2 * 1024,  # the first two positions are never used
    "bge-reranker-v2-m3": 567_755_777 - 2 * 1024,
    "e5-base": 109_482_240,
    "qwen3-embedding-0.6b": 595_776_512,
    "embeddinggemma-300m": 302_863_104 + 2 * 768 * 3072,  # the model, and the matrices behind its pooling
    "mpnet-base": 109_486_464 - 2 * 768,
    "modernbert-base": 149_014_272,
    "deberta-v3-base": 183_831_552,
    "ms-marco-minilm-l6": 22_713_601,
    "clip-text": 63_165_952 + 512 * 512,
    "clip-image": 87_456_000 + 768 * 512,
    "vit-base": 86_567_656,
    # The first two positions of either half are never used, and logits have a bias that is no parameter there.
    "bart-base": 139_420_416 - 4 * 768 + 50265,
    "bart-large-cnn": 406_290_432 - 4 * 1024 + 50264,
    "bart-large-mnli": 407_344_131 - 4 * 1024,
    "opus-mt": 74_410_496 - 2 * 512 * 512 + 58101,  # positions are computed
    "mbart-large-50": 610_879_488 - 4 * 1024 + 250054,
    "nllb-600m": 615_073_792,
    "whisper-tiny": 37_760_640,
    "whisper-base": 72_593_920,
    "whisper-small": 241_734_912,
    "whisper-large-v3": 1_543_490_560,
}


@pytest.mark.parametrize("name", PRESETS)
def test_published_sizes(name: str) -> None:
    config = preset(name)
    assert sum(prod(shape) for shape in architecture(config).plain(config).values()) == PARAMETERS[name]


def test_what_the_settings_say() -> None:
    assert preset("gemma-3-4b").period == 6 and preset("modernbert-base").period == 3 and preset("gpt2").period == 1
    rotary: Any = preset("llama-3.1-8b")
    assert rotary.rope.scaling == "llama3"
    each: Any = preset
    assert [each(name).pooling.modes for name in ("minilm-l6", "bge-m3", "bert-base")] == [("mean",), ("cls",), ()]
    assert "gpt2" in PRESETS and "qwen3-4b" in PRESETS and "config.json" not in PRESETS
    assert len(list(PRESETS)) == len(PRESETS) == len(set(PRESETS))


def test_other_depths() -> None:
    assert preset("llama-7b", 3).layers == 3
    assert preset("llama-7b").layers == 32
    with pytest.raises(UsageError, match="no preset bert"):
        preset("bert")
