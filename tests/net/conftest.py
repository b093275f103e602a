"""Pairs of links of both kinds, the identities behind them, and threads whose errors are not lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace

import pytest

from puma.net import memory, pulse, tcp
from puma.net.audit import Audit
from puma.net.guard import PLAIN
from puma.net.handshake import Identity
from puma.net.sockets import HERE
from tests.keyring import Keyring

ME = Identity("party", 1, b"s" * 16, b"c" * 32, b"k" * 32)


@pytest.fixture
def identity() -> Callable[..., Identity]:
    return lambda role="party", rank=1, **changes: replace(ME, role=role, rank=rank, **changes)


@pytest.fixture(scope="session")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    """Keys for everybody, and a cluster file that knows them."""
    return Keyring(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def make_links(request, keyring: Keyring):
    """A function giving both ends of a link of the kind the test is parametrised with; closed afterwards."""
    made = []

    def make(timeout: float = 5.0, queue_bytes: int = 256 << 20):
        if request.param == "memory":
            ends = memory.pair("P1", "P2", timeout, queue_bytes)
        else:
            tls = request.param == "tls"
            server, client = (keyring.guard("p1"), keyring.guard("p2")) if tls else (PLAIN, PLAIN)
            host = HERE if request.param == "here" else "127.0.0.1"
            with tcp.listen(host, guard=server) as port:
                port.welcome(ME, [("party", 2)], timeout, queue_bytes)
                dialed = tcp.dial(*port.address, replace(ME, rank=2), ("party", 1), 5, timeout, client, queue_bytes)
                ends = port.accept(5).link, dialed.link
        made.extend(ends)
        return ends

    yield make
    for end in made:
        end.close()


@pytest.fixture
def logs(tmp_path):
    """The audit logs of both sides, and a function that reads one."""
    files = {side: tmp_path / f"{side}.log" for side in ("in", "out")}
    audits = {side: Audit(path) for side, path in files.items()}

    def read(side):
        return [json.loads(line) for line in files[side].read_text().splitlines()]

    yield audits, read
    for audit in audits.values():
        audit.close()


class Other(threading.Thread):
    """Runs a function aside; `result` waits for it and raises what it raised."""

    def __init__(self, function: Callable, *args: object) -> None:
        super().__init__(daemon=True)
        self._work = lambda: function(*args)
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._value = self._work()
        except BaseException as error:
            self._error = error

    def result(self, timeout: float = 10.0):
        self.join(timeout)
        assert not self.is_alive(), "the other side hangs"
        if self._error is not None:
            raise self._error
        return self._value


@pytest.fixture
def aside() -> type[Other]:
    return Other


@pytest.fixture
def no_threads_left():
    """Whatever the test started has ended when it ends."""
    before = set(threading.enumerate())

    @contextmanager
    def check():
        yield
        left = [t.name for t in threading.enumerate() if t not in before and t.name != pulse.NAME]
        assert not left, left

    with check():
        yield
