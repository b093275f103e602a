"""Clients that come, go, stall and cancel at random, and parties that die under load: minutes of it, if wanted.

PUMA_SOAK_MINUTES says for how long (a third of one unless set), PUMA_KILLS how often a party is killed (3 unless set).
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from puma.gateway.server import configured, listen
from puma.gateway.service import Gateway
from puma.gateway.settings import Settings
from puma.local.cluster import LocalCluster
from puma.reference.plain_model import PlainModel
from tests.gateway.conftest import until

pytestmark = [pytest.mark.slow, pytest.mark.processes]
WORDS = ["Once upon a time", "The little dog", "Lily and Tom", "One day a bird", "In the garden", "A big red ball"]
TOKENS = 12
PATIENCE = 10.0  # seconds within which all are told that a party is gone


class Running:
    """A gateway in this process, its parties in three others."""

    def __init__(self, clear: PlainModel, gateway: Gateway, port: int) -> None:
        self.clear, self.gateway, self.port = clear, gateway, port

    @property
    def cluster(self) -> Any:
        return self.gateway.worker._cluster

    def post(self, prompt: str, tokens: int, stream: bool = False) -> tuple[Any, http.client.HTTPConnection]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        said = [{"role": "user", "content": prompt}]
        body = {"model": "stories", "messages": said, "max_tokens": tokens, "temperature": 0, "stream": stream}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        return connection.getresponse(), connection

    def ask(self, prompt: str, tokens: int) -> tuple[int, str]:
        """Status, and the text or the error's code."""
        answer, connection = self.post(prompt, tokens)
        found = json.loads(answer.read())
        connection.close()
        if answer.status != 200:
            return answer.status, found["error"]["code"]
        return 200, found["choices"][0]["message"]["content"]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with started() as found:
        yield found


@contextmanager
def started() -> Iterator[Running]:
    clear = PlainModel()
    gateway = Gateway(clear, lambda: LocalCluster(clear), Settings("stories", waiting=64, together=32))
    bound = listen("127.0.0.1", 0)
    server = configured(gateway)
    thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
    thread.start()
    try:
        until(lambda: server.started)
        yield Running(clear, gateway, bound.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(60)


def answers(found: Running) -> dict[tuple[str, int], str]:
    """Of each prompt and length, what is said where nobody else asks."""
    return {(word, tokens): found.ask(word, tokens)[1] for word in WORDS for tokens in (1, 5, TOKENS)}


def memory(pids: list[int]) -> int:
    """Bytes that the parties' processes take."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def one(found: Running, wanted: dict[tuple[str, int], str], chance: random.Random, seen: Counter[str]) -> None:
    """What a client does next: ask, stall in the middle of a stream, leave it, or vanish before an answer."""
    (word, tokens), what = chance.choice([*wanted]), chance.choice(["whole", "whole", "stalls", "cancels", "vanishes"])
    seen[what] += 1
    if what == "whole":
        status, text = found.ask(word, tokens)
        assert (status, text) == (200, wanted[word, tokens])
        return
    answer, connection = found.post(word, tokens if what == "stalls" else 100, stream=True)
    assert answer.status == 200
    pieces = []
    for line in answer:
        if line.startswith(b"data: {"):
            choice = json.loads(line.removeprefix(b"data: "))["choices"][0]
            pieces.append(choice["delta"].get("content") or "")
            if len(pieces) == 2:
                time.sleep(chance.random() if what == "stalls" else 0)
                if what == "vanishes":
                    assert connection.sock is not None
                    connection.sock.close()
                if what != "stalls":
                    break
    answer.close()
    connection.close()
    if what == "stalls":
        assert "".join(pieces) == wanted[word, tokens]


def test_clients_that_come_and_go(running: Running) -> None:
    """No answer is lost or mixed up, memory stays as it is, and nothing is left in the end."""
    wanted, seen, errors = answers(running), Counter[str](), list[BaseException]()
    end = time.monotonic() + 60 * float(os.environ.get("PUMA_SOAK_MINUTES", "0.33"))

    def client(number: int) -> None:
        chance = random.Random(number)
        try:
            while time.monotonic() < end and not errors:
                one(running, wanted, chance, seen)
                time.sleep(chance.random() * 0.2)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=client, args=(i,)) for i in range(32)]
    for thread in threads:
        thread.start()
    half = (end - time.monotonic()) / 2
    time.sleep(half)
    before = memory(running.cluster.pids)
    for thread in threads:
        thread.join(half + 120)
    assert not errors, errors[0]
    until(lambda: running.gateway.worker.queued == 0, 60)
    after = memory(running.cluster.pids)
    assert after < 1.1 * before + (64 << 20), f"{before >> 20} MiB grew to {after >> 20}"
    assert all(seen[what] for what in ("whole", "stalls", "cancels", "vanishes")), seen
    assert running.gateway.worker.state == "ready"


def test_parties_that_are_killed() -> None:
    """Whoever asks is told within ten seconds, and the next request is answered as before."""
    with started() as running:
        wanted = running.ask(WORDS[0], TOKENS)
        chance = random.Random(5)
        for _ in range(int(os.environ.get("PUMA_KILLS", "3"))):
            told: list[tuple[float, int, str]] = []

            def ask(i: int, told: list[tuple[float, int, str]] = told) -> None:
                status, text = running.ask(WORDS[i % len(WORDS)], 200)
                told.append((time.monotonic(), status, text))

            threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
            for thread in threads:
                thread.start()
            until(lambda: running.gateway.worker.running == 16, 30)
            time.sleep(chance.random())
            killed = time.monotonic()
            os.kill(running.cluster.pids[chance.randrange(3)], signal.SIGKILL)
            for thread in threads:
                thread.join(30)
            assert len(told) == 16 and all(status in (502, 503) for _, status, _ in told), told
            assert max(when for when, _, _ in told) - killed < PATIENCE
            assert running.ask(WORDS[0], TOKENS) == wanted
