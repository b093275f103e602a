"""What the owner proves about a model before sharing it: no input can leave the ranges that fixed point was promised.

A norm's output n of width d has length sqrt(d) at most, so |w n + b| <= sqrt(d) |w| + |b| for every row w of a matrix
that reads it, and scores n' (Wq' Wk) n are bounded by d times a singular value. These bounds hold for all prompts. It
works on folded parameters in the clear and must not know shares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from puma.errors import RangeError
from puma.models.config import Bert, Config, Llama
from puma.mpc.fixed import ACTIVATION_LIMIT, SCORE_REACH, VALUE_LIMIT, WEIGHT_LIMIT

SPREAD_LIMIT = 2.0**SCORE_REACH
ACTIVATED = (".mlp.gate_proj", ".mlp.c_fc", ".intermediate.dense")
QUERIES = {".self_attn.q_proj": ".self_attn.k_proj", ".attn.q": ".attn.k", ".self.query": ".self.key"}
VALUES = (".self_attn.v_proj", ".attn.v", ".self.value")
HINT = "fixed-point numbers could overflow; use a checkpoint with smaller weights"

Params = Mapping[str, Tensor]


def check(config: Config, params: Params) -> None:
    """Raise RangeError, with the parameter's name, if some input could overflow."""
    for name, tensor in params.items():
        largest = float(tensor.abs().max()) if tensor.numel() else 0.0
        if not largest < WEIGHT_LIMIT:
            raise RangeError(f"{name} holds a {largest:.4g}, but weights must stay below {WEIGHT_LIMIT:g}", HINT)
    for name, bound, limit, what in bounds(config, params):
        if not bound < limit:
            raise RangeError(f"{name} can give {what} of {bound:.4g}, beyond {limit:g}", HINT)


def bounds(config: Config, params: Params) -> Iterator[tuple[str, float, float, str]]:
    """For each matrix whose result has a limited range: its name, its bound, the limit, and what the result is."""
    for name in (n.removesuffix(".weight") for n in params if n.endswith(".weight")):
        if name.endswith(ACTIVATED):
            yield name, _row_bound(params, name), ACTIVATION_LIMIT, "an activation"
        elif name.endswith(VALUES):
            yield name, _row_bound(params, name), VALUE_LIMIT, "a value"
        for query, key in QUERIES.items():
            if name.endswith(query):
                spread = _spread(config, params, name, name.removesuffix(query) + key)
                yield name, spread, SPREAD_LIMIT, "attention scores with a spread"
    if isinstance(config, Bert) and config.pooler:
        yield "bert.pooler.dense", _pooler_bound(config, params), ACTIVATION_LIMIT, "an activation"


def _row_bound(params: Params, name: str) -> float:
    weight, bias = params[f"{name}.weight"], params.get(f"{name}.bias")
    bound = math.sqrt(weight.shape[1]) * torch.linalg.vector_norm(weight, dim=1)
    return float((bound if bias is None else bound + bias.abs()).max())


def _pooler_bound(config: Bert, params: Params) -> float:
    norm, dense = f"bert.encoder.layer.{config.layers - 1}.output.LayerNorm", "bert.pooler.dense"
    weight = params[f"{dense}.weight"]
    rows = math.sqrt(weight.shape[1]) * torch.linalg.vector_norm(weight * params[f"{norm}.weight"], dim=1)
    return float((rows + (weight @ params[f"{norm}.bias"] + params[f"{dense}.bias"]).abs()).max())


def _spread(config: Config, params: Params, query: str, key: str) -> float:
    """How far apart two scores of one row can be, over all heads; what all keys share makes no difference."""
    wq, wk = (_heads(config, params[f"{name}.weight"]) for name in (query, key))
    bias = params.get(f"{query}.bias")
    bq = torch.zeros(wq.shape[:2]) if bias is None else bias.reshape(wq.shape[:2])
    wk = wk.repeat_interleave(wq.shape[0] // wk.shape[0], dim=0)
    d = wq.shape[2]
    if isinstance(config, Llama):
        # Rotations turn the pairs of q and of k, so any balance between the pairs' lengths gives a bound.
        sizes = [_pairs(w).clamp(min=1e-6) for w in (wq, wk)]
        balance = (sizes[1] / sizes[0]).sqrt()
        longest = [
            _singular(wq * balance[..., None]) + torch.linalg.vector_norm(bq * balance, dim=1) / math.sqrt(d),
            _singular(wk / balance[..., None]),
        ]
        return float((2 * d * longest[0] * longest[1]).max())
    sizes, directions = torch.linalg.eigh(wk @ wk.mT)
    root = directions * sizes.clamp(min=0).sqrt()[:, None]
    product = _singular(root.mT @ wq)  # the largest singular value of Wk' Wq
    shift = torch.linalg.vector_norm((wk * bq[..., None]).sum(1), dim=1)
    return float((2 * (d * product + math.sqrt(d) * shift)).max())


def _heads(config: Config, weight: Tensor) -> Tensor:
    return weight.reshape(-1, config.head_dim, weight.shape[1])


def _singular(matrices: Tensor) -> Tensor:
    """The largest singular value of each, from the small Gram matrix."""
    return torch.linalg.eigvalsh(matrices @ matrices.mT)[:, -1].clamp(min=0).sqrt()


def _pairs(heads: Tensor) -> Tensor:
    """The size of each rotated pair of rows, at both of its rows."""
    half = heads.shape[1] // 2
    squares = heads.pow(2).sum(2)
    return (squares[:, :half] + squares[:, half:]).sqrt().repeat(1, 2)
