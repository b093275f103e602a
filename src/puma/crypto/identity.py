"""Who a machine is to the others: an Ed25519 key in NAME.key, which never leaves it, and a certificate in NAME.crt,
signed by that same key, which anybody may see. Makes, renews and checks the two files; must not know what the key may
do (config.py) nor how it is shown to a peer (net/tls.py)."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from puma import fingerprint
from puma.errors import ConfigError, UsageError

# Ten years: an expired certificate stops a cluster, and a lost key is answered by removing its fingerprint, not by
# waiting. Who wants rotation by force takes fewer.
DAYS = 3650
MAX_DAYS = 36500
CLOCKS = timedelta(days=1)  # how far the clock of a machine that checks may be behind
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Credentials:
    """A key and its certificate, both checked; holds where they are, and no secret."""

    name: str
    key: Path
    certificate: Path
    fingerprint: str
    expires: datetime


def create(name: str, folder: str | Path = ".", days: int = DAYS) -> Credentials:
    """A new key and its certificate in `folder`; UsageError for a bad name or validity, ConfigError if one exists."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"not a name: {name!r}", "take letters, digits and . _ -, at most 63 of them, such as alice")
    _check_days(days)
    key, certificate = Path(folder) / f"{name}.key", Path(folder) / f"{name}.crt"
    for path in (key, certificate):
        if path.exists():
            raise ConfigError(f"{path} exists", "keys are never overwritten: take another name or folder")
    private = Ed25519PrivateKey.generate()
    try:
        Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(key, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
        try:
            _write_new(certificate, _certified(private, name, days), 0o644)
        except OSError:
            key.unlink()  # ours for certain: it was not there a moment ago
            raise
    except OSError as error:
        what = f"cannot write {error.filename or certificate}: {error.strerror}"
        raise ConfigError(what, "look at the folder's permissions, or take another one with --dir") from None
    return load(key)


def renew(path: str | Path, days: int = DAYS) -> Credentials:
    """Replace NAME.crt by one of the same key that lasts `days` from now; the fingerprint stays."""
    _check_days(days)
    key, certificate = _files(path)
    private = read_key(key)
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigError(f"{key} is not an Ed25519 key", "ask the CA that signed its certificate for a new one")
    known = common_name(read_certificate(certificate)) if certificate.exists() else ""
    name = known or key.name.removesuffix(".key")
    scratch = certificate.with_name(f".{certificate.name}.{os.getpid()}")
    try:
        _write_new(scratch, _certified(private, name, days), 0o644)
        scratch.replace(certificate)
    except OSError as error:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise ConfigError(f"cannot write {certificate}: {error.strerror}", "look at its permissions") from None
    return load(key)


def load(path: str | Path) -> Credentials:
    """The pair of which `path` is one file; ConfigError unless the key is private, fits, and the certificate is valid.

    A CA's pair will do as well: any kind of key, and intermediates behind the first certificate.
    """
    key, certificate = _files(path)
    private, shown = read_key(key), read_certificate(certificate)
    if _spki(private.public_key()) != _spki(shown.public_key()):
        raise ConfigError(f"{certificate} belongs to another key than {key}", "find the pair, or make a new one")
    check_validity(shown, certificate)
    found = fingerprint.of_certificate(shown)
    return Credentials(key.name.removesuffix(".key"), key, certificate, found, shown.not_valid_after_utc)


def read_certificate(path: str | Path) -> x509.Certificate:
    """The first certificate in a PEM file; ConfigError if there is none. Expired ones are read, too."""
    try:
        return x509.load_pem_x509_certificate(Path(path).read_bytes())
    except OSError as error:
        hint = "name a .crt file, as `puma keys new` makes them"
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint) from None
    except ValueError:
        raise ConfigError(f"{path} holds no certificate", "name a .crt file, as `puma keys new` makes them") from None


def check_validity(certificate: x509.Certificate, path: str | Path) -> None:
    """ConfigError unless the certificate is valid now."""
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        when = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
        raise ConfigError(f"{path} expired on {when}", f"run `puma keys renew {path}`: the fingerprint stays")
    if now < certificate.not_valid_before_utc:
        when = f"{certificate.not_valid_before_utc:%Y-%m-%d}"
        raise ConfigError(f"{path} is not valid before {when}", "is this machine's clock right?")


def signed_by_itself(certificate: x509.Certificate) -> bool:
    """Whether this is a certificate of the kind that `create` makes, untouched: its fingerprint can be pinned."""
    public = certificate.public_key()
    if not isinstance(public, Ed25519PublicKey) or not fingerprint.suffices(certificate):
        return False
    try:
        public.verify(certificate.signature, certificate.tbs_certificate_bytes)
    except InvalidSignature:
        return False
    return True


def common_name(certificate: x509.Certificate) -> str:
    """What the certificate calls its holder; empty if nothing."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def _certified(private: Ed25519PrivateKey, name: str, days: int) -> bytes:
    """A certificate in PEM. Its issuer is named by the key, unlike its subject: a peer then looks up the key that it
    has pinned under that name, instead of asking for this very certificate."""
    public = private.public_key()
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = (
        x509.CertificateBuilder()
        .issuer_name(fingerprint.issuer(public.public_bytes_raw()))
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(purposes, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
    )
    return builder.sign(private, algorithm=None).public_bytes(Encoding.PEM)


def _files(path: str | Path) -> tuple[Path, Path]:
    stem = Path(path)
    stem = stem.with_name(stem.name.removesuffix(".key").removesuffix(".crt"))
    return stem.with_name(stem.name + ".key"), stem.with_name(stem.name + ".crt")


def read_key(path: Path) -> PrivateKeyTypes:
    """The private key in a PEM file; ConfigError if there is none, or if others may read it."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                hint = f"run `chmod 600 {path}`; if others could have read it, make a new key"
                raise ConfigError(f"{path} can be read or changed by other users (mode {mode:04o})", hint)
            data = file.read()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", "make a key with `puma keys new`") from None
    try:
        return load_pem_private_key(data, password=None)
    except TypeError:
        raise ConfigError(f"{path} is encrypted", "a party starts alone: store the key without a password") from None
    except ValueError:
        raise ConfigError(f"{path} holds no private key", "name a .key file, as `puma keys new` makes them") from None


def _write_new(path: Path, data: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _spki(public: object) -> bytes:
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]


def _check_days(days: int) -> None:
    if not 1 <= days <= MAX_DAYS:
        raise UsageError(f"a certificate cannot last {days} days", f"take 1 to {MAX_DAYS}; {DAYS} unless given")
