"""Pairs of links of both kinds, the identities behind them, and threads whose errors are not lost."""

from __future__ import annotations

import datetime
import functools
import ssl
import tempfile
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from puma.net import memory, tcp
from puma.net.handshake import Identity

HOUR = datetime.timedelta(hours=1)
ME = Identity("party", 1, b"s" * 16, b"c" * 32, b"k" * 32)


@pytest.fixture
def identity() -> Callable[..., Identity]:
    return lambda role="party", rank=1, **changes: replace(ME, role=role, rank=rank, **changes)


@functools.cache
def tls_wraps() -> tuple[tcp.Wrap, tcp.Wrap]:
    """A listener's wrap with a certificate of its own, and a dialer's that trusts exactly this one."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "p1")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - HOUR, now + HOUR)
    certificate = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("p1")]), False).sign(key, SHA256())
    pem = certificate.public_bytes(Encoding.PEM)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(pem + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.flush()
        server.load_cert_chain(file.name)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=pem.decode())
    return (
        lambda sock: server.wrap_socket(sock, server_side=True),
        lambda sock: client.wrap_socket(sock, server_hostname="p1"),
    )


@pytest.fixture
def make_links(request):
    """A function giving both ends of a link of the kind the test is parametrised with; closed afterwards."""
    made = []

    def make(timeout: float = 5.0, queue_bytes: int = 256 << 20):
        if request.param == "memory":
            ends = memory.pair("P1", "P2", timeout, queue_bytes)
        else:
            server, client = tls_wraps() if request.param == "tls" else (tcp.plain, tcp.plain)
            with tcp.listen(wrap=server) as port:
                port.welcome(ME, [("party", 2)], timeout, queue_bytes)
                dialed = tcp.dial(*port.address, replace(ME, rank=2), ("party", 1), 5, timeout, client, queue_bytes)
                ends = port.accept(5).link, dialed.link
        made.extend(ends)
        return ends

    yield make
    for end in made:
        end.close()


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
        left = [t.name for t in threading.enumerate() if t not in before]
        assert not left, left

    with check():
        yield
