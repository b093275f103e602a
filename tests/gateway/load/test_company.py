"""Askers go through the parties in company, each in a session of its own, and none is hurt by another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from puma.gateway.answers import Row
from tests.gateway.conftest import Served, openai, serving, until
from tests.models import tiny

ASKED = {"model": "tiny", "prompt": "the cat", "max_tokens": 300, "temperature": 0}


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway whose answers may take long."""
    folder = tiny.llama(tmp_path_factory.mktemp("together"), num_hidden_layers=1, max_position_embeddings=512)
    with serving(folder, most=400, waiting=8) as found:
        yield found


@pytest.fixture
def held(long: Served) -> Iterator[Any]:
    """A long answer under way, of which the first piece has come."""
    with long.client.completions.create(**ASKED, stream=True) as stream:
        next(iter(stream))
        yield stream
    until(lambda: long.gateway.worker.queued == 0)


def text(long: Served, prompt: str, tokens: int) -> str:
    """What the model says in the clear."""
    ids = long.clear.prompt_ids(prompt, tokens)
    found = long.clear.decode([*ids, *long.clear.greedy(ids, tokens)])
    return found.removeprefix(long.clear.decode(ids))


def test_late_ones_join_and_end_before(long: Served, held: Any) -> None:
    """They need not wait for the long answer, and get what they would get alone."""
    wanted = [("the dog", 5), ("a big cat sat on the mat", 9), ("it", 3)]

    def ask(prompt: str, tokens: int) -> Any:
        return long.client.completions.create(**ASKED | {"prompt": prompt, "max_tokens": tokens})

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda each: ask(*each), wanted))
    assert [answer.choices[0].text for answer in found] == [text(long, *each) for each in wanted]
    watch = long.gateway.watches.of(found[0]._request_id)
    assert watch.state == "done" and watch.cost is not None
    assert long.gateway.worker.queued == 1 and len(long.clusters) == 1
    sessions = long.clusters[0]._sessions  # of threads that ask the cluster itself: those that have a seat do not
    assert sessions.all() == [sessions.first]


def test_drafts_bring_several_tokens_of_the_same_answers(tmp_path: Path) -> None:
    """Whole and streamed, with probabilities, and beside others; stop strings end them as ever."""
    folder = tiny.llama(tmp_path, num_hidden_layers=1, max_position_embeddings=128)
    with serving(folder, reveal=True, most=60, waiting=8, draft="lookup") as found:

        def ask(prompt: str, **more: Any) -> Any:
            return found.client.completions.create(**ASKED | {"prompt": prompt, "max_tokens": 20} | more)

        prompts = ["the cat sat on the cat sat on", "a dog", "it was it was it was"]
        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(ask, prompts))
        assert [answer.choices[0].text for answer in answers] == [text(found, prompt, 20) for prompt in prompts]
        streamed = [piece.choices[0].text for piece in ask(prompts[0], stream=True)]
        assert "".join(streamed) == answers[0].choices[0].text
        watch = found.gateway.watches.of(answers[0]._request_id)
        until(lambda: watch.cost)
        assert watch.report()["cost"]["drafts"]["accepted"] > 0
        noted = ask(prompts[0], logprobs=1).choices[0].logprobs
        assert len(noted.tokens) == len(noted.token_logprobs) == 20 and max(noted.token_logprobs) <= 0
        stop = text(found, prompts[0], 20).split()[4]
        ended = ask(prompts[0], stop=[stop])
        assert ended.choices[0].finish_reason == "stop" and stop not in ended.choices[0].text


def test_who_leaves_stops_nobody_else(long: Served, held: Any) -> None:
    other = long.client.completions.create(**ASKED, stream=True)
    next(iter(other))
    until(lambda: long.gateway.worker.queued == 2)
    other.close()
    until(lambda: long.gateway.worker.queued == 1)
    assert long.client.completions.create(**ASKED | {"max_tokens": 2}).usage.completion_tokens == 2
    assert next(iter(held)).choices[0].text is not None


def test_an_error_of_ones_own_is_heard_by_nobody_else(long: Served, held: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[[Row, int], str] = Row.add

    def failing(row: Row, token: int) -> str:
        if row.most == 7:
            raise ValueError("a letter that is none")
        return real(row, token)

    monkeypatch.setattr(Row, "add", failing)
    with pytest.raises(openai.APIStatusError):
        long.client.completions.create(**ASKED | {"max_tokens": 7})
    with pytest.raises(openai.APIStatusError) as refused:
        long.client.completions.create(**ASKED, logprobs=2)
    assert "logits" in refused.value.message
    assert next(iter(held)).choices[0].text is not None and len(long.clusters) == 1


def test_tokens_chosen_by_the_client(tmp_path: Path) -> None:
    """With logits, each asker has its own sampler."""
    folder = tiny.llama(tmp_path, num_hidden_layers=1, max_position_embeddings=512)
    with serving(folder, reveal=True, most=400) as found:
        with found.client.completions.create(**ASKED | {"temperature": 1, "seed": 5}, stream=True) as held:
            next(iter(held))
            seeded = [ASKED | {"temperature": 1, "seed": s, "max_tokens": 8, "logprobs": 1} for s in (3, 4, 6)]
            beside = [found.client.completions.create(**each) for each in seeded]
            assert found.gateway.worker.sessions >= 2
        until(lambda: found.gateway.worker.queued == 0)
        alone = [found.client.completions.create(**each) for each in seeded]
    # A draw that falls between two tokens may be rounded to either; another's sampler would change all of them.
    assert sum(a.choices[0].text == b.choices[0].text for a, b in zip(beside, alone, strict=True)) >= 2
    assert len(beside[0].choices[0].logprobs.tokens) == 8
