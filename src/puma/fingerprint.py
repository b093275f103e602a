"""How a key is written down so that people can compare it and programs can pin it: `puma1:` and 56 letters and
digits, in seven groups. They spell the Ed25519 public key itself and three bytes of checksum, not a hash of a
certificate, for two reasons: a certificate renewed with the same key keeps its fingerprint, and a listener can build
from a fingerprint alone what it needs to check a certificate it has never seen (net/tls.py). Knows no file and no
network."""

from __future__ import annotations

import base64
import binascii
import hashlib

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from puma.errors import ConfigError

PREFIX = "puma1:"
KEY_BYTES = 32
GROUP = 8
_LENGTH = 56  # base32 letters of the key and its checksum: a whole number of them, without padding
_HINT = "copy the whole line that `puma keys show` prints: puma1: and seven groups of eight"


def of_key(key: bytes) -> str:
    """The fingerprint of these 32 bytes of an Ed25519 public key."""
    letters = _letters(key)
    return PREFIX + "-".join(letters[at : at + GROUP] for at in range(0, _LENGTH, GROUP))


def key_of(text: str) -> bytes:
    """The public key that a fingerprint spells; case and dashes do not matter. ConfigError if it is none."""
    words = "".join(text.split()).lower().replace("-", "")
    if not words.startswith(PREFIX):
        raise ConfigError(f"not a fingerprint: {text[:80]!r}", _HINT)
    letters = words.removeprefix(PREFIX)
    if len(letters) != _LENGTH:
        raise ConfigError(f"a fingerprint has {_LENGTH} letters after {PREFIX}, this one {len(letters)}", _HINT)
    try:
        key = base64.b32decode(letters.upper())[:KEY_BYTES]
    except (binascii.Error, ValueError):
        raise ConfigError("a fingerprint has the letters a to z and the digits 2 to 7 only", _HINT) from None
    if _letters(key) != letters:
        raise ConfigError("a fingerprint was mistyped: its checksum does not match", _HINT)
    return key


def canonical(text: str) -> str:
    """The one spelling of a fingerprint; ConfigError if it is none."""
    return of_key(key_of(text))


def of_certificate(certificate: x509.Certificate) -> str:
    """The fingerprint of a certificate's key; of a key that is not Ed25519 (a company's CA), its SHA-256 in hex."""
    return of_public(certificate.public_key())


def of_public(public: PublicKeyTypes) -> str:
    """The fingerprint of a public key, likewise."""
    if isinstance(public, Ed25519PublicKey):
        return of_key(public.public_bytes_raw())
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(spki).hexdigest()


def suffices(certificate: x509.Certificate) -> bool:
    """Whether a certificate names its own key as issuer, so that its fingerprint is enough to check it."""
    public = certificate.public_key()
    return isinstance(public, Ed25519PublicKey) and certificate.issuer == issuer(public.public_bytes_raw())


def issuer(key: bytes) -> x509.Name:
    """What a certificate signed by its own key names as issuer: enough for a stranger to know which key signed it."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, PREFIX + _letters(key))])


def _letters(key: bytes) -> str:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a public key has {KEY_BYTES} bytes, not {len(key)}")
    check = hashlib.sha256(b"puma/1|fingerprint|" + key).digest()[:3]
    return base64.b32encode(key + check).decode().lower()
