"""A gateway under load: many streams at once, limits by key, what is kept of chats, numbers, and an end in grace."""

from __future__ import annotations

import http.client
import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from puma.errors import AdmissionError
from puma.gateway.load.keys import Key, Keys, digest
from tests.gateway.conftest import Served, openai, serving, until
from tests.models import tiny

ASKED: dict[str, Any] = {"model": "tiny", "prompt": "the cat", "max_tokens": 6, "temperature": 0}
CHAT: dict[str, Any] = {"model": "tiny", "temperature": 0, "max_tokens": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("load"), num_hidden_layers=1, max_position_embeddings=512)


@pytest.fixture(scope="module")
def open_to_all(folder: Path) -> Iterator[Served]:
    with serving(folder, most=400, together=8, waiting=64) as found:
        yield found


def get(served: Served, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def text(served: Served, prompt: str, tokens: int) -> str:
    """What the model says in the clear."""
    ids = served.clear.prompt_ids(prompt, tokens)
    return served.clear.decode([*ids, *served.clear.greedy(ids, tokens)]).removeprefix(served.clear.decode(ids))


def numbers(served: Served) -> dict[str, float]:
    lines = [line for line in get(served, "/metrics")[1].splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_many_streams_and_none_starved(open_to_all: Served) -> None:
    """More than there are sessions: each is answered, as it would be alone, and long ones hold nobody up."""
    words = ["the cat", "a dog", "the dog sat", "it", "a big red hat"]
    wanted = {word: text(open_to_all, word, 6) for word in words}

    def ask(i: int) -> tuple[str, float]:
        asked = ASKED | {"prompt": words[i % 5], "max_tokens": 6}
        pieces = [p.choices[0].text for p in open_to_all.client.completions.create(**asked, stream=True)]
        return "".join(pieces), time.monotonic()

    with open_to_all.client.completions.create(**ASKED | {"max_tokens": 400}, stream=True) as long:
        next(iter(long))
        with ThreadPoolExecutor(24) as pool:
            found = list(pool.map(ask, range(24)))
        assert next(iter(long)).choices
    assert [answer for answer, _ in found] == [wanted[words[i % 5]] for i in range(24)]
    assert open_to_all.gateway.worker.sessions <= 8 and len(open_to_all.clusters) == 1
    seen = numbers(open_to_all)
    assert seen['puma_gateway_requests_total{path="/v1/completions",status="200"}'] >= 25
    assert seen["puma_gateway_first_token_seconds_count"] >= 25 and seen["puma_gateway_batch_size_sum"] > 25
    assert seen['puma_gateway_tokens_total{kind="new"}'] >= 24 * 6 and seen["puma_gateway_rounds_total"] > 0
    assert seen["puma_gateway_bytes_total"] > 0 and seen["puma_gateway_draining"] == 0


def test_a_chat_pays_for_its_new_tokens_only(open_to_all: Served) -> None:
    said = [{"role": "user", "content": "the cat sat on the mat and the dog ran to the big red house one day"}]
    first = open_to_all.client.chat.completions.create(messages=said, **CHAT)
    said += [{"role": "assistant", "content": first.choices[0].message.content}, {"role": "user", "content": "a dog"}]
    again = open_to_all.client.chat.completions.create(messages=said, **CHAT)
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    cached = again.usage.prompt_tokens_details.cached_tokens
    assert cached >= first.usage.prompt_tokens - 1 and cached < again.usage.prompt_tokens
    assert numbers(open_to_all)['puma_gateway_tokens_total{kind="cached"}'] == cached
    alone = open_to_all.client.completions.create(  # a completion keeps nothing, and answers the same
        **ASKED | {"prompt": "\n".join(m["content"] for m in said), "max_tokens": 4}
    )
    assert again.choices[0].message.content == alone.choices[0].text
    watch = open_to_all.gateway.watches.of(again._request_id)
    assert watch.cached == cached and watch.report()["cached"] == cached


@pytest.fixture(scope="module")
def keyed(folder: Path) -> Iterator[Served]:
    keys = {
        digest(f"sk-{name}-00"): Key(name, requests, tokens)
        for name, requests, tokens in (("alice", 0, 0), ("bob", 0, 40), ("carol", 2, 0), ("dora", 0, 0))
    }
    with serving(folder, keys=Keys(keys), api_key="sk-alice-00", most=400, together=1, waiting=3) as found:
        yield found


def who(served: Served, name: str) -> Any:
    return served.client.with_options(api_key=f"sk-{name}-00", max_retries=0)


def test_without_a_key_nobody_is_answered(keyed: Served) -> None:
    for path, status in (("/v1/models", 401), ("/health", 200), ("/metrics", 200), ("/", 200)):
        assert get(keyed, path)[0] == status
    with pytest.raises(openai.AuthenticationError) as refused:
        who(keyed, "mallory").models.list()
    assert refused.value.code == "invalid_api_key" and refused.value.type == "invalid_request_error"
    assert [model.id for model in keyed.client.models.list()] == ["tiny"]
    with pytest.raises(openai.AuthenticationError):
        who(keyed, "mallory").completions.create(**ASKED)


def test_limits_of_a_key(keyed: Served) -> None:
    with pytest.raises(openai.BadRequestError) as never:
        who(keyed, "bob").completions.create(**ASKED | {"max_tokens": 100})
    assert never.value.code == "tokens_exceeded"
    with who(keyed, "bob").completions.create(**ASKED | {"max_tokens": 30}, stream=True) as stream:
        next(iter(stream))
        with pytest.raises(openai.RateLimitError) as refused:
            who(keyed, "bob").completions.create(**ASKED | {"max_tokens": 30})
        assert refused.value.type == "tokens" and refused.value.response.headers["retry-after"]
    until(lambda: keyed.gateway.worker.queued == 0)
    assert who(keyed, "bob").completions.create(**ASKED | {"max_tokens": 30}).usage.completion_tokens == 30
    for _ in range(2):
        who(keyed, "carol").completions.create(**ASKED | {"max_tokens": 1})
    with pytest.raises(openai.RateLimitError) as refused:
        who(keyed, "carol").completions.create(**ASKED | {"max_tokens": 1})
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 30
    assert refused.value.code == "rate_limit_exceeded"


def test_who_asks_much_keeps_nobody_waiting(keyed: Served) -> None:
    """Two of one key wait when another's comes: its turn is next but one."""
    order: list[str] = []

    def ask(name: str) -> None:
        who(keyed, name).completions.create(**ASKED | {"max_tokens": 2})
        order.append(name)

    with who(keyed, "alice").completions.create(**ASKED | {"max_tokens": 300}, stream=True) as held:
        next(iter(held))
        threads = []
        for i, name in enumerate(("alice", "alice", "dora")):
            threads.append(threading.Thread(target=ask, args=(name,)))
            threads[-1].start()
            until(lambda i=i: keyed.gateway.worker.queued == i + 2)
        with pytest.raises(openai.RateLimitError) as refused:
            who(keyed, "dora").completions.create(**ASKED)
        assert int(refused.value.response.headers["retry-after"]) >= 1
    for thread in threads:
        thread.join(30)
    assert order == ["alice", "dora", "alice"]


def test_what_is_kept_of_a_chat_is_its_keys(keyed: Served) -> None:
    said = [{"role": "user", "content": "the cat sat on the mat and the dog ran to the big red house"}]
    cached = [
        who(keyed, name).chat.completions.create(messages=said, **CHAT).usage.prompt_tokens_details.cached_tokens
        for name in ("alice", "dora", "alice")
    ]
    assert cached[:2] == [0, 0] and cached[2] > 8


def test_parties_that_let_no_more_in(folder: Path) -> None:
    """Requests wait for the sessions that there are."""
    with serving(folder, most=400, together=8) as found:
        found.client.completions.create(**ASKED)
        cluster, let_in = found.clusters[0], []
        real = cluster.another

        def another() -> Any:
            if let_in:
                raise AdmissionError("P0 refuses the session: it serves enough already", "try again later")
            let_in.append(1)
            return real()

        cluster.another = another
        with ThreadPoolExecutor(5) as pool:
            answers = list(pool.map(lambda _: found.client.completions.create(**ASKED).choices[0].text, range(5)))
        assert answers == [text(found, "the cat", 6)] * 5
        assert 1 <= found.gateway.worker.sessions <= 2 and found.gateway.worker.state == "ready"


def test_answers_under_way_come_to_their_end(folder: Path) -> None:
    """Told to stop, the gateway answers who was there before, and nobody else."""
    with serving(folder, most=400, together=2, drain=20.0) as found:
        connection = http.client.HTTPConnection("127.0.0.1", found.port, timeout=30)
        connection.request("GET", "/health")
        assert json.loads(connection.getresponse().read())["status"] == "idle"
        stream = iter(found.client.completions.create(**ASKED | {"max_tokens": 25}, stream=True))
        pieces = [next(stream).choices[0].text]
        server = found.server
        server.handle_exit(signal.SIGTERM, None)
        pieces += [piece.choices[0].text for piece in stream]
        assert "".join(pieces) == text(found, "the cat", 25)
        until(lambda: not server.started or found.gateway.worker._closed, 20)
        with pytest.raises(openai.APIConnectionError):
            found.client.completions.create(**ASKED)
        connection.close()


def test_while_it_drains_nobody_begins(folder: Path) -> None:
    with serving(folder) as found:
        found.gateway.draining = True
        with pytest.raises(openai.InternalServerError) as refused:
            found.client.completions.create(**ASKED)
        assert refused.value.status_code == 503 and refused.value.code == "draining"
        assert refused.value.response.headers["retry-after"]
        status, body = get(found, "/health")
        assert status == 503 and json.loads(body)["status"] == "draining"
        assert numbers(found)["puma_gateway_draining"] == 1
