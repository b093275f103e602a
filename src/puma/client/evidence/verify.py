"""Receipts for programs: `puma.receipt` is this file. Keep what an answer came with, and see later whether it holds.

    puma.receipt.write("answer.receipt", answer.receipt)
    for each in puma.receipt.verify("answer.receipt", "cluster.toml"): ...

It must not know sessions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from puma import config
from puma.client import arguments
from puma.client.evidence import receipt as files
from puma.client.evidence.authority import of_cluster
from puma.client.evidence.checks import HINT, check
from puma.client.evidence.receipt import Receipt
from puma.config import Cluster
from puma.errors import ReceiptError, UsageError

__all__ = ["Receipt", "read", "verify", "write"]
OTHER = "compare the card with what the model's owner tells, and ask the parties what they served"


def write(path: str | Path, receipts: Receipt | Sequence[Receipt]) -> None:
    """Keep receipts in a file, in place of what it held; StoreError if it cannot be written."""
    kept = [receipts] if isinstance(receipts, Receipt) else [*receipts]
    if not all(isinstance(each, Receipt) for each in kept):
        raise UsageError("only receipts can be kept", "pass answer.receipt, or several such in a list")
    files.write(Path(arguments.path_like(path, "a file of receipts")), kept)


def read(path: str | Path) -> list[Receipt]:
    """The receipts in a file, unchecked; StoreError if it holds none."""
    return files.read(Path(arguments.path_like(path, "a file of receipts")))


def verify(
    receipts: str | Path | Receipt, cluster: str | Path | Cluster | None = None, card: str | None = None
) -> list[Receipt]:
    """The receipts in a file, or the one that is given, if they hold; ReceiptError says why one does not.

    `cluster` is the cluster file that says whose keys count. Without it the three keys are believed to be the parties':
    then the statements fit together, and whose they are is for the caller to see (`Receipt.fingerprints`). `card` is
    the digest of a model's card, in hex, as `puma models show` has it: receipts of other models do not hold then.
    """
    digest = None if card is None else _digest(card)
    found = [receipts] if isinstance(receipts, Receipt) else read(receipts)
    known = cluster if cluster is None or isinstance(cluster, Cluster) else config.read(cluster)
    seen: dict[tuple[bytes, int], int] = {}
    for i, each in enumerate(found, 1):
        which = f"receipt {i}: " if len(found) > 1 else ""
        try:
            check(each, of_cluster(known) if known is not None else None)
        except ReceiptError as error:
            raise ReceiptError(which + error.message, error.hint) from None
        first = each.statements[0]
        if known is not None and first.cluster != known.digest:
            raise ReceiptError(f"{which}it is of another cluster, or of one with another policy", HINT)
        if digest is not None and (first.model is None or first.model.card != digest):
            raise ReceiptError(f"{which}it is of another model, or of other weights of that name", OTHER)
        before = seen.setdefault((first.session, first.number), i)
        if before != i:
            raise ReceiptError(f"{which}it is of the same request as receipt {before}", HINT)
    return found


def _digest(card: str) -> bytes:
    with suppress(ValueError):
        if len(digest := bytes.fromhex(card)) == hashlib.sha256().digest_size:
            return digest
    raise UsageError(f"{card[:40]!r} is no digest of a card", "it has 64 hex digits: see puma models show")
