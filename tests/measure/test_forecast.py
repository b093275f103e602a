"""What is forecast is what is paid, to the byte; and what it takes on a network."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import astuple, replace

from puma.client.cost import Cost
from puma.errors import InputError, UsageError
from puma.local.cluster import Trio
from puma.measure.bench import RandomParams, configured, random_ids
from puma.measure.forecast import Network, forecast
from puma.measure.rates import Aside, Early, Speed, Work, aside, work
from puma.models import in_the_open
from puma.models.config import Llama
from puma.models.presets import preset
from puma.wire.messages import Encode, Generate, Input
from puma.wire.request_shapes import shaped


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
    processes.share(config, RandomParams(config))
    prompts = random_ids(config, lengths)
    if tokens:
        requests: list[Generate | Encode] = [Generate(Input(lengths, []), tokens)]
    else:
        outputs = ("hidden", "pooled", *(["logits"] if name == "classifier" else []))
        requests = [Encode(Input(lengths, []), output) for output in outputs]
    for request in requests:
        if isinstance(request, Generate):
            list(processes.session.continued(prompts, request.tokens))
        else:
            processes.session.encode(prompts, request.output)
        paid, expected = processes.session.cost, forecast(config, request)
        assert paid is not None
        assert expected.rounds == paid.rounds
        assert expected.bytes() == paid.bytes()
        parts = [{part["name"]: (part["rounds"], part["bytes"]) for part in c.breakdown} for c in (expected, paid)]
        assert parts[0] == {name: part for name, part in parts[1].items() if part[1]}


def test_layers_are_counted_once_and_multiplied() -> None:
    costs = [forecast(preset("bert-base", n), shaped(preset("bert-base"), 8, None)) for n in (1, 2, 12)]
    one, two, twelve = (cost.total for cost in costs)
    assert twelve == one + 11 * (two - one)


RATES = Work(1e-4, 1e-9, 2e-9, 1e-10)
SPEED = Speed((RATES, RATES, RATES), 1.5, 2)


@cache
def small() -> tuple[Cost, Work]:
    """A request of a small model."""
    config = Llama(vocab_size=16, hidden_size=8, intermediate_size=8, layers=1, heads=1)
    request = shaped(config, 4, 1)
    cost = forecast(config, request)
    return cost, work(config, request, cost)


def test_network() -> None:
    cost, todo = small()
    lan, own, turned = (
        Network.parse(text).predict(cost, todo, SPEED) for text in ("LAN", "5 Gbps, 400us", "400us,5Gbps")
    )
    assert lan["seconds"] == pytest.approx(own["seconds"]) == pytest.approx(turned["seconds"])
    assert lan["latency_seconds"] == pytest.approx((cost.rounds / 2 + 1) * 4e-4)
    assert lan["online_seconds"] == pytest.approx(8 * cost.per_party[1] / 5e9)
    assert lan["compute_seconds"] == [1.5 * sum(r * w for r, w in zip(astuple(RATES), astuple(todo)))] * 3
    parts = ("latency_seconds", "online_seconds", "upload_seconds")
    agreed = 4e-4  # on the first step
    assert lan["seconds"] == pytest.approx(lan["compute_seconds"][1] + agreed + sum(lan[part] for part in parts))
    swift = Network.parse("1us,900Gbps").predict(cost, todo, SPEED)
    assert swift["seconds_here"] > swift["seconds"]  # three parties on two cores
    assert Network.parse("wan").predict(cost, todo, SPEED)["seconds"] > lan["seconds"]


def test_masks_are_drawn_and_multiplied_while_an_evaluator_waits() -> None:
    """What is saved of walks is not seen. It costs more than it saves, which counts where cores are shared: a mask that
    waits is written and read, and a rehearsal computes once more what is sent."""
    cost, todo = small()
    early = Early(drawn=0.5, saved=0.25, told=0.5, spared=0.375)
    wan, some = Network.parse("wan"), replace(SPEED, early=early)
    bare = wan.predict(cost, todo, some)
    (head,) = (part["rounds"] for part in cost.breakdown if part["name"] == "head")
    answer = (head / 2 + 1) * 0.04  # in which nothing is left to draw
    waits = bare["latency_seconds"] + bare["online_seconds"] - answer
    assert head > 2 and waits > 0
    for weights in (1e6, 1e12):
        more, walk = replace(todo, weights=weights), (2e-9 + 8 * 1e-10) * weights
        bare, drawn, told = (
            wan.predict(cost, more, some, aside) for aside in (Aside(), Aside(weights), Aside(weights, weights))
        )
        share = min(1.0, waits / (0.5 * walk))
        assert drawn["hidden_seconds"] == pytest.approx([0.0, *2 * [share * 0.5 * walk]])
        assert bare["compute_seconds"][1] - drawn["compute_seconds"][1] == pytest.approx(1.5 * share * 0.25 * walk)
        assert drawn["processor_seconds"][1] - bare["processor_seconds"][1] == pytest.approx(share * 0.25 * walk)
        product = 2e-9 * weights
        again = 0.5 * product + 1e-4 * todo.rounds + 1e-9 * todo.bytes
        part = min(1.0, waits / again)
        assert told["hidden_seconds"][1] == pytest.approx(share * 0.5 * walk + part * again)
        saved = drawn["compute_seconds"][1] - told["compute_seconds"][1]
        assert saved == pytest.approx(1.5 * part * 0.375 * product)
        assert told["seconds"] <= drawn["seconds"] <= bare["seconds"]
        assert told["seconds_here"] > told["seconds"] - 0.041  # daemons agree first
    quick = Network.parse("1ms,5Gbps").predict(cost, more, some, Aside(weights, weights))
    assert quick["hidden_seconds"] == [0.0, 0.0, 0.0]
    assert quick["processor_seconds"] == pytest.approx(some.seconds(more))


def test_what_p1_keeps_beside_a_rehearsal_takes_its_waits() -> None:
    cost, todo = small()
    more, wan = replace(todo, weights=1e6), Network.parse("wan")
    none, some = (
        wan.predict(cost, more, replace(SPEED, early=Early(drawn=0.5, told=0.5, kept=kept)), Aside(3e6, 1e6))
        for kept in (0.0, 0.25)
    )
    taken = [b - a for a, b in zip(none["hidden_seconds"], some["hidden_seconds"], strict=True)]
    assert taken == pytest.approx([0.0, 0.25 * (2e-9 + 8 * 1e-10) * 1e6, 0.0])
    assert some["seconds"] == none["seconds"]


def test_what_may_be_done_aside() -> None:
    config = preset("gpt2")
    cost = small()[0]

    def found(prompt: int, tokens: int, model: Any = config) -> tuple[Work, Aside]:
        request = shaped(model, prompt, tokens)
        done = work(model, request, cost)
        return done, aside(model, request, done)

    one, some = found(8, 1)
    assert some == Aside(one.weights, one.weights, one.products)
    four, some = found(8, 4)
    assert some == Aside(four.weights, one.weights, four.products * 8 / 11, 3 * one.weights, 4)
    assert found(100, 9)[1].shared == 6 * one.weights, "the dealer walks for four steps at once"
    assert found(8, 4, Llama(vocab_size=16, hidden_size=8, intermediate_size=8, layers=1, heads=1))[1] == Aside(steps=4)
    assert found(100, 1)[1] == Aside(found(100, 1)[0].weights)
    assert (
        found(8, 1, in_the_open(config))[1]
        == found(8, 1, Llama(vocab_size=16, hidden_size=8, intermediate_size=8, layers=1, heads=1))[1]
        == Aside()
    )


def test_a_dealer_draws_once_for_several_steps() -> None:
    cost, todo = small()
    more = replace(todo, weights=1e10)
    each, once = (Network.parse("lan").predict(cost, more, SPEED, Aside(shared=n)) for n in (0.0, 7.5e9))
    less = [a - b for a, b in zip(each["compute_seconds"], once["compute_seconds"], strict=True)]
    assert less == pytest.approx([1.5 * 2e-9 * 7.5e9, 0.0, 0.0])
    assert each["processor_seconds"][0] - once["processor_seconds"][0] == pytest.approx(2e-9 * 7.5e9)
    assert once["hidden_seconds"] == [0.0, 0.0, 0.0]


def test_a_machine_of_ones_own_computes_with_all_cores() -> None:
    cost, todo = small()
    many = replace(SPEED, cores=8, gains=(4.0, 2.0))
    one, eight = (Network.parse("lan").predict(cost, todo, each) for each in (SPEED, many))
    rounds, sent, weights, products = (a * b for a, b in zip(astuple(RATES), astuple(todo)))
    assert one["compute_seconds"][1] == pytest.approx(1.5 * (rounds + sent + weights + products))
    assert eight["compute_seconds"][1] == pytest.approx(1.5 * (rounds + sent / 2 + (weights + products) / 4))
    two = many.passed(todo, [0.0, 0.0, 0.0], 2)[1]
    assert eight["compute_seconds"][1] < two < one["compute_seconds"][1]


def test_a_slow_line_of_the_dealer_counts() -> None:
    cost, todo = small()
    slow = Network.parse("1us,1kbps").predict(cost, todo, SPEED)
    assert slow["seconds"] == pytest.approx(8 * cost.per_party[0] / 1e3)


@pytest.mark.parametrize(
    "text", ["moon", "", "1Gbps", "1Gbps,", "nan,1ms", "-1Gbps,1ms", "0Mbps,1ms", "1Gbps,1", "1ms,2ms"]
)
def test_unknown_networks(text: str) -> None:
    with pytest.raises(UsageError) as error:
        Network.parse(text)
    assert "lan, paper, wan" in error.value.hint


def test_impossible_requests() -> None:
    bert, gpt2 = preset("bert-base"), preset("gpt2")
    for config, prompt, tokens in ((bert, 0, None), (bert, 4, 1), (gpt2, 4, 0), (gpt2, -1, None)):
        with pytest.raises(UsageError):
            shaped(config, prompt, tokens)
    for batch in (0, -2):
        with pytest.raises(UsageError, match="a batch of"):
            shaped(gpt2, 4, 1, batch)
    with pytest.raises(InputError, match="make tensors of"):
        shaped(gpt2, 512, 1, 200)
    for config, prompt, tokens in ((bert, 513, None), (gpt2, 1020, 9)):
        with pytest.raises(InputError, match="context"):
            shaped(config, prompt, tokens)
