"""The rounds of a layer by name, and that they stay as few as they are: four cases that stand for what is asked."""

from __future__ import annotations

from typing import Any

import pytest

from puma.engine.planner import spending, with_plan
from puma.measure.rounds import layer, total
from puma.models.presets import preset
from puma.nn.variants import LEAN, QUICK
from puma.wire.messages import Encode, Generate, Input

LLAMA, BERT = preset("llama-7b"), preset("bert-base")
CASES: dict[str, tuple[Any, Any, int, int]] = {  # lean and quick rounds of a layer
    "prefill of 8": (LLAMA, Generate(Input([8], []), 1), 42, 27),
    "prefill of 512": (LLAMA, Generate(Input([512], []), 1), 61, 38),
    "decode after 128": (LLAMA, Generate(Input([128], []), 2), 58, 33),
    "BERT-base, 128 tokens": (BERT, Encode(Input([128], []), "hidden"), 58, 38),
}


@pytest.mark.parametrize("name", CASES)
def test_rounds_of_a_layer(name: str) -> None:
    config, request, lean, quick = CASES[name]
    for plan, rounds in ((LEAN, lean), (QUICK, quick)):
        steps = layer(config, with_plan(request, plan))
        assert total(steps) == rounds, steps
        assert {step.component for step in steps} >= {"norm", "attention", "mlp"}
        assert all(step.protocols and step.rounds > 0 for step in steps)


@pytest.mark.parametrize("name", CASES)
def test_few_rounds_take_few_more_bytes(name: str) -> None:
    config, request, *_ = CASES[name]
    lean, quick = (spending(config, request, plan).total for plan in (LEAN, QUICK))
    assert quick <= 1.2 * lean


def test_the_lean_plan_sends_no_more_than_it_did() -> None:
    assert spending(BERT, CASES["BERT-base, 128 tokens"][1], LEAN).total < 1.0494e9
