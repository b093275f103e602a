"""By how much the residual stream of blocks that normalise first can grow between two looks of a norm at it.

What a norm has looked at keeps to its reach, or is flagged; so it is enough to bound what each half of a block adds,
for every input there is. It works on folded parameters by the decoders' names, and must not know shares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from puma.models import bounds as b
from puma.models.architecture import Bound, Params

TABLES = ("model.embed_tokens.weight", "model.positions.weight")
NORMS = ("self_attn_norm", "mlp_norm")  # of what each half of a block adds


def grown(config: Any, params: Params) -> Iterator[Bound]:
    """Of every matrix that writes the stream, of norms of what is added, and of the tables that it begins with.

    Where both halves of a block read the same state, both add to it before anybody looks.
    """
    n, halves = b.Source(config.hidden_size), 2 if config.parallel else 1
    for name in (name.removesuffix(".weight") for name in params if name.endswith(".weight")):
        layer, _, part = name.rpartition(".")
        if f"{layer}.gate.weight" in params and part == "o_proj":  # what attention gives is multiplied by less than 1
            sizes = b.rows(params, f"{layer}.v_proj", n).reshape(-1, config.head_dim)
            sizes = sizes.repeat_interleave(config.heads // config.kv_heads, 0).flatten()
            yield b.added(name, (params[f"{name}.weight"].abs() @ sizes) * halves)
        elif part == "o_proj" and f"{layer}.v_proj.weight" in params and not layer.endswith(".cross_attn"):
            yield b.added(name, b.attended(params, f"{layer}.v_proj", name, config.head_dim, n) * halves)
        if part == "down_proj":
            gated = config.gated or f"{layer}.gate_proj.weight" in params
            read = [f"{layer}.{one}_proj" for one in (("gate", "up") if gated else ("up",))]
            yield b.added(name, b.activated(params, read, name, n) * halves)
        if part in NORMS:
            given = b.Source(config.hidden_size, params[f"{name}.weight"], params.get(f"{name}.bias"))
            yield b.added(name, given.largest() * halves)
    yield b.tables(params, TABLES, max(1, round(config.embedding_scale)))
