"""Whatever bytes come, in a handshake or on a link, are understood or refused by name, at once."""

from __future__ import annotations

import socket
import time

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from puma.errors import FrameError, HandshakeError, ProtocolError
from puma.net import tcp
from puma.net.frame import MAX_TEXT, header_bytes
from puma.net.handshake import PROTOCOL, Attach, Hello, Wire, decode_first
from puma.net.stream import StreamLink

HELLO = msgspec.msgpack.encode(Hello(PROTOCOL, "party", 2, b"s" * 16, b"c" * 32, bytes(32), bytes(32)))
ATTACH = msgspec.msgpack.encode(Attach(bytes(16), bytes(32)))

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(["type", "version", "role", "rank", "session", "config", "key", "nonce", "link", "proof", "x"])
look_alikes = st.dictionaries(fields, values | st.sampled_from(["hello", "attach", PROTOCOL]), max_size=8).map(
    msgspec.msgpack.encode
)


@st.composite
def spoiled(draw):
    """A good message with some bytes changed, cut out or put in."""
    data = bytearray(draw(st.sampled_from([HELLO, ATTACH])))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


payloads = st.binary(max_size=200) | look_alikes | spoiled()
frames = st.builds(
    lambda kind, number, length, payload: header_bytes(kind, number, length) + payload,
    st.integers(0, 255),
    st.integers(0, 3),
    st.integers(0, 300) | st.sampled_from([1 << 20, 1 << 30, (1 << 30) + 1, 2**64 - 1]),
    payloads,
)
streams = st.binary(max_size=300) | frames | st.builds(bytes.__add__, frames, frames)


@settings(max_examples=200, deadline=None)
@given(payloads)
def test_first_messages_are_understood_or_refused(payload):
    try:
        found = decode_first(payload)
    except (FrameError, HandshakeError) as error:
        assert "not a hello" in error.message or "version mismatch" in error.message
    else:
        assert isinstance(found, Hello | Attach)


@pytest.mark.parametrize(
    "payload",
    [
        b"\x82\xa7version" + bytes([PROTOCOL]) + b"\xa1x" + b"\x91" * (MAX_TEXT - 20),
        b"\x82\xa4type\xa5hello\xa7session" + b"\x81\xa1a" * 1000,
        b"\x82\xa7version" + bytes([PROTOCOL]) + b"\xa4type\xa5\xff\xfe\xfd\xfc\xfb",
    ],
    ids=["deep list", "deep map", "no text"],
)
def test_what_the_decoder_itself_gives_up_on_is_refused(payload):
    with pytest.raises(FrameError, match="not a hello"):
        decode_first(payload)


@settings(max_examples=150, deadline=None)
@given(streams)
def test_a_handshake_reads_or_refuses_and_never_hangs(data):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        try:
            assert len(Wire(ours, time.monotonic() + 2).recv()) <= MAX_TEXT
        except ProtocolError as error:
            assert error.message and error.message.isprintable()


@settings(max_examples=60, deadline=None)
@given(streams)
def test_a_link_ends_by_name_whatever_comes(data):
    (outbound, reads), (inbound, writes) = socket.socketpair(), socket.socketpair()
    with reads, writes:
        link = StreamLink("P1", "P2", outbound, inbound, timeout=2)
        writes.sendall(data)
        writes.shutdown(socket.SHUT_WR)
        try:
            while True:
                link.recv_control()
        except ProtocolError as error:
            assert "P2" in error.message and error.message.isprintable()
        finally:
            link.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.lists(streams, min_size=1, max_size=4), guarded=st.booleans())
def test_a_port_survives_anything(identity, keyring, data, guarded):
    """The same over real sockets, without and with TLS; afterwards those who belong there still get in."""
    guards = {name: keyring.guard(name) for name in ("p1", "p2")} if guarded else {}
    with tcp.listen(greeting=2.0, **({"guard": guards["p1"]} if guards else {})) as port:
        port.welcome(identity(), [("party", 2)])
        for words in data:
            with socket.create_connection(port.address) as sock:
                sock.sendall(words)
        dialed = tcp.dial(
            *port.address, identity(rank=2), ("party", 1), 5, **({"guard": guards["p2"]} if guards else {})
        )
        while True:
            try:
                met = port.accept(5)
                break
            except HandshakeError:
                continue
        met.link.close()
        dialed.link.close()
