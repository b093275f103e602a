"""What the owner proves about a model before sharing it: no input can leave the ranges that fixed point was promised.

A norm's output n of width d has length sqrt(d) at most, so |w n + b| <= sqrt(d) |w| + |b| for every row w of a matrix that
reads it, and a head's query is no longer than sqrt(d) times the matrix's largest singular value. These bounds hold for
all prompts. It works on folded parameters in the clear and must not know shares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from puma.errors import RangeError
from puma.models.config import Config
from puma.mpc.fixed import ACTIVATION_LIMIT, SCORE_REACH, VALUE_LIMIT, WEIGHT_LIMIT

SCORE_LIMIT = 2.0 ** (SCORE_REACH - 1)
ACTIVATED = (".mlp.gate_proj", ".mlp.c_fc", ".intermediate.dense")
QUERIES = {".self_attn.q_proj": ".self_attn.k_proj", ".attn.q": ".attn.k", ".self.query": ".self.key"}
VALUES = (".self_attn.v_proj", ".attn.v", ".self.value")
HINT = "fixed-point numbers could overflow; use a checkpoint with smaller weights"


def check(config: Config, params: Mapping[str, Tensor]) -> None:
    """Raise RangeError, with the parameter's name, if some input could overflow."""
    for name, tensor in params.items():
        largest = float(tensor.abs().max()) if tensor.numel() else 0.0
        if not largest < WEIGHT_LIMIT:
            raise RangeError(f"{name} holds a {largest:.4g}, but weights must stay below {WEIGHT_LIMIT:g}", HINT)
    for name, bound, limit, what in _bounds(config, params):
        if not bound < limit:
            raise RangeError(f"{name} can give {what} of {bound:.4g}, beyond {limit:g}", HINT)


def _bounds(config: Config, params: Mapping[str, Tensor]) -> Iterator[tuple[str, float, float, str]]:
    for name in (n.removesuffix(".weight") for n in params if n.endswith(".weight")):
        if name.endswith(ACTIVATED):
            yield name, _row_bound(params, name), ACTIVATION_LIMIT, "an activation"
        elif name.endswith(VALUES):
            yield name, _row_bound(params, name), VALUE_LIMIT, "a value"
        for query, key in QUERIES.items():
            if name.endswith(query):
                longest = [_head_bound(config, params, n) for n in (name, name.removesuffix(query) + key)]
                yield name, longest[0] * longest[1], SCORE_LIMIT, "an attention score"


def _row_bound(params: Mapping[str, Tensor], name: str) -> float:
    weight = params[f"{name}.weight"]
    bound = math.sqrt(weight.shape[1]) * torch.linalg.vector_norm(weight, dim=1)
    bias = params.get(f"{name}.bias")
    return float((bound if bias is None else bound + bias.abs()).max())


def _head_bound(config: Config, params: Mapping[str, Tensor], name: str) -> float:
    """The longest query or key that any head can give."""
    weight = params[f"{name}.weight"]
    heads = weight.reshape(-1, config.head_dim, weight.shape[1])
    squares = torch.linalg.eigvalsh(heads @ heads.transpose(1, 2))[:, -1].clamp(min=0)
    bound = math.sqrt(weight.shape[1]) * squares.sqrt()
    bias = params.get(f"{name}.bias")
    if bias is not None:
        bound = bound + torch.linalg.vector_norm(bias.reshape(-1, config.head_dim), dim=1)
    return float(bound.max())
