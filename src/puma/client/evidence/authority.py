"""Whose key may sign for which party: by fingerprints, or by certificates of a company's CA.

It knows the cluster file and certificates; it must not know what was signed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from puma import fingerprint
from puma.config import Cluster
from puma.crypto.signing import fingerprint_of
from puma.errors import ConfigError
from puma.net.tls import names
from puma.wire.receipts import Signed


class Authority(Protocol):
    """Says who is who."""

    local: bool  # keys that live as long as the parties' processes

    def objection(self, rank: int, signed: Signed, when: float) -> str:
        """Why this key cannot sign for the party of this rank at this time; empty if it can."""
        ...


class Pinned:
    """Three fingerprints, of P0, P1 and P2."""

    def __init__(self, fingerprints: Sequence[str], local: bool = False) -> None:
        self._known, self.local = list(fingerprints), local

    def objection(self, rank: int, signed: Signed, when: float) -> str:
        """As of an `Authority`."""
        found = fingerprint_of(signed.key)
        if found == self._known[rank]:
            return ""
        other = next((f"P{i}" for i, known in enumerate(self._known) if known == found), "")
        return (
            f"it is signed with the key of {other}" if other else f"it is signed with another key, {found or 'no key'}"
        )


class Certified:
    """A company's CA, and the names of the three parties in its certificates. ConfigError if it cannot be read."""

    local = False

    def __init__(self, ca: Path, known: Sequence[str]) -> None:
        self._known = list(known)
        try:
            self._roots = x509.load_pem_x509_certificates(ca.read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot use the CA in {ca}: {error}", "it is a PEM file") from None

    def objection(self, rank: int, signed: Signed, when: float) -> str:
        """As of an `Authority`."""
        try:
            chain = x509.load_pem_x509_certificates(signed.certificates)
            if fingerprint.of_certificate(chain[0]) != fingerprint_of(signed.key):
                return "its certificate is of another key"
            if self._known[rank] not in names(chain[0]):
                return f"its certificate is not {self._known[rank]}'s"
            return self._unvouched(chain, datetime.fromtimestamp(when, UTC))
        except (ValueError, IndexError, OverflowError, UnsupportedAlgorithm):
            return "its certificate cannot be read"

    def _unvouched(self, chain: Sequence[x509.Certificate], when: datetime) -> str:
        """Why no certificate of the CA's vouches for the first of these; empty if one does."""
        for each, issuer in zip(chain, [*chain[1:], None], strict=True):
            if not each.not_valid_before_utc <= when <= each.not_valid_after_utc:
                return "its certificate was not valid then"
            above = [issuer] if issuer is not None else self._roots
            if not any(_issued(each, by) for by in above):
                return "its certificate is not of the CA that the cluster file names"
        return ""


def of_cluster(cluster: Cluster) -> Authority:
    """Whoever the cluster file names."""
    known = [cluster.known_by(party) for party in cluster.parties]
    return Pinned(known) if cluster.ca is None else Certified(Path(cluster.ca), known)


def _issued(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    """Whether a certificate that may issue others issued this one."""
    try:
        if not by.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return True
