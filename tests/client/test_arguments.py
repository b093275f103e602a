"""Wrong arguments are told before anything is sent, and the session lives; numbers of other libraries are numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from puma import LocalCluster, connect
from puma.client import arguments
from puma.errors import PumaError, UsageError
from puma.local.cluster import Trio
from puma.reference.plain_model import PlainModel
from tests.models import tiny
from tests.threads import Threads

NOT_TEXT: list[Any] = [None, 5, 1.5, b"the cat", [b"the"], [None], ["the cat", 3], object(), [["the"]], True]
NOT_COUNT: list[Any] = [None, "4", 1.5, [4], np.float64(4), np.array([1, 2]), torch.tensor(1.5), object(), b"4", True]
NOT_NUMBER: list[Any] = ["1", b"1", [1.0], np.array([1.0, 2.0]), object(), float("nan"), float("inf"), 10**400, True]

Call = Callable[[Any, Any], Any]

DECODER: dict[str, tuple[Call, list[Any]]] = {
    "generate prompt": (lambda c, x: c.generate(x, 1), NOT_TEXT),
    "generate no prompts": (lambda c, x: c.generate(x, 1), [[], (), {}]),
    "generate tokens": (lambda c, x: c.generate("the cat", x), [*NOT_COUNT, 0, -1, 10**30]),
    "generate stop": (lambda c, x: c.generate("the cat", 1, stop=x), ["end", b"eos", 2, ["eos"]]),
    "stream prompt": (lambda c, x: c.stream(x, 1), [*NOT_TEXT, ["the cat"]]),
    "stream tokens": (lambda c, x: c.stream("the cat", x), [*NOT_COUNT, 0, -1]),
    "stream stop": (lambda c, x: c.stream("the cat", 1, stop=x), ["end", b"eos", 2]),
    "stream_ids ids": (lambda c, x: c.stream_ids(x, 1), [None, 5, "the", b"ab", [None], ["5"], [1.5], [-1], []]),
    "stream_ids tokens": (lambda c, x: c.stream_ids([5], x), [*NOT_COUNT, 0]),
    "temperature": (lambda c, x: c.generate("the cat", 1, temperature=x), [*NOT_NUMBER, -1.0, 1e-9]),
    "stream temperature": (lambda c, x: c.stream("the cat", 1, temperature=x), NOT_NUMBER),
    "top_k": (lambda c, x: c.generate("the cat", 1, top_k=x), [*NOT_COUNT[1:], -1]),
    "top_p": (lambda c, x: c.generate("the cat", 1, top_p=x), [*NOT_NUMBER, 0.0, 1.5]),
    "seed": (lambda c, x: c.generate("the cat", 1, seed=x), NOT_COUNT[1:]),
    "unknown": (lambda c, x: c.generate("the cat", 1, **{x: 1}), ["heat", "tempreature"]),
    "search prompt": (lambda c, x: c.search(x, 2, 2), [*NOT_TEXT, ["the cat"]]),
    "search tokens": (lambda c, x: c.search("the cat", x, 2), [*NOT_COUNT, 0]),
    "search beams": (lambda c, x: c.search("the cat", 2, x), [*NOT_COUNT, 0, 1, 1000]),
    "search penalty": (lambda c, x: c.search("the cat", 2, 2, x), [*NOT_NUMBER, None, 1e9]),
    "search progress": (lambda c, x: c.search("the cat", 2, 2, progress=x), [5, "say"]),
    "prepare": (lambda c, x: c.prepare(x, 1), [*NOT_COUNT, 0]),
    "prepare tokens": (lambda c, x: c.prepare(2, x), [*NOT_COUNT[1:], 0]),
    "prepare batch": (lambda c, x: c.prepare(2, 1, x), [*NOT_COUNT, 0]),
    "decode": (lambda c, x: c.decode(x), [None, 5, "the", b"ab", [None], [-1], [10**6], [2**70]]),
    "encode": (lambda c, x: c.encode(x), ["the cat", None]),
    "draft": (lambda c, x: c.generate("the cat", 1, draft=x), [5, b"lookup", "", True, object()]),
    "begin": (lambda c, x: c.generate("the cat", 1, begin=x), [5, None, b"de", "de"]),
    "transcribe": (lambda c, x: c.transcribe(x, "en"), [None, 5, "sound.wav", b"RIFF"]),
}
ENCODER: dict[str, tuple[Call, list[Any]]] = {
    "encode": (lambda c, x: c.encode(x), NOT_TEXT),
    "encode tuples": (lambda c, x: c.encode(x), [("the",), ("the", "cat", "sat"), ("the", 3), [("the", None)], ()]),
    "encode nothing": (lambda c, x: c.encode(x), [[], "", " "]),
    "encode lengths": (lambda c, x: c.encode("the cat", x), [None, 5, b"secret", "hidden", ["secret"]]),
    "encode padded": (lambda c, x: c.encode("the cat", "secret", x), [*NOT_COUNT, -1, 10**9]),
    "fill": (lambda c, x: c.fill(x), [*NOT_TEXT, ["[MASK]"]]),
    "fill top": (lambda c, x: c.fill("the [MASK]", x), [*NOT_COUNT, 0, 65]),
    "fill lengths": (lambda c, x: c.fill("the [MASK]", 1, x), [None, "hidden"]),
    "generate": (lambda c, x: c.generate(x, 1), ["the cat", None]),
    "stream": (lambda c, x: c.stream(x, 1), ["the cat", None]),
    "rank": (lambda c, x: c.rank("the", x), [None, 5, ["the cat"]]),
    "classify": (lambda c, x: c.classify(x), [None, 5, "the cat"]),
    "answer": (lambda c, x: c.answer("the", x), [None, 5, "the cat"]),
    "prompt name": (lambda c, x: c.encode("the cat", prompt_name=x), [5, b"query", "nothing"]),
    "truncate": (lambda c, x: c.encode("the cat", truncate=x), [None, 1, "yes"]),
    "dimensions": (lambda c, x: c.encode("the cat", dimensions=x), [*NOT_COUNT[1:], 0, 10**6]),
    "normalize": (lambda c, x: c.encode("the cat", normalize=x), [1, "yes"]),
}
CLUSTER: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {
    "source": (lambda x: LocalCluster(x), [5, b"folder", ["a"], "", object()]),
    "progress": (lambda x: LocalCluster(None, x), [5, "say"]),
    "trio": (lambda x: LocalCluster(None, trio=x), [5, "three"]),
    "store": (lambda x: LocalCluster(None, store=x), [5, b"folder", ["a"]]),
    "reveal_logits": (lambda x: LocalCluster(None, reveal_logits=x), [None, 1, "yes"]),
    "approximation": (lambda x: LocalCluster(None, approximation=x), [5, "exact", ["puma"]]),
    "adapter": (lambda x: LocalCluster(None, adapter=x), [5, b"folder", ""]),
    "plan": (lambda x: LocalCluster(None, plan=x), [5, "quick", {}]),
    "weights": (lambda x: LocalCluster(None, weights=x), [None, 5, "public"]),
    "threads": (lambda x: LocalCluster(None, threads=x), [0, -1, "2", 1.5, 10**6]),
    "variants": (lambda x: LocalCluster(None, variants=x), [None, 5, "fast"]),
    "trio approximation": (lambda x: Trio(approximation=x), [None, "exact", {}]),
    "trio store": (lambda x: Trio(store=x), [5, b"folder"]),
    "connect cluster": (lambda x: connect(x), [None, 5, b"cluster.toml", ["cluster.toml"]]),
    "connect model": (lambda x: connect("cluster.toml", x), [None, 5, b"m"]),
    "connect key": (lambda x: connect("cluster.toml", key=x), [None, 5, b"key"]),
    "connect plain": (lambda x: connect("cluster.toml", plain=x), [None, 1, "yes"]),
    "connect approximation": (lambda x: connect("cluster.toml", approximation=x), [None, "exact", []]),
    "connect prepared": (lambda x: connect("cluster.toml", prepared_requests=x), [5, b"folder"]),
    "connect variants": (lambda x: connect("cluster.toml", variants=x), [5, "fast"]),
    "connect tokenizer": (lambda x: connect("cluster.toml", tokenizer=x), [5, b"folder", ""]),
    "connect accept_changes": (lambda x: connect("cluster.toml", accept_changes=x), [None, 1, "yes"]),
    "connect audited": (lambda x: connect("cluster.toml", audited=x), [None, 1, "yes"]),
}


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with Threads() as trio:
        clear = PlainModel(tiny.llama(tmp_path_factory.mktemp("llama"), num_hidden_layers=1))
        yield LocalCluster(clear, trio=trio, reveal_logits=True)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with Threads() as trio:
        clear = PlainModel(tiny.bert(tmp_path_factory.mktemp("bert"), num_hidden_layers=1))
        yield LocalCluster(clear, trio=trio)  # type: ignore[arg-type]


def test_a_tuple_is_a_pair_and_a_list_is_several(encoder: Any) -> None:
    pair = encoder.model.sentence_ids("the cat", "a dog sat")
    assert pair.ids == [3, 5, 7, 4, 6, 8, 9, 4] and pair.types == [0, 0, 0, 0, 1, 1, 1, 1]
    expected = encoder.model.encoded(pair)
    together = encoder.encode(("the cat", "a dog sat"))
    alone, paired = encoder.encode(["the cat", ("the cat", "a dog sat")])
    assert_close(together.values.float(), expected.float(), atol=2e-2, rtol=0)
    assert_close(paired.values.float(), expected.float(), atol=2e-2, rtol=0)
    assert (alone.values - together.values).abs().max() > 0.05


def refused(cluster: Any, call: Call, wrong: list[Any]) -> None:
    """Each is a UsageError, or an error of the store that is missing; nothing has left, and the session lives."""
    before = [link.sent_bytes for link in cluster.session.links]
    for argument in wrong:
        with pytest.raises(PumaError) as failure:
            call(cluster, argument)
        assert isinstance(failure.value, UsageError), (argument, failure.value)
        assert failure.value.hint
    assert [link.sent_bytes for link in cluster.session.links] == before and not cluster.session.over


@pytest.mark.parametrize("name", DECODER)
def test_what_a_decoder_is_not_asked(name: str, decoder: Any) -> None:
    refused(decoder, *DECODER[name])


@pytest.mark.parametrize("name", ENCODER)
def test_what_an_encoder_is_not_asked(name: str, encoder: Any) -> None:
    refused(encoder, *ENCODER[name])


@pytest.mark.parametrize("name", CLUSTER)
def test_what_opens_no_cluster(name: str) -> None:
    call, wrong = CLUSTER[name]
    for argument in wrong:
        with pytest.raises(UsageError) as failure:
            call(argument)
        assert failure.value.hint


def test_the_sessions_live_and_answer(decoder: Any, encoder: Any) -> None:
    clear = decoder.model
    assert decoder.generate("the cat", 2).token_ids == clear.greedy(clear.prompt_ids("the cat", 2), 2)
    assert encoder.encode("the cat").values.shape == (24,)


@pytest.mark.parametrize("two", [np.int64(2), np.uint8(2), torch.tensor(2)])
def test_numbers_of_other_libraries_are_numbers(two: Any, decoder: Any) -> None:
    clear = decoder.model
    wanted = clear.greedy(clear.prompt_ids("the cat", 2), 2)
    assert decoder.generate("the cat", two).token_ids == wanted
    assert list(decoder.stream("the cat", two)) == wanted
    ids = np.array(clear.prompt_ids("the cat", 2))
    assert list(decoder.stream_ids(ids, two)) == wanted
    assert decoder.decode(torch.tensor(wanted)) == decoder.decode(wanted)
    warm = np.float32(0.5) if isinstance(two, np.generic) else torch.tensor(0.5)
    assert len(decoder.generate("the cat", two, temperature=warm, seed=two, top_k=two).token_ids) == 2


def test_a_secret_is_not_part_of_an_error() -> None:
    with pytest.raises(UsageError) as failure:
        arguments.count("my secret", "tokens")
    assert "my secret" not in str(failure.value)


def test_paths_are_paths(tmp_path: Path) -> None:
    assert arguments.path_like(tmp_path, "a folder") == str(tmp_path)
    for wrong in ("", "a\0b", b"a", 5, None):
        with pytest.raises(UsageError):
            arguments.path_like(wrong, "a folder")


def test_the_plan_of_distant_parties() -> None:
    """By their network unless one is named; an audited session asks nobody how that is, as no canary does."""
    assert [arguments.distant(None, audited) for audited in (False, True)] == ["auto", "lean"]
    assert arguments.distant("quick", True) == "quick" and arguments.distant("auto", False) == "auto"
    for wrong, audited in (("auto", True), ("fast", False), (5, False)):
        with pytest.raises(UsageError):
            arguments.distant(wrong, audited)
