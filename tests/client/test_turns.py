"""Requests of one session come one after the other, from whatever threads; streams, forks and interrupts included."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from puma import LocalCluster
from puma.client.client import AHEAD
from puma.client.turns import Turns
from puma.errors import ProtocolError, UsageError
from puma.reference.plain_model import PlainModel
from tests.models import tiny
from tests.threads import Threads
from tests.watch import streams_begun

PROMPTS = ["the cat", "a dog ran", "it was red", "they went home"]


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    return PlainModel(tiny.llama(tmp_path_factory.mktemp("llama"), num_hidden_layers=1))


@pytest.fixture
def cluster(clear: PlainModel) -> Iterator[Any]:
    with Threads() as trio:
        yield LocalCluster(clear, trio=trio)  # type: ignore[arg-type]


def plain(clear: PlainModel, prompt: str, tokens: int) -> list[int]:
    return clear.greedy(clear.prompt_ids(prompt, tokens), tokens)


@pytest.mark.parametrize("threads", [2, 4])
def test_threads_ask_one_decoder(
    threads: int, clear: PlainModel, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right answers, whole or as streams, and no stream of masks begins twice."""
    begun = streams_begun(monkeypatch)

    def ask(i: int) -> None:
        for prompt in (PROMPTS[i], PROMPTS[-1 - i]):
            assert cluster.generate(prompt, 2).token_ids == plain(clear, prompt, 2)
            assert list(cluster.stream(prompt, 3)) == plain(clear, prompt, 3)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(ask, range(threads)))
    assert len(begun) > 40 and len(set(begun)) == len(begun)


@pytest.mark.parametrize("threads", [2, 4])
def test_threads_ask_one_encoder(threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Threads, "another", None)  # all threads share the first session
    clear = PlainModel(tiny.bert(tmp_path, num_hidden_layers=1))
    with Threads() as trio, ThreadPoolExecutor(threads) as pool:
        cluster = LocalCluster(clear, trio=trio)  # type: ignore[arg-type]
        texts = PROMPTS[:threads] * 2
        for text, found in zip(texts, pool.map(cluster.encode, texts), strict=True):
            torch.testing.assert_close(found.values, clear.encoded(clear.sentence_ids(text)), atol=0.01, rtol=0)


def test_others_wait_for_an_open_stream(clear: PlainModel, cluster: Any) -> None:
    stream = cluster.stream("the cat", 3)
    found = [next(stream)]
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(cluster.generate, "a dog ran", 1)
        found += [*stream]
        assert other.result().token_ids == plain(clear, "a dog ran", 1)
    assert found == plain(clear, "the cat", 3)


def test_nobody_waits_for_ever_for_a_stream_that_is_not_read(
    clear: PlainModel, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Threads, "another", None)  # then all threads share the first session
    cluster.session.turns = Turns(patience=0.1)
    stream = cluster.stream("the cat", 3)
    first = next(stream)
    with ThreadPoolExecutor(1) as pool, pytest.raises(UsageError, match="another thread has a stream open"):
        pool.submit(cluster.generate, "a dog ran", 1).result()
    assert [first, *stream] == plain(clear, "the cat", 3)


def close(stream: Any) -> None:
    stream.close()


def forget(stream: Any) -> None:
    del stream
    gc.collect()


def fail(stream: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        for token in stream:
            token / 0


def leave(stream: Any) -> None:
    for _ in stream:
        break


@pytest.mark.parametrize("go", [close, forget, fail, leave])
def test_a_stream_that_is_left_ends_at_the_parties(
    go: Callable[[Any], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever leaves after one or two tokens of two hundred has the parties compute no more than they are ahead."""
    clear = PlainModel(tiny.llama(tmp_path, num_hidden_layers=1, max_position_embeddings=256))
    with Threads() as trio:
        cluster = LocalCluster(clear, trio=trio)  # type: ignore[arg-type]
        sent: list[int] = []
        emit = trio.servers[1]._emit
        monkeypatch.setattr(trio.servers[1], "_emit", lambda share: (sent.append(share), emit(share)))
        stream = cluster.stream("the cat", 200)
        next(stream)
        held = [stream]
        del stream
        go(held.pop())
        assert cluster.generate("a dog ran", 1).token_ids == plain(clear, "a dog ran", 1)
        assert len(sent) <= 2 * (2 + AHEAD + 1 + 1)  # each token with its flag


def test_what_is_left_counts_only_what_came(clear: PlainModel, cluster: Any) -> None:
    stream = cluster.stream("the cat", 20)
    next(stream)
    stream.close()
    some = cluster.cost.rounds
    cluster.generate("the cat", 20)
    assert some < cluster.cost.rounds / 2


def test_a_request_within_another_is_refused(clear: PlainModel) -> None:
    with Threads() as trio:
        cluster = LocalCluster(clear, trio=trio, reveal_logits=True)  # type: ignore[arg-type]
        refused = []

        def choose(logits: torch.Tensor) -> list[int]:
            with pytest.raises(UsageError, match="in the middle of another"):
                cluster.session.selftest()
            refused.append(1)
            return [int(row.argmax()) for row in logits]

        found = [new for (new,) in cluster.session.continued([clear.prompt_ids("the cat", 2)], 2, choose=choose)]
        assert found == plain(clear, "the cat", 2) and len(refused) == 2


def test_an_interrupt_ends_the_session_and_says_so(clear: PlainModel) -> None:
    trio = Threads()
    cluster = LocalCluster(clear, trio=trio)  # type: ignore[arg-type]
    link = trio.session.links[1]

    def interrupted() -> bytes:
        raise KeyboardInterrupt

    link.recv_control = interrupted
    with pytest.raises(KeyboardInterrupt):
        cluster.generate("the cat", 2)
    with pytest.raises(ProtocolError, match="has ended: KeyboardInterrupt came in the middle of a request"):
        cluster.generate("the cat", 2)
    trio.close()


def test_a_session_can_be_closed_while_a_thread_asks(clear: PlainModel) -> None:
    trio = Threads()
    cluster = LocalCluster(clear, trio=trio)  # type: ignore[arg-type]
    begun, raised = threading.Event(), []

    def ask() -> None:
        try:
            for _ in range(50):
                begun.set()
                cluster.generate("the cat", 20)
        except ProtocolError as error:
            raised.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    begun.wait(20)
    trio.close()
    thread.join(30)
    assert raised and not thread.is_alive()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # that it has threads is what is tested
def test_a_forked_process_is_refused_and_the_parent_goes_on(clear: PlainModel, cluster: Any) -> None:
    stream = cluster.stream("the cat", 3)
    first = next(stream)
    with ThreadPoolExecutor(1) as pool:
        held = cluster.session.turns._changed
        pool.submit(held.acquire).result()  # another thread is in the middle of something when the process forks
        child = os.fork()
        if child == 0:
            code = 1
            try:
                cluster.close()  # says nothing to anyone
                for ask in (lambda: cluster.generate("a dog ran", 1), lambda: next(stream), cluster.session.selftest):
                    with pytest.raises(UsageError, match="forked"):
                        ask()
                del stream
                gc.collect()
                code = 0
            finally:
                os._exit(code)
        pool.submit(held.release).result()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [first, *stream] == plain(clear, "the cat", 3)
    assert cluster.generate("a dog ran", 1).token_ids == plain(clear, "a dog ran", 1)
