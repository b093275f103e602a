"""`puma models`: list, show and delete the models that a cluster serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from puma.cli import ui
from puma.cli.options import HUMAN, ClusterFile, Flag, Key, Output
from puma.cli.where import owner

if TYPE_CHECKING:
    from puma.wire.messages import Listed


def list(*, key: Key, cluster: Path = ClusterFile, insecure: Flag = False, output: Output = HUMAN) -> None:
    """Show the models that all three parties serve alike.

    Parameters
    ----------
    key
        The key of an owner or a client.
    cluster
        The cluster file; cluster.toml unless given.
    insecure
        Links without TLS, to parties that were started likewise on this machine.
    """
    from puma.models import architecture, heads, vectors
    from puma.wire.policy import allowed_outputs

    found = _served(key, cluster, insecure, output)
    rows = [
        {
            "name": listed.card.name, "version": listed.card.version, "family": architecture(listed.config).kind,
            "context": listed.config.context, "generates": heads(listed.config).generates,
            "reveal_logits": listed.card.reveal_logits,
            "outputs": allowed_outputs(listed.config, listed.card, listed.card.reveal_logits),
            "pooling": vectors(listed.config),
            "approximations": listed.card.approximations, "bytes": listed.size, "weights": _weights(listed),
        }
        for listed in found
    ]  # fmt: skip
    if output.json:
        ui.answer({"models": rows})
        return
    if not rows:
        ui.say("no models yet: their owner runs puma share")
        return
    table = [["name", "version", "family", "context", "weights", "clients see", "at all three"]]
    table += [
        [r["name"], r["version"], r["family"], str(r["context"]), r["weights"], _seen(r), ui.amount(r["bytes"])]
        for r in rows
    ]
    ui.table(table)


def show(
    name: str, /, *, key: Key, cluster: Path = ClusterFile, insecure: Flag = False, output: Output = HUMAN
) -> None:  # fmt: skip
    """Show a model's card, and its number formats with where they come from.

    Parameters
    ----------
    name
        The model.
    key
        The key of an owner or a client.
    cluster
        The cluster file; cluster.toml unless given.
    insecure
        Links without TLS, to parties that were started likewise on this machine.
    """
    from puma.errors import UsageError

    found = {listed.card.name: listed for listed in _served(key, cluster, insecure, output)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none yet"
        raise UsageError(f"the parties serve no model {name}", f"these are the cluster's: {known}")
    told = _told(found[name])
    if output.json:
        ui.answer(told)
        return
    ui.table([[key.replace("_", " "), _word(told[key])] for key in told if key not in ("stream", "places", "plan")])
    plan = told["plan"]
    if plan is None:
        ui.say("number formats: the usual ones")
        return
    ui.say(
        f"number formats by {plan['texts']} texts of {plan['tokens']} tokens with a margin of {plan['margin']} bits, "
        f"and by proofs for {sum(place['proven'] for place in told['places'])} of {len(told['places'])} places"
    )
    rows = [[p["name"], str(p["reach"]), "proven" if p["proven"] else "calibrated"] for p in told["places"]]
    ui.table([["place", "below 2^", ""], ["the residual stream", str(told["stream"]), "calibrated"], *rows])


def _served(key: Path, cluster: Path, insecure: bool, output: Output) -> Sequence[Listed]:
    """What all three parties hold alike."""
    from puma.client.connect import open_session

    with ui.progress(output.json) as progress:
        session = open_session(cluster, key, _role(cluster, key), insecure, progress)
        try:
            return session.models()
        finally:
            session.close()


def _word(value: Any) -> str:
    """A value of a card, for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, str | int) else ", ".join(value)


def _told(listed: Listed) -> dict[str, Any]:
    """What everyone may know of a model."""
    import msgspec

    from puma.models import architecture, heads, preamble
    from puma.wire.policy import allowed_outputs
    from puma.wire.receipts import card_digest, commitment_digest

    card, config = listed.card, listed.config
    proven = set(config.formats.proven)
    places = [{"name": n, "reach": r, "proven": n in proven} for n, r in config.formats.places.items()]
    return {
        "name": card.name, "version": card.version, "family": architecture(config).kind, "context": config.context,
        "layers": architecture(config).layers(config), "generates": heads(config).generates,
        "reveal_logits": card.reveal_logits, "max_tokens": card.max_tokens, "hides": card.hides,
        "outputs": allowed_outputs(config, card, card.reveal_logits), "approximations": card.approximations,
        "commitment": commitment_digest(listed.commitment).hex() if listed.commitment else "",
        "card": card_digest(config, card).hex(), "digest": card.weights.sha256.hex() if card.weights else "",
        "bytes": listed.size, "plan": card.plan and msgspec.to_builtins(card.plan), "stream": config.formats.stream,
        "places": places, "weights": _weights(listed), "preamble": len(preamble(config) or ()),
    }  # fmt: skip


def _weights(listed: Listed) -> str:
    """Whether everybody may know them."""
    return "hidden" if listed.card.weights is None else "open"


def delete(
    name: str, /, *, key: Key, cluster: Path = ClusterFile, insecure: Flag = False, output: Output = HUMAN
) -> None:  # fmt: skip
    """Let all three parties forget a model; sessions that use it go on to their end.

    Parameters
    ----------
    name
        The model.
    key
        The owner's key.
    cluster
        The cluster file; cluster.toml unless given.
    insecure
        Links without TLS, to parties that were started likewise on this machine.
    """
    from puma.client.owner import Owner

    with ui.progress(output.json) as progress:
        session = owner(cluster, key, insecure, progress)
        try:
            Owner(session).delete(name)
        finally:
            session.close()
    ui.answer({"deleted": name}) if output.json else ui.say(f"{name} is deleted")


def _seen(row: Mapping[str, Any]) -> str:
    """What clients may have of a model, in a few words."""
    generated = ["tokens one by one"] if row["generates"] and "logits" not in row["outputs"] else []
    words = [f"pooled: {row['pooling']}" if name == "pooled" and row["pooling"] else name for name in row["outputs"]]
    return ", ".join([*generated, *(["logits"] if row["reveal_logits"] else []), *words])


def _role(cluster: Path, key: Path) -> Literal["client", "owner"]:
    """As whom this key comes: an owner if our copy says only that, else a client; the parties have the last word."""
    from puma import config
    from puma.crypto import identity
    from puma.net.tls import Tls

    credentials = identity.load(key)
    roles = {role for role, _ in Tls(credentials.certificate, credentials.key, config.read(cluster)).seats}
    return "owner" if "owner" in roles and "client" not in roles else "client"
