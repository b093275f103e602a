"""Three party daemons as real processes on this machine, with keys and a cluster file of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import msgspec

from puma import config
from puma.client.connect import RemoteCluster, connect, open_session
from puma.client.owner import Owner, card_of
from puma.config import Cluster, Party, Policy
from puma.crypto import identity
from puma.errors import PumaError
from puma.models.ranges import hides
from puma.reference.plain_model import PlainModel
from tests.keyring import Keyring, Payroll
from tests.watching import watched
from tests.watching.command import Command


class Live:
    """A cluster below `folder`; `start` and `kill` one party, `share` a checkpoint, `connect` as alice.

    Everybody has keys and is known by fingerprints, unless another keyring says how. A `second` dealer is P3. What
    daemons draw is watched, and noted for as long as they live; `bare` ones take no memory for it.
    """

    def __init__(
        self,
        folder: Path,
        policy: Policy | None = None,
        *options: str,
        start: bool = True,
        keyring: Keyring | Payroll | None = None,
        second: bool = False,
        bare: bool = False,
    ) -> None:
        self.folder, self.options = folder, options
        self.bare = bare
        self.keyring = keyring or Keyring(folder)
        known = self.keyring.cluster.parties
        if second:
            made = self.keyring.keys["p3"] = identity.create("p3", folder)
            known = (*known, Party(3, "127.0.0.1:7703", made.fingerprint))
        self.count = len(known)
        ports = free_ports(2 * self.count)
        self.metrics = ports[self.count :]
        parties = tuple(msgspec.structs.replace(each, address=f"127.0.0.1:{ports[each.rank]}") for each in known)
        self.cluster: Cluster = msgspec.structs.replace(
            self.keyring.cluster, parties=parties, policy=policy or Policy()
        )
        self.file = folder / "cluster.toml"
        config.create(self.file, self.cluster)
        self.processes: list[Command | subprocess.Popen[str] | None] = [None] * self.count
        if start:
            try:
                for rank in range(self.count):
                    self.start(rank)
                self.healthy()
            except BaseException:
                self.close()
                raise

    def key(self, name: str) -> Path:
        return self.keyring.keys[name].key

    def start(self, rank: int, *options: str, prefix: tuple[str, ...] = ()) -> None:
        words = ["party", "--as", str(self.key(f"p{rank}")), "--cluster", str(self.file)]
        words += ["--store", str(self.store(rank)), "--metrics", str(self.metrics[rank]), *self.options, *options]
        out = self.folder / f"p{rank}.log"
        if not prefix and not self.bare:
            self.processes[rank] = Command(words, out)
            return
        with out.open("a") as log:
            line = [*prefix, sys.executable, "-m" if self.bare else watched.PROGRAM, "puma.cli.app", *words]
            self.processes[rank] = subprocess.Popen(line, stdout=log, stderr=log, text=True)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command that is over soon."""
        out, errors = (self.folder / f"{name}-{os.urandom(4).hex()}" for name in ("out", "errors"))
        code = Command(words, out, errors).wait(60)
        return subprocess.CompletedProcess(words, code, out.read_text(), errors.read_text())

    def store(self, rank: int) -> Path:
        return self.folder / f"store{rank}"

    def events(self, rank: int) -> list[dict[str, Any]]:
        lines = (self.folder / f"p{rank}.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def audited(self, rank: int) -> list[dict[str, Any]]:
        """What the party's audit log says by now; a last line may be half written."""
        whole, _, _ = (self.store(rank) / "audit.jsonl").read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def health(self, rank: int) -> tuple[int, dict[str, Any]]:
        """Status and facts; 0 if nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics[rank]}/health", timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except OSError:
            return 0, {}

    def text(self, rank: int) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics[rank]}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if not x.startswith("#"))}

    def healthy(self, seconds: float = 90.0) -> None:
        end = time.monotonic() + seconds
        while [self.health(rank)[0] for rank in range(self.count)] != [200] * self.count:
            logs = [(self.folder / f"p{rank}.log").read_text()[-2000:] for rank in range(self.count)]
            assert time.monotonic() < end, logs
            time.sleep(0.1)

    def settled(self, seconds: float = 30.0) -> None:
        """No session is left anywhere."""
        end = time.monotonic() + seconds
        while any(self.health(rank)[1].get("sessions") for rank in range(self.count)):
            assert time.monotonic() < end, [self.health(rank) for rank in range(self.count)]
            time.sleep(0.05)

    def kill(self, rank: int, number: int = signal.SIGKILL) -> int:
        process = self.processes[rank]
        assert process is not None
        process.send_signal(number)
        return process.wait(40)

    def share(self, folder: Path, name: str, **options: Any) -> bool:
        clear = PlainModel(folder)
        files = {label: read() for label, read in clear.files.items()}
        session = open_session(self.cluster, self.key("olga"), "owner", "--insecure" in self.options)
        try:
            able = hides(clear.config, clear.params)
            told: dict[str, Any] = {"hides": able} | options
            card = card_of(name, told.pop("version", "1"), files, clear.eos, **told)
            owner = Owner(session, self.folder / "state", self.cluster.digest)
            return owner.upload(clear.config, clear.params, card, files)
        finally:
            session.close()

    def connect(self, name: str = "", who: str = "alice", **how: Any) -> RemoteCluster:
        return connect(self.cluster, name, self.key(who), plain="--insecure" in self.options, **how)

    def close(self) -> None:
        for process in self.processes:
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            if process is not None:
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, below those that systems choose by themselves: until a daemon has its own,
    nobody else is given it."""
    found = set[int]()
    while len(found) < count:
        port = 10_000 + int.from_bytes(os.urandom(2)) % 20_000
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.add(port)
    return [*found]


def patiently(live: Live, name: str, seconds: float = 40.0, **how: Any) -> RemoteCluster:
    """A session as soon as there can be one."""
    end = time.monotonic() + seconds
    while True:
        try:
            return live.connect(name, **how)
        except PumaError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def root() -> bool:
    return os.geteuid() == 0
