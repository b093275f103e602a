"""`puma receipt`: what the parties signed of requests, shown and checked."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from puma.cli import ui
from puma.cli.options import HUMAN, Output

if TYPE_CHECKING:
    from puma.client.evidence.receipt import Receipt
    from puma.wire.receipts import Ends, Statement

NO_CLUSTER = "Nobody has said whose keys these are: compare the fingerprints, or pass --cluster cluster.toml."
LOCAL = "The keys were made by three parties on one machine when they started: this proves nothing to others."


def show(file: Path, /, *, output: Output = HUMAN) -> None:
    """Show what the three parties signed, unchecked.

    Parameters
    ----------
    file
        A file that --receipt has written.
    """
    from puma.client.evidence import verify as receipts

    found = receipts.read(file)
    if output.json:
        ui.answer({"checked": False, "receipts": [_facts(each) for each in found]})
        return
    for each in found:
        _say(each)
    ui.say("This was not checked: `puma receipt verify` does.")


def verify(
    file: Path, /, *, cluster: Path | None = None, card: str | None = None, output: Output = HUMAN
) -> None:  # fmt: skip
    """Check receipts: signatures, that the three statements agree, and that both ends of every link do.

    Parameters
    ----------
    file
        A file that --receipt has written.
    cluster
        The cluster file that says whose keys count. Without it, the statements are compared with each other alone.
    card
        The digest of the model's card, as `puma models show` has it. Receipts of other models do not hold then.
    """
    from puma.client.evidence import verify as receipts

    found = receipts.verify(file, cluster, card)
    local = any(each.local for each in found)
    if output.json:
        known = {"checked": True, "keys_known": cluster is not None, "local": local}
        ui.answer(known | {"receipts": [_facts(each) for each in found]})
        return
    for each in found:
        _say(each)
    ui.say(f"{len(found)} receipt{'s hold' if len(found) != 1 else ' holds'}.")
    if cluster is None:
        ui.say(LOCAL if local else NO_CLUSTER)


def _facts(receipt: Receipt) -> dict[str, Any]:
    """A receipt as JSON."""
    return {
        "receipt": receipt.digest,
        "local": receipt.local,
        "commitment": receipt.commitment.hex(),
        "fingerprints": list(receipt.fingerprints),
        "statements": [_stated(each) for each in receipt.statements],
    }


def _stated(statement: Statement) -> dict[str, Any]:
    import msgspec

    return msgspec.to_builtins(statement, builtin_types=(bytes,)) | {
        "links": [_link(ends) for ends in statement.links],
        "model": None
        if statement.model is None
        else {
            "name": statement.model.name,
            "card": statement.model.card.hex(),
            "sharing": statement.model.sharing.hex(),
            "approximation": statement.model.approximation,
        },
        **{name: getattr(statement, name).hex() for name in ("cluster", "session", "request", "said")},
    }


def _link(ends: Ends) -> dict[str, Any]:
    heads = {"sent": ends.sent, "received": ends.received} | ({"words": ends.words} if ends.words else {})
    told = {name: {"frames": h.frames, "bytes": h.size, "head": h.digest.hex()} for name, h in heads.items()}
    return {"peer": ends.peer, "place": ends.place} | told


def _say(receipt: Receipt) -> None:
    first = receipt.statements[0]
    rows = [
        ["receipt", receipt.digest[:16]],
        [
            "request",
            f"{first.kind}, {first.request.hex()[:16]}, report {first.number} of session {first.session.hex()}",
        ],
        ["model", _model(first)],
        ["commitment", receipt.commitment.hex() or "none"],
        ["puma", f"{first.version}, protocol {first.protocol}"],
    ]
    for each, key in zip(receipt.statements, receipt.fingerprints, strict=True):
        rows.append([f"P{each.rank}", f"signed {_time(each.ended)} with {key}"])
        rows += [["", _ends(ends)] for ends in each.links]
    ui.table(rows)
    ui.say()


def _ends(ends: Ends) -> str:
    what = "steps with others" if ends.place == "company" else "frames"
    sent, received = f"{ends.sent.frames} {what}", f"{ends.received.frames} {what}"
    if ends.place == "own":
        sent, received = f"{sent} of {ui.amount(ends.sent.size)}", f"{received} of {ui.amount(ends.received.size)}"
    one, other = (head.digest.hex()[:8] for head in (ends.sent, ends.received))
    return f"{ends.peer}: sent {sent} ({one}), received {received} ({other})"


def _model(statement: Statement) -> str:
    model = statement.model
    return "none" if model is None else f"{model.name}, sharing {model.sharing.hex()[:16]}, {model.approximation}"


def _time(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return "at no time"
