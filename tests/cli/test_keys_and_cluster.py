"""`puma keys` and `puma cluster`: what they print and leave behind, and that docs/deploy.md works as it is written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from puma import config
from puma.crypto import identity
from tests.cli.conftest import Run
from tests.keyring import Company

ROOT = Path(__file__).parents[2]
SIX = re.compile(r"puma1:([a-z2-7]{8}-){6}[a-z2-7]{8}")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def made(here: Path) -> dict[str, str]:
    """Fingerprints of keys that lie here."""
    return {name: identity.create(name, here).fingerprint for name in ("p0", "p1", "p2", "olga", "alice")}


NEW = (
    "cluster new --party 0=p0.example.org:7700,p0.crt --party 1=10.0.0.2:7700,{p1} --party 2=[::1]:7700,p2.crt "
    "--owner olga.crt --client alice={alice}"
)


def test_a_key_is_made_shown_and_renewed(puma: Run, here: Path) -> None:
    ran = puma("keys", "new", "alice", "--dir", "mine", "--days", 90)
    assert ran.code == 0 and not ran.err
    (found,) = {m.group() for m in SIX.finditer(ran.out)}
    assert "mine/alice.key" in ran.out and "never send it" in ran.out and "Send the fingerprint" in ran.out
    assert "PRIVATE" not in ran.out
    for file in ("mine/alice.key", "mine/alice.crt"):
        ran = puma("keys", "show", file)
        assert ran.code == 0 and found in ran.out and "EXPIRED" not in ran.out
        facts = puma("keys", "show", file, "--json").json
        assert facts["fingerprint"] == found and facts["name"] == "alice" and facts["expired"] is False
    ran = puma("keys", "renew", "mine/alice.crt")
    assert ran.code == 0 and found in ran.out
    renewed = puma("keys", "renew", "mine/alice.key", "--days", 5, "--json").json
    assert renewed["fingerprint"] == found and renewed["expires"] < facts["expires"]
    ran = puma("keys", "new", "alice", "--dir", "mine")
    assert ran.code == 5 and "exists" in ran.err
    assert puma("keys", "new", "bob", "--json").json["key"] == "bob.key"


def test_a_cluster_file_is_written_shown_and_extended(puma: Run, here: Path, made: dict[str, str]) -> None:
    ran = puma(*shlex.split(NEW.format(**made)))
    assert ran.code == 0 and not ran.err
    assert all(f"P{r} " in ran.out and made[f"p{r}"] in ran.out for r in range(3))
    found = config.read("cluster.toml")
    assert found.owners == {"olga": made["olga"]} and found.clients == {"alice": made["alice"]}
    shown = puma("cluster", "show", "--json").json
    assert shown["digest"] == found.digest.hex() and shown["digest"][:16] in puma("cluster", "show").out
    assert shown["policy"] == {"reveal_logits": False, "max_tokens": 4096, "max_sessions": 16}
    other = identity.create("bob", here).fingerprint
    ran = puma("cluster", "trust", "--client", "bob.crt", "--owner", other, "--name", "bobby")
    assert ran.code == 0 and "Every party" in ran.out
    found = config.read("cluster.toml")
    assert found.owners["bobby"] == other and found.clients["bobby"] == other
    assert puma(*shlex.split(NEW.format(**made))).code == 5


def test_policy_and_another_file(puma: Run, made: dict[str, str]) -> None:
    words = "--cluster lab.toml --reveal-logits --max-tokens 99 --max-sessions 3"
    assert puma(*shlex.split(NEW.format(**made)), *words.split()).code == 0
    policy = puma("cluster", "show", "--cluster", "lab.toml", "--json").json["policy"]
    assert policy == {"reveal_logits": True, "max_tokens": 99, "max_sessions": 3}


def test_a_cluster_under_a_ca(puma: Run, here: Path) -> None:
    company = Company(here)
    company.issue("alice", "alice.example.org")
    parties = [word for r in range(3) for word in ("--party", f"{r}=p{r}.example.org:7700")]
    (here / "etc").mkdir()
    ran = puma("cluster", "new", *parties, "--ca", "ca.pem", "--client", "alice.crt", "--cluster", "etc/cluster.toml")
    assert ran.code == 0 and "CA " in ran.out
    found = config.read("etc/cluster.toml")
    assert found.clients == {"alice": "alice"} and Path(found.ca or "").resolve() == here / "ca.pem"
    assert puma("cluster", "trust", "--owner", "olga.example.org", "--cluster", "etc/cluster.toml").code == 0
    assert config.read("etc/cluster.toml").owners == {"olga.example.org": "olga.example.org"}


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("keys new a/b", 2, "not a name"),
        ("keys new alice --days 0", 2, "cannot last 0 days"),
        ("keys show nobody.crt", 5, "cannot read nobody.crt"),
        ("keys show cluster", 5, "cannot read cluster"),
        ("cluster show", 5, "cannot read cluster.toml"),
        ("cluster trust", 2, "nobody to trust"),
        ("cluster trust --client alice.crt", 5, "cannot read cluster.toml"),
        ("cluster new", 2, "needs --party"),
        ("cluster new --party p0", 2, "not a party: p0"),
        ("cluster new --party 4=h:1,p0.crt", 2, "not a party: 4=h:1,p0.crt"),
        ("cluster new --party 0=h:1", 2, "party 0 has no fingerprint"),
        ("cluster new --party 0=h:1,p9.crt", 5, "cannot read p9.crt"),
        ("cluster new --party 0=h:1,p0.crt", 5, "ranks are 0 (at party)"),
        ("cluster new --party 0=h:1,ca.pem", 5, "was not made by `puma keys new`"),
        ("cluster new --party 0=h:1,p0.crt --max-tokens 0", 2, "not a limit"),
        ("cluster new --party 0=h:1,p0.crt --client {alice}", 2, "a fingerprint without a name"),
        ("cluster new --party 0=h:1,p0.crt --client alice=puma1:x", 5, "has 56 letters"),
        ("cluster new --party 0=h:1 --ca none.pem", 5, "cannot read none.pem"),
    ],
)
def test_mistakes(puma: Run, here: Path, made: dict[str, str], words: str, code: int, says: str) -> None:
    Company(here)
    ran = puma(*shlex.split(words.format(**made)))
    assert ran.code == code and not ran.out and says in ran.err
    error, hint = ran.err.splitlines()
    assert error.startswith("error: ") and hint.startswith("hint: ")
    assert not (here / "cluster.toml").exists()


def test_an_expired_certificate_is_shown_as_such(puma: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    with monkeypatch.context() as patch:
        patch.setattr(identity, "CLOCKS", timedelta(days=400))
        patch.setattr(identity, "timedelta", lambda days: timedelta(days=-days))
        patch.setattr(identity, "load", lambda key: key)
        identity.create("old", here, days=3)
    assert "EXPIRED" in puma("keys", "show", "old.crt").out
    assert puma("keys", "show", "old.crt", "--json").json["expired"] is True
    ran = puma("keys", "show", "old.key")
    assert ran.code == 5 and "expired on" in ran.err and "puma keys renew" in ran.err
    assert puma("keys", "renew", "old.key").code == 0 and puma("keys", "show", "old.key").code == 0


def test_the_guide_to_deployment_works_as_written(puma: Run, here: Path) -> None:
    """Every `puma` line of docs/deploy.md, in order, in one folder instead of several machines."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / "deploy.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    commands = [
        shlex.split(line, comments=True)[1:] for line in lines if line.startswith(("puma keys", "puma cluster"))
    ]
    assert {" ".join(words[:2]) for words in commands} >= {"keys new", "keys renew", "cluster new", "cluster trust"}
    for words in commands:
        ran = puma(*words)
        assert ran.code == 0, (words, ran.err)
