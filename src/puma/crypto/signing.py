"""Signatures by the keys of crypto/identity.py, and by keys that live as long as a process; and how they are checked.

Ed25519 signs as it is; a key that a company's CA has certified may be another one, and then signs with SHA-256 (ECDSA,
or RSA with PSS). This file must not know what is signed, nor whose key may sign it.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from puma import fingerprint
from puma.crypto import identity
from puma.errors import ConfigError

_PSS = padding.PSS(padding.MGF1(SHA256()), padding.PSS.DIGEST_LENGTH)


class Signer:
    """A private key that signs. `key` is the public one (DER), `certificates` what a CA says of it (PEM), or none."""

    def __init__(self, private: PrivateKeyTypes, certificates: bytes = b"") -> None:
        """ConfigError for a key that cannot sign."""
        if not isinstance(private, Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            kind = type(private).__name__
            raise ConfigError(f"a key of kind {kind} cannot sign receipts", "take an Ed25519, ECDSA or RSA key")
        self._private, self.certificates = private, certificates
        self.key = _der(private.public_key())

    @classmethod
    def fresh(cls) -> Signer:
        """Of a key that nobody has seen and that goes with this process."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def of(cls, path: Path) -> Signer:
        """Of the key and certificate of which `path` is one file; errors as of `identity.load`."""
        credentials = identity.load(path)
        pinned = credentials.fingerprint.startswith(fingerprint.PREFIX)
        shown = identity.read_certificate(credentials.certificate)
        bare = pinned and identity.signed_by_itself(shown)
        return cls(identity.read_key(credentials.key), b"" if bare else credentials.certificate.read_bytes())

    @property
    def fingerprint(self) -> str:
        """Of the public key."""
        return fingerprint_of(self.key)

    def sign(self, message: bytes) -> bytes:
        """A signature over these bytes."""
        if isinstance(self._private, Ed25519PrivateKey):
            return self._private.sign(message)
        if isinstance(self._private, rsa.RSAPrivateKey):
            return self._private.sign(message, _PSS, SHA256())
        return self._private.sign(message, ec.ECDSA(SHA256()))

    def __repr__(self) -> str:
        return f"Signer({self.fingerprint})"


def signed(key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the holder of this public key (DER) signed these bytes."""
    public = _public(key)
    try:
        if isinstance(public, Ed25519PublicKey):
            public.verify(signature, message)
        elif isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, message, _PSS, SHA256())
        elif isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(signature, message, ec.ECDSA(SHA256()))
        else:
            return False
    except InvalidSignature:
        return False
    return True


def fingerprint_of(key: bytes) -> str:
    """The fingerprint of a public key (DER); empty for what is none."""
    public = _public(key)
    return "" if public is None else fingerprint.of_public(public)


def _public(key: bytes) -> PublicKeyTypes | None:
    try:
        return load_der_public_key(key)
    except (ValueError, UnsupportedAlgorithm):
        return None


def _der(public: PublicKeyTypes) -> bytes:
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
