"""What a party discloses, and everything for which it refuses to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from puma.client.canaries.opening import Opening, commit, reveal
from puma.client.connect import ClusterSession
from puma.crypto.prg import fresh_secret
from puma.crypto.signing import Signer
from puma.errors import AdmissionError, PeerLost, ProtocolError, PumaError
from puma.party.limits import Limits
from puma.wire import canaries
from puma.wire import messages as msg
from tests.models import tiny
from tests.party.sessions import Sessions

OWNER = Signer.fresh()


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    folder = tmp_path_factory.mktemp("parties")
    made = Sessions(folder / "parties", Limits(sessions=8, tokens=400))
    made.share(tiny.llama(folder / "llama", num_hidden_layers=1), "llama", owner=OWNER.fingerprint)
    yield made
    for each in made.channel:
        each.end(PeerLost("the tests are over"))


def asked(session: ClusterSession) -> None:
    assert session.open("llama")
    assert len(list(session.continued([[2, 5, 7]], 2))) == 2


def test_a_canary_is_disclosed_to_whom_its_owner_agrees(parties: Sessions) -> None:
    with parties.session() as session:
        opening = commit(session, canary=True)
        asked(session)
        found = [canaries.disclosure_of(each.payload) for each in reveal(session, opening, OWNER)]
        secrets = [canaries.pair_digest(each) for disclosure in found for each in disclosure.secrets]
        one, two, both = opening.pairs
        assert secrets == [one, two, one, both, two, both]
        assert found[1].trails["P2"]["sent"] == found[2].trails["P1"]["received"] != b""
        with pytest.raises(AdmissionError, match="has disclosed what this session was computed with"):
            list(session.continued([[2, 5, 7]], 1))


def never(session: ClusterSession) -> Opening:
    """No commitment at all."""
    asked(session)
    return Opening(fresh_secret(), True, bytes(32), [], [bytes(32)] * 3)


def no_canary(session: ClusterSession) -> Opening:
    """As every audited session that is none begins."""
    opening = commit(session, canary=False)
    asked(session)
    return opening


def other_nonce(session: ClusterSession) -> Opening:
    opening = commit(session, canary=True)
    asked(session)
    return Opening(fresh_secret(), True, opening.sha256, opening.pledges, opening.pairs)


@pytest.mark.parametrize("how", [never, no_canary, other_nonce])
def test_nothing_else_is_disclosed(how: Callable[[ClusterSession], Opening], parties: Sessions) -> None:
    with parties.session() as session:
        opening = how(session)
        with pytest.raises(AdmissionError, match="was not committed to as a canary"):
            reveal(session, opening, OWNER)


def test_no_party_discloses_a_session_that_was_none(parties: Sessions) -> None:
    """Each by itself: one that did would give the masks of a prompt that means something."""
    with parties.session() as session:
        opening = no_canary(session)
        word = msg.Reveal(opening.nonce, opening.pairs, OWNER.key, b"")
        for server in parties.servers:
            with pytest.raises(AdmissionError, match="discloses nothing"):
                server._evidence.commitment._reveal(word)


@pytest.mark.parametrize("owner", [None, Signer.fresh()], ids=["nobody", "another"])
def test_the_owner_must_agree(owner: Signer | None, parties: Sessions) -> None:
    with parties.session() as session:
        opening = commit(session, canary=True)
        asked(session)
        with pytest.raises(AdmissionError, match="the model's owner has not agreed"):
            reveal(session, opening, owner)


def test_open_weights_take_no_consent_and_others_in_the_session_do(parties: Sessions, tmp_path: Path) -> None:
    table = parties.open_up(tiny.llama(tmp_path / "open", num_hidden_layers=1), "open")
    for secret in (False, True):
        with parties.session() as session:
            opening = commit(session, canary=True)
            assert not secret or session.open("llama")
            assert session.open("open")
            session.table = table
            assert len(list(session.continued([[2, 5, 7]], 1))) == 1
            if not secret:
                assert len(reveal(session, opening)) == 3
                continue
            with pytest.raises(AdmissionError, match="the model's owner has not agreed"):
                reveal(session, opening)


def test_what_an_owner_agreed_to_is_one_session(parties: Sessions) -> None:
    with parties.session() as session:
        before = commit(session, canary=True)
        consent = OWNER.sign(canaries.consented(before.sha256, before.pairs))
    with parties.session() as session:
        opening = commit(session, canary=True)
        asked(session)
        with pytest.raises(AdmissionError, match="has not agreed"):
            session.ask(msg.Disclosed, lambda _: msg.Reveal(opening.nonce, opening.pairs, OWNER.key, consent))


def test_other_pairs_are_refused(parties: Sessions) -> None:
    with parties.session() as session:
        opening = commit(session, canary=True)
        asked(session)
        wrong = Opening(opening.nonce, True, opening.sha256, opening.pledges, [bytes(32)] * 3)
        with pytest.raises(AdmissionError, match="not the secrets of this session"):
            reveal(session, wrong, OWNER)


def late(session: ClusterSession) -> None:
    asked(session)
    commit(session, canary=True)


def twice(session: ClusterSession) -> None:
    commit(session)
    commit(session, canary=True)


@pytest.mark.parametrize("how", [late, twice])
def test_a_commitment_comes_once_and_first(how: Callable[[ClusterSession], None], parties: Sessions) -> None:
    with parties.session() as session, pytest.raises(ProtocolError, match="after a request, or a second time"):
        how(session)


@pytest.mark.parametrize("kind", [msg.Prepare(bytes(16), msg.Generate(msg.Input([1], []), 1)), msg.Take(bytes(16))])
def test_nothing_is_prepared_under_secrets_that_may_be_disclosed(kind: Any, parties: Sessions) -> None:
    """What was prepared in a canary could serve a session that is none."""
    with parties.session() as session:
        commit(session)
        assert session.open("llama")
        with pytest.raises(AdmissionError, match="nothing is prepared in a session that may be audited"):
            session.ask(msg.Report, lambda _: kind)


def test_an_audited_session_takes_no_steps_with_others(parties: Sessions) -> None:
    before = parties.channel[0].steps
    with parties.session() as session:
        commit(session)
        asked(session)
        assert parties.channel[0].steps == before
    with parties.session() as session:
        asked(session)
    assert parties.channel[0].steps > before


def test_parties_that_are_told_different_commitments_give_no_answer(parties: Sessions) -> None:
    with parties.session() as session, pytest.raises(PumaError, match="was asked for something else"):
        words = [msg.Commit(canaries.commitment(fresh_secret(), canary=rank > 0)) for rank in range(3)]
        for link, word in zip(session.links, words, strict=True):
            link.send_control(msg.encode(word))
        for link in session.links:
            session._reply(link)


def test_both_kinds_of_commitment_look_alike() -> None:
    """Of one nonce they differ, and neither opens as the other."""
    nonce = fresh_secret()
    canary, none = (canaries.commitment(nonce, kind) for kind in (True, False))
    assert canary != none and len(canary) == len(none) == 32
    assert msg.encode(msg.Commit(canary))[:-32] == msg.encode(msg.Commit(none))[:-32]
