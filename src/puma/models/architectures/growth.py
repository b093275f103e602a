"""By how much the residual stream of blocks that normalise first can grow between two looks of a norm at it.

What a norm has looked at keeps to its reach, or is flagged; so it is enough to bound what each half of a block adds,
for every input there is. It works on folded parameters by the decoders' names, and must not know shares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from puma.models import bounds as b
from puma.models.architecture import Bound, Params
from puma.nn import gates

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
            yield b.added(name, (params[f"{name}.weight"].abs() @ sizes + _bias(params, name)) * halves)
        elif part == "o_proj" and f"{layer}.v_proj.weight" in params and not layer.endswith(".cross_attn"):
            less = f"{layer}.sinks" in params
            yield b.added(name, b.attended(params, f"{layer}.v_proj", name, config.head_dim, n, less) * halves)
        elif part == "o_proj" and f"{layer}.z_proj.weight" in params:
            yield b.added(name, _remembered(config, params, layer, n) * halves)
        if part == "down_proj":
            gated = config.gated or f"{layer}.gate_proj.weight" in params
            read = [f"{layer}.{one}_proj" for one in (("gate", "up") if gated else ("up",))]
            one = (
                _clamped(config, params, layer)
                if config.activation == "clamped"
                else b.activated(params, read, name, n)
            )
            yield b.added(name, (one + _mixed_bias(params, layer)) * halves)
        if part in NORMS:
            given = b.Source(config.hidden_size, params[f"{name}.weight"], params.get(f"{name}.bias"))
            yield b.added(name, given.largest() * halves)
    yield b.tables(params, TABLES, max(1, round(config.embedding_scale)))


def _bias(params: Params, name: str) -> Tensor:
    """The size of each number of a matrix's bias (rows,), zeros where it has none."""
    weight = params[f"{name}.weight"]
    return params.get(f"{name}.bias", weight.new_zeros(len(weight))).abs()


def _remembered(config: Any, params: Params, layer: str, n: b.Source) -> Tensor:
    """Of what a memory gives each head is a norm's, of length sqrt(its size), times a gate: no silu is larger than its
    input."""
    size = config.delta.value_size
    gated = params[f"{layer}.o_proj.weight"] * b.rows(params, f"{layer}.z_proj", n)
    return math.sqrt(size) * gated.reshape(len(gated), -1, size).norm(dim=2).sum(1)


def _clamped(config: Any, params: Params, layer: str) -> Tensor:
    """Clamped gates give (up + 1) gate with up to LIMIT and a gate to 1, as the matrix behind has taken up the rest; of
    experts, whose weights add up to 1 at most, the largest counts."""
    sizes = params[f"{layer}.down_proj.weight"].abs()
    each = sizes if config.shared_size else sizes.reshape(len(sizes), config.experts, -1).sum(2).amax(1, keepdim=True)
    return (gates.LIMIT + 1) * each.sum(1)


def _mixed_bias(params: Params, layer: str) -> Tensor | float:
    """Of experts' biases, whose weights add up to 1 at most, the largest."""
    found = params.get(f"{layer}.biases.weight")
    return 0.0 if found is None else found.abs().amax(1)
