"""The full life of a cluster on five machines with the links of a LAN and of a WAN. Needs root."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from puma.measure.forecast import NETWORKS, Network
from puma.reference.plain_model import PlainModel
from tests.party.namespaces import ADDRESSES, NAMES, inside, ip, within

pytestmark = [pytest.mark.slow, pytest.mark.processes]
RELAY = Path(__file__).parents[2] / "benchmarks" / "relay.py"
PING = """
import socket, sys, time
best = 9.0
for _ in range(5):
    with socket.create_connection((sys.argv[1], 7800)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(4):
            began = time.perf_counter()
            sock.sendall(b"x")
            sock.recv(1)
            best = min(best, time.perf_counter() - began)
print(best)
"""
ECHO = """
import socket
server = socket.create_server(("127.0.0.1", 7801))
while True:
    sock, _ = server.accept()
    while sock.recv(1):
        sock.sendall(b"x")
"""


@contextlib.contextmanager
def links(network: Network) -> Iterator[None]:
    """Links of this rate, which the kernel limits, and of this delay, which a relay at each party's door adds: so no
    netem is needed. Behind the relay the parties listen on the loopback."""
    relays: list[subprocess.Popen[str]] = []
    shape = ["tbf", "rate", f"{network.rate:.0f}bit", "burst", "1mb", "latency", "50ms"]
    try:
        for name in NAMES:
            ip("netns", "exec", f"puma-{name}", "tc", "qdisc", "add", "dev", "eth0", "root", *shape)
        for name in NAMES[:3]:
            relay = subprocess.Popen(
                within(name, sys.executable, str(RELAY), str(network.rate), str(network.rtt / 2)),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            relays.append(relay)
            for port in (7700, 7800):
                asked = {"dialer": "anyone", "listener": name, "port": port + 1, "at": f"{ADDRESSES[name]}:{port}"}
                assert relay.stdin and relay.stdout
                print(json.dumps(asked), file=relay.stdin, flush=True)
                assert int(relay.stdout.readline()) == port
        yield
    finally:
        for relay in relays:
            relay.communicate(timeout=10)


class People:
    """Keys and the cluster file, made by the command line; `run` one command on a machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("p0", "p1", "p2", "olga", "alice"):
            self.run("ow", "keys", "new", name, "--dir", str(folder))
        parties = [w for r in range(3) for w in ("--party", f"{r}={ADDRESSES[f'p{r}']}:7700,{folder}/p{r}.crt")]
        self.file = folder / "cluster.toml"
        people = ["--owner", f"{folder}/olga.crt", "--client", f"{folder}/alice.crt"]
        self.run("ow", "cluster", "new", *parties, *people, "--cluster", str(self.file))

    def of(self, key: str) -> list[str]:
        return ["--cluster", str(self.file), "--as", f"{self.folder}/{key}.key"]

    def run(self, name: str, *words: str, code: int = 0) -> dict[str, Any]:
        done = subprocess.run(inside(name, *words, "--json"), capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return json.loads(done.stdout) if done.stdout else {}


@contextlib.contextmanager
def parties(people: People) -> Iterator[None]:
    """Three daemons, each on its machine, that have found each other."""
    processes = []
    try:
        for rank in range(3):
            words = ["party", "--store", str(people.folder / f"s{rank}"), "--listen", "127.0.0.1:7701"]
            with (people.folder / f"p{rank}.log").open("w") as log:
                command = inside(f"p{rank}", *words, *people.of(f"p{rank}"))
                processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        end = time.monotonic() + 60
        while not all(_connected(people.folder / f"p{rank}.log") for rank in range(3)):
            assert time.monotonic() < end, [(people.folder / f"p{rank}.log").read_text() for rank in range(3)]
            time.sleep(0.1)
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            assert process.wait(60) == 0


def _connected(log: Path) -> bool:
    return log.read_text().count('"peer reachable"') >= 2


def round_trip() -> float:
    """Seconds of the fastest of several exchanges of one byte between the client and P1, by the way of messages."""
    echo = subprocess.Popen(within("p1", sys.executable, "-c", ECHO))
    try:
        time.sleep(0.5)
        done = subprocess.run(
            within("cl", sys.executable, "-c", PING, ADDRESSES["p1"]),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    finally:
        echo.kill()
        echo.wait()
    return float(done.stdout)


@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize("name", ["lan", "wan"])
def test_full_life(name: str, tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    network, people = NETWORKS[name], People(tmp_path)
    chat, encoder = PlainModel(checkpoints["llama"]), PlainModel(checkpoints["classifier"])
    with links(network):
        assert network.rtt <= round_trip() < 1.5 * network.rtt + 0.002
        with parties(people):
            for called, folder in (("chat", checkpoints["llama"]), ("classes", checkpoints["classifier"])):
                words = ["share", str(folder), "--name", called, "--state", str(tmp_path / "state")]
                assert people.run("ow", *words, *people.of("olga"))["name"] == called
            listed = people.run("cl", "models", "list", *people.of("alice"))["models"]
            assert sorted(model["name"] for model in listed) == ["chat", "classes"]
            ask = ["generate", "the cat sat", "--tokens", "4", "--model", "chat", *people.of("alice")]
            found = people.run("cl", *ask)
            assert found["token_ids"] == chat.greedy(chat.prompt_ids("the cat sat", 4), 4)
            seconds = found["seconds"]["prefill"] + found["seconds"]["decode"]
            assert seconds > 0.9 * found["rounds"] * network.rtt / 2  # a round is one way, in both directions at once
            logits = people.run("cl", "encode", "a dog ran", "--model", "classes", *people.of("alice"))["logits"]
            plain = encoder.encoded(encoder.sentence_ids("a dog ran")).tolist()
            assert max(abs(a - b) for a, b in zip(logits, plain, strict=True)) < 0.01
            people.run("ow", "models", "delete", "chat", *people.of("olga"))
            assert "chat" in people.run("cl", *ask, code=6)["error"]["message"]
            people.run("ow", "models", "delete", "classes", *people.of("alice"), code=4)
