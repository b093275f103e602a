"""How two processes that meet on a port agree to be a link: version, session, configuration, who each
one is, proof that both hold the launcher's cookie, and a fresh pair secret. It sees one byte stream, a
deadline and, where TLS runs below, what the certificates prove; it opens no socket. A refusal is told to
the other side, so both raise the same reason.

    dialer -> listener   Hello            who I am, my X25519 key, a nonce
    listener -> dialer   Hello            the same of the listener
    dialer -> listener   proof            HMAC(cookie, "dialer" and both hellos)
    listener -> dialer   proof            HMAC(cookie, "listener" and both hellos)

    pair secret = HKDF-SHA256(X25519, salt = session, info = hash of both hellos)

and on a second socket:

    dialer -> listener   Attach           the link's id, HMAC(pair secret, "dialer" and the id)
    listener -> dialer   proof            HMAC(pair secret, "listener" and the id)

Where both sides have certificates, "both hellos" are followed by both fingerprints, the dialer's first: who
does not agree on who the two ends are does not agree on a secret.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Annotated, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from puma.errors import FrameError, HandshakeError, ProtocolError
from puma.net import frame
from puma.net.chain import link_key
from puma.net.endpoint import printable
from puma.net.frame import HEADER_BYTES, MAX_TEXT, Kind, header_bytes, parse_header

SESSION_BYTES = 16
DIGEST_BYTES = COOKIE_BYTES = 32
PROTOCOL = 3
# The cookie where certificates, and not a launcher, say who belongs here.
NO_COOKIE = bytes(COOKIE_BYTES)

Role = Literal["party", "owner", "client"]
Bytes16 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]

_HINTS = {
    "version": "run the same version of Puma everywhere",
    "session": "the other side belongs to another session; start all of them again",
    "config": "compare the cluster files: they must be the same everywhere",
    "cookie": "the other side was not started by this launcher",
    "rank": "two processes claim one place, or an address points to the wrong one; compare the cluster files",
    "role": "the cluster file says what each key may be: see `puma cluster show` and `puma cluster trust`",
    "certificate": "compare `puma keys show` on one side with `puma cluster show` on the other; "
    "`puma keys renew` makes an expired certificate new",
    "link": "somebody answers in that party's place, or the address leads to two machines",
    "tls": "start both sides with certificates, or both with --insecure; another program may be on that port",
}


@dataclass(frozen=True)
class Identity:
    """Who this process is in which session, and the cookie that shows it belongs here."""

    role: Role
    rank: int
    session: bytes
    config: bytes
    cookie: bytes = field(repr=False)

    def __post_init__(self) -> None:
        sizes = (len(self.session), len(self.config), len(self.cookie))
        if sizes != (SESSION_BYTES, DIGEST_BYTES, COOKIE_BYTES):
            raise ValueError(f"session, config digest and cookie have 16, 32 and 32 bytes, not {sizes}")

    @property
    def name(self) -> str:
        """Role and rank in one word, such as P2."""
        return name_of(self.role, self.rank)


class Hello(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="hello"):
    """What each side says first."""

    version: int
    role: Role
    rank: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    session: Bytes16
    config: Bytes32
    key: Bytes32
    nonce: Bytes32


class Attach(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="attach"):
    """What the dialer says on the second socket of a link it has already agreed on."""

    link: Bytes16
    proof: Bytes32


class _Version(msgspec.Struct):
    version: int = PROTOCOL


# Made before any thread decodes: two that meet a type at the same moment, each for the first time, crash msgspec.
_versions = msgspec.msgpack.Decoder(_Version, strict=True)
_firsts: msgspec.msgpack.Decoder[Hello | Attach] = msgspec.msgpack.Decoder(Hello | Attach)


@dataclass(frozen=True)
class Agreed:
    """The outcome: who the other side is, and what only the two of us know."""

    role: Role
    rank: int
    link: bytes
    secret: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """The peer's role and rank in one word, such as P2."""
        return name_of(self.role, self.rank)

    @property
    def chain_key(self) -> bytes:
        """The key of hash chains over the link's frames (net/chain.py)."""
        return link_key(self.secret)

    def attach(self) -> Attach:
        """Shows on a second socket that it belongs to this link."""
        return Attach(self.link, self._attached("dialer"))

    def holds(self, words: Attach) -> bool:
        """At the listener: whether these words come from the other side of this agreement."""
        return hmac.compare_digest(self._attached("dialer"), words.proof)

    def welcome(self) -> bytes:
        """The listener's answer on the second socket: it, too, has the pair secret."""
        return self._attached("listener")

    def answered(self, words: bytes) -> bool:
        """At the dialer: whether this answer comes from the other side of this agreement."""
        return hmac.compare_digest(self.welcome(), words)

    def _attached(self, side: str) -> bytes:
        # The side is part of what is proved: words sent back to their author prove nothing.
        return hmac.digest(self.secret, f"puma/1|attach|{side}|".encode() + self.link, "sha256")


def name_of(role: str, rank: int) -> str:
    """P0, owner, client, client 3: how errors call a process."""
    return f"P{rank}" if role == "party" else f"{role} {rank}" if rank else role


Seats = Mapping[tuple[Role, int | None], str]  # what a certificate may be, and its name there
_NEEDS = {
    "owner": "uploading needs an owner's key",
    "client": "asking needs a client's key",
    "party": "each party has a key of its own",
}


def mistaken(seats: Seats, role: Role) -> str:
    """Who has a key that is good for something else, and what this role needs."""
    held = " and ".join(f"{name} is {'an' if kind == 'owner' else 'a'} {kind}" for (kind, _), name in seats.items())
    return f"{held}; {_NEEDS[role]}"


@dataclass(frozen=True)
class Proven:
    """What certificates have proved about the two ends of a socket: whose fingerprints they are, and what the other
    side may be, with the name it has there; rank None stands for any."""

    mine: str
    theirs: str
    seats: Seats

    def objection(self, role: Role, rank: int) -> HandshakeError | None:
        """Why the other side cannot be this; None if it can."""
        if self.name(role, rank):
            return None
        claim = name_of(role, rank)
        if not self.seats:
            return refusal("certificate", f"nobody in the cluster file has the certificate that claims to be {claim}")
        if role == "party" and all(kind == "party" for kind, _ in self.seats):
            held = " and ".join(self.seats.values())
            return refusal("rank", f"the certificate of {held} claims to be {claim}")
        return refusal("role", mistaken(self.seats, role))

    def name(self, role: Role, rank: int) -> str:
        """What the cluster file calls the other side in this role; empty if it may not have it."""
        return self.seats.get((role, rank)) or self.seats.get((role, None)) or ""

    def ends(self, dialing: bool) -> tuple[bytes, bytes]:
        """Both fingerprints, the dialer's first."""
        ends = (self.mine, self.theirs) if dialing else (self.theirs, self.mine)
        return ends[0].encode(), ends[1].encode()


class Wire:
    """A byte stream during the handshake: small frames, one deadline for everything."""

    def __init__(self, sock: socket.socket, deadline: float, proven: Proven | None = None) -> None:
        self.sock = sock
        self.deadline = deadline
        self.proven = proven
        self._begun = False

    def send(self, payload: bytes, kind: Kind = Kind.HELLO) -> None:
        """One frame of the handshake."""
        self._begun = True
        self.sock.settimeout(self._left())
        self.sock.sendall(header_bytes(kind, 0, len(payload)) + payload)

    def recv(self) -> bytes:
        """The next payload; HandshakeError if it is the other side's refusal."""
        head = self._exactly(HEADER_BYTES)
        version = int.from_bytes(head[4:6], "little")
        if head[:4] == frame.MAGIC and version != frame.VERSION:
            raise _other_version("frame", version, frame.VERSION)
        header = parse_header(head, {**frame.DEFAULT_LIMITS, Kind.DATA: 0, Kind.CONTROL: 0})
        payload = self._exactly(header.length)
        if header.kind is Kind.ERROR and (self._begun or self.proven):
            raise _told(payload)
        self._begun = True
        if header.kind is not Kind.HELLO:
            raise FrameError(f"a {header.kind.name.lower()} frame during the handshake")
        return payload

    def refuse(self, error: HandshakeError) -> None:
        """Tell the other side and leave it time to read: closing over unread bytes destroys our words."""
        try:
            self.send(error.message.encode()[:MAX_TEXT], Kind.ERROR)
            self.sock.shutdown(socket.SHUT_WR)
            end = min(self.deadline, monotonic() + 0.5)
            while monotonic() < end:
                self.sock.settimeout(max(0.01, end - monotonic()))
                if not self.sock.recv(4096):
                    break
        except OSError:
            pass

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            self.sock.settimeout(self._left())
            piece = self.sock.recv(size - len(data))
            if not piece:
                raise FrameError(f"the connection ended after {len(data)} of {size} bytes of the handshake")
            data += piece
        return data

    def _left(self) -> float:
        left = self.deadline - monotonic()
        if left <= 0:
            raise TimeoutError("handshake deadline")
        return left


def refusal(what: str, detail: str) -> HandshakeError:
    """A refusal whose wording is the same on both sides."""
    return HandshakeError(f"handshake refused: {what} mismatch ({detail})", _HINTS[what])


def _other_version(what: str, a: int, b: int) -> HandshakeError:
    return refusal("version", f"{what} versions {min(a, b)} and {max(a, b)}")


def _told(payload: bytes) -> HandshakeError:
    message = printable(payload)
    hint = next((text for what, text in _HINTS.items() if f": {what} mismatch" in message), "")
    return HandshakeError(message, hint)


def decode_first(payload: bytes) -> Hello | Attach:
    """The first message on a socket; FrameError if it is none."""
    try:
        version = _versions.decode(payload).version
        if version != PROTOCOL:
            raise _other_version("protocol", version, PROTOCOL)
        return _firsts.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"not a hello: {error}") from None


def dialer(wire: Wire, me: Identity, expect: tuple[Role, int]) -> Agreed:
    """The dialer's half; raises HandshakeError, having told the listener."""
    try:
        private, mine = _hello(me)
        wire.send(mine)
        theirs = wire.recv()
        hello = _their_hello(theirs, me)
        if (hello.role, hello.rank) != expect:
            raise refusal("rank", f"{name_of(*expect)} was dialed, {name_of(hello.role, hello.rank)} answered")
        if wire.proven and (problem := wire.proven.objection(*expect)):
            raise problem
        heard = _transcript(mine, theirs, *(wire.proven.ends(dialing=True) if wire.proven else ()))
        wire.send(_proof(me, "dialer", heard))
        _check_proof(wire.recv(), me, "listener", heard)
        return _agree(private, hello, me, heard)
    except HandshakeError as error:
        wire.refuse(error)
        raise


def listener(wire: Wire, me: Identity, theirs: bytes, admit: Callable[[Role, int], HandshakeError | None]) -> Agreed:
    """The listener's half, from the dialer's hello on; `admit` may object to a role and rank."""
    try:
        hello = _their_hello(theirs, me)
        problem = wire.proven.objection(hello.role, hello.rank) if wire.proven else None
        problem = problem or admit(hello.role, hello.rank)
        if problem is not None:
            raise problem
        private, mine = _hello(me)
        wire.send(mine)
        heard = _transcript(theirs, mine, *(wire.proven.ends(dialing=False) if wire.proven else ()))
        _check_proof(wire.recv(), me, "dialer", heard)
        wire.send(_proof(me, "listener", heard))
        return _agree(private, hello, me, heard)
    except HandshakeError as error:
        wire.refuse(error)
        raise


def _hello(me: Identity) -> tuple[X25519PrivateKey, bytes]:
    private = X25519PrivateKey.generate()
    key = private.public_key().public_bytes_raw()
    hello = Hello(PROTOCOL, me.role, me.rank, me.session, me.config, key, os.urandom(32))
    return private, msgspec.msgpack.encode(hello)


def _their_hello(payload: bytes, me: Identity) -> Hello:
    hello = decode_first(payload)
    if not isinstance(hello, Hello):
        raise FrameError("not a hello")
    if hello.session != me.session:
        raise refusal("session", "the two sides belong to different sessions")
    if hello.config != me.config:
        raise refusal("config", "the two sides have different configurations")
    return hello


def _transcript(dialed: bytes, listened: bytes, *ends: bytes) -> bytes:
    """Binds both hellos and, if there are, both fingerprints, each with its length, in an order both sides know."""
    framed = b"".join(len(part).to_bytes(4, "big") + part for part in (dialed, listened, *ends))
    return hashlib.sha256(b"puma/1|transcript|" + framed).digest()


def _proof(me: Identity, side: str, heard: bytes) -> bytes:
    return hmac.digest(me.cookie, f"puma/1|{side}|".encode() + heard, "sha256")


def _check_proof(proof: bytes, me: Identity, side: str, heard: bytes) -> None:
    # The side is part of what is proved: a proof sent back to its author proves nothing.
    if not hmac.compare_digest(proof, _proof(me, side, heard)):
        raise refusal("cookie", "the two sides were started with different cookies")


def _agree(private: X25519PrivateKey, hello: Hello, me: Identity, heard: bytes) -> Agreed:
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(hello.key))
    except ValueError:
        raise FrameError("a hello with an invalid public key") from None
    secret = HKDF(SHA256(), 32, salt=me.session, info=b"puma/1|pair|" + heard).derive(shared)
    return Agreed(hello.role, hello.rank, heard[:16], secret)


def handshake_failed(peer: str, error: Exception) -> ProtocolError:
    """A handshake that ended without a word of refusal."""
    if isinstance(error, TimeoutError):
        return HandshakeError(f"{peer} did not finish the handshake in time", "look at the log of that party")
    why = error.message if isinstance(error, ProtocolError) else str(error)
    return HandshakeError(f"{peer} broke off the handshake: {why}", "is another program on that port?")
