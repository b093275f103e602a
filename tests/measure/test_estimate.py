"""Estimates beside what was measured, and what a thousand requests take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from puma.client.cost import Cost
from puma.errors import UsageError
from puma.measure.estimate import REFERENCE, Estimate, Prices, usual
from puma.measure.forecast import Network
from puma.measure.named import config_of
from puma.measure.rates import work
from puma.models.presets import preset
from puma.wire.messages import Encode, Generate

PUBLISHED = Path(__file__).parents[2] / "benchmarks" / "results" / "models.json"
PRESET = {"bert-base", "gpt2", "llama-7b"}
FORKED = 150  # MiB of the program that parties forked on one machine never touch, and those on three do


@pytest.mark.parametrize("number", range(5))
def test_estimates_come_near_what_is_published(number: int) -> None:
    measured = json.loads(PUBLISHED.read_text())["results"][number]
    words = measured["command"].split()
    layers = measured["layers"] if "--layers" in words else None
    name, config = config_of(words[2], layers)
    assert name in PRESET
    found = Estimate.of(config, usual(config, measured["prompt"], measured["tokens"] or None))
    predicted = sum(REFERENCE.seconds(work(config, found.request, found.whole)))
    assert predicted == pytest.approx(measured["cpu_seconds"], rel=0.4)
    if measured["repeated_layers"] or layers:  # whose weights are one layer's, or whose processes load them otherwise
        return
    for machine, peak in zip(found.machines, measured["peak_rss_mib"], strict=True):
        # How much of the dealer's words wait at an evaluator depends on how far ahead it is, which on cores that three
        # share differs from run to run; a machine is to have room for most of them.
        assert 0.7 * peak < machine.memory / 2**20 - FORKED < 1.6 * peak


def test_a_thousand_requests_have_a_price() -> None:
    config = preset("minilm-l6")
    found = Estimate.of(config, usual(config, 16, None))
    thousand = found.thousand(3.6, Prices.of(0.1, 2.0))
    assert thousand["machine_hours"] == pytest.approx(3.0) and thousand["machine_price"] == pytest.approx(6.0)
    assert thousand["gigabytes"] == found.whole.total / 1e6
    assert thousand["price"] == pytest.approx(thousand["traffic_price"] + 6.0)
    for gb, hour in ((-1.0, 0.0), (0.0, float("nan")), (float("inf"), 0.0)):
        with pytest.raises(UsageError, match="a price is a number"):
            Prices.of(gb, hour)


def test_first_and_further_tokens_make_the_whole() -> None:
    config = preset("smollm2-135m")
    found = Estimate.of(config, usual(config, 20, 9))
    assert isinstance(found.first, Cost) and found.further == 8
    assert found.first.total + 8 * found.further_bytes == pytest.approx(found.whole.total)
    on = found.on(Network.parse("wan"), REFERENCE)
    assert on["first_seconds"] + 8 * on["further_seconds"] == pytest.approx(on["seconds"])
    once = Estimate.of(config, usual(config, 20, 1))
    assert once.further == 0 and once.on(Network.parse("wan"), REFERENCE)["further_seconds"] == 0
    more = Estimate.of(config, usual(config, 20, 400))
    assert all(a.memory > b.memory and a.disk == b.disk for a, b in zip(more.machines, once.machines, strict=True))


def test_what_is_usually_asked() -> None:
    asked = {name: usual(preset(name), 8, None) for name in ("bert-base", "minilm-l6", "ms-marco-minilm-l6", "gpt2")}
    outputs = {name: each.output if isinstance(each, Encode) else each.tokens for name, each in asked.items()}
    assert outputs == {"bert-base": "hidden", "minilm-l6": "pooled", "ms-marco-minilm-l6": "logits", "gpt2": 1}
    image = usual(preset("vit-base"), None, None, 2)
    assert isinstance(image, Encode) and image.output == "logits" and image.input.lengths == [197, 197]
    assert isinstance(usual(preset("gpt2"), 3, 5, 2), Generate)
    with pytest.raises(UsageError, match="how long is the prompt"):
        usual(preset("gpt2"), None, None)
    with pytest.raises(UsageError, match="an image has no tokens"):
        usual(preset("vit-base"), 4, None)
