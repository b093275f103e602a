"""What a config.json alone tells, of models that are implemented and of those that are not."""

from __future__ import annotations

from typing import Any

import pytest

from puma.models import inspection
from puma.models.inspection import inspected
from puma.models.presets import PRESETS, SETTINGS


@pytest.mark.parametrize("name", SETTINGS)
def test_presets_are_supported(name: str) -> None:
    found = inspected(SETTINGS[name])
    assert not found.refused and found.questions and found.config is not None
    assert {"architecture", "parameters", "reads", "context", "attention", "mlp"} <= set(found.parts)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (
            "gemma-3-4b",
            {"attention": "8 heads of 256, keys of 4; 29 layers see a window of 1,024"},
        ),
        ("llama-3.1-8b", {"positions": "base 500000, llama3", "norms": "RMSNorm", "parameters": "8,030,261,248"}),
        ("bge-m3", {"context": "8,192", "positions": "learned", "mlp": "gelu, 4,096 wide"}),
        ("vit-base", {"reads": "images as 196 patches"}),
        ("mpnet-base", {"positions": "learned, a number for each distance"}),
        ("deberta-v3-base", {"positions": "disentangled"}),
        ("modernbert-base", {"attention": "14 layers see a window of 65", "positions": "rotary"}),
        ("qwen3-30b-a3b", {"mlp": "silu, gated, 128 experts of 768; a token takes 8, and all are computed: 16 times"}),
        ("gpt-oss-20b", {"mlp": "32 experts of 2,880; a token takes 4", "attention": "12 layers see a window of 128"}),
    ],
)
def test_parts_have_names(name: str, parts: dict[str, str]) -> None:
    found = inspection.parts(PRESETS[name])
    assert all(what in found[part] for part, what in parts.items()), found


def test_every_refusal_is_told() -> None:
    wrong: dict[str, Any] = {"use_bidirectional_attention": True, "hidden_activation": "swish2"}
    found = inspected(SETTINGS["gemma-3-4b"] | wrong)
    assert [setting for setting in wrong if any(setting in error.message for error in found.refused)] == list(wrong)
    assert all(error.hint for error in found.refused) and found.parts["norms"]


@pytest.mark.parametrize(
    "raw", [{}, {"architectures": ["NoSuchModel"]}, SETTINGS["bge-base"] | {"hidden_size": "wide"}]
)
def test_what_nobody_can_compute(raw: dict[str, Any]) -> None:
    found = inspected(raw)
    assert found.config is None and not found.parts and len(found.refused) == 1
