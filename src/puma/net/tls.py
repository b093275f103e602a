"""TLS 1.3 around the sockets of a link, with a certificate on both sides and the cluster file as the only authority.

A certificate counts if its key is pinned there (or, under a company's CA, if its name is), and the peer shows in the
TLS handshake that it has that key. OpenSSL needs a trust anchor to check a certificate against; an anchor is no more
than a name and a key (RFC 5280, 6.1.1), so one is made from each fingerprint, and it certifies nothing but that key's
own certificates. What a peer may *be* is compared after that, by handshake.py, with the role and rank that it claims.

Refusals are worded alike on both sides: the one that refuses tells OpenSSL's alert, which the other one translates.
This file must not know what is said over a link."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from puma import fingerprint
from puma.config import Cluster
from puma.errors import ConfigError, FrameError, HandshakeError
from puma.net.guard import TLS_HANDSHAKE, first_bytes, linger, refused_in_plain, speaks_plain
from puma.net.handshake import Proven, Role, refusal

_EXPIRED, _NOT_YET_VALID = 10, 9  # X509_V_ERR_*
_UNKNOWN = {18, 19, 20, 21}
_UNVERIFIED = tuple(
    f"ALERT_{what}"
    for what in (
        "BAD_CERTIFICATE", "UNSUPPORTED_CERTIFICATE", "CERTIFICATE_UNKNOWN", "CERTIFICATE_REVOKED", "DECRYPT_ERROR",
    )
)  # fmt: skip
Seats = dict[tuple[Role, int | None], str]


class Tls:
    """The guard of one identity in one cluster, for both listening and dialing."""

    def __init__(self, certificate: Path, key: Path, cluster: Cluster) -> None:
        """ConfigError if the key, the certificate or the CA cannot be used; `crypto.identity.load` checks more."""
        self._cluster = cluster
        own = _own(certificate)
        self.fingerprint = fingerprint.of_certificate(own)
        self.seats = self._seats(own, self.fingerprint)  # what the cluster file says that this identity may be
        if cluster.ca is None and not fingerprint.suffices(own):
            what = f"{certificate} is not signed by its own key, and the cluster file names no CA"
            raise ConfigError(what, "make a key with `puma keys new`, or write `ca` into the cluster file")
        parties = [party.fingerprint for party in cluster.parties]
        people = [*cluster.owners.values(), *cluster.clients.values()]
        self._listening = self._context(ssl.PROTOCOL_TLS_SERVER, certificate, key, [*parties, *people])
        self._listening.num_tickets = 0  # nothing is resumed: every socket shows its certificate
        self._dialing = self._context(ssl.PROTOCOL_TLS_CLIENT, certificate, key, parties)

    def _context(self, side: int, certificate: Path, key: Path, pins: Iterable[str]) -> ssl.SSLContext:
        context = ssl.SSLContext(side)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # `_seats` compares what the cluster file says
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot use {certificate} with {key}: {error}", "see `puma keys show`") from None
        if self._cluster.ca is not None:
            try:
                context.load_verify_locations(self._cluster.ca)
            except OSError as error:
                why = error.strerror or "no certificates in it"
                raise ConfigError(f"cannot use the CA in {self._cluster.ca}: {why}", "it is a PEM file") from None
            return context
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        # Not our own: OpenSSL would send the anchor along with our certificate.
        anchors = {pin: _anchor(fingerprint.key_of(pin)) for pin in pins if pin != self.fingerprint}
        if anchors:
            context.load_verify_locations(cadata="".join(anchors.values()))
        return context

    def wrap(self, sock: socket.socket, dialing: bool) -> socket.socket:
        """The socket within TLS 1.3; HandshakeError if the other side offers less or no certificate that is known."""
        context = self._dialing if dialing else self._listening
        return context.wrap_socket(sock, server_side=not dialing, do_handshake_on_connect=False)

    def prove(self, sock: socket.socket, listener: str, dialing: bool) -> Proven:
        """Both ends by the fingerprints of their certificates."""
        assert isinstance(sock, ssl.SSLSocket)
        if not dialing:
            _look_for_tls(sock, listener)
        try:
            sock.do_handshake()
        except ssl.SSLError as error:
            problem = self.explained(error, listener, dialing)
            linger(sock)
            if problem is not None:
                raise problem from None
            raise FrameError(f"TLS failed: {error.reason or error}") from None
        shown = sock.getpeercert(binary_form=True)
        assert shown is not None
        try:
            certificate = x509.load_der_x509_certificate(shown)
            theirs = fingerprint.of_certificate(certificate)
            return Proven(self.fingerprint, theirs, self._seats(certificate, theirs))
        except (ValueError, UnsupportedAlgorithm) as error:  # what a CA signed may still be odd
            raise FrameError(f"cannot read the peer's certificate: {error}", "ask the CA for a new one") from None

    def explained(self, error: OSError, listener: str, dialing: bool) -> HandshakeError | None:
        """A refusal of the other side that TLS reports only with the first bytes."""
        if not isinstance(error, ssl.SSLError):
            return None
        here, there = ("the dialer", listener) if dialing else (listener, "the dialer")
        if isinstance(error, ssl.SSLCertVerificationError):
            return _not_verified(error, here, there)
        found = _alert(error.reason or "", here, there, listener, dialing)
        if found is not None and found.message.endswith(f"know {here}'s certificate)"):
            hint = f"the fingerprint of {here} is {self.fingerprint}; add it there with `puma cluster trust`"
            return HandshakeError(found.message, hint)
        return found

    def check_host(self, host: str) -> None:
        """TLS may go anywhere."""

    def _seats(self, certificate: x509.Certificate, theirs: str) -> Seats:
        cluster = self._cluster
        known = {theirs} if cluster.ca is None else names(certificate)
        seats: Seats = {("party", p.rank): f"P{p.rank}" for p in cluster.parties if cluster.known_by(p) in known}
        people: tuple[tuple[Role, Mapping[str, str]], ...] = (("owner", cluster.owners), ("client", cluster.clients))
        for role, members in people:
            name = next((name for name, value in members.items() if value in known), None)
            if name is not None:
                seats[role, None] = name
        return seats


def _own(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        raise ConfigError(f"cannot read a certificate from {path}", "make one with `puma keys new`") from None


def _anchor(key: bytes) -> str:
    """A name and a key in the only form that OpenSSL takes them, in PEM. A throw-away key signs it: nobody checks the
    signature of an anchor, whose authority is that it is in the cluster file."""
    name = fingerprint.issuer(key)
    public = Ed25519PublicKey.from_public_bytes(key)
    usage = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
    ) | dict.fromkeys(("crl_sign", "encipher_only", "decipher_only"), False)
    start, end = datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
    builder = (
        x509.CertificateBuilder(name, name, public, 1, start, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(key_cert_sign=True, **usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    return builder.sign(Ed25519PrivateKey.generate(), algorithm=None).public_bytes(Encoding.PEM).decode()


def names(certificate: x509.Certificate) -> set[str]:
    """What a CA says its holder is called: DNS names, addresses and URIs; the common name if there is none of them."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return {str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)}
    names: set[str] = set()
    for kind in (x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier):
        names.update(found.get_values_for_type(kind))
    return names | {str(address) for address in found.get_values_for_type(x509.IPAddress)}


def _look_for_tls(sock: ssl.SSLSocket, listener: str) -> None:
    """Refuse a dialer that does not begin like TLS; if it speaks Puma's plain links, in words that it understands."""
    first = first_bytes(sock, 4)
    if first[:2] == TLS_HANDSHAKE[: len(first)]:
        return
    if not speaks_plain(first):
        raise FrameError(f"neither TLS nor Puma: {first!r}", "another program talks to this port")
    with socket.socket(fileno=sock.detach()) as plain:
        raise refused_in_plain(plain, refusal("tls", f"{listener} expects TLS, the dialer speaks without it"))


def _not_verified(error: ssl.SSLCertVerificationError, here: str, there: str) -> HandshakeError:
    if error.verify_code == _EXPIRED:
        return refusal("certificate", f"{there}'s certificate has expired")
    if error.verify_code in _UNKNOWN:
        return refusal("certificate", f"{here} does not know {there}'s certificate")
    found = refusal("certificate", f"{here} cannot verify {there}'s certificate")
    return HandshakeError(found.message, f"OpenSSL says: {error.verify_message}; are the clocks right?")


def _alert(reason: str, here: str, there: str, listener: str, dialing: bool) -> HandshakeError | None:
    """The refusal behind OpenSSL's name for an error; None for one that says nothing about certificates or TLS."""
    if reason.endswith("ALERT_UNKNOWN_CA"):
        return refusal("certificate", f"{there} does not know {here}'s certificate")
    if reason.endswith("ALERT_CERTIFICATE_EXPIRED"):
        return refusal("certificate", f"{here}'s certificate has expired")
    if reason.endswith(_UNVERIFIED):
        return refusal("certificate", f"{there} cannot verify {here}'s certificate")
    if reason.endswith(("ALERT_CERTIFICATE_REQUIRED", "PEER_DID_NOT_RETURN_A_CERTIFICATE")):
        return refusal("certificate", f"the dialer showed {listener} no certificate")
    if reason.endswith(("ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL")):
        return refusal("tls", f"{there} does not speak TLS 1.3")
    if reason == "WRONG_VERSION_NUMBER" and dialing:
        return refusal("tls", f"{listener} does not speak TLS, the dialer does")
    return None


def _no_password() -> str:
    """In place of OpenSSL's question at the terminal, which a daemon cannot answer."""
    raise ValueError("the key is encrypted")
