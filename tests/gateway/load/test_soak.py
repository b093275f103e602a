"""Clients that come, go, stall and cancel at random, parties that die under load, 64 streams: minutes of it, if wanted.

The gateway is the program that users start, and its parties are the processes that it starts: nothing of a test's watch
is in them, so that what they take of memory is theirs. PUMA_SOAK_SECONDS says how long clients come and go (20 unless
set), PUMA_SOAK how often a party is killed (3).
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.conftest import until
from tests.watching.started import parties

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.timeout(7200)]
WORDS = ["Once upon a time", "The little dog", "Lily and Tom", "One day a bird", "In the garden", "A big red ball"]
TOKENS, MANY = 12, 200
KINDS = {"whole": 4, "stalls": 2, "cancels": 2, "vanishes": 1, "leaves at once": 1}
PATIENCE = 10.0  # seconds within which all are told that a party is gone
FULL = 300.0  # seconds in which what is kept of chats comes to its limit; a shorter run keeps nothing

Wanted = dict[tuple[str, int], str]


class Running:
    """`puma gateway`, and three parties of its own."""

    def __init__(self, program: subprocess.Popen[str], port: int) -> None:
        self.program, self.port = program, port

    @property
    def parties(self) -> list[int]:
        """Process ids of those that there are now."""
        return parties(self.program.pid)

    def memory(self) -> list[int]:
        """MiB of the gateway and of each party."""
        pids, page = [self.program.pid, *self.parties], os.sysconf("SC_PAGE_SIZE")
        return [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page >> 20 for pid in pids]

    def health(self) -> dict[str, Any]:
        answer, connection = self._sent("GET", "/health")
        found = json.loads(answer.read())
        connection.close()
        return found

    def post(self, prompt: str, tokens: int, stream: bool = False) -> tuple[Any, http.client.HTTPConnection]:
        said = [{"role": "user", "content": prompt}]
        body = {"model": "stories", "messages": said, "max_tokens": tokens, "temperature": 0, "stream": stream}
        return self._sent("POST", "/v1/chat/completions", json.dumps(body))

    def ask(self, prompt: str, tokens: int) -> tuple[int, str]:
        """Status, and the text or the error's code."""
        answer, connection = self.post(prompt, tokens)
        found = json.loads(answer.read())
        connection.close()
        if answer.status != 200:
            return answer.status, found["error"]["code"]
        return 200, found["choices"][0]["message"]["content"]

    def leave(self, prompt: str) -> None:
        """Ask, and be gone before there is an answer."""
        said = [{"role": "user", "content": prompt}]
        body = json.dumps({"model": "stories", "messages": said, "max_tokens": MANY, "temperature": 0})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        connection.close()

    def _sent(self, method: str, path: str, body: str | None = None) -> tuple[Any, http.client.HTTPConnection]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.request(method, path, body, {"content-type": "application/json"})
        return connection.getresponse(), connection


@contextmanager
def started(*words: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "puma.cli.app", "gateway", "--port", "0", "--json", *words]
    with (  # what goes wrong in a party is told there
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | {"PUMA_DEBUG": "1"}
        ) as program,
    ):
        try:
            assert program.stdout is not None
            url = json.loads(program.stdout.readline())["url"]
            yield Running(program, int(url.rpartition(":")[2]))
        except BaseException:
            log.seek(0)
            print(log.read()[-8000:])
            raise
        finally:
            program.send_signal(signal.SIGINT)
            program.wait(60)


def pieces(answer: Any) -> Iterator[str]:
    """What a stream brings, token by token; the first one says who speaks."""
    for line in answer:
        if line.startswith(b"data: {"):
            found = json.loads(line.removeprefix(b"data: "))
            assert "choices" in found, found
            yield found["choices"][0]["delta"].get("content") or ""


def one(found: Running, wanted: Wanted, chance: random.Random, seen: Counter[str]) -> None:
    """What a client does next: ask, stall in the middle of a stream, leave it, or vanish before an answer."""
    word, tokens = chance.choice([*wanted])
    (what,) = chance.choices([*KINDS], [*KINDS.values()])
    seen[what] += 1
    if what == "whole":
        assert found.ask(word, tokens) == (200, wanted[word, tokens])
        return
    if what == "leaves at once":
        found.leave(word)
        return
    answer, connection = found.post(word, tokens if what == "stalls" else MANY, stream=True)
    assert answer.status == 200, answer.read()
    said = list[str]()
    for piece in pieces(answer):
        said.append(piece)
        if len(said) == 2:
            time.sleep(chance.random() if what == "stalls" else 0)
            if what == "vanishes" and connection.sock is not None:
                connection.sock.close()
            if what != "stalls":
                break
    answer.close()
    connection.close()
    if what == "stalls":
        assert "".join(said) == wanted[word, tokens]


def test_clients_that_come_and_go() -> None:
    """No answer is lost or mixed up, memory stays as it is, and nothing is left in the end."""
    seconds, seen, errors = float(os.environ.get("PUMA_SOAK_SECONDS", "20")), Counter[str](), list[BaseException]()
    with started("--together", "32", *(["--forget"] if seconds < FULL else [])) as running:
        wanted: Wanted = {(word, count): running.ask(word, count)[1] for word in WORDS for count in (1, 5, TOKENS)}
        end = time.monotonic() + seconds

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
        time.sleep(seconds / 2)
        before = running.memory()
        for thread in threads:
            thread.join(seconds / 2 + 300)
        assert not errors, (errors[0], running.health()["problem"])
        until(lambda: running.health()["queued"] == 0, 120)
        after, told = running.memory(), running.health()
        assert told["status"] == "ready" and told["problem"] is None and len(before) == len(after) == 4
        print(f"\n{seen.total()} requests of 32 clients in {seconds:.0f} s: {dict(seen)}; MiB {before}, then {after}")
        assert all(seen[what] for what in KINDS), seen
        assert all(b < 1.1 * a + 32 for a, b in zip(before, after, strict=True)), (before, after)
        assert {key: running.ask(*key)[1] for key in wanted} == wanted


def test_parties_that_are_killed() -> None:
    """Whoever asks is told within ten seconds, and the next request is answered as before, by parties that are new."""
    chance, waits, times = random.Random(5), list[float](), int(os.environ.get("PUMA_SOAK", "3"))
    with started("--together", "16") as running:
        wanted = running.ask(WORDS[0], TOKENS)
        for number in range(times):
            told, parties = list[tuple[float, int, str]](), running.parties

            def ask(i: int, told: list[tuple[float, int, str]] = told) -> None:
                status, text = running.ask(WORDS[i % len(WORDS)], MANY)
                told.append((time.monotonic(), status, text))

            threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
            for thread in threads:
                thread.start()
            until(lambda: running.health()["running"] == 16, 60)
            time.sleep(chance.random())
            os.kill(parties[number % 3], signal.SIGKILL)
            killed = time.monotonic()
            for thread in threads:
                thread.join(60)
            assert len(told) == 16 and all(status in (502, 503) for _, status, _ in told), told
            waits.append(max(when for when, _, _ in told) - killed)
            assert waits[-1] < PATIENCE, waits
            assert running.ask(WORDS[0], TOKENS) == wanted
            assert len(running.parties) == 3 and not set(parties) & set(running.parties)
    print(f"\n{times} kills under 16 clients, all told after {max(waits):.2f} s at the latest")


def test_64_streams_at_a_time() -> None:
    """Of 80 that come at once 64 are with the parties, 8 wait, and the others come again when they are told to."""
    again, firsts = Counter[int](), list[float]()

    def stream(running: Running, number: int) -> str:
        while True:
            answer, connection = running.post(WORDS[number % len(WORDS)], TOKENS, stream=True)
            if answer.status == 200:
                break
            assert answer.status == 429, answer.read()
            after = int(answer.headers["retry-after"])
            answer.read()
            connection.close()
            again[number] += 1
            time.sleep(after)
        said = list[str]()
        for piece in pieces(answer):
            said.append(piece)
            if len(said) == 2:
                firsts.append(time.monotonic())
        connection.close()
        return "".join(said)

    with started("--together", "64", "--queue", "8") as running:
        wanted = [running.ask(word, TOKENS)[1] for word in WORDS]
        began = time.monotonic()
        with ThreadPoolExecutor(80) as pool:
            found = list(pool.map(lambda number: stream(running, number), range(80)))
        took = time.monotonic() - began
        assert found == [wanted[number % len(WORDS)] for number in range(80)]
        until(lambda: running.health()["queued"] == 0)
        first = sorted(when - began for when in firsts)
        assert running.health()["sessions"] == 64 and 1 <= len(again) <= 16
    spread = f"{first[0]:.1f} to {first[63]:.1f} s, of all by {first[-1]:.1f} s"
    print(f"\n80 streams in {took:.1f} s; first tokens of 64 after {spread}")
