"""What clients get who ask at the same time: of three daemons with a session each, and of one gateway.

    python -m benchmarks.clients --clients 16 --tokens 32
    python -m benchmarks.clients --model sentence-transformers/all-MiniLM-L6-v2 --clients 32

Each round asks once alone and once by all at the same time, so that whatever else the machine does falls on both. The
figures are tokens a second of all (or sentences, of an encoder) against one client's, in how many of the others'
steps a newcomer has its first token, and the first tokens of a chat's first and second turns. All answers must be those
that were given alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

from benchmarks.stack import Stack
from puma.client.connect import RemoteCluster
from puma.client.tokens.remembered import Remembered
from puma.gateway.server import configured, listen
from puma.gateway.service import Gateway
from puma.gateway.settings import Settings
from puma.local.cluster import LocalCluster
from puma.models import heads
from puma.reference.plain_model import PlainModel

BEGINNINGS = ("Once upon a time", "The little dog", "Lily and Tom", "One day a bird", "In the garden", "A big red ball")
SENTENCE = "the quick brown fox jumps over the lazy dog while seven small birds look at it from a tall old tree"
WORDS = 30  # of a sentence, which an encoder reads beside its two marks

Ask = Callable[[int], Any]  # the answer of one of the clients


def prompts(count: int) -> list[str]:
    """One for each client, some alike."""
    return [BEGINNINGS[i % len(BEGINNINGS)] for i in range(count)]


def timed(ask: Ask, who: Sequence[int]) -> tuple[float, list[Any]]:
    """Seconds until the last of these clients has its answer, and the answers."""
    with ThreadPoolExecutor(len(who)) as pool:
        started = time.perf_counter()
        answers = list(pool.map(ask, who))
        return time.perf_counter() - started, answers


def compared(ask: Ask, clients: int, rounds: int, wanted: Sequence[Any], same: Callable[[Any, Any], bool]) -> Any:
    """Seconds alone and of all, the medians, and how many times one client's rate all have."""
    alone, together = [], []
    for _ in range(rounds):
        seconds, answers = timed(ask, [0])
        assert same(answers[0], wanted[0]), "an answer differs alone"
        alone.append(seconds)
        seconds, answers = timed(ask, range(clients))
        assert all(map(same, answers, wanted)), "an answer differs in company"
        together.append(seconds)
    one, several = statistics.median(alone), statistics.median(together)
    return {"alone_seconds": one, "together_seconds": several, "ratio": clients * one / several}


# -- distant clients of daemons ---------------------------------------------------------------------------------------


def of_daemons(model: PlainModel, clients: int, tokens: int, rounds: int, network: str | None) -> dict[str, Any]:
    """Clients with sessions of their own."""
    with Stack(network, model=model, sessions=clients + 4) as stack, ExitStack() as opened:
        sessions = [opened.enter_context(stack.connect()) for _ in range(clients)]
        if heads(model.config).encodes:
            return _sentences(sessions, rounds)
        texts = prompts(clients)

        def ask(i: int) -> list[int]:
            return sessions[i].generate(texts[i], tokens).token_ids

        wanted = [answer.token_ids for answer in sessions[0].generate(texts, tokens)]
        found = compared(ask, clients, rounds, wanted, lambda a, b: a == b)
        found["tokens_a_second"] = clients * tokens / found["together_seconds"]
        return found | _newcomer(sessions, texts, tokens)


def _sentences(sessions: Sequence[RemoteCluster], rounds: int) -> dict[str, Any]:
    words = SENTENCE.split()
    texts = [" ".join((words[i % len(words) :] + words * 2)[:WORDS]) for i in range(len(sessions))]
    wanted = [encoding.values for encoding in sessions[0].encode(texts)]

    def ask(i: int) -> Any:
        return sessions[i].encode(texts[i]).values

    found = compared(ask, len(texts), rounds, wanted, lambda a, b: float((a - b).abs().max()) < 1e-2)
    return found | {"sentences_a_second": len(texts) / found["together_seconds"]}


def _newcomer(sessions: Sequence[RemoteCluster], texts: Sequence[str], tokens: int) -> dict[str, float]:
    """All but one are under way; how long the last one's first token takes, in steps of the others."""
    stamps: list[float] = []

    def going(i: int) -> None:
        for _ in sessions[i].stream(texts[i], tokens):
            if i == 0:
                stamps.append(time.perf_counter())

    threads = [threading.Thread(target=going, args=(i,)) for i in range(len(sessions) - 1)]
    for thread in threads:
        thread.start()
    while len(stamps) < tokens // 3:
        time.sleep(0.001)
    began = time.perf_counter()
    sessions[-1].generate(texts[-1], 1)
    ended = time.perf_counter()
    for thread in threads:
        thread.join()
    steps = sum(began < stamp <= ended for stamp in stamps)
    return {"newcomer_seconds": ended - began, "newcomer_steps": steps}


# -- askers of a gateway ----------------------------------------------------------------------------------------------


@contextmanager
def gateway(model: PlainModel, together: int) -> Iterator[str]:
    """The address of a gateway in this process, its parties in three others."""
    served = Gateway(model, lambda: LocalCluster(model), Settings("stories", waiting=64, together=together))
    bound = listen("127.0.0.1", 0)
    server = configured(served)
    thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/v1/completions"
    finally:
        server.should_exit = True
        thread.join()


def of_gateway(model: PlainModel, clients: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Askers over HTTP."""
    texts = prompts(clients)
    with gateway(model, clients) as url:

        def ask(i: int) -> str:
            body = {"model": "stories", "prompt": texts[i], "max_tokens": tokens, "temperature": 0}
            request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
            with urllib.request.urlopen(request, timeout=600) as answer:
                return json.loads(answer.read())["choices"][0]["text"]

        wanted = timed(ask, range(clients))[1]
        found = compared(ask, clients, rounds, wanted, lambda a, b: a == b)
    return found | {"tokens_a_second": clients * tokens / found["together_seconds"]}


# -- one client that goes on -------------------------------------------------------------------------------------------


def of_chat(model: PlainModel, length: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Seconds to the first token of a turn with so many tokens, and of the next one, which goes on from it."""
    size = model.config.vocab_size
    ids, new = [(7919 * i + 13) % size for i in range(length)], [(104729 * i + 5) % size for i in range(16)]
    turns: list[list[float]] = [[], []]
    with LocalCluster(model) as cluster:
        for _ in range(rounds + 1):  # the first round warms up
            memory, text = Remembered(), [*ids]
            for seconds in turns:
                began = time.perf_counter()
                stream = cluster.stream_ids(text, tokens, memory=memory)
                answer = [next(stream)]
                seconds.append(time.perf_counter() - began)
                text += [*answer, *stream, *new]
            assert cluster.session.held >= length, "the second turn was sent whole"
    first, second = (statistics.median(seconds[1:]) for seconds in turns)
    return {"before": length, "first_turn_seconds": first, "second_turn_seconds": second, "ratio": second / first}


def main() -> None:
    """Measure and print one line of JSON for each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", help="a folder or a hub name; the embedded model unless given")
    for name, default in (("clients", 16), ("tokens", 32), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--network", choices=["lan", "paper", "wan"], help="emulated, between all, for daemons")
    parser.add_argument("--before", type=int, default=400, help="tokens before a chat's second turn")
    parser.add_argument("--only", choices=["daemons", "gateway", "chat"])
    asked = parser.parse_args()
    model = PlainModel(asked.model)
    sizes = asked.clients, asked.tokens, asked.rounds
    runs: dict[str, Callable[[], dict[str, Any]]] = {"daemons": lambda: of_daemons(model, *sizes, asked.network)}
    if not heads(model.config).encodes:
        runs["gateway"] = lambda: of_gateway(model, *sizes)
        runs["chat"] = lambda: of_chat(model, min(asked.before, model.config.context - 40), 8, asked.rounds)
    for name, run in runs.items():
        if asked.only in (None, name):
            found = {"of": name, "clients": asked.clients, "tokens": asked.tokens} | run()
            print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in found.items()}), flush=True)


if __name__ == "__main__":
    main()
