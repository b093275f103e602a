"""Clients that ask at the same time, each in a session of its own with three parties on this machine.

Each run asks once alone and once by all at the same time, so that whatever else the machine does falls on both. The
figure is how many times one client's tokens (or sentences) a second all of them have together. Besides: in how many of
the others' steps a newcomer has its first token, the first tokens of a chat's first and second turn, and the same by a
gateway over HTTP. Weights of models by name are random; the embedded model's answers must be those given alone.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from torch import Tensor

from benchmarks import netem
from benchmarks.network import ONE_MACHINE, Emulated
from puma import pool
from puma.client.session import Session
from puma.client.tokens.remembered import Remembered
from puma.local.cluster import LocalCluster, Trio
from puma.measure.bench import configured, fitted, random_ids
from puma.measure.forecast import NETWORKS
from puma.models.config import Config
from puma.reference.plain_model import PlainModel
from puma.reference.planning import Settings

BEGINNINGS = ("Once upon a time", "The little dog", "Lily and Tom", "One day a bird", "In the garden", "A big red ball")
BEFORE, NEW, TURN = 400, 8, 16  # a chat: tokens before its second turn, of an answer, of what is asked next
PROMPT = 8  # tokens of a prompt for random weights
WARM_UP = 2  # tokens of what everybody asks before anything counts
TICKS = os.sysconf("SC_CLK_TCK")

Say = Callable[[str], None]
Ask = Callable[[int], Any]  # the answer to one of the clients


@dataclass(frozen=True)
class Case:
    """So many clients of a model, each of whom wants so many new tokens, or the vector of a text of so many."""

    title: str
    model: str | None  # a preset; the embedded model unless given
    clients: int
    tokens: int
    network: str | None = None
    layers: int | None = None
    runs: int | None = None  # as many as are asked for unless given

    @property
    def encodes(self) -> bool:
        """Whether it is an encoder that is asked."""
        return self.model is not None and "minilm" in self.model


CASES = (
    Case("embedded model", None, 16, 32),
    Case("SmolLM2-135M", "smollm2-135m", 8, 32, runs=1),
    Case("sentences, MiniLM-L6", "minilm-l6", 32, 32),
    Case("embedded model", None, 16, 32, network="wan", runs=1),
)
QUICK = (Case("embedded model", None, 3, 3), Case("sentences, MiniLM-L6, one layer", "minilm-l6", 2, 4, layers=1))


def clients(runs: int, quick: bool, say: Say) -> dict[str, Any]:
    """All of it."""
    if find_spec("uvicorn") is None:  # found out now, and not after a quarter of an hour
        raise RuntimeError("a gateway needs uvicorn: pip install -c constraints.txt '.[bench]'")
    kernel = netem.available()
    if kernel:
        netem.enter()
    found: dict[str, Any] = {"cases": [], "newcomer": {}}
    (first, *_), model = QUICK if quick else CASES, PlainModel(None)
    say("a chat")
    found["chat"] = of_chat(model, 40 if quick else min(BEFORE, model.config.context - 2 * NEW - TURN), NEW, runs)
    say(f"{found['chat']['ratio']:.2f} of the first turn's time\na gateway")
    row, given = of_gateway(first.clients, first.tokens, runs), dict[Case, list[Any]]()
    for case in QUICK if quick else CASES:  # the slowest comes last
        say(f"{case.clients} clients of {case.title} over {case.network or ONE_MACHINE}")
        with ExitStack() as stack:
            found["cases"].append(_measured(case, runs, kernel, stack, found, given))
        say(f"{found['cases'][-1]['ratio']:.1f} times one client's rate")
    found["cases"].append(row)
    return found


def _measured(
    case: Case, runs: int, kernel: bool, stack: ExitStack, found: dict[str, Any], given: dict[Case, list[Any]]
) -> dict[str, Any]:
    route: dict[str, Any] = {}
    if case.network is not None:
        route = {"route": stack.enter_context((netem.Shaped if kernel else Emulated)(NETWORKS[case.network])).route}
    trio = stack.enter_context(Trio(**route))
    config, params, prompts = asked(case)
    trio.share(config, params)
    sessions = [stack.enter_context(_session(trio)) for _ in range(case.clients)]
    row = of_sessions(case, sessions, prompts, case.runs or runs, trio.pids, given)
    if case.model is None and not found["newcomer"]:
        found["newcomer"] = newcomer(sessions, prompts, case.tokens)
    return row


def asked(case: Case) -> tuple[Config, Mapping[str, Tensor], list[list[int]]]:
    """Config and parameters of the model, and the token ids of every client's prompt."""
    if case.model is None:
        model = PlainModel(None)
        model.plan()
        texts = [BEGINNINGS[i % len(BEGINNINGS)] for i in range(case.clients)]
        return model.config, model.params, [model.prompt_ids(text, case.tokens) for text in texts]
    _, config, params = configured(case.model, case.layers)
    config = fitted(case.model, config, params, Settings(), lambda *_: None)
    return config, params, random_ids(config, [case.tokens if case.encodes else PROMPT] * case.clients)


@contextmanager
def _session(trio: Trio) -> Iterator[Session]:
    """One client's, beside others'."""
    session = trio.another()
    try:
        if not session.open("model"):
            raise RuntimeError("the parties do not have the model")
        yield session
    finally:
        session.close()


# -- all at a time, and one alone --------------------------------------------------------------------------------------


def of_sessions(
    case: Case, sessions: Sequence[Session], prompts: Sequence[list[int]], runs: int, pids: Sequence[int],
    given: dict[Case, list[Any]],
) -> dict[str, Any]:  # fmt: skip
    """One line of the table; answers that were `given` alone over a quicker network are those over any."""

    def ask(i: int, tokens: int = case.tokens) -> Any:
        if case.encodes:
            return sessions[i].encode([prompts[i]], "pooled")[0]
        return [token for (token,) in sessions[i].continued([prompts[i]], tokens)]

    timed(lambda i: ask(i, WARM_UP), range(case.clients))
    of, trained = replace(case, network=None, runs=None), case.model is None
    if trained and of not in given:
        given[of] = [ask(i) for i in range(min(case.clients, len(BEGINNINGS)))]
    wanted = given.get(of, [])
    taken = compared(ask, case.clients, runs, wanted, pids)
    return _row(case.title, case.network or ONE_MACHINE, case.clients, case.tokens, case.encodes) | taken


def _row(title: str, network: str, count: int, tokens: int, encodes: bool) -> dict[str, Any]:
    unit = "sentences" if encodes else "tokens"
    return {"title": title, "network": network, "clients": count, "tokens": tokens, "unit": unit}


def timed(ask: Ask, who: Sequence[int]) -> tuple[float, list[Any]]:
    """Seconds until the last of these clients has its answer, and the answers."""
    with ThreadPoolExecutor(len(who)) as pool:
        started = time.perf_counter()
        answers = list(pool.map(ask, who))
        return time.perf_counter() - started, answers


def compared(ask: Ask, count: int, runs: int, wanted: Sequence[Any], pids: Sequence[int]) -> dict[str, Any]:
    """Medians alone and of all, how many times one client's rate all have, and the most that the processors allow:
    what is spent for each of them in company bounds it. `wanted` are answers given alone, which come round again."""
    alone, together, spent = list[float](), list[float](), list[float]()
    for _ in range(runs):
        seconds, answers = timed(ask, [0])
        _same(answers, wanted)
        alone.append(seconds)
        before = processor_seconds(pids)
        seconds, answers = timed(ask, range(count))
        spent.append(processor_seconds(pids) - before)
        _same(answers, wanted)
        together.append(seconds)
    one, several, each = statistics.median(alone), statistics.median(together), statistics.median(spent) / count
    return {
        "runs": runs, "alone_seconds": one, "together_seconds": several, "ratio": count * one / several,
        "cpu_seconds_each": each, "most": pool.cores() * one / each if each else 0.0,
    }  # fmt: skip


def _same(answers: Sequence[Any], wanted: Sequence[Any]) -> None:
    for number, answer in enumerate(answers):
        if wanted and answer != wanted[number % len(wanted)]:
            raise RuntimeError(f"client {number} was answered {answer}, alone {wanted[number % len(wanted)]}")


def processor_seconds(pids: Sequence[int]) -> float:
    """User and system time of these processes so far."""
    times = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in pids]
    return sum(int(ticks) for both in times for ticks in both) / TICKS


def newcomer(sessions: Sequence[Session], prompts: Sequence[list[int]], tokens: int) -> dict[str, Any]:
    """All but one are under way; how long the last one's first token takes, in steps of the others."""
    stamps: list[float] = []

    def going(i: int) -> None:
        for _ in sessions[i].continued([prompts[i]], tokens):
            if i == 0:
                stamps.append(time.perf_counter())

    threads = [threading.Thread(target=going, args=(i,)) for i in range(len(sessions) - 1)]
    for thread in threads:
        thread.start()
    while len(stamps) < tokens // 3:
        time.sleep(0.001)
    began = time.perf_counter()
    list(sessions[-1].continued([prompts[-1]], 1))
    ended = time.perf_counter()
    for thread in threads:
        thread.join()
    steps = sum(began < stamp <= ended for stamp in stamps)
    return {"others": len(threads), "seconds": ended - began, "steps": steps}


# -- askers of a gateway ----------------------------------------------------------------------------------------------


@contextmanager
def gateway(together: int) -> Iterator[str]:
    """The address of `puma gateway` for the embedded model, a program of its own."""
    command = [sys.executable, "-m", "puma.cli.app", "gateway", "--port", "0", "--json", "--together", str(together)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as program:
        try:
            assert program.stdout is not None
            told = json.loads(program.stdout.readline() or "{}")
            if "url" not in told:
                raise RuntimeError(f"no gateway: {told}")
            yield told["url"]
        finally:
            program.terminate()


def of_gateway(count: int, tokens: int, runs: int) -> dict[str, Any]:
    """Askers over HTTP; what its processes spend is not looked at."""
    with gateway(count) as url:

        def ask(i: int) -> str:
            prompt = BEGINNINGS[i % len(BEGINNINGS)]
            body = {"model": "stories", "prompt": prompt, "max_tokens": tokens, "temperature": 0}
            request = Request(f"{url}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"})
            with urlopen(request, timeout=600) as answer:
                return json.loads(answer.read())["choices"][0]["text"]

        timed(ask, range(count))
        wanted = [ask(i) for i in range(min(count, len(BEGINNINGS)))]
        taken = compared(ask, count, runs, wanted, ())
    return _row("embedded model, through a gateway", ONE_MACHINE, count, tokens, False) | taken


# -- one client that goes on -------------------------------------------------------------------------------------------


def of_chat(model: PlainModel, length: int, tokens: int, runs: int) -> dict[str, Any]:
    """Seconds to the first token of a turn with so many tokens, and of the next one, which goes on from it."""
    size = model.config.vocab_size
    ids, new = [(7919 * i + 13) % size for i in range(length)], [(104729 * i + 5) % size for i in range(TURN)]
    turns: list[list[float]] = [[], []]
    with LocalCluster(model) as cluster:
        for _ in range(runs + 1):  # the first round warms up
            memory, text = Remembered(), [*ids]
            for seconds in turns:
                began = time.perf_counter()
                stream = cluster.stream_ids(text, tokens, memory=memory)
                answer = [next(stream)]
                seconds.append(time.perf_counter() - began)
                text += [*answer, *stream, *new]
            if cluster.session.held < length:
                raise RuntimeError("the second turn was sent whole")
    first, second = (statistics.median(seconds[1:]) for seconds in turns)
    return {"before": length, "runs": runs, "first_seconds": first, "second_seconds": second, "ratio": second / first}
