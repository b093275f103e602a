"""A receipt that holds is believed; one in which anything is other than it was is not, and who did it is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from puma.client.evidence.checks import check, check_seen
from puma.client.evidence.receipt import Receipt
from puma.crypto.signing import Signer
from puma.errors import ReceiptError
from puma.net.chain import Head as ChainHead
from puma.party.evidence.statements import Notary
from puma.wire.receipts import Commitment, Ends, Head, Signed, Statement
from tests.client.evidence import made
from tests.client.evidence.made import PINNED, changed, receipt, seen, statement

OTHER = b"x" * 32


def refused(found: Receipt, words: str, authority: Any = PINNED) -> None:
    with pytest.raises(ReceiptError, match=words):
        check(found, authority)


def test_an_honest_receipt_holds() -> None:
    found = receipt()
    check(found, PINNED)
    check(found, None)
    check_seen(found, seen())
    assert [each.rank for each in found.statements] == [0, 1, 2]
    assert len(found.commitment) == 32 and found.fingerprints == tuple(s.fingerprint for s in made.SIGNERS)


FIELDS = {
    "cluster": OTHER, "session": OTHER[:16], "number": 4, "kind": "encode", "request": OTHER, "said": OTHER,
    "version": "0", "protocol": 1, "model": None,
}  # fmt: skip


@pytest.mark.parametrize("who", range(3))
@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_one_party_has_otherwise_names_it(who: int, name: str) -> None:
    refused(changed(who, **{name: FIELDS[name]}), f"P{who} signed for another")


@pytest.mark.parametrize("name", ["name", "card", "sharing", "approximation"])
def test_another_model_at_one_party_names_it(name: str) -> None:
    model = statement(1).model
    assert model is not None
    value: Any = "other" if isinstance(getattr(model, name), str) else OTHER
    refused(changed(1, model=msgspec.structs.replace(model, **{name: value})), "P1 signed for another model")


def test_three_that_agree_on_what_the_client_did_not_ask_are_refused() -> None:
    for name, value in FIELDS.items():
        if name in ("said", "kind"):
            continue  # words of the whole session, which are compared as frames
        found = receipt(lambda _, each, name=name, value=value: msgspec.structs.replace(each, **{name: value}))
        check(found, PINNED)
        with pytest.raises(ReceiptError, match="P0 signed for"):
            check_seen(found, seen())


COMMITMENTS = [
    (0, Commitment([OTHER, made.SEEDS[1]]), "P0 and P1 commit to different masks"),
    (0, Commitment([made.SEEDS[0], OTHER]), "P0 and P2 commit to different masks"),
    (1, Commitment([OTHER], made.WORDS), "P0 and P1 commit to different masks"),
    (2, Commitment([OTHER], made.WORDS), "P0 and P2 commit to different masks"),
    (1, Commitment(made.SEEDS[:1], OTHER), "P1 and P2 commit to different masked words"),
    (0, Commitment(made.SEEDS, made.WORDS), "not its part"),
    (2, Commitment(made.SEEDS, made.WORDS), "not its part"),
]


@pytest.mark.parametrize("case", range(len(COMMITMENTS)))
def test_a_party_that_holds_another_part_of_the_model_is_contradicted(case: int) -> None:
    who, commitment, words = COMMITMENTS[case]
    model = statement(who).model
    assert model is not None
    refused(changed(who, model=msgspec.structs.replace(model, commitment=commitment)), words)


def test_a_model_that_all_three_replaced_is_not_what_the_client_opened() -> None:
    def other(_: int, each: Statement) -> Statement:
        assert each.model is not None
        words = OTHER if each.model.commitment.words else b""
        model = msgspec.structs.replace(each.model, commitment=Commitment(each.model.commitment.seeds, words))
        return msgspec.structs.replace(each, model=model)

    found = receipt(other)
    check(found, PINNED)
    with pytest.raises(ReceiptError, match="other shares of the model"):
        check_seen(found, seen())


def heads(head: Head) -> list[Head]:
    """The same with one frame less, with other bytes, and over other frames."""
    return [
        Head(head.frames - 1, head.size, head.digest),
        Head(head.frames, head.size + 1, head.digest),
        Head(head.frames, head.size, bytes([head.digest[0] ^ 1]) + head.digest[1:]),
    ]


@pytest.mark.parametrize("who", range(3))
def test_whatever_is_changed_of_a_link_is_seen_and_both_its_ends_are_named(who: int) -> None:
    links = statement(who).links
    for i, ends in enumerate(links):
        peer = "client" if ends.peer == "client" else ends.peer
        for name in ("sent", "received", "words"):
            head = getattr(ends, name)
            for wrong in heads(head) if head is not None else ():
                other = [*links[:i], msgspec.structs.replace(ends, **{name: wrong}), *links[i + 1 :]]
                found = changed(who, links=other)
                with pytest.raises(ReceiptError) as failure:
                    check(found, PINNED)
                    check_seen(found, seen())
                assert f"P{who}" in failure.value.message and peer in failure.value.message
    for i in range(len(links)):
        found = changed(who, links=[*links[:i], *links[i + 1 :]])
        with pytest.raises(ReceiptError, match=f"P{who} says nothing"):
            check(found, PINNED)
            check_seen(found, seen())


def test_two_liars_that_agree_do_not_fool_the_client_about_its_own_links() -> None:
    mine = seen()
    for rank in range(3):
        for name in ("sent", "received", "said"):
            head = getattr(mine.links[rank], name)
            wrong = mine.links[rank]._replace(**{name: ChainHead(head.frames, head.size, OTHER)})
            with pytest.raises(ReceiptError, match=f"P{rank} says what is not so"):
                check_seen(receipt(), replace(mine, links=mine.links | {rank: wrong}))


@pytest.mark.parametrize("peer", ["P0", "P3", "owner"])
def test_links_that_there_are_not_are_refused(peer: str) -> None:
    ends = Ends(peer, "own", made.frames("a", "b"), made.frames("b", "a"))
    refused(changed(0, links=[*statement(0).links, ends]), "P0 names links that there are not")
    refused(changed(1, links=[*statement(1).links, statement(1).links[0]]), "P1 names links that there are not")


@pytest.mark.parametrize("times", [(2.0, 1.0), (float("nan"), 2.0), (-1.0, 2.0), (1.0, float("inf"))])
def test_times_that_make_no_sense_are_refused(times: tuple[float, float]) -> None:
    refused(changed(2, began=times[0], ended=times[1]), "P2 names times")


def test_every_bit_that_was_signed_counts() -> None:
    """Flipped after the signature, in each byte of a statement and of the signature itself."""
    good = receipt()
    each = good.signed[1]
    for i in range(0, len(each.statement), 7):
        spoiled = bytearray(each.statement)
        spoiled[i] ^= 1
        with pytest.raises(ReceiptError):
            check(Receipt((good.signed[0], _with(each, statement=bytes(spoiled)), good.signed[2])), PINNED)
    for i in range(0, len(each.signature), 5):
        spoiled = bytearray(each.signature)
        spoiled[i] ^= 1
        refused(Receipt((good.signed[0], _with(each, signature=bytes(spoiled)), good.signed[2])), "P1's signature")


def _with(each: Signed, **fields: Any) -> Signed:
    return msgspec.structs.replace(each, **fields)


def test_swapped_repeated_and_missing_statements_are_refused() -> None:
    zero, one, two = receipt().signed
    refused(Receipt((one, zero, two)), "P1's statement stands in P0's place")
    refused(Receipt((zero, one, one)), "P1's statement stands in P2's place")
    refused(Receipt((zero, one)), "2 statements")
    refused(Receipt((zero, one, two, two)), "4 statements")


def test_a_statement_signed_by_somebody_else_is_not_the_partys() -> None:
    def by(who: Signer, rank: int) -> Receipt:
        found = list(receipt().signed)
        found[rank] = Notary(who, made.CLUSTER).sign(statement(rank))
        return Receipt(tuple(found))

    refused(by(made.SIGNERS[2], 1), "P1's statement is not P1's: it is signed with the key of P2")
    refused(by(Signer.fresh(), 1), "P1's statement is not P1's: it is signed with another key")
    refused(by(made.SIGNERS[2], 1), "one key signed for two parties", None)
    check(by(Signer.fresh(), 1), None)  # nobody has said whose keys these are


def test_a_receipt_of_an_earlier_request_is_a_replay() -> None:
    for number in (2, 4):
        with pytest.raises(ReceiptError, match=f"report 3 of the session where {number} was due"):
            check_seen(receipt(), replace(seen(), number=number))
