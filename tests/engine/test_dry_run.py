"""What is counted of a few layers and a few steps at one evaluator is what all of it costs everybody, to the byte."""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import Any

import msgspec
import pytest

from puma.engine import dry_run as dry
from puma.engine import series
from puma.engine.engine import Engine, answered, spent
from puma.engine.generation import Turn, hidden_flags, on, run
from puma.models import in_the_open, with_layers
from puma.models.architectures.decoder.config import Delta
from puma.models.config import T5, Bert, Gpt2, Llama, ModernBert, Rope, Vit
from puma.models.formats import Formats
from puma.models.presets import preset
from puma.mpc.compare import maximum_cost
from puma.mpc.cost import Entry, Size, Words
from puma.mpc.party import Party
from puma.mpc.recall import MAXIMA, Call, Event
from puma.nn import delta
from puma.nn.variants import QUICK
from puma.wire.inputs import imagined
from puma.wire.messages import Encode, Generate, Input, Spent
from puma.wire.parameters import tensor_specs

LLAMA = Llama(vocab_size=100, hidden_size=12, intermediate_size=20, layers=5, heads=3, kv_heads=1, context=4096)
GEMMA = Llama(
    vocab_size=90, hidden_size=12, intermediate_size=20, layers=5, heads=3, kv_heads=1, window=11, full_every=3,
    local_rope=Rope(), attention_cap=30.0, post_norms=True, head_norms=True, activation="gelu_tanh",
)  # fmt: skip
SINKS = Llama(vocab_size=40, hidden_size=12, intermediate_size=9, layers=2, heads=3, kv_heads=1, sinks=True, window=20)
GPT2 = Gpt2(vocab_size=70, width=15, layers=4, heads=3)
BERT = Bert(vocab_size=60, hidden_size=12, intermediate_size=20, layers=5, heads=3)
SEQ = T5(vocab_size=50, hidden_size=12, head_dim=3, intermediate_size=9, layers=4, encoder_layers=4, heads=3)
UNLIKE = T5(vocab_size=50, hidden_size=12, head_dim=3, intermediate_size=9, layers=2, encoder_layers=4, heads=3)
IMAGE = Vit(hidden_size=12, intermediate_size=20, layers=5, heads=3, image_size=8, patch_size=4, labels=("a", "b"))
PLACES = {"model.layers.1.mlp.gate_proj": 8, "model.layers.3.self_attn.v_proj": 7, "model.layers.2.input_layernorm": 9}
PLANNED = Llama(
    vocab_size=100, hidden_size=12, intermediate_size=20, layers=4, heads=3, formats=Formats(stream=12, places=PLACES)
)

MEMORY = Delta(key_heads=1, value_heads=2, key_size=4, value_size=3)
RECURRENT = Llama(
    vocab_size=40, hidden_size=12, intermediate_size=9, heads=3, kv_heads=1, layers=4, delta=MEMORY, full=(3,),
    output_gate=True, context=4096,
)  # fmt: skip


def in_full(config: Any, job: Generate | Encode) -> list[dict[str, tuple[int, int, int]]]:
    """Every layer and every step of the dealer and of an evaluator, with nothing remembered."""
    dealer, first = (_counts(_party(rank, config, job)) for rank in (0, 1))
    return [dealer, first, first]


def _party(rank: int, config: Any, job: Generate | Encode) -> list[Spent]:
    party = Party(rank)
    party.approximation = job.input.approximation
    params = {t.name: dry._parameter(party, config, t) for t in tensor_specs(config)}
    steps = count(1)

    def chosen(requests: Any) -> Turn:
        fed, hidden = sum(r.beams * len(r.owed) for r in requests), hidden_flags(job, next(steps))  # type: ignore[arg-type]
        return Turn(given=imagined(config, party, Input([1] * fed, [], padded=bool(hidden)), hidden))

    word = chosen if isinstance(job, Generate) and job.reveal else on
    run(Engine(party, config, params), job, imagined(config, party, job.input), partial(answered, party), word=word)
    return spent(party)


def _counts(spent: list[Spent]) -> dict[str, tuple[int, int, int]]:
    found = {s.name: (s.rounds, s.online, s.offline) for s in spent}
    return {name: each for name, each in found.items() if any(each)}


@pytest.mark.parametrize(
    ("config", "job"),
    [
        (LLAMA, Generate(Input([7], []), 1)),
        (LLAMA, Generate(Input([16], []), 8)),
        (LLAMA, Generate(Input([254], []), 5)),
        (LLAMA, Generate(Input([9, 3, 5], []), 5)),
        (LLAMA, Generate(Input([17], []), 6, temperature=0.8)),
        (LLAMA, Generate(Input([17], []), 6, reveal=True)),
        (LLAMA, Generate(Input([33, 33], [], padded=True), 6)),
        (LLAMA, Generate(Input([17], [], approximation="puma"), 6)),
        (LLAMA, Generate(Input([17], [], approximation="mpcformer"), 6)),
        (LLAMA, Generate(Input([6], []), 4, reveal=True, beams=3)),
        (LLAMA, Encode(Input([9, 4], []), "hidden")),
        (LLAMA, Encode(Input([9, 4], []), "next-logits")),
        (LLAMA, Generate(Input([109], [], quick=QUICK), 7)),
        (GEMMA, Generate(Input([8], []), 7)),
        (GEMMA, Generate(Input([22], [], quick=QUICK), 6)),
        (LLAMA, Generate(Input([30, 44], [], quick=QUICK), 12)),
        (SEQ, Generate(Input([9, 2], [], quick=QUICK), 7)),
        (SINKS, Generate(Input([17, 14], []), 9)),
        (GPT2, Generate(Input([18], []), 9)),
        (BERT, Encode(Input([9, 30], []), "pooled")),
        (BERT, Encode(Input([16, 16], [], padded=True), "hidden")),
        (SEQ, Generate(Input([9], []), 7)),
        (UNLIKE, Generate(Input([9, 2], []), 5)),
        (SEQ, Encode(Input([9], []), "hidden")),
        (IMAGE, Encode(Input([5], []), "logits")),
        (PLANNED, Generate(Input([20], []), 5)),
        (RECURRENT, Generate(Input([270], []), 1)),
        (RECURRENT, Generate(Input([130, 63], []), 4)),
        (RECURRENT, Generate(Input([60], []), 9)),
        (in_the_open(LLAMA), Generate(Input([9, 3, 5], []), 5)),
        (in_the_open(LLAMA), Generate(Input([6], []), 4, reveal=True, beams=3)),
        (in_the_open(PLANNED), Generate(Input([20], []), 5)),
        (in_the_open(BERT), Encode(Input([16, 16], [], padded=True), "hidden")),
        (in_the_open(SEQ), Generate(Input([9], []), 7)),
    ],
)
def test_a_few_layers_and_steps_tell_of_all(config: Any, job: Any) -> None:
    found = dry.counted(config, job)
    assert [_counts(each) for each in found.whole] == in_full(config, job)
    one = msgspec.structs.replace(job, tokens=1) if isinstance(job, Generate) else job
    assert [_counts(each) for each in found.first] == in_full(config, one)


ENCODED: dict[str, Any] = {"vocab_size": 40, "hidden_size": 12, "intermediate_size": 9, "heads": 3}
SMALL: dict[str, Any] = ENCODED | {"kv_heads": 1}
PATTERNS: dict[str, Any] = {  # a config whose layers differ, and how many layers tell of it
    "windows": (msgspec.structs.replace(GEMMA, layers=11), (2, 5)),
    "a memory": (Llama(**SMALL, layers=11, delta=MEMORY, full=(3, 7), output_gate=True), (3, 7)),
    "no positions": (Llama(**SMALL, layers=8, unturned=(1, 3, 5, 7)), (2, 4)),
    "experts": (Llama(**SMALL, layers=9, experts=3, chosen=2, expert_size=4, dense=(0, 2, 4, 6, 8)), (3, 5)),
    "no order": (Llama(**SMALL, layers=7, window=4, full=(0, 1, 5)), None),
    "bidirectional": (ModernBert(**ENCODED, layers=11, window=3, full=(0, 3, 6, 9)), (2, 5)),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_of_layers_is_counted_once_and_twice(name: str) -> None:
    config, smaller = PATTERNS[name]
    assert dry._smaller(config) == smaller
    encodes = isinstance(config, ModernBert)
    job = Encode(Input([9, 4], []), "hidden") if encodes else Generate(Input([7], []), 3)
    assert [_counts(each) for each in dry.dry_run(config, job)] == in_full(config, job)


def messages(length: int, rows: int, *, skew: bool = False, late: int = 1 << 20) -> dict[Call, int]:
    """What a step sends at a row of so many entries: some that do not change, maxima, what grows evenly, and from some
    length on one more round."""
    call = Call()
    call.events.append(Event("norm", "round", (Words(77, 13),)))
    call.events.append(Event("attention", "dealt", (Words(rows * length, 7), Words(rows, 3, 2))))
    call.events.append(Event("attention", MAXIMA[length > 60], (Words(rows, 11), Words(length, 11))))
    if length >= late:
        call.events.append(Event("attention", "round", (Words(rows * length, 5), Words(rows, 1, 3))))
    if skew:
        call.events.append(Event("attention", "round", (Words(rows * -(-length // 2), 9),)))
    call.events.append(Event("head", "answer", (Words(5, 3, 2),)))
    return {call: 3}


@pytest.mark.parametrize("skew", [False, True])
@pytest.mark.parametrize(
    ("first", "count", "rows", "late", "most"),
    [(17, 1, 1, 99, 1), (18, 3, 3, 99, 3), (17, 40, 3, 99, 3), (99, 60, 300, 99, 3), (90, 300, 3, 134, 36)],
)
def test_steps_that_are_left_out_are_foretold(
    first: int, count: int, rows: int, late: int, most: int, skew: bool
) -> None:
    lengths = range(first, first + count)
    tried, expected = list[int](), series.Total.nothing()
    for length in lengths:
        expected.add(series.total(messages(length, rows, skew=skew, late=late)))
    trying = series.steps(lengths, [0] * count)
    step = next(trying)
    while True:
        tried.append(step)
        try:
            step = trying.send(messages(lengths[step], rows, skew=skew, late=late))
        except StopIteration as stop:
            assert stop.value == expected
            break
    assert len(set(tried)) == len(tried)
    assert len(tried) == count if skew else len(tried) <= most  # what grows in another way is tried at every length


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("rows", [1, 32, 300])
def test_maxima_are_told_by_their_sizes(rows: int, quick: bool) -> None:
    for entries in (1, 2, 3, 7, 8, 9, 16, 17, 50, 97, 290, 1001, 4007):
        event = Event("attention", MAXIMA[quick], (Words(rows, 29), Words(entries, 29)))
        found, expected = series.total({Call([event]): 1}), maximum_cost(Size((rows, entries), 29), quick=quick)
        evaluator, dealer = (side.get("attention", Entry()) for side in found)
        assert evaluator.rounds == evaluator.frames_online == expected.rounds
        assert (16 * evaluator.online, 8 * dealer.offline) == (expected.online, expected.offline)


def test_what_a_layer_adds_is_that_of_one_in_the_middle() -> None:
    config, job = with_layers(LLAMA, 9), Generate(Input([5], []), 1)
    nine, eight = (in_full(with_layers(config, n), job)[1]["attention"] for n in (9, 8))
    assert _counts(dry.dry_run(config, job)[1])["attention"] == nine
    assert nine[1] - eight[1] == eight[1] - in_full(with_layers(config, 7), job)[1]["attention"][1]


@pytest.mark.parametrize(
    ("sizes", "prompt", "tokens", "quick", "most"),
    [
        ("gpt2", 8, 1, (), 2),
        ("gpt2", 17, 100, (), 50),
        ("llama-7b", 1024, 1024, (), 30),
        ("gpt2", 128, 300, QUICK, 40),
        ("llama-3.1-8b", 7, 4000, QUICK, 140),
    ],
)
def test_few_steps_are_computed(
    sizes: str, prompt: int, tokens: int, quick: tuple[str, ...], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = list[object]()
    step = Engine.step
    monkeypatch.setattr(Engine, "step", lambda self, requests: (computed.append(1), step(self, requests)))
    dry.dry_run(preset(sizes), Generate(Input([prompt], [], quick=quick), tokens))
    assert len(computed) <= most


def test_few_pieces_of_a_prompt_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 63 that a layer with a memory reads: the first, one in the middle, and the last, which is shorter."""
    computed, secret = list[int](), delta._secret
    monkeypatch.setattr(delta, "_secret", lambda q, *rest: (computed.append(q.shape[2]), secret(q, *rest))[1])
    dry.dry_run(RECURRENT, Generate(Input([4000], []), 1))
    assert computed.count(delta.CHUNK) <= 3 and len(computed) <= 4
