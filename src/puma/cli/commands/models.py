"""`puma models`: list and delete the models that a cluster serves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from puma.cli import ui
from puma.cli.options import HUMAN, ClusterFile, Flag, Key, Output
from puma.cli.where import owner


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
    from puma.client.connect import open_session
    from puma.models import architecture, heads, vectors
    from puma.wire.policy import allowed_outputs

    with ui.progress(output.json) as progress:
        session = open_session(cluster, key, _role(cluster, key), insecure, progress)
        try:
            found = session.models()
        finally:
            session.close()
    rows = [
        {
            "name": listed.card.name, "version": listed.card.version, "family": architecture(listed.config).kind,
            "context": listed.config.context, "generates": heads(listed.config).generates,
            "reveal_logits": listed.card.reveal_logits,
            "outputs": allowed_outputs(listed.config, listed.card, listed.card.reveal_logits),
            "pooling": vectors(listed.config),
            "approximations": listed.card.approximations, "bytes": listed.size,
        }
        for listed in found
    ]  # fmt: skip
    if output.json:
        ui.answer({"models": rows})
        return
    if not rows:
        ui.say("no models yet: their owner runs puma share")
        return
    table = [["name", "version", "family", "context", "clients see", "at all three"]]
    table += [[r["name"], r["version"], r["family"], str(r["context"]), _seen(r), ui.amount(r["bytes"])] for r in rows]
    ui.table(table)


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
