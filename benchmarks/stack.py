"""The whole stack as users meet it: three daemons with keys and a cluster file, a client's sessions, and the gateway.

Over a network each process has a cluster file of its own, in which the parties' addresses lead through the relay.
"""

from __future__ import annotations

import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from benchmarks.network import Emulated
from puma import config
from puma.client.connect import RemoteCluster, connect, open_session
from puma.client.owner import Owner, card_of
from puma.config import Cluster, Party
from puma.crypto import identity
from puma.errors import PumaError
from puma.measure.forecast import NETWORKS
from puma.reference.plain_model import PlainModel

PROMPT, TOKENS, STREAMS, NAME = "Once upon a time", 8, 4, "stories"
PEOPLE = ("p0", "p1", "p2", "olga", "alice")
PATIENCE = 60.0

Say = Callable[[str], None]


class Stack:
    """Daemons of three parties that serve the embedded model; over a network, or bare loopback, with TLS or plain."""

    def __init__(self, network: str | None = None, plain: bool = False) -> None:
        self._open = ExitStack()
        self._folder = Path(self._open.enter_context(tempfile.TemporaryDirectory()))
        self._net = self._open.enter_context(Emulated(NETWORKS[network])) if network else None
        self._plain = plain
        self._keys = {name: identity.create(name, self._folder) for name in PEOPLE}
        self._ports = _free_ports(3)
        self.files = {name: self._file(name) for name in PEOPLE}
        self._parties = [self._start(rank) for rank in range(3)]

    def key(self, name: str) -> Path:
        return self._keys[name].key

    def connect(self) -> RemoteCluster:
        return connect(self.files["alice"], NAME, self.key("alice"), plain=self._plain)

    def patiently(self) -> RemoteCluster:
        """A session as soon as there can be one."""
        return _patiently(self.connect)

    def restart(self, rank: int) -> None:
        """Kill a party without a word, and start it again as a supervisor would."""
        self._parties[rank].send_signal(signal.SIGKILL)
        self._parties[rank].wait()
        self._parties[rank] = self._start(rank)

    def share(self) -> None:
        clear = PlainModel(None)
        files = {label: read() for label, read in clear.files.items()}
        session = _patiently(lambda: open_session(self.files["olga"], self.key("olga"), "owner", self._plain))
        try:
            card = card_of(NAME, "1", files, clear.eos)
            Owner(session, self._folder / "state").upload(clear.config, clear.params, card, files)
        finally:
            session.close()

    def _file(self, name: str) -> Path:
        """The cluster file of one process: all alike but for the addresses, which are the ways it has to take."""
        machine = name.upper() if name.startswith("p") else "client"
        ports = [self._way(machine, rank) for rank in range(3)]
        parties = tuple(
            Party(rank, f"127.0.0.1:{port}", self._keys[f"p{rank}"].fingerprint) for rank, port in enumerate(ports)
        )
        people = {name: self._keys[name].fingerprint for name in ("olga", "alice")}
        path = self._folder / f"{name}.toml"
        config.create(path, Cluster(parties, None, {"olga": people["olga"]}, {"alice": people["alice"]}))
        return path

    def _way(self, machine: str, rank: int) -> int:
        far = self._net is not None and machine != f"P{rank}"
        return self._net.route(machine, f"P{rank}", self._ports[rank]) if far else self._ports[rank]  # type: ignore[union-attr]

    def _start(self, rank: int) -> subprocess.Popen[bytes]:
        name = f"p{rank}"
        words = ["party", "--as", str(self.key(name)), "--cluster", str(self.files[name])]
        words += ["--store", str(self._folder / f"store-{name}"), "--listen", f"127.0.0.1:{self._ports[rank]}"]
        words += ["--insecure"] if self._plain else []
        with (self._folder / f"{name}.log").open("a") as log:
            return subprocess.Popen([sys.executable, "-m", "puma.cli.app", *words], stdout=log, stderr=log)

    def __enter__(self) -> Stack:
        try:
            self.share()
            self.patiently().close()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._parties:
            process.kill()
            process.wait()
        self._open.close()


def measure(network: str | None, plain: bool, runs: int, tokens: int = TOKENS) -> dict[str, Any]:
    """Sessions a minute, seconds to the first token, tokens a second of one stream and of several at a time."""
    with Stack(network, plain) as stack:
        sessions = [_timed(lambda: _session(stack)) for _ in range(runs + 1)][1:]
        with stack.connect() as cluster:
            streams = [_streamed(cluster, tokens) for _ in range(runs + 1)][1:]
        together = [_together(stack, tokens) for _ in range(max(1, runs // 2))]
        found = {
            "network": network or "loopback",
            "tls": not plain,
            "runs": runs,
            "session_seconds": statistics.median(sessions),
            "first_seconds": statistics.median(first for first, _ in streams),
            "tokens_a_second": statistics.median(rate for _, rate in streams),
            "together_a_second": statistics.median(together),
        }
        if not plain:
            found |= _through_gateway(stack, runs, tokens)
    return found


def recovery(runs: int) -> list[dict[str, Any]]:
    """Seconds from the kill of a party, which is started again at once, to the first token of a new session."""
    found = []
    with Stack() as stack:
        for rank in range(3):
            seconds = []
            for _ in range(runs):
                began = time.perf_counter()
                stack.restart(rank)
                with stack.patiently() as cluster:
                    cluster.generate(PROMPT, 1)
                seconds.append(time.perf_counter() - began)
            found.append({"party": f"P{rank}", "seconds": statistics.median(seconds), "longest": max(seconds)})
    return found


def stack(runs: int, quick: bool, say: Say) -> dict[str, Any]:
    """All of it; fewer runs over the slow network."""
    cases: list[tuple[str | None, bool]] = [(None, True), (None, False), ("lan", False), ("wan", False)]
    found = []
    for network, plain in cases[1:2] if quick else cases:
        say(f"daemons over {network or 'loopback'}{', plain' if plain else ''}")
        found.append(measure(network, plain, 1 if network == "wan" else runs, 2 if quick else TOKENS))
    say("daemons killed and started again")
    return {"tokens": 2 if quick else TOKENS, "requests": found, "recovery": recovery(1 if quick else runs)}


def _session(stack: Stack) -> None:
    with stack.connect() as cluster:
        cluster.generate(PROMPT, 1)


def _streamed(cluster: RemoteCluster, tokens: int) -> tuple[float, float]:
    """Seconds to the first token, and tokens a second after it."""
    began = time.perf_counter()
    times = [time.perf_counter() for _ in cluster.stream(PROMPT, tokens)]
    return times[0] - began, (tokens - 1) / (times[-1] - times[0])


def _together(stack: Stack, tokens: int) -> float:
    """Tokens a second of several sessions that ask at the same time."""
    with ExitStack() as opened:
        clusters = [opened.enter_context(stack.connect()) for _ in range(STREAMS)]
        threads = [threading.Thread(target=cluster.generate, args=(PROMPT, tokens)) for cluster in clusters]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return STREAMS * tokens / (time.perf_counter() - began)


def _through_gateway(stack: Stack, runs: int, tokens: int) -> dict[str, float]:
    words = ["gateway", "--cluster", str(stack.files["alice"]), "--as", str(stack.key("alice")), "--model", NAME]
    command = [sys.executable, "-m", "puma.cli.app", *words, "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as program:
        try:
            assert program.stdout is not None
            url = json.loads(program.stdout.readline())["url"]
            times = [_events(url, tokens) for _ in range(runs + 1)][1:]
        finally:
            program.terminate()
    return {
        "gateway_first_seconds": statistics.median(first for first, _ in times),
        "gateway_seconds": statistics.median(last for _, last in times),
    }


def _events(url: str, tokens: int) -> tuple[float, float]:
    """Seconds to the first piece of text, and to the end, of a streamed completion."""
    asked = {"model": NAME, "prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "stream": True}
    request = Request(f"{url}/v1/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"})
    began, first = time.perf_counter(), 0.0
    with urlopen(request, timeout=600) as answer:
        for line in answer:
            if not first and line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["text"]:
                first = time.perf_counter() - began
    return first, time.perf_counter() - began


def _free_ports(count: int) -> list[int]:
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in sockets]


def _patiently(call: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except PumaError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def _timed(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
