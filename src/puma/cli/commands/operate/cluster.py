"""`puma cluster`: write, read and extend the cluster file. Nothing in it is secret, and nothing here opens a link."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from puma import config, fingerprint
from puma.cli import ui
from puma.cli.options import HUMAN, Count, Flag, Output
from puma.config import MOST_PARTIES, Cluster, Party, Policy, Section
from puma.errors import ConfigError, UsageError

FILE = Path("cluster.toml")
Many = Annotated[list[str], Parameter(negative="", consume_multiple=False)]
_PARTY_HINT = "write --party 0=p0.example.org:7700,p0.crt (or its fingerprint), and likewise for 1 and 2"
_PERSON_HINT = "write alice.crt, or alice=puma1:... with her fingerprint"


def new(
    *,
    party: Many,
    owner: Many | None = None,
    client: Many | None = None,
    ca: Path | None = None,
    reveal_logits: Flag = False,
    max_tokens: Count | None = None,
    max_sessions: Count | None = None,
    cluster: Path = FILE,
    output: Output = HUMAN,
) -> None:
    """Write a new cluster file, never over another.

    Parameters
    ----------
    party
        RANK=HOST:PORT,WHO three times, and with rank 3 for a second dealer; WHO is a .crt file or a
        fingerprint, under a CA the certificate's name.
    owner
        Who may upload models: a .crt file, or NAME=FINGERPRINT; may be repeated.
    client
        Who may ask, likewise.
    ca
        A company's CA file: certificates are then recognised by name.
    reveal_logits
        Let clients see logits, to sample from them; else the parties decide tokens.
    max_tokens
        Tokens of a request, prompt and answer together.
    max_sessions
        Sessions at a time.
    cluster
        The file; cluster.toml unless given.
    """
    parties = tuple(_party(words, ca is not None) for words in party)
    people = [dict(_person(words, ca is not None) for words in group or []) for group in (owner, client)]
    limits = {"max_tokens": max_tokens, "max_sessions": max_sessions}
    policy = {"reveal_logits": reveal_logits} | {key: value for key, value in limits.items() if value is not None}
    try:
        agreed = msgspec.convert(policy, Policy)
    except msgspec.ValidationError as error:
        raise UsageError(f"not a limit: {error}", "limits are whole numbers from 1") from None
    made = config.create(cluster, Cluster(parties, _beside(cluster, ca), people[0], people[1], agreed))
    _show(cluster, made, output.json)
    if not output.json:
        ui.say()
        ui.say(f"Send {cluster} to everybody in it; it holds no secret, but must reach them unchanged.")


def show(*, cluster: Path = FILE, output: Output = HUMAN) -> None:
    """Say what a cluster file means, and the digest by which copies are compared.

    Parameters
    ----------
    cluster
        The file; cluster.toml unless given.
    """
    _show(cluster, config.read(cluster), output.json)


def trust(
    *,
    owner: str | None = None,
    client: str | None = None,
    name: str | None = None,
    cluster: Path = FILE,
    output: Output = HUMAN,
) -> None:
    """Let somebody upload models or ask: add a line to the file of each party.

    Parameters
    ----------
    owner
        Who may upload models: a .crt file or a fingerprint.
    client
        Who may ask, likewise.
    name
        What to call them; the certificate's name unless given.
    cluster
        The file; cluster.toml unless given.
    """
    wanted: dict[Section, str | None] = {"owners": owner, "clients": client}
    if owner is None and client is None:
        raise UsageError("nobody to trust", "name one with --client alice.crt or --owner olga.crt")
    made = config.read(cluster)
    for section, words in wanted.items():
        if words is not None:
            made = config.trust(cluster, section, *_person(f"{name}={words}" if name else words, made.ca is not None))
    _show(cluster, made, output.json)
    if not output.json:
        ui.say()
        ui.say("Every party needs this line in its own copy, and reads it when it starts.")


def _party(words: str, by_name: bool) -> Party:
    rank, _, rest = words.partition("=")
    address, _, who = rest.partition(",")
    if not (rank.isascii() and rank.isdigit() and int(rank) < MOST_PARTIES):
        raise UsageError(f"not a party: {words}", _PARTY_HINT)
    if by_name:
        return Party(int(rank), address, name=_shown_name(who) if who else "")
    if not who:
        raise UsageError(f"party {rank} has no fingerprint: {words}", _PARTY_HINT)
    return Party(int(rank), address, _pin(who)[1])


def _person(words: str, by_name: bool) -> tuple[str, str]:
    """A name for people, and what recognises them."""
    name, equals, who = words.partition("=")
    if not equals:
        name, who = "", words
    if by_name:
        value = _shown_name(who)
        return name or value, value
    found, pin = _pin(who)
    if not (name or found):
        raise UsageError(f"a fingerprint without a name: {words}", _PERSON_HINT)
    return name or found, pin


def _pin(who: str) -> tuple[str, str]:
    """The name and the fingerprint in a certificate file, or the fingerprint that was written out."""
    from puma.crypto import identity

    if who.startswith(fingerprint.PREFIX):
        return "", fingerprint.canonical(who)
    shown = identity.read_certificate(who)
    if not identity.signed_by_itself(shown):
        raise ConfigError(f"{who} was not made by `puma keys new`", "name the CA that signed it with --ca")
    identity.check_validity(shown, who)
    return identity.common_name(shown), fingerprint.of_certificate(shown)


def _shown_name(who: str) -> str:
    """Under a CA: the name in a certificate file, or the name that was written out."""
    from puma.crypto import identity

    return identity.common_name(identity.read_certificate(who)) if who.endswith(".crt") else who


def _beside(cluster: Path, ca: Path | None) -> str | None:
    """The CA file as the cluster file, in its own folder, has to name it."""
    from puma.crypto import identity

    if ca is None:
        return None
    identity.read_certificate(ca)
    return str(ca) if ca.is_absolute() else os.path.relpath(ca, cluster.parent)


def _show(path: Path, found: Cluster, as_json: bool) -> None:
    facts: dict[str, Any] = {"file": str(path), "digest": found.digest.hex(), "ca": found.ca}
    facts["parties"] = [{"rank": p.rank, "address": p.address, "known_by": found.known_by(p)} for p in found.parties]
    facts |= {"owners": dict(found.owners), "clients": dict(found.clients)}
    facts["policy"] = msgspec.to_builtins(found.policy)
    if as_json:
        ui.answer(facts)
        return
    for p in found.parties:
        ui.say(f"P{p.rank}       {p.address}  {found.known_by(p)}")
    for kind, what in (("owners", "owner "), ("clients", "client")):
        for name, value in facts[kind].items():
            ui.say(f"{what}   {name}  {value}")
        if not facts[kind]:
            ui.say(f"{what}   nobody")
    ui.say(f"policy   {_policy(found.policy)}")
    if found.ca is not None:
        ui.say(f"CA       {found.ca}")
    ui.say(f"digest   {facts['digest'][:16]} (the same for everybody whose copy fits)")


def _policy(policy: Policy) -> str:
    logits = "clients see logits" if policy.reveal_logits else "clients see tokens, no logits"
    return f"{logits}; at most {policy.max_tokens} tokens a request, {policy.max_sessions} sessions at a time"
