"""Receipts on disk: read as they were written, checked by whose keys count, and told apart from what is none."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

import puma
from puma import config
from puma.client.evidence.authority import of_cluster
from puma.client.evidence.receipt import Receipt
from puma.crypto.signing import Signer
from puma.errors import ConfigError, ReceiptError, StoreError, UsageError
from puma.party.evidence.statements import Notary
from tests.client.evidence.made import CARD, changed, receipt, statement
from tests.keyring import Keyring, Payroll


def of(keys: list[Signer], digest: bytes, number: int = 3) -> Receipt:
    """A receipt of this cluster's parties."""
    facts = {"cluster": digest, "number": number, "began": time.time(), "ended": time.time()}
    made = [msgspec.structs.replace(statement(rank), **facts) for rank in range(3)]
    return Receipt(tuple(Notary(key, digest).sign(each) for key, each in zip(keys, made, strict=True)))


def test_what_is_kept_is_read_and_verified_by_the_cluster_file(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path / "keys")
    keys = [Signer.of(keyring.keys[f"p{rank}"].key) for rank in range(3)]
    config.create(tmp_path / "cluster.toml", keyring.cluster)
    good = [of(keys, keyring.cluster.digest, number) for number in (1, 2)]
    puma.receipt.write(tmp_path / "kept", good)
    assert puma.receipt.read(tmp_path / "kept") == good
    assert puma.receipt.verify(tmp_path / "kept", tmp_path / "cluster.toml") == good
    assert puma.receipt.verify(good[0], keyring.cluster) == good[:1]
    with pytest.raises(ReceiptError, match="receipt 2: it is of the same request as receipt 1"):
        puma.receipt.write(tmp_path / "kept", [good[0], good[0]])
        puma.receipt.verify(tmp_path / "kept", keyring.cluster)
    with pytest.raises(ReceiptError, match="it is of another cluster"):
        puma.receipt.verify(of(keys, b"o" * 32), keyring.cluster)
    with pytest.raises(ReceiptError, match="P0's statement is not P0's"):
        puma.receipt.verify(receipt(), keyring.cluster)
    assert puma.receipt.verify(receipt(), card=CARD.hex())
    with pytest.raises(ReceiptError, match="it is of another model, or of other weights"):
        puma.receipt.verify(receipt(), card="5" * 64)
    with pytest.raises(UsageError, match="no digest of a card"):
        puma.receipt.verify(receipt(), card=CARD.hex()[:-1])
    with pytest.raises(ReceiptError, match="receipt 2: P1 signed for another place in the session"):
        puma.receipt.write(tmp_path / "kept", [receipt(), changed(1, number=7)])
        puma.receipt.verify(tmp_path / "kept")


def test_under_a_companys_ca_certificates_say_whose_keys_these_are(tmp_path: Path) -> None:
    for name in ("company", "other"):
        (tmp_path / name).mkdir()
    payroll = Payroll(tmp_path / "company")
    keys = [Signer.of(payroll.keys[f"p{rank}"].key) for rank in range(3)]
    assert all(key.certificates for key in keys)
    cluster = payroll.cluster
    good = of(keys, cluster.digest)
    puma.receipt.verify(good, cluster)
    with pytest.raises(ReceiptError, match=r"P0's statement is not P0's: its certificate is not"):
        puma.receipt.verify(of([keys[1], keys[1], keys[2]], cluster.digest), cluster)
    bare = [Signer.fresh(), *keys[1:]]
    with pytest.raises(ReceiptError, match="its certificate cannot be read"):
        puma.receipt.verify(of(bare, cluster.digest), cluster)
    swapped = msgspec.structs.replace(good.signed[0], certificates=keys[1].certificates)
    with pytest.raises(ReceiptError, match="its certificate is of another key"):
        puma.receipt.verify(Receipt((swapped, *good.signed[1:])), cluster)
    stranger = Payroll(tmp_path / "other")
    theirs = [Signer.of(stranger.keys[f"p{rank}"].key) for rank in range(3)]
    with pytest.raises(ReceiptError, match="its certificate is not of the CA"):
        puma.receipt.verify(of(theirs, cluster.digest), cluster)
    late = [msgspec.structs.replace(statement(rank), cluster=cluster.digest, ended=5e9) for rank in range(3)]
    signed = tuple(Notary(keys[rank], cluster.digest).sign(late[rank]) for rank in range(3))
    with pytest.raises(ReceiptError, match="was not valid then"):
        puma.receipt.verify(Receipt(signed), cluster)
    with pytest.raises(ConfigError, match="cannot use the CA"):
        of_cluster(msgspec.structs.replace(cluster, ca=str(tmp_path / "nowhere")))


def test_what_is_no_receipt_is_told_so(tmp_path: Path) -> None:
    puma.receipt.write(tmp_path / "kept", receipt())
    text = (tmp_path / "kept").read_text()
    for wrong in ("", "{}", "[]", text.replace("puma receipts 1", "puma receipts 2"), text[:-40]):
        (tmp_path / "wrong").write_text(wrong)
        with pytest.raises(StoreError):
            puma.receipt.read(tmp_path / "wrong")
    with pytest.raises(StoreError, match="cannot read"):
        puma.receipt.read(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="cannot read or write"):
        puma.receipt.write(tmp_path / "no" / "folder", receipt())
    with pytest.raises(UsageError, match="only receipts"):
        puma.receipt.write(tmp_path / "kept", ["receipt"])  # type: ignore[list-item]
