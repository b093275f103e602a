"""The cluster file: what it says, what it refuses by file and place, and that a change touches one line."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puma import config, fingerprint
from puma.config import Cluster, Party, Policy
from puma.errors import ConfigError

KEYS = [fingerprint.of_key(bytes([i]) * 32) for i in range(8)]
TEXT = f"""
[[party]]
rank = 2
address = "[::1]:7702"
fingerprint = "{KEYS[2].upper().replace("PUMA1:", "puma1:")}"

[[party]]
rank = 0
address = "p0.example.org:7700"
fingerprint = "{KEYS[0]}"

[[party]]
rank = 1
address = "10.0.0.1:7701"
fingerprint = "{KEYS[1]}"

[owners]  # mine
olga = "{KEYS[3]}"

# these may ask
[clients]
alice = "{KEYS[4]}"
"b.o@b" = "{KEYS[3]}"

[policy]
max_tokens = 100
"""


def cluster() -> Cluster:
    return config.parse(TEXT)


def test_what_a_file_says() -> None:
    found = cluster()
    assert [p.rank for p in found.parties] == [0, 1, 2]
    assert [p.host_port for p in found.parties] == [("p0.example.org", 7700), ("10.0.0.1", 7701), ("::1", 7702)]
    assert [found.known_by(p) for p in found.parties] == KEYS[:3]
    assert found.owners == {"olga": KEYS[3]} and found.clients == {"alice": KEYS[4], "b.o@b": KEYS[3]}
    assert found.policy == Policy(reveal_logits=False, max_tokens=100, max_sessions=16) and found.ca is None


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    found = cluster()
    assert config.create(tmp_path / "c.toml", found) == found == config.read(tmp_path / "c.toml")
    assert (tmp_path / "c.toml").read_text().startswith("# A Puma cluster")
    with pytest.raises(ConfigError, match="exists"):
        config.create(tmp_path / "c.toml", found)
    assert [path.name for path in tmp_path.iterdir()] == ["c.toml"]


PARTY = TEXT.index("[[party]]")
BAD = {
    "rank 4": (TEXT.replace("rank = 2", "rank = 4"), "expected `int` <= 3 - at `party"),
    "no rank 2": (TEXT.replace("rank = 2", "rank = 3"), "ranks are 0, 1, 3"),
    "two of a rank": (TEXT.replace("rank = 2", "rank = 1"), r"ranks are 0, 1, 1 \(at party\)"),
    "two parties": (TEXT[TEXT.index("[[party]]", PARTY + 1) :], "ranks are 0, 1 "),
    "no party": ("[owners]\n", "missing required field `party`"),
    "unknown key": (TEXT.replace("max_tokens", "max_tokenz"), "unknown field `max_tokenz` - at `policy`"),
    "unknown table": (TEXT + "[extra]\n", "unknown field `extra`"),
    "unknown party key": (TEXT.replace("rank = 2", 'rank = 2\nport = "1"'), r"unknown field `port` - at `party\[0\]`"),
    "no rank": (TEXT.replace("rank = 2\n", ""), "missing required field `rank`"),
    "text rank": (TEXT.replace("rank = 2", 'rank = "2"'), "expected `int`, got `str`"),
    "limit": (TEXT.replace("= 100", "= 0"), "expected `int` >= 1 - at `policy.max_tokens`"),
    "bool limit": (TEXT.replace("= 100", "= true"), "expected `int`, got `bool`"),
    "not toml": (TEXT + "what", "expected '='"),
    "same name": (TEXT.replace("[clients]", f'[clients]\nalice = "{KEYS[5]}"'), "cannot overwrite a value"),
    "same fingerprint": (TEXT.replace(KEYS[1], KEYS[0]), "party 0 and party 1 have the same fingerprint"),
    "same address": (TEXT.replace("10.0.0.1:7701", "p0.example.org:7700"), "party 0 and party 1 have the same address"),
    "party as client": (TEXT.replace(KEYS[4], KEYS[1]), "party 1 and clients.alice have the same fingerprint"),
    "client twice": (TEXT.replace(KEYS[4], KEYS[3]), "clients.alice and clients.b.o@b have the same fingerprint"),
    "owner twice": (
        TEXT.replace("[clients]", f'zoe = "{KEYS[3]}"\n[clients]'),
        "owners.olga and owners.zoe have the same fingerprint",
    ),
    "mistyped": (TEXT.replace(KEYS[4], KEYS[4][:-1] + "a"), r"mistyped.* \(at clients.alice\)"),
    "no fingerprint": (TEXT.replace(f'fingerprint = "{KEYS[0]}"', ""), r"not a fingerprint: '' \(at party 0, fing"),
    "name": (TEXT.replace('"b.o@b"', '"b b"'), r"not a name: 'b b' \(at clients\)"),
    "dotted name": (TEXT.replace('"b.o@b"', "b.o"), "expected `str`, got `object`"),
    "name without a CA": (TEXT.replace("rank = 2", 'rank = 2\nname = "p2"'), r"a name without a CA \(at party 2\)"),
    "fingerprint with a CA": ('ca = "ca.pem"\n' + TEXT, r"a fingerprint beside a CA \(at party 0\)"),
} | {
    f"address {address}": (TEXT.replace("10.0.0.1:7701", address), r"\(at party 1, address\)")
    for address in (
        "",
        "host",
        "host:",
        ":7700",
        "host:0",
        "host:65536",
        "host:-1",
        "host:x",
        "h:1:2",
        "a b:1",
        "[x]:1",
    )
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_named_with_file_and_place(case: str, tmp_path: Path) -> None:
    text, says = BAD[case]
    (tmp_path / "my.toml").write_text(text)
    with pytest.raises(ConfigError, match=says) as raised:
        config.read(tmp_path / "my.toml")
    assert f"{tmp_path / 'my.toml'}: " in raised.value.message and raised.value.hint


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*: No such file"):
        config.read(tmp_path / "none.toml")
    (tmp_path / "c.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"cannot read .*: not UTF-8"):
        config.read(tmp_path / "c.toml")
    with pytest.raises(ConfigError, match="cannot write"):
        config.create(tmp_path / "no" / "c.toml", cluster())


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for source in (text, TEXT + text, text + TEXT):
        try:
            assert len(config.parse(source).parties) == 3
        except ConfigError as error:
            assert error.message.startswith("cluster.toml: ")


def test_trust_adds_one_line_and_keeps_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(TEXT)
    path.chmod(0o640)
    found = config.trust(path, "clients", "carol", KEYS[5].upper().replace("PUMA1", "puma1"))
    assert found == config.read(path) and found.clients["carol"] == KEYS[5]
    found = config.trust(path, "owners", "d.d", KEYS[6])
    assert list(found.owners) == ["olga", "d.d"]
    added = [f'carol = "{KEYS[5]}"', f'"d.d" = "{KEYS[6]}"']
    assert [line for line in path.read_text().splitlines() if line not in added] == TEXT.rstrip().splitlines()
    assert path.stat().st_mode & 0o777 == 0o640
    before = path.read_bytes()
    for name, value, says in (
        ("carol", KEYS[7], "clients.carol exists"),
        ("erin", KEYS[0], "party 0 and clients.erin"),
        ("erin", KEYS[5], "clients.carol and clients.erin"),
        ("e e", KEYS[7], "not a name"),
        ("erin", "puma1:x", "has 56 letters"),
    ):
        with pytest.raises(ConfigError, match=says):
            config.trust(path, "clients", name, value)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["c.toml"]


def test_trust_finds_its_place_however_the_file_is_written(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(TEXT[: TEXT.index("[owners]")])
    assert config.trust(path, "clients", "alice", KEYS[4]).clients == {"alice": KEYS[4]}
    assert config.trust(path, "owners", "olga", KEYS[3]) == config.read(path)
    path.write_text(f'clients = {{alice = "{KEYS[4]}"}}\n' + TEXT[: TEXT.index("[owners]")])
    assert config.trust(path, "clients", "bob", KEYS[5]).clients == {"alice": KEYS[4], "bob": KEYS[5]}
    assert config.read(path).clients == {"alice": KEYS[4], "bob": KEYS[5]}


def test_the_digest_covers_what_must_agree() -> None:
    found, change = cluster(), msgspec.structs.replace
    parties = list(found.parties)
    moved = change(found, parties=(change(parties[0], address="elsewhere:1"), *parties[1:]))
    for same in (moved, change(found, clients={}), change(found, owners={})):
        assert same.digest == found.digest and len(same.digest) == 32
    others = [
        change(found, parties=(change(parties[0], fingerprint=KEYS[7]), *parties[1:])),
        change(found, policy=Policy(reveal_logits=True, max_tokens=100)),
        change(found, policy=Policy(max_tokens=101)),
        change(found, policy=Policy(max_tokens=100, max_sessions=1)),
        change(found, ca="ca.pem"),
    ]
    assert len({other.digest for other in [found, *others]}) == len(others) + 1


def test_under_a_ca_people_are_known_by_name(tmp_path: Path) -> None:
    parties = (Party(0, "a.org:1"), Party(1, "b.org:1", name="bee"), Party(2, "c.org:1"))
    made = config.create(tmp_path / "c.toml", Cluster(parties, "ca.pem", {}, {"alice": "alice@a.org"}))
    found = config.read(tmp_path / "c.toml")
    assert [found.known_by(p) for p in found.parties] == ["a.org", "bee", "c.org"]
    assert found.ca == str(tmp_path / "ca.pem") and found.digest == made.digest
    trusted = config.trust(tmp_path / "c.toml", "clients", "bob", "bob.a.org")
    assert trusted.clients == {"alice": "alice@a.org", "bob": "bob.a.org"}
    for value in ("", KEYS[0], "a\nb"):
        with pytest.raises(ConfigError, match="not a name in a certificate"):
            config.trust(tmp_path / "c.toml", "clients", "carol", value)
    with pytest.raises(ConfigError, match=r"party 1 and clients\.carol have the same name"):
        config.trust(tmp_path / "c.toml", "clients", "carol", "bee")
