"""What is forecast is what is paid, to the byte; and what it takes on a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from puma.errors import InputError, UsageError
from puma.models.presets import preset
from puma.serving.bench import RandomParams, configured, random_ids
from puma.serving.forecast import Network, forecast, job
from puma.serving.local import Trio
from puma.serving.messages import Encode, Generate, Input


@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "tokens", "lengths"),
    [
        ("llama", 3, [5]),
        ("llama", 2, [5, 2, 4]),
        ("gpt2", 2, [1, 3]),
        ("bert", None, [5]),
        ("classifier", None, [2, 5, 2]),
    ],
)
def test_forecast_equals_the_ledgers(
    name: str, tokens: int | None, lengths: list[int], checkpoints: dict[str, Path], processes: Trio
) -> None:
    _, config, _ = configured(str(checkpoints[name]), None, weights=False)
    processes.session.share(config, RandomParams(config))
    prompts = random_ids(config, lengths)
    if tokens:
        requests: list[Generate | Encode] = [Generate(Input(lengths, []), tokens)]
    else:
        outputs = ("hidden", "pooled", *(["logits"] if name == "classifier" else []))
        requests = [Encode(Input(lengths, []), output) for output in outputs]
    for request in requests:
        if isinstance(request, Generate):
            list(processes.session.generate(prompts, request.tokens))
        else:
            processes.session.encode(prompts, request.output)
        paid, expected = processes.session.cost, forecast(config, request)
        assert paid is not None
        assert expected.rounds == paid.rounds
        assert expected.bytes() == paid.bytes()
        parts = [{part["name"]: (part["rounds"], part["bytes"]) for part in c.breakdown} for c in (expected, paid)]
        assert parts[0] == {name: part for name, part in parts[1].items() if part[1]}


def test_layers_are_counted_once_and_multiplied() -> None:
    costs = [forecast(preset("bert-base", n), job(preset("bert-base"), 8, None)) for n in (1, 2, 12)]
    one, two, twelve = (cost.total for cost in costs)
    assert twelve == one + 11 * (two - one)


def test_network() -> None:
    cost = forecast(preset("gpt2", 1), job(preset("gpt2"), 4, 1))
    lan, own = (Network.parse(text).predict(cost) for text in ("LAN", "5 Gbps, 200us"))
    assert lan["seconds"] == pytest.approx(own["seconds"])
    assert lan["latency_seconds"] == pytest.approx(cost.rounds * 2e-4)
    assert lan["online_seconds"] == pytest.approx(8 * cost.per_party[1] / 5e9)
    parts = ("latency_seconds", "online_seconds", "offline_seconds", "upload_seconds")
    assert lan["seconds"] == pytest.approx(sum(lan[part] for part in parts))
    assert Network.parse("wan").predict(cost)["seconds"] > lan["seconds"]


@pytest.mark.parametrize("text", ["moon", "", "1Gbps", "1Gbps,", "nan,1ms", "-1Gbps,1ms", "0Mbps,1ms", "1Gbps,1"])
def test_unknown_networks(text: str) -> None:
    with pytest.raises(UsageError) as error:
        Network.parse(text)
    assert "lan, wan" in error.value.hint


def test_impossible_requests() -> None:
    bert, gpt2 = preset("bert-base"), preset("gpt2")
    for config, prompt, tokens in ((bert, 0, None), (bert, 4, 1), (gpt2, 4, 0), (gpt2, -1, None)):
        with pytest.raises(UsageError):
            job(config, prompt, tokens)
    for batch in (0, -2):
        with pytest.raises(UsageError, match="a batch of"):
            job(gpt2, 4, 1, batch)
    with pytest.raises(InputError, match="make tensors of"):
        job(gpt2, 512, 1, 200)
    for config, prompt, tokens in ((bert, 513, None), (gpt2, 1020, 9)):
        with pytest.raises(InputError, match="context"):
            job(config, prompt, tokens)
