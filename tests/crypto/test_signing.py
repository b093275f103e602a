"""Signatures by every kind of key that a party can have, and by no other key or over no other bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from puma.crypto import identity
from puma.crypto.signing import Signer, fingerprint_of, signed
from puma.errors import ConfigError

KEYS = {
    "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
}


@pytest.mark.parametrize("kind", ["ed25519", *KEYS])
def test_a_signature_is_of_one_key_over_these_bytes(kind: str) -> None:
    signer = Signer.fresh() if kind == "ed25519" else Signer(KEYS[kind]())
    other, signature = Signer.fresh(), signer.sign(b"message")
    assert signed(signer.key, signature, b"message")
    spoiled = bytes([signature[0] ^ 1]) + signature[1:]
    assert not signed(signer.key, spoiled, b"message")
    assert not signed(signer.key, signature, b"massage")
    assert not signed(other.key, signature, b"message")
    assert signer.fingerprint == fingerprint_of(signer.key) != other.fingerprint
    assert fingerprint_of(signer.key).startswith("puma1:" if kind == "ed25519" else "sha256:")


def test_the_key_of_a_party_signs_under_its_fingerprint(tmp_path: Path) -> None:
    made = identity.create("p0", tmp_path)
    signer = Signer.of(made.certificate)
    assert signer.fingerprint == made.fingerprint and not signer.certificates
    assert signed(signer.key, signer.sign(b"m"), b"m") and made.fingerprint in repr(signer)


def test_what_is_no_key_signs_and_checks_nothing() -> None:
    odd: PrivateKeyTypes = x25519.X25519PrivateKey.generate()
    with pytest.raises(ConfigError, match="cannot sign"):
        Signer(odd)
    for key in (b"", b"key", odd.public_key().public_bytes_raw()):
        assert not signed(key, b"signature", b"message") and not fingerprint_of(key)
