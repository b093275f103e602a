"""Key files: private, never overwritten, renewed with the same fingerprint, and checked before use."""

from __future__ import annotations

import shutil
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from puma import fingerprint
from puma.crypto import identity
from puma.errors import ConfigError, UsageError
from tests.keyring import Company, Keyring


def test_a_new_key_is_private_and_complete(tmp_path: Path) -> None:
    made = identity.create("alice", tmp_path / "new", days=30)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["alice.crt", "alice.key"]
    assert stat.S_IMODE(made.key.stat().st_mode) == 0o600
    assert "PRIVATE" not in made.certificate.read_text()
    assert made.expires - datetime.now(UTC) < timedelta(days=30, seconds=1)
    for path in (made.key, made.certificate, tmp_path / "new" / "alice"):
        assert identity.load(path) == made
    shown = identity.read_certificate(made.certificate)
    assert identity.common_name(shown) == "alice" and identity.signed_by_itself(shown)
    assert fingerprint.of_certificate(shown) == made.fingerprint
    assert made.fingerprint != identity.create("bob", tmp_path).fingerprint
    assert "PRIVATE" not in repr(made)


@pytest.mark.parametrize("left", ["alice.key", "alice.crt"])
def test_nothing_is_overwritten(tmp_path: Path, left: str) -> None:
    (tmp_path / left).write_text("precious")
    with pytest.raises(ConfigError, match=f"{left} exists"):
        identity.create("alice", tmp_path)
    assert (tmp_path / left).read_text() == "precious" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../a", "a b", "x" * 64, "\u00e9", "a\n"])
def test_names_are_plain(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="not a name"):
        identity.create(name, tmp_path)


@pytest.mark.parametrize("days", [0, -1, 36501])
def test_validity_is_bounded(tmp_path: Path, days: int) -> None:
    with pytest.raises(UsageError, match="cannot last"):
        identity.create("alice", tmp_path, days)
    made = identity.create("alice", tmp_path)
    with pytest.raises(UsageError, match="cannot last"):
        identity.renew(made.key, days)


def test_renewal_keeps_name_and_fingerprint(tmp_path: Path) -> None:
    made = identity.create("p0.example.org", tmp_path, days=2)
    before = made.key.read_bytes()
    renewed = identity.renew(made.certificate, days=400)
    assert renewed.fingerprint == made.fingerprint and renewed.expires > made.expires + timedelta(days=390)
    assert made.key.read_bytes() == before
    assert identity.common_name(identity.read_certificate(made.certificate)) == "p0.example.org"
    made.certificate.unlink()
    assert identity.renew(made.key).fingerprint == made.fingerprint
    assert identity.common_name(identity.read_certificate(made.certificate)) == "p0.example.org"
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".crt", ".key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    made = identity.create("alice", tmp_path)
    made.key.chmod(mode)
    with pytest.raises(ConfigError, match=f"other users .mode {mode:04o}") as raised:
        identity.load(made.key)
    assert "chmod 600" in raised.value.hint


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    alice, bob = (identity.create(name, tmp_path) for name in ("alice", "bob"))
    shutil.copy(bob.certificate, tmp_path / "mixed.crt")
    shutil.copy(alice.key, tmp_path / "mixed.key")
    with pytest.raises(ConfigError, match=r"mixed\.crt belongs to another key than .*mixed\.key"):
        identity.load(tmp_path / "mixed.key")
    with pytest.raises(ConfigError, match=r"cannot read .*nobody\.key: No such file"):
        identity.load(tmp_path / "nobody")
    with pytest.raises(ConfigError, match=r"alice\.key holds no certificate"):
        identity.read_certificate(alice.key)
    alice.key.write_bytes(alice.certificate.read_bytes())
    with pytest.raises(ConfigError, match=r"alice\.key holds no private key"):
        identity.load(alice.key)
    locked = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")
    )
    bob.key.write_bytes(locked)
    with pytest.raises(ConfigError, match=r"bob\.key is encrypted"):
        identity.load(bob.key)


def test_a_folder_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        identity.create("alice", tmp_path / "file")


def test_certificates_count_in_their_time_only(tmp_path: Path) -> None:
    keyring, day = Keyring(tmp_path), timedelta(days=1)
    with pytest.raises(ConfigError, match="expired on") as raised:
        identity.load(keyring.aged("p0", -2 * day, -day).key)
    assert "puma keys renew" in raised.value.hint
    with pytest.raises(ConfigError, match="not valid before"):
        identity.load(keyring.aged("p0", day, 2 * day).key)


def test_a_certificate_that_another_key_signed_is_told_apart(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path)
    assert not identity.signed_by_itself(identity.read_certificate(keyring.delegated("p2").certificate))
    issued = Company(tmp_path).issue("p9", "p9.example.org")
    assert not identity.signed_by_itself(identity.read_certificate(issued.certificate))
    assert issued.fingerprint.startswith("sha256:") and len(issued.fingerprint) == 71
    with pytest.raises(ConfigError, match="is not an Ed25519 key"):
        identity.renew(issued.key)
    pem = keyring.keys["alice"].certificate.read_text().splitlines()
    pem[-2] = pem[-2][:4] + ("A" if pem[-2][4] != "A" else "B") + pem[-2][5:]  # inside the signature
    (tmp_path / "bent.crt").write_text("\n".join(pem) + "\n")
    assert not identity.signed_by_itself(identity.read_certificate(tmp_path / "bent.crt"))


def test_a_certificate_that_cannot_be_written_leaves_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = identity._write_new

    def full(path: Path, data: bytes, mode: int) -> None:
        if path.suffix == ".crt":
            raise OSError(28, "No space left on device", str(path))
        real(path, data, mode)

    monkeypatch.setattr(identity, "_write_new", full)
    with pytest.raises(ConfigError, match=r"cannot write .*alice\.crt: No space left"):
        identity.create("alice", tmp_path)
    assert not list(tmp_path.iterdir())
