"""What the owner proves about a model before sharing it: no input can leave the ranges that fixed point was promised.

A norm's output n of width d has length sqrt(d) at most, so |w n + b| <= sqrt(d) |w| + |b| for every row w of a matrix
that reads it, and scores n' (Wq' Wk) n are bounded by d times a singular value. What reads a norm through its affine,
or through a projection, reads A n + c. These bounds hold for all prompts. The residual stream has none: norms scale it
away, and take rows up to what docs/protocol.md states. It works on folded parameters in the clear, a few of which are
in memory at a time, and must not know shares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from puma.errors import RangeError
from puma.models.config import T5, Config, Decoder, Encoder, PatchEncoder, Vit
from puma.mpc.fixed import ACTIVATION_LIMIT, SCORE_REACH, VALUE_LIMIT, WEIGHT_LIMIT

SPREAD_LIMIT = 2.0**SCORE_REACH
PRODUCT_LIMIT = 2.0**14  # of what relu gives, and of a gated product: more could not enter the next matrix
GATED_LIMIT = 2.0**18
PIXEL = 4.0  # of a normalised pixel: images from bytes reach 3
NEGLIGIBLE = 32.0  # a score so far below another adds nothing: exp is 0 from -15 on
HINT = "fixed-point numbers could overflow; use a checkpoint with smaller weights"

Params = Mapping[str, Tensor]
Bound = tuple[str, float, float, str]


@dataclass(frozen=True)
class Source:
    """What a matrix reads: A n + c, n the output of a norm of width d; A and c None where it reads n itself."""

    width: int
    matrix: Tensor | None = None  # (inputs, width), or its diagonal
    shift: Tensor | None = None

    def seen(self, weight: Tensor) -> Tensor:
        """The weight that reads n."""
        if self.matrix is None:
            return weight
        return weight * self.matrix if self.matrix.ndim == 1 else weight @ self.matrix

    def constant(self, weight: Tensor) -> Tensor:
        """What the shift adds, whatever n is."""
        return weight.new_zeros(len(weight)) if self.shift is None else weight @ self.shift


def check(config: Config, params: Params) -> None:
    """Raise RangeError, with the parameter's name, if some input could overflow."""
    for name, tensor in params.items():
        largest = max(abs(float(end)) for end in tensor.aminmax()) if tensor.numel() else 0.0
        if not largest < WEIGHT_LIMIT:
            raise RangeError(f"{name} holds a {largest:.4g}, but weights must stay below {WEIGHT_LIMIT:g}", HINT)
    for name, bound, limit, what in bounds(config, params):
        if not bound < limit:
            raise RangeError(f"{name} can give {what} of {bound:.4g}, beyond {limit:g}", HINT)


def hides(config: Config, params: Params) -> bool:
    """Whether scores can be hidden in secret: those of padding, or of other branches."""
    try:
        check_hiding(config, params, HINT)
    except RangeError:
        return False
    return True


def check_hiding(config: Config, params: Params, hint: str) -> None:
    """Raise RangeError if scores that are lowered by modules.HIDING could still count or go too far."""
    for name, bound, limit, what in bounds(config, params):
        if limit == SPREAD_LIMIT and not bound < SPREAD_LIMIT / 2 - NEGLIGIBLE:
            raise RangeError(f"{name} can give {what} of {bound:.4g}, too wide for hiding some in secret", hint)


def bounds(config: Config, params: Params) -> Iterator[Bound]:
    """For each matrix whose result has a limited range: its name, its bound, the limit, and what the result is."""
    if isinstance(config, Encoder):
        return _encoder(config, params)
    if isinstance(config, PatchEncoder):
        return _patches(config, params)
    if isinstance(config, Vit):
        return _decoder(config.block, params)
    return _t5(config, params) if isinstance(config, T5) else _decoder(config, params)


# -- decoders -------------------------------------------------------------------------------------------------------


def _decoder(config: Decoder, params: Params) -> Iterator[Bound]:
    yield from _halves(config, params)
    for name in (name.removesuffix(".q_proj.weight") for name in params if name.endswith(".q_proj.weight")):
        yield f"{name}.q_proj", _decoder_spread(config, params, name), SPREAD_LIMIT, "attention scores with a spread"


def _halves(config: Decoder, params: Params) -> Iterator[Bound]:
    """Values and what is activated, wherever they read a norm itself."""
    n = Source(config.hidden_size)
    for name in (n.removesuffix(".weight") for n in params if n.endswith(".weight")):
        layer, _, part = name.rpartition(".")
        if part == "gate_proj" or (part == "up_proj" and not config.gated):
            rows = _rows(params, name, n)
            yield _activation(config.activation, name, float(rows.max()))
            if part == "gate_proj":
                product = rows * _rows(params, f"{layer}.up_proj", n)
                yield f"{layer}.up_proj", float(product.max()), GATED_LIMIT, "a gated product"
        if part == "v_proj" and not layer.endswith(".cross_attn"):
            yield name, float(_rows(params, name, n).max()), VALUE_LIMIT, "a value"


def _activation(kind: str, name: str, bound: float) -> Bound:
    return name, bound, PRODUCT_LIMIT if kind == "relu" else ACTIVATION_LIMIT, "an activation"


def _decoder_spread(config: Decoder, params: Params, attention: str) -> float:
    """How far apart two scores of one row can be; a soft cap takes half as much on either side."""
    if config.head_norms:
        q, k = (float(params[f"{attention}.{name}.weight"].abs().max()) for name in ("q_norm", "k_norm"))
        return 2 * config.head_dim * q * k
    bound = _turned_spread if config.rope else _spread
    n = Source(config.hidden_size)
    return bound(params, f"{attention}.q_proj", f"{attention}.k_proj", config.head_dim, n)


def _t5(config: T5, params: Params) -> Iterator[Bound]:
    """Scores have a number of their head and distance added; what the decoder reads of the encoder has an affine."""
    yield from _halves(config.block, params)
    n, read = Source(config.hidden_size), Source(config.hidden_size, params["encoder.norm.weight"])
    for name in (name.removesuffix(".q_proj.weight") for name in params if name.endswith(".q_proj.weight")):
        table, across = params[f"{name.partition('.')[0]}.bias.weight"], name.endswith(".cross_attn")
        keys = read if across else n
        spread = _spread(params, f"{name}.q_proj", f"{name}.k_proj", config.head_dim, n, keys)
        spread += 0.0 if across else float((table.max(0).values - table.min(0).values).max())
        yield f"{name}.q_proj", spread, SPREAD_LIMIT, "attention scores with a spread"
        if across:
            yield f"{name}.v_proj", float(_rows(params, f"{name}.v_proj", read).max()), VALUE_LIMIT, "a value"


# -- encoders -------------------------------------------------------------------------------------------------------


def _encoder(config: Encoder, params: Params) -> Iterator[Bound]:
    n, last = Source(config.hidden_size), f"bert.encoder.layer.{config.distinct - 1}.output.LayerNorm"
    embedded, final = _projection(config, params), _affine(config, params, last)
    layers = sorted({name.partition(".attention.self.")[0] for name in params if ".attention.self." in name})
    for layer in layers:
        reads = [n]
        if config.groups:
            reads = [_affine(config, params, f"{one}.output.LayerNorm") for one in layers] + embedded
        elif embedded and layer.endswith(".0"):
            reads = embedded
        yield from _encoder_layer(config, params, layer, reads)
    heads = {"bert.pooler.dense": config.pooler_activation, "cls.predictions.transform.dense": config.activation}
    for name, activation in heads.items():
        if f"{name}.weight" in params:
            yield _activation(activation, name, float(_rows(params, name, final).max()))


def _encoder_layer(config: Encoder, params: Params, layer: str, reads: list[Source]) -> Iterator[Bound]:
    """One layer, which reads one of these."""
    names = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
    spread = max(_spread(params, names[0], names[1], config.head_dim, source) for source in reads)
    yield names[0], spread, SPREAD_LIMIT, "attention scores with a spread"
    value = max(float(_rows(params, names[2], source).max()) for source in reads)
    yield names[2], value, VALUE_LIMIT, "a value"
    dense = f"{layer}.intermediate.dense"
    n = Source(config.hidden_size)
    yield _activation(config.activation, dense, float(_rows(params, dense, n).max()))


def _patches(config: PatchEncoder, params: Params) -> Iterator[Bound]:
    """The first layer reads W p + (row k of positions): with p / PIXEL and sqrt(context) e_k in one vector, which is
    not longer than a norm's output."""
    root = math.sqrt(config.context)
    table = params["positions.weight"].T / root
    matrix = torch.cat([PIXEL * params["patches.weight"], table], 1)
    first = Source(matrix.shape[1], matrix)
    for i in range(config.layers):
        yield from _encoder_layer(
            config.layer, params, f"layers.{i}", [first if i == 0 else Source(config.hidden_size)]
        )


def _affine(config: Encoder, params: Params, norm: str) -> Source:
    return Source(config.hidden_size, params[f"{norm}.weight"], params[f"{norm}.bias"])


def _projection(config: Encoder, params: Params) -> list[Source]:
    """What the first layer reads, where a projection lies between it and the norm."""
    if not config.projected:
        return []
    mapping = "bert.embeddings.mapping"
    return [Source(config.embedding_size, params[f"{mapping}.weight"], params[f"{mapping}.bias"])]


# -- bounds ---------------------------------------------------------------------------------------------------------


def _rows(params: Params, name: str, source: Source) -> Tensor:
    """The largest size of each row's result."""
    weight, bias = params[f"{name}.weight"], params.get(f"{name}.bias")
    constant = source.constant(weight)
    rows = math.sqrt(source.width) * torch.linalg.vector_norm(source.seen(weight), dim=1)
    return rows + (constant if bias is None else constant + bias).abs()


def _projected(params: Params, name: str, head_dim: int, source: Source) -> tuple[Tensor, Tensor]:
    """What reads n, and what is added, of each head: (heads, head_dim, width) and (heads, head_dim)."""
    weight, bias = params[f"{name}.weight"], params.get(f"{name}.bias")
    constant = source.constant(weight)
    constant = constant if bias is None else constant + bias
    return source.seen(weight).reshape(-1, head_dim, source.width), constant.reshape(-1, head_dim)


def _spread(params: Params, query: str, key: str, head_dim: int, source: Source, keys: Source | None = None) -> float:
    """How far apart two scores of one row can be, over all heads; what all keys share makes no difference.

    Queries read `source`, and so do keys unless they read `keys` of the same width.
    """
    wq, bq = _projected(params, query, head_dim, source)
    wk, _ = _projected(params, key, head_dim, keys or source)
    wk, d = wk.repeat_interleave(wq.shape[0] // wk.shape[0], dim=0), source.width
    sizes, directions = torch.linalg.eigh(wk @ wk.mT)
    root = directions * sizes.clamp(min=0).sqrt()[:, None]
    product = _singular(root.mT @ wq)  # the largest singular value of Wk' Wq
    shift = torch.linalg.vector_norm((wk * bq[..., None]).sum(1), dim=1)
    return float((2 * (d * product + math.sqrt(d) * shift)).max())


def _turned_spread(params: Params, query: str, key: str, head_dim: int, source: Source) -> float:
    """The same where positions turn the pairs of q and of k, so that keys share nothing, not even their bias.

    Any balance between the pairs' lengths gives a bound.
    """
    (wq, bq), (wk, bk) = (_projected(params, name, head_dim, source) for name in (query, key))
    wk, bk = (t.repeat_interleave(wq.shape[0] // wk.shape[0], dim=0) for t in (wk, bk))
    sizes = [_pairs(w).clamp(min=1e-6) for w in (wq, wk)]
    balance, d = (sizes[1] / sizes[0]).sqrt(), source.width
    longest = [
        _singular(w * scale[..., None]) + torch.linalg.vector_norm(b * scale, dim=1) / math.sqrt(d)
        for w, b, scale in ((wq, bq, balance), (wk, bk, 1 / balance))
    ]
    return float((2 * d * longest[0] * longest[1]).max())


def _singular(matrices: Tensor) -> Tensor:
    """The largest singular value of each, from the small Gram matrix."""
    return torch.linalg.eigvalsh(matrices @ matrices.mT)[:, -1].clamp(min=0).sqrt()


def _pairs(heads: Tensor) -> Tensor:
    """The size of each turned pair of rows, at both of its rows."""
    half = heads.shape[1] // 2
    squares = heads.pow(2).sum(2)
    return (squares[:, :half] + squares[:, half:]).sqrt().repeat(1, 2)
