"""Who may become a link under TLS: every refusal is named alike on both sides and in both logs, over real sockets."""

from __future__ import annotations

import ssl
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from puma.errors import ConfigError, HandshakeError, PeerTimeout
from puma.net import tcp
from puma.net.guard import PLAIN
from puma.net.handshake import NO_COOKIE
from puma.net.tls import Tls
from tests.keyring import Company

pytestmark = pytest.mark.usefixtures("no_threads_left")
DAY = timedelta(days=1)
ANYBODY = [("party", 0), ("party", 2), ("client", None), ("owner", None)]


@pytest.fixture
def meet(identity, keyring, logs):
    """Dial P1; what both sides got: a Met or the error."""
    audits, _ = logs

    def run(guard, role="party", rank=2, port_guard=None, expect=("party", 1), **changes):
        here = identity(cookie=NO_COOKIE)
        there = identity(role, rank, cookie=NO_COOKIE, **changes)
        with tcp.listen(guard=port_guard or keyring.guard("p1"), greeting=2, audit=audits["in"]) as port:
            port.welcome(here, ANYBODY, timeout=5)
            got = []
            for call in (
                lambda: tcp.dial(*port.address, there, expect, 5, 5, guard, audit=audits["out"]),
                lambda: port.accept(2),
            ):
                try:
                    got.append(call())
                except (HandshakeError, PeerTimeout) as error:
                    got.append(error)
            got.append(list(port.refused))
        return got

    return run


def test_a_link_is_named_and_its_secret_is_shared(meet, keyring, logs):
    theirs, ours, _ = meet(keyring.guard("alice"), "client", 5)
    with theirs.link, ours.link:
        assert theirs.secret == ours.secret
        assert (ours.role, ours.rank, ours.name, ours.fingerprint) == (
            "client",
            5,
            "alice",
            keyring.keys["alice"].fingerprint,
        )
        assert (theirs.name, theirs.fingerprint) == ("P1", keyring.keys["p1"].fingerprint)
        for sock in (theirs.link._outbound, theirs.link._inbound):
            assert isinstance(sock, ssl.SSLSocket) and sock.version() == "TLSv1.3" and not sock.session_reused
        theirs.link.send(b"hello")
        assert bytes(ours.link.recv(5)) == b"hello"
        ours.link.fail("enough")
    for side, name in (("in", "alice"), ("out", "P1")):
        (line,) = logs[1](side)
        assert line["outcome"] == "accepted" and line["name"] == name and line["direction"] == side
        assert set(line) == {
            "time", "event", "outcome", "direction", "address", "role", "rank", "name", "fingerprint", "reason",
        }  # fmt: skip


def aged(keyring, name, start, end, cluster=None):
    found = keyring.aged(name, start, end)
    return Tls(found.certificate, found.key, cluster or keyring.cluster)


def delegate(keyring):
    """Mallory, with a certificate that P2's key has signed for her own."""
    found, guard = keyring.delegated("p2"), keyring.guard("mallory")
    guard._dialing.load_cert_chain(found.certificate, found.key)
    return guard


def plain_client_context(keyring):
    """TLS 1.3 without a certificate of its own."""
    guard = keyring.guard("mallory")
    guard._dialing = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    guard._dialing.check_hostname, guard._dialing.verify_mode = False, ssl.CERT_NONE
    return guard


def old(keyring, name):
    """A guard that speaks TLS 1.2 only."""
    guard = keyring.guard(name)
    for context in (guard._dialing, guard._listening):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    return guard


REFUSED = {
    "unknown dialer": (lambda k: {"guard": k.guard("mallory")}, r"certificate .*P1 does not know the dialer's cert"),
    "expired dialer": (
        lambda k: {"guard": aged(k, "p2", -2 * DAY, -DAY)},
        r"certificate .*the dialer's certificate has expired",
    ),
    "future dialer": (
        lambda k: {"guard": aged(k, "p2", DAY, 2 * DAY)},
        "certificate .*P1 cannot verify the dialer's certificate",
    ),
    "no certificate": (lambda k: {"guard": plain_client_context(k)}, "certificate .*the dialer showed P1 no cert"),
    "delegated": (
        lambda k: {"guard": delegate(k)},
        "certificate .*nobody in the cluster file has the certificate that claims to be P2",
    ),
    "unknown listener": (
        lambda k: {"guard": k.guard("p2"), "port_guard": k.guard("mallory")},
        "certificate .*the dialer does not know P1's certificate",
    ),
    "pinned otherwise": (
        lambda k: {"guard": k.guard("p2", k.without(1))},
        "certificate .*the dialer does not know P1's certificate",
    ),
    "expired listener": (
        lambda k: {"guard": k.guard("p2"), "port_guard": aged(k, "p1", -2 * DAY, -DAY)},
        "certificate .*P1's certificate has expired",
    ),
    "client as owner": (
        lambda k: {"guard": k.guard("alice"), "role": "owner", "rank": 0},
        r"role mismatch \(alice is a client; uploading needs an owner's key\)",
    ),
    "owner as client": (
        lambda k: {"guard": k.guard("olga"), "role": "client"},
        "role .*olga is an owner; asking needs a client's key",
    ),
    "client as party": (
        lambda k: {"guard": k.guard("alice")},
        "role .*alice is a client; each party has a key of its own",
    ),
    "party as client": (
        lambda k: {"guard": k.guard("p2"), "role": "client", "rank": 0},
        "role .*P2 is a party; asking needs a client's key",
    ),
    "wrong rank": (
        lambda k: {"guard": k.guard("p2"), "rank": 0},
        r"rank mismatch \(the certificate of P2 claims to be P0\)",
    ),
    "listener of another rank": (
        lambda k: {"guard": k.guard("p2"), "port_guard": k.guard("p0")},
        r"rank mismatch \(the certificate of P0 claims to be P1\)",
    ),
    "another address": (
        lambda k: {"guard": k.guard("p2"), "port_guard": k.guard("p0"), "expect": ("party", 0)},
        r"rank mismatch \(P0 was dialed, P1 answered\)",
    ),
    "configuration": (lambda k: {"guard": k.guard("p2"), "config": b"d" * 32}, "config mismatch"),
    "plain dialer": (lambda k: {"guard": PLAIN}, r"tls mismatch \(P1 expects TLS, the dialer speaks without it\)"),
    "plain listener": (
        lambda k: {"guard": k.guard("p2"), "port_guard": PLAIN},
        r"tls mismatch \(P1 does not speak TLS, the dialer does\)",
    ),
    "old dialer": (
        lambda k: {"guard": old(k, "p2")},
        r"tls mismatch \((P1|the dialer) does not speak TLS 1\.3\)",
    ),
    "old listener": (
        lambda k: {"guard": k.guard("p2"), "port_guard": old(k, "p1")},
        r"tls mismatch \((P1|the dialer) does not speak TLS 1\.3\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_named_on_both_sides_and_in_both_logs(meet, keyring, logs, case):
    make, reason = REFUSED[case]
    theirs, ours, _ = meet(**make(keyring))
    assert isinstance(theirs, HandshakeError) and isinstance(ours, HandshakeError), (theirs, ours)
    for error in (theirs, ours):
        with pytest.raises(HandshakeError, match=reason):
            raise error
        assert error.hint
    assert theirs.message == ours.message or "old" in case
    for side, error in (("in", ours), ("out", theirs)):
        (line,) = logs[1](side)
        assert (line["outcome"], line["reason"]) == ("refused", error.message)


def test_the_refused_dialer_is_told_its_fingerprint(meet, keyring):
    theirs, _, _ = meet(keyring.guard("mallory"))
    assert keyring.keys["mallory"].fingerprint in theirs.hint


def test_a_certificate_renewed_with_the_same_key_is_the_same_identity(meet, keyring):
    for end in meet(aged(keyring, "p2", -DAY, 5 * DAY))[:2]:
        end.link.close()


def test_two_clients_may_choose_the_same_number(identity, keyring):
    cluster = msgspec.structs.replace(
        keyring.cluster, clients={"alice": keyring.cluster.clients["alice"], "bob": keyring.keys["mallory"].fingerprint}
    )
    with tcp.listen(guard=keyring.guard("p1", cluster)) as port:
        port.welcome(identity(), ANYBODY)
        dialed = [
            tcp.dial(*port.address, identity("client", 7), ("party", 1), 5, guard=keyring.guard(name))
            for name in ("alice", "mallory")
        ]
        met = [port.accept(5) for _ in range(2)]
        assert {m.name for m in met} == {"alice", "bob"}
        for end in (*met, *dialed):
            end.link.close()


# -- a company's CA -------------------------------------------------------------------------------------------------


@pytest.fixture
def company(tmp_path):
    company = Company(tmp_path)
    issued = {f"p{r}": company.issue(f"p{r}", f"p{r}.example.org") for r in range(3)}
    issued["alice"] = company.issue("alice")
    issued["eve"] = company.issue("eve", "p9.example.org", "alice.example.org")
    return company, issued


@pytest.fixture
def named(company, keyring):
    """The same cluster, with names instead of fingerprints."""
    parties = tuple(
        msgspec.structs.replace(p, fingerprint="", name=f"p{p.rank}.example.org") for p in keyring.cluster.parties
    )
    ca = str(company[0].file)
    return msgspec.structs.replace(keyring.cluster, parties=parties, ca=ca, owners={}, clients={"alice": "alice"})


def test_under_a_ca_names_count(meet, company, named):
    guards = {name: Tls(found.certificate, found.key, named) for name, found in company[1].items()}
    for guard, role, name in ((guards["p2"], "party", "P2"), (guards["alice"], "client", "alice")):
        theirs, ours, _ = meet(guard, role, 2, guards["p1"])
        with theirs.link, ours.link:
            assert ours.name == name and ours.fingerprint.startswith("sha256:") and theirs.secret == ours.secret
    theirs, ours, _ = meet(guards["eve"], "client", 2, guards["p1"])
    assert "nobody in the cluster file has the certificate" in theirs.message == ours.message
    theirs, ours, _ = meet(guards["p2"], "party", 2, guards["p0"])
    assert "the certificate of P0 claims to be P1" in theirs.message == ours.message


def test_another_ca_counts_for_nothing(meet, company, named, tmp_path, keyring):
    (tmp_path / "other").mkdir()
    other = Company(tmp_path / "other").issue("p2", "p2.example.org")
    listening = company[1]["p1"]
    guard = Tls(listening.certificate, listening.key, named)
    theirs, ours, _ = meet(Tls(other.certificate, other.key, named), port_guard=guard)
    assert "P1 does not know the dialer's certificate" in theirs.message == ours.message
    with pytest.raises(ConfigError, match="is not signed by its own key"):
        Tls(other.certificate, other.key, keyring.cluster)
    with pytest.raises(ConfigError, match="cannot use the CA in"):
        Tls(other.certificate, other.key, msgspec.structs.replace(named, ca=str(other.key)))


def test_files_that_do_not_fit_are_refused_early(keyring, tmp_path):
    with pytest.raises(ConfigError, match="cannot read a certificate"):
        Tls(tmp_path / "no.crt", keyring.keys["p1"].key, keyring.cluster)
    with pytest.raises(ConfigError, match=r"cannot use .*p1\.crt with .*p2\.key"):
        Tls(keyring.keys["p1"].certificate, keyring.keys["p2"].key, keyring.cluster)


def test_a_secret_is_bound_to_both_certificates(identity, keyring, monkeypatch):
    """Two ends that disagree about who they are do not agree on anything."""
    real = Tls.prove

    def deceived(self, sock, listener, dialing):
        proven = real(self, sock, listener, dialing)
        return replace(proven, mine=keyring.keys["mallory"].fingerprint) if dialing else proven

    monkeypatch.setattr(Tls, "prove", deceived)
    with tcp.listen(guard=keyring.guard("p1")) as port:
        port.welcome(identity(), ANYBODY)
        with pytest.raises(HandshakeError, match="cookie mismatch"):
            tcp.dial(*port.address, identity(rank=2), ("party", 1), 5, guard=keyring.guard("p2"))
        with pytest.raises(HandshakeError, match="cookie mismatch"):
            port.accept(2)
