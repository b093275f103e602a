"""cluster.toml: which three parties there are and how each is recognised, who may upload models, who may ask, and what
the parties have agreed to allow. The only reader and writer of that file; everything in it is public. Knows no
network: net/tls.py decides what to do with a certificate."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import tomlkit

from puma import fingerprint
from puma.errors import ConfigError

PARTIES = 3
MOST_DEALERS = 2
MOST_PARTIES = PARTIES - 1 + MOST_DEALERS  # the second dealer is of rank 3
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
_ADDRESS_HINT = "write host:port, such as p0.example.org:7700 or [::1]:7700"

HEADER = """\
# A Puma cluster: three parties, who may upload models, and who may ask. Nothing here is secret.
# Parties and policy must be the same in everybody's copy, or links are refused; addresses, owners and
# clients may differ. `puma cluster show` explains this file; docs/deploy.md says how to change it.
"""

Section = Literal["owners", "clients"]
Limit = Annotated[int, msgspec.Meta(ge=1, le=1 << 30)]


class Party(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of the three, or of rank 3 a second dealer: where it listens, and its key's fingerprint or, under a
    CA, its certificate's name."""

    rank: Annotated[int, msgspec.Meta(ge=0, lt=MOST_PARTIES)]
    address: str
    fingerprint: str = ""
    name: str = ""

    @property
    def host_port(self) -> tuple[str, int]:
        """The address in two parts; ConfigError if it is none."""
        return split_address(self.address)


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the parties agree to: may a client see logits to sample from; tokens a request; sessions at a time."""

    reveal_logits: bool = False
    max_tokens: Limit = 4096
    max_sessions: Limit = 16


class Cluster(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file; of four parties the last is a second dealer. With `ca` set, certificates are recognised by name
    and not by fingerprint."""

    parties: tuple[Party, ...] = msgspec.field(name="party")
    ca: str | None = None
    owners: Mapping[str, str] = {}
    clients: Mapping[str, str] = {}
    policy: Policy = Policy()

    def known_by(self, party: Party) -> str:
        """What a party is recognised by: a fingerprint, or the name in its certificate (its host unless given)."""
        return party.fingerprint if self.ca is None else party.name or party.host_port[0]

    @property
    def digest(self) -> bytes:
        """32 bytes that are equal if and only if two files agree in what must be the same everywhere."""
        parties = [[party.rank, self.known_by(party)] for party in self.parties]
        agreed = {"ca": self.ca is not None, "parties": parties, "policy": msgspec.to_builtins(self.policy)}
        return hashlib.sha256(b"puma/1|cluster|" + json.dumps(agreed, sort_keys=True).encode()).digest()


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port`; an IPv6 host stands in brackets. ConfigError if it is no address."""
    host, _, port = address.rpartition(":")
    bracketed = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\]", host)
    if not (bracketed or _HOST.fullmatch(host)):
        raise ConfigError(f"not an address: {address!r}", _ADDRESS_HINT)
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        raise ConfigError(f"the address {address!r} has no port from 1 to 65535", _ADDRESS_HINT)
    return bracketed[1] if bracketed else host, int(port)


def read(path: str | Path) -> Cluster:
    """The cluster file, checked; ConfigError names the file and the place in it. A relative `ca` is beside the file."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "not UTF-8"
        raise ConfigError(f"cannot read {path}: {why}", "make one with `puma cluster new`, or name it") from None
    cluster = parse(text, str(path))
    return cluster if cluster.ca is None else msgspec.structs.replace(cluster, ca=str(path.parent / cluster.ca))


def parse(text: str, where: str = "cluster.toml") -> Cluster:
    """The same from a text; `where` is what errors call it."""
    try:
        found = msgspec.convert(tomllib.loads(text), Cluster)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: {_lowered(error)}", "the file is written in TOML, see https://toml.io") from None
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_lowered(error)}", "compare it with the example in docs/deploy.md") from None
    return checked(found, where)


def checked(cluster: Cluster, where: str = "cluster.toml") -> Cluster:
    """The cluster with its parties in order and fingerprints in one spelling; ConfigError if it contradicts itself."""
    parties = tuple(_party(cluster, party, where) for party in sorted(cluster.parties, key=lambda p: p.rank))
    ranks = [party.rank for party in parties]
    if ranks not in (list(range(PARTIES)), list(range(MOST_PARTIES))):
        hint = "there are three [[party]] tables, with rank 0, 1 and 2; one with rank 3 is a second dealer"
        raise ConfigError(f"{where}: ranks are {', '.join(map(str, ranks)) or 'missing'} (at party)", hint)
    _unlike({f"party {p.rank}": f"{p.host_port}" for p in parties}, "address", where)
    people = {kind: _people(cluster, kind, where) for kind in ("owners", "clients")}
    found = msgspec.structs.replace(cluster, parties=parties, **people)
    seats = {f"party {p.rank}": found.known_by(p) for p in parties}
    what = "fingerprint" if cluster.ca is None else "name"
    for kind, known in people.items():
        # A party that is also an outsider takes a key of its own for that: what a key may do stays plain.
        _unlike(seats | {f"{kind}.{name}": value for name, value in known.items()}, what, where)
    return found


def _party(cluster: Cluster, party: Party, where: str) -> Party:
    at = f"party {party.rank}"
    with _located(where, f"{at}, address"):
        split_address(party.address)
    if cluster.ca is not None:
        if party.fingerprint:
            raise ConfigError(f"{where}: a fingerprint beside a CA (at {at})", "remove `ca` or the fingerprints")
        return party
    if party.name:
        raise ConfigError(f"{where}: a name without a CA (at {at})", "write the fingerprint instead, or add `ca`")
    with _located(where, f"{at}, fingerprint"):
        return msgspec.structs.replace(party, fingerprint=fingerprint.canonical(party.fingerprint))


def _people(cluster: Cluster, kind: str, where: str) -> dict[str, str]:
    known: dict[str, str] = {}
    for name, value in getattr(cluster, kind).items():
        if not NAME.fullmatch(name):
            hint = "a name has letters, digits and . _ @ -, at most 63 of them"
            raise ConfigError(f"{where}: not a name: {name!r} (at {kind})", hint)
        with _located(where, f"{kind}.{name}"):
            known[name] = fingerprint.canonical(value) if cluster.ca is None else _certificate_name(value)
    return known


def _certificate_name(value: str) -> str:
    if not value or not value.isprintable() or value.startswith(fingerprint.PREFIX):
        raise ConfigError(f"not a name in a certificate: {value!r}", "under a CA, people are known by name")
    return value


def _unlike(values: Mapping[str, str], what: str, where: str) -> None:
    seen: dict[str, str] = {}
    for key, value in values.items():
        if value in seen:
            hint = "each needs its own; `puma keys new` makes another key"
            raise ConfigError(f"{where}: {seen[value]} and {key} have the same {what}", hint)
        seen[value] = key


@contextlib.contextmanager
def _located(where: str, at: str):
    """Errors inside name the file and the place."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.message} (at {at})", error.hint) from None


def _lowered(error: Exception) -> str:
    text = str(error).replace("`$.", "`")
    return text[:1].lower() + text[1:]


def to_toml(cluster: Cluster) -> str:
    """The file as it is written for people to read."""
    document = tomlkit.document()
    for line in HEADER.splitlines():
        document.add(tomlkit.comment(line.removeprefix("# ")))
    if cluster.ca is not None:
        document.add(tomlkit.comment("The company's CA: certificates are recognised by the names in them."))
        document.add("ca", tomlkit.item(cluster.ca))
    parties = tomlkit.aot()
    for party in cluster.parties:
        known = {key: value for key in ("fingerprint", "name") if (value := getattr(party, key))}
        parties.append(tomlkit.item({"rank": party.rank, "address": party.address} | known))
    document.add("party", parties)
    for kind, what in (("owners", "who may upload models"), ("clients", "who may ask")):
        table = tomlkit.table()
        table.comment(what)
        table.update(getattr(cluster, kind))
        document.add(kind, table)
    document.add("policy", tomlkit.item(msgspec.to_builtins(cluster.policy)))
    return tomlkit.dumps(document)


def create(path: str | Path, cluster: Cluster) -> Cluster:
    """Write a new cluster file, never over another; what it holds."""
    path = Path(path)
    if path.exists():
        raise ConfigError(f"{path} exists", "change it with `puma cluster trust`, or move it away first")
    text = to_toml(checked(cluster, str(path)))
    found = parse(text, str(path))
    _replace(path, text)
    return found


def trust(path: str | Path, section: Section, name: str, value: str) -> Cluster:
    """Add one line to the owners or clients of a file; the rest, comments included, stays as it is."""
    path = Path(path)
    before = read(path)
    known = getattr(before, section)
    if name in known:
        raise ConfigError(f"{path}: {section}.{name} exists", "choose another --name, or remove that line first")
    wanted = checked(msgspec.structs.replace(before, **{section: {**known, name: value}}), str(path))
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    document.setdefault(section, tomlkit.table())[name] = getattr(wanted, section)[name]  # type: ignore[index]
    text = tomlkit.dumps(document)
    parse(text, str(path))
    _replace(path, text)
    return wanted


def _replace(path: Path, text: str) -> None:
    """All of the new file or all of the old one, whatever happens meanwhile."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("x", encoding="utf-8") as file:
            if path.exists():
                os.fchmod(file.fileno(), path.stat().st_mode & 0o777)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise ConfigError(f"cannot write {path}: {error.strerror or error}", "is the folder there?") from None
