"""Reaching three distant parties: who is not there, and who may not ask, is said at once."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from puma.client import connect as connecting
from puma.client.canaries import opening
from puma.client.connect import RemoteCluster, open_session
from puma.config import Cluster
from puma.errors import HandshakeError, PeerLost
from tests.keyring import Keyring


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    return Keyring(tmp_path_factory.mktemp("keys"))


def deserted(keyring: Keyring) -> Cluster:
    """The cluster at ports where nobody listens."""
    parties = tuple(
        msgspec.structs.replace(p, address=f"127.0.0.1:{rank + 1}") for rank, p in enumerate(keyring.cluster.parties)
    )
    return msgspec.structs.replace(keyring.cluster, parties=parties)


def test_a_party_that_is_down_is_named_in_three_seconds(keyring: Keyring) -> None:
    said: list[str] = []
    started = monotonic()
    with pytest.raises(PeerLost, match=r"P[012] does not answer at 127.0.0.1 port [123]") as lost:
        open_session(
            deserted(keyring), keyring.keys["alice"].key, "client", progress=lambda what, done, of: said.append(what)
        )
    assert monotonic() - started < 3 and "is that party running" in lost.value.hint
    assert said == ["waiting for P0 and P1 and P2"]


@pytest.mark.parametrize(
    ("who", "role", "says"),
    [
        ("alice", "owner", "alice is a client; uploading needs an owner's key"),
        ("olga", "client", "olga is an owner; asking needs a client's key"),
        ("p0", "client", "P0 is a party; asking needs a client's key"),
    ],
)
@pytest.mark.parametrize("plain", [False, True])
def test_a_key_for_something_else_is_refused_before_anybody_is_called(
    keyring: Keyring, who: str, role: str, says: str, plain: bool
) -> None:
    with pytest.raises(HandshakeError) as refused:
        open_session(keyring.cluster, Path(keyring.keys[who].key), role, plain)  # type: ignore[arg-type]
    assert says in refused.value.message and "puma cluster trust" in refused.value.hint


def test_a_session_beside_another_looks_tokens_up_in_the_same_table() -> None:
    """Of public weights: a gateway's second session would have none to ask with."""

    def session(table: Any) -> Any:
        made = SimpleNamespace(approximation="spline", out_of_range="warn", variants="quick", plans={}, sharing=b"s")
        made.table = table
        made.audited = False
        made.open = lambda name: name == "tiny"
        return made

    first, model = session("the table"), SimpleNamespace(name="tiny")
    cluster = RemoteCluster(first, model, lambda: session(None))  # type: ignore[arg-type]
    assert vars(cluster.another().session) | {"open": 0} == vars(first) | {"open": 0}


def test_every_session_of_an_audited_cluster_begins_as_canaries_do(
    keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that a gateway opens beside the first, too."""
    made, committed, used, read = list[Any](), list[Any](), list[int](), list[str]()
    model = SimpleNamespace(name="tiny", files={"a": lambda: read.append("a") or b""})

    def commit(session: Any) -> None:
        session.audited = True
        committed.append(session)

    def opened(*_: Any) -> Any:
        made.append(
            SimpleNamespace(approximation="spline", out_of_range="refuse", sharing=b"s", table=None, audited=False)
        )
        made[-1].plans = {}
        made[-1].open, made[-1].use = (lambda name: True), (lambda *_: used.append(1) or model)
        return made[-1]

    monkeypatch.setattr(connecting, "open_session", opened)
    monkeypatch.setattr(opening, "commit", commit)
    for audited in (False, True):
        made.clear()
        used.clear()
        connecting.connect(keyring.cluster, "tiny", keyring.keys["alice"].key, audited=audited).another()
        assert len(made) == 2 and committed == (made if audited else [])
        assert len(used) == (2 if audited else 1) and read == (["a"] if audited else []), "and reads the same files"
