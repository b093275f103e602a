"""What the deployment's files run, run: the commands of compose.yaml as processes of this machine, in its order.

A container's folders become folders below one of the test's, its names and ports those of the loopback; nothing else of
a command is changed. The probes of the Kubernetes base look at the same party.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.test_files import compose, party_set
from tests.live import free_ports

pytestmark = [pytest.mark.slow, pytest.mark.processes]
PARTIES = ("p0", "p1", "p2")
GRACE = 45.0  # seconds, as the files say
SHIM = '#!/bin/sh\nexec "{python}" {words} "$@"\n'


class Host:
    """The one host on which compose would start everything."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.services = folder, compose()["services"]
        ports = free_ports(7)
        self.port, metrics = ports[0], dict(zip(PARTIES, ports[1:4], strict=True))
        self.metrics = metrics
        self.names = {f"{name}:7700": f"127.0.0.1:{port}" for name, port in zip(PARTIES, ports[4:], strict=True)}
        self.started: dict[str, subprocess.Popen[str]] = {}
        for name, words in (("puma", "-m puma.cli.app"), ("python", "")):
            program = folder / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(SHIM.format(python=sys.executable, words=words))
            program.chmod(0o755)
        for name in ("etc", *self.services):
            (folder / name).mkdir()

    def here(self, word: str, service: str) -> str:
        """A word of a service's command, with this machine's folders and ports; compose writes $$ for $."""
        there = {"$$": "$", "/etc/puma": str(self.folder / "etc"), "/var/lib/puma": str(self.folder / service)}
        there |= self.names | {"0.0.0.0": "127.0.0.1", ":8000/": f":{self.port}/", "/secret": str(self.folder / "etc")}
        there |= {"9470": str(self.metrics[service])} if service in self.metrics else {}
        for old, new in there.items():
            word = word.replace(old, new)
        return word

    def command(self, name: str) -> list[str]:
        service = self.services[name]
        words = [self.here(word, name) for word in (*service["entrypoint"], *service["command"])]
        return [*words, f"--port={self.port}"] if name == "gateway" else words

    def environment(self, name: str) -> Mapping[str, str]:
        given = self.services[name].get("environment", {})
        own = {key: self.here(value.replace("${PUMA_MODEL:-}", ""), name) for key, value in given.items()}
        return os.environ | own | {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}

    def run(self, name: str) -> None:
        """A service that does its work and leaves."""
        done = subprocess.run(
            self.command(name), env=self.environment(name), capture_output=True, text=True, timeout=400, check=False
        )
        assert done.returncode == 0, done.stderr

    def start(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("w") as log:
            self.started[name] = subprocess.Popen(
                self.command(name), env=self.environment(name), stdout=log, stderr=log, text=True
            )

    def well(self, name: str) -> bool:
        """What the service's health check says."""
        kind, *words = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        return self.probe([self.here(word, name) for word in words]) == 0

    def probe(self, words: list[str]) -> int:
        return subprocess.run(words, env=self.environment("p0"), capture_output=True, check=False).returncode

    def until_well(self, name: str) -> None:
        end = time.monotonic() + 400
        while not self.well(name):
            assert self.started[name].poll() is None and time.monotonic() < end, (
                self.folder / f"{name}.log"
            ).read_text()
            time.sleep(2)

    def stop(self) -> None:
        """As `docker compose down` does."""
        for process in self.started.values():
            process.send_signal(signal.SIGTERM)
        for name, process in self.started.items():
            assert process.wait(GRACE) in (0, -signal.SIGTERM), (self.folder / f"{name}.log").read_text()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    found = Host(tmp_path)
    try:
        yield found
    finally:
        for process in found.started.values():
            process.kill()
            process.wait()


def ask(host: Host, path: str, body: dict[str, Any] | None = None, key: str = "") -> tuple[int, Any]:
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(f"http://127.0.0.1:{host.port}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


@pytest.mark.timeout(1200)
def test_everything_that_is_started_does_its_work(host: Host) -> None:
    etc = host.folder / "etc"
    host.run("keys")
    made = {path.name: path.read_bytes() for path in etc.iterdir()}
    assert {"cluster.toml", "p0.key", "p1.crt", "olga.key", "gateway.key", "api-key", "api-keys.toml"} <= set(made)
    secret = [etc / name for name in made if name.endswith(".key") or name.startswith("api-key")]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in secret)
    host.run("keys")  # a second start leaves them as they are
    assert made == {path.name: path.read_bytes() for path in etc.iterdir()}
    for name in PARTIES:
        host.start(name)
    for name in PARTIES:
        host.until_well(name)
    host.run("share")
    shared = (host.folder / "share" / "shared").stat().st_mtime_ns
    host.run("share")
    assert (host.folder / "share" / "shared").stat().st_mtime_ns == shared
    host.start("gateway")
    host.until_well("gateway")
    key = (etc / "api-key").read_text()
    asked = {"model": "served", "prompt": "Once upon a time", "max_tokens": 3, "temperature": 0}
    assert ask(host, "/v1/models")[0] == 401
    status, found = ask(host, "/v1/completions", asked, key)
    assert status == 200 and found["usage"]["completion_tokens"] == 3 and found["choices"][0]["text"]
    _probes(host)
    host.stop()
    assert not host.well("p0")


def _probes(host: Host) -> None:
    """Of the Kubernetes base, of the party that runs; its key is copied as the first container copies it."""
    pod = party_set()["spec"]["template"]["spec"]
    (container,), (first,) = pod["containers"], pod["initContainers"]
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        words = [host.here(word, "p0") for word in container[kind]["exec"]["command"]]
        assert host.probe(words) == 0, kind
    for ending in ("key", "crt"):
        (host.folder / "etc" / f"party.{ending}").write_bytes((host.folder / "etc" / f"p0.{ending}").read_bytes())
    (host.folder / "key").mkdir()
    words = [host.here(word, "p0") for word in first["command"]]
    words[-1] = str(host.folder / "key")
    assert subprocess.run(words, check=False).returncode == 0
    assert stat.S_IMODE((host.folder / "key" / "party.key").stat().st_mode) == 0o600
