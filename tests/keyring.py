"""Keys of a whole cluster in one folder, the cluster file that knows them, and certificates that should not pass."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from puma import fingerprint
from puma.config import Cluster, Party
from puma.crypto import identity
from puma.crypto.identity import Credentials
from puma.net.tls import Tls

PEOPLE = ("p0", "p1", "p2", "olga", "alice", "mallory")  # mallory is in no cluster file


class Keyring:
    """Three parties, an owner, a client and a stranger."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = {name: identity.create(name, folder) for name in PEOPLE}
        parties = tuple(Party(r, f"127.0.0.1:{7700 + r}", self.keys[f"p{r}"].fingerprint) for r in range(3))
        known = {name: self.keys[name].fingerprint for name in ("olga", "alice")}
        self.cluster = Cluster(parties, None, {"olga": known["olga"]}, {"alice": known["alice"]})

    def guard(self, name: str, cluster: Cluster | None = None) -> Tls:
        """The guard of one of them, as the cluster file, or another one, has it."""
        found = self.keys[name]
        return Tls(found.certificate, found.key, cluster or self.cluster)

    def without(self, rank: int) -> Cluster:
        """A cluster file that has mallory's fingerprint for one party."""
        parties = list(self.cluster.parties)
        parties[rank] = msgspec.structs.replace(parties[rank], fingerprint=self.keys["mallory"].fingerprint)
        return msgspec.structs.replace(self.cluster, parties=tuple(parties))

    def aged(self, name: str, start: timedelta, end: timedelta) -> Credentials:
        """The same key with a certificate of another validity, in files of their own."""
        return self._forged(name, f"{name}-{start.days}-{end.days}", name, start, end)

    def delegated(self, name: str) -> Credentials:
        """A key that nobody knows, certified by a key that is known."""
        return self._forged(name, f"{name}-delegate", "mallory", timedelta(-1), timedelta(1))

    def _forged(self, signer: str, stem: str, holder: str, start: timedelta, end: timedelta) -> Credentials:
        private, now = self._private(signer), datetime.now(UTC)
        shown = identity.read_certificate(self.keys[holder].certificate)
        issuer = fingerprint.issuer(private.public_key().public_bytes_raw())
        builder = x509.CertificateBuilder(issuer, shown.subject, shown.public_key(), 7, now + start, now + end)
        for extension in shown.extensions:
            if extension.oid != x509.ExtensionOID.AUTHORITY_KEY_IDENTIFIER:
                builder = builder.add_extension(extension.value, extension.critical)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(private.public_key())
        signed = builder.add_extension(authority, False).sign(private, None)
        key, certificate = self.folder / f"{stem}.key", self.folder / f"{stem}.crt"
        shutil.copy(self.keys[holder].key, key)
        certificate.write_bytes(signed.public_bytes(Encoding.PEM))
        return Credentials(stem, key, certificate, self.keys[holder].fingerprint, now + end)

    def _private(self, name: str) -> Ed25519PrivateKey:
        private = load_pem_private_key(self.keys[name].key.read_bytes(), None)
        assert isinstance(private, Ed25519PrivateKey)
        return private


class Company:
    """A CA with elliptic curves, as a company has one, and what it issues."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"CA in {folder.name}")])
        builder = self._builder(self._name, self._key.public_key())
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        self.file = folder / "ca.pem"
        signed = builder.add_extension(constraints, critical=True).sign(self._key, SHA256())
        self.file.write_bytes(signed.public_bytes(Encoding.PEM))

    def issue(self, name: str, *hosts: str) -> Credentials:
        """A key and a certificate for a holder with these DNS names; by its common name if there are none."""
        private = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, private.public_key())
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(h) for h in hosts]), False)
        key, certificate = self.folder / f"{name}.key", self.folder / f"{name}.crt"
        with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        certificate.write_bytes(builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM))
        return identity.load(key)

    def _builder(self, subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        hour = timedelta(hours=1)
        return x509.CertificateBuilder(self._name, subject, public, x509.random_serial_number(), now - hour, now + hour)


class Payroll:
    """A cluster in which a company's CA says who is who, by names; mallory's is in no cluster file."""

    def __init__(self, folder: Path) -> None:
        self.company = Company(folder)
        self.keys = {f"p{rank}": self.company.issue(f"p{rank}", f"p{rank}.example.org") for rank in range(3)}
        self.keys |= {name: self.company.issue(name) for name in ("olga", "alice", "mallory")}
        parties = tuple(Party(rank, f"127.0.0.1:{7700 + rank}", name=f"p{rank}.example.org") for rank in range(3))
        self.cluster = Cluster(parties, str(self.company.file), {"olga": "olga"}, {"alice": "alice"})
