"""The public table of embeddings as a client gets it from a party: once, for it is kept under its digest.

What is kept is nobody's secret. Which of its rows are read, nobody is told. This file must not know links.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from puma import kernels
from puma.client.public.table import PublicTable
from puma.errors import ProtocolError
from puma.kernels.stored import Stored, fits
from puma.models import inputs
from puma.models.config import Config
from puma.store import folders
from puma.store.folders import explained
from puma.wire.messages import Card, OpenWeights, TensorSpec
from puma.wire.parameters import factors_of, open_sharing, spec_bytes, undigested

MOST_BYTES = 16 << 30
MISBEHAVES = "ask the model's owner what was shared"


def folder() -> Path:
    """Where tables are kept; made when it is first asked for."""
    return folders.private_folder(folders.of_user("XDG_CACHE_HOME", ".cache") / "puma" / "tables")


def fetched(config: Config, card: Card, sharing: bytes, fetch: Callable[[TensorSpec], bytes]) -> PublicTable | None:
    """The table of an open model whose weights are public; None if they are not, or it reads no tokens.

    `fetch` gets a tensor's numbers from a party. ProtocolError unless they are what all parties have agreed on.
    """
    if not inputs(config).row:
        return None
    weights = _said(config, card, sharing)
    assert weights.table is not None
    table, factors = weights.table, weights.factors
    each = _kept(factors, fetch).view(torch.float32) if factors else None
    return PublicTable(Stored(_kept(table, fetch), table.kind, table.shape[-1], each))


def _said(config: Config, card: Card, sharing: bytes) -> OpenWeights:
    """What the card says of the table, if it can be one."""
    weights, read = card.weights, inputs(config)
    known = card.base is not None or sharing == open_sharing(card)
    if weights is None or weights.table is None or not known:
        raise ProtocolError("the model's weights are public, and its card does not say which they are", MISBEHAVES)
    table, factors = weights.table, weights.factors
    whole = table.shape == (read.width, read.row) and fits(table.kind, table.shape) and spec_bytes(table) <= MOST_BYTES
    if not whole or (factors is not None and undigested(factors) != factors_of(table)):
        raise ProtocolError("what the model's card calls its table of embeddings is none", MISBEHAVES)
    return weights


def _kept(spec: TensorSpec, fetch: Callable[[TensorSpec], bytes]) -> Tensor:
    """A tensor's numbers, mapped from where they are kept."""
    path = folder() / spec.sha256.hex()
    if not (path.is_file() and _digest(path) == spec.sha256):
        content = fetch(spec)
        if hashlib.sha256(content).digest() != spec.sha256:
            raise ProtocolError(f"a party sent another {spec.name} than all parties agreed on", MISBEHAVES)
        with explained(f"the table in {path.parent}"):
            scratch = path.with_name(f".{path.name}.{os.getpid()}")
            scratch.write_bytes(content)
            scratch.replace(path)
    return kernels.mapped(path, 0, spec_bytes(spec))


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
