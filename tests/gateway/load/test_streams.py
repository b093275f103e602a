"""Sixty-four streams at a time: each has its own answer at its own pace; who finds no room hears when to come again.

The parties are played by a clock here, which gives a token to everyone who is with them at each tick, as a step of
requests in company does; so what is seen is what the gateway does with so many.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from puma.errors import PeerLost
from puma.gateway.service import Gateway
from puma.gateway.settings import Settings
from puma.reference.plain_model import PlainModel
from tests.gateway.conftest import running, until

STREAMS, TOKENS, QUEUE = 64, 12, 4
WORDS = ["the cat", "a dog", "the dog sat", "it", "a big red hat"]


class Clock:
    """Ticks once everyone who is with the parties waits for a token, and nobody holds it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.ticks, self.most, self.held, self.pause = 0, 0, False, 0
        self._under_way = self._waiting = 0

    def enter(self) -> None:
        with self._changed:
            self._under_way += 1
            self.most = max(self.most, self._under_way)

    def leave(self) -> None:
        with self._changed:
            self._under_way -= 1
            self._tick()

    def wait(self) -> None:
        with self._changed:
            self._waiting += 1
            now = self.ticks
            self._tick()
            assert self._changed.wait_for(lambda: self.ticks > now, 30)

    def release(self) -> None:
        with self._changed:
            self.held = False
            self._tick()

    def _tick(self) -> None:
        if self._waiting and self._waiting == self._under_way and not self.held:
            self.ticks, self._waiting = self.ticks + 1, 0
            self.held = self.ticks == self.pause
            self._changed.notify_all()


class Played:
    """A session, and the cluster that it belongs to."""

    in_company, out_of_range, reveals, over = True, "refuse", False, False
    doubtful: Sequence[int] = ()
    cost, held = None, 0

    def __init__(self, model: PlainModel, clock: Clock, said: dict[tuple[int, ...], list[int]]) -> None:
        self.model, self._clock, self._said, self.links = model, clock, said, list[Any]()

    @property
    def session(self) -> Played:
        return self

    def another(self) -> Played:
        return Played(self.model, self._clock, self._said)

    def choosing(self, *_: object) -> dict[str, Any]:
        return {}

    def continued(self, prompts: Sequence[Sequence[int]], tokens: int, **_: object) -> Iterator[list[int]]:
        self._clock.enter()
        try:
            for token in self._said[tuple(prompts[0])][:tokens]:
                self._clock.wait()
                yield [token]
        finally:
            self._clock.leave()

    def close(self) -> None:
        pass


class Dying(Played):
    """The session of a party that dies while others wait for theirs."""

    dead = threading.Event()

    def another(self) -> Played:
        self.dead.wait(30)
        raise PeerLost("P2 is not there", "start it")

    def continued(self, prompts: Sequence[Sequence[int]], tokens: int, **_: object) -> Iterator[list[int]]:
        self.dead.wait(30)
        raise PeerLost("P2 is not there", "start it")
        yield []


class Lingering(Played):
    """One that fails, of parties that take their time to end."""

    leave = threading.Event()

    def another(self) -> Played:
        return self

    def continued(self, prompts: Sequence[Sequence[int]], tokens: int, **_: object) -> Iterator[list[int]]:
        raise PeerLost("P2 is not there", "start it")
        yield []

    def close(self) -> None:
        assert self.leave.wait(30)


class Asked:
    """A gateway of which the parties are played, and what each prompt is answered."""

    def __init__(self, port: int, gateway: Gateway, clock: Clock, wanted: dict[str, str]) -> None:
        self.port, self.gateway, self.clock, self.wanted = port, gateway, clock, wanted
        self.seen = Counter[int]()  # pieces by stream

    def stream(self, number: int) -> tuple[int, str]:
        """Status, and the text, what Retry-After says, or the error's code."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        asked = {"model": "tiny", "prompt": WORDS[number % len(WORDS)], "max_tokens": TOKENS, "stream": True}
        connection.request("POST", "/v1/completions", json.dumps(asked), {"content-type": "application/json"})
        answer, pieces = connection.getresponse(), list[str]()
        if answer.status != 200:
            code = json.loads(answer.read())["error"]["code"]
            found = answer.status, answer.headers.get("retry-after") or code
        else:
            for line in answer:
                if line.startswith(b"data: {"):
                    pieces.append(json.loads(line.removeprefix(b"data: "))["choices"][0]["text"])
                    self.seen[number] += 1
            found = 200, "".join(pieces)
        connection.close()
        return found


@pytest.fixture
def asked(llama: Path) -> Iterator[Asked]:
    with _serving(llama) as found:
        yield found


@contextmanager
def _serving(folder: Path) -> Iterator[Asked]:
    clear, clock = PlainModel(folder), Clock()
    ids = {word: tuple(clear.prompt_ids(word, TOKENS)) for word in WORDS}
    said = {prompt: clear.greedy(list(prompt), TOKENS) for prompt in ids.values()}
    texts = {word: clear.decode([*ids[word], *said[ids[word]]]) for word in WORDS}
    wanted = {word: text.removeprefix(clear.decode(ids[word])) for word, text in texts.items()}
    settings = Settings("tiny", most=TOKENS, temperature=0.0, together=STREAMS, waiting=QUEUE)
    gateway = Gateway(clear, lambda: Played(clear, clock, said), settings)  # type: ignore[arg-type, return-value]
    with running(gateway) as (port, _):
        try:
            yield Asked(port, gateway, clock, wanted)
        finally:
            clock.release()


def test_of_64_streams_none_waits_for_another(asked: Asked) -> None:
    asked.clock.held, asked.clock.pause = True, TOKENS // 2
    with ThreadPoolExecutor(STREAMS) as pool:
        streams = [pool.submit(asked.stream, number) for number in range(STREAMS)]
        until(lambda: asked.gateway.worker.running == STREAMS and asked.clock.most == STREAMS)
        asked.clock.release()
        until(lambda: len(asked.seen) == STREAMS and set(asked.seen.values()) == {TOKENS // 2})  # half of each, no more
        asked.clock.release()
        found = [stream.result() for stream in streams]
    assert found == [(200, asked.wanted[WORDS[i % len(WORDS)]]) for i in range(STREAMS)]
    assert asked.clock.most == STREAMS == asked.gateway.worker.sessions
    assert asked.clock.ticks == TOKENS  # each had its token of every step


def test_who_finds_no_room_comes_again(asked: Asked) -> None:
    """Some wait behind the 64, the others are told when to ask again; told so they are answered."""
    asked.clock.held = True
    with ThreadPoolExecutor(STREAMS + QUEUE) as pool:
        streams = [pool.submit(asked.stream, number) for number in range(STREAMS + QUEUE)]
        until(lambda: asked.gateway.worker.queued == STREAMS + QUEUE)
        assert asked.gateway.worker.running == STREAMS and asked.gateway.worker.behind == QUEUE
        for number in range(3):
            status, after = asked.stream(number)
            assert status == 429 and 1 <= int(after) <= 60
        asked.clock.release()
        assert all(stream.result()[0] == 200 for stream in streams)
    assert asked.stream(1) == (200, asked.wanted[WORDS[1]])


def test_who_waits_for_a_session_when_parties_die_is_told(asked: Asked) -> None:
    """Not only who is with them: new parties are started when somebody asks anew, and not before."""
    worker, started = asked.gateway.worker, list[Any]()
    first, start = worker._start(), worker._start
    dying: Any = Dying(first.model, asked.clock, first._said)  # type: ignore[attr-defined]
    worker._start = lambda: (started.append(1), start() if started[1:] else dying)[1]
    with ThreadPoolExecutor(6) as pool:
        streams = [pool.submit(asked.stream, number) for number in range(6)]
        until(lambda: worker.running == 6)
        dying.dead.set()
        assert [stream.result(20) for stream in streams] == [(503, "PeerLost")] * 6
    assert len(started) == 1 and worker.state == "failed"
    assert asked.stream(1) == (200, asked.wanted[WORDS[1]]) and len(started) == 2


def test_who_asked_is_told_before_anything_is_closed(asked: Asked) -> None:
    """Closing takes a while, and others would hear of its consequences first."""
    worker = asked.gateway.worker
    first, start = worker._start(), worker._start
    lingering: Any = Lingering(first.model, asked.clock, first._said)  # type: ignore[attr-defined]
    worker._start = lambda: lingering
    try:
        assert asked.stream(0) == (503, "PeerLost") and not lingering.leave.is_set()
        worker._start = start
        assert asked.stream(1) == (200, asked.wanted[WORDS[1]])
    finally:
        lingering.leave.set()
