"""How large the numbers of an encoder and a decoder can become, for all inputs there are.

It works on folded parameters in the clear, and must not know shares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from puma.models import bounds as b
from puma.models.architecture import Bound, Params
from puma.models.architectures.seq2seq.config import Seq2Seq
from puma.models.architectures.seq2seq.folding import last_norm, stacks
from puma.models.architectures.seq2seq.stem import heard


def bounds(config: Seq2Seq, params: Params) -> Iterator[Bound]:
    """Everything that is limited reads a norm itself, whose affine its matrix has absorbed; where nothing is normed
    before the first layer, its attention reads rows of tables.
    """
    for stack, count in stacks(config).items():
        size = (config.encoder if stack == "encoder" else config.decoder).head_dim
        rest = _residual(config, params, stack)
        if stack == "encoder" and config.sound:
            yield from heard(config, params)
        else:
            yield b.added(f"{stack}.positions", _embedded(config, params, stack))
        if config.pre_norms and config.embedded_norm:
            yield b.added(f"{stack}.embedded_norm", _given(config, params, f"{stack}.embedded_norm").largest())
        for i in range(count):
            layer = f"{stack}.layers.{i}"
            source = _rows(config, params, stack) if config.unnormed and i == 0 else b.Source(config.hidden_size)
            yield from _attention(params, f"{layer}.self_attn", size, source, rest)
            if stack == "decoder":
                yield from _attention(params, f"{layer}.cross_attn", size, b.Source(config.hidden_size), rest)
            yield from _inner(config, params, f"{layer}.mlp", rest)
    if config.generates:
        table = params["shared.weight" if config.tied else "lm_head.weight"]
        last = _given(config, params, last_norm(config, "decoder"))
        yield b.logits("lm_head", table, last, params.get("words.bias"))
    if config.labels:
        last = _given(config, params, last_norm(config, "decoder"))
        yield b.activation("tanh", "classifier.dense", float(b.rows(params, "classifier.dense", last).max()))


def _attention(params: Params, name: str, size: int, source: b.Source, rest: float) -> Iterator[Bound]:
    """Of one attention, all of whose matrices read this; the keys of another text's rows are as large as its own."""
    q, k, v, o = (f"{name}.{part}_proj" for part in "qkvo")
    for part in (q, k):
        b.factor(part, float(b.rows(params, part, source).max()))
    yield b.scores(q, b.spread(params, q, k, size, source))
    yield b.value(v, float(b.rows(params, v, source).max()))
    yield b.added(o, b.attended(params, v, o, size, source), rest)


def _inner(config: Seq2Seq, params: Params, name: str, rest: float) -> Iterator[Bound]:
    """Of one MLP."""
    up, down, n = f"{name}.up_proj", f"{name}.down_proj", b.Source(config.hidden_size)
    yield b.activation(config.activation, up, float(b.rows(params, up, n).max()))
    yield b.added(down, b.activated(params, [up], down, n), rest)


def _given(config: Seq2Seq, params: Params, norm: str) -> b.Source:
    """What a norm gives."""
    return b.Source(config.hidden_size, params[f"{norm}.weight"], params[f"{norm}.bias"])


def _residual(config: Seq2Seq, params: Params, stack: str) -> float:
    """The largest number that a half of a layer is added to, where it is none that a norm looked at: what some norm
    gives, or what the first layer reads."""
    if config.pre_norms:
        return 0.0
    names = {name.rpartition(".")[0] for name in params if name.startswith(stack) and "norm." in name}
    given = max(float(_given(config, params, norm).largest().max()) for norm in sorted(names))
    return max(given, float(_embedded(config, params, stack).max()) if config.unnormed else 0.0)


def _embedded(config: Seq2Seq, params: Params, stack: str) -> torch.Tensor:
    """The largest size of each number of a row of words and positions."""
    words = params["shared.weight"].abs().amax(0) * config.embedding_factor
    return words + params[f"{stack}.positions.weight"].abs().amax(0)


def _rows(config: Seq2Seq, params: Params, stack: str) -> b.Source:
    """Rows of words and positions: none is longer than the longest of both, and a norm's output of this width has
    length sqrt(d), so that a factor of it covers them."""
    longest = [
        float(torch.linalg.vector_norm(params[f"{name}.weight"], dim=1).max())
        for name in (stack + ".positions", "shared")
    ]
    length = longest[0] + config.embedding_factor * longest[1]
    d = config.hidden_size
    return b.Source(d, torch.full((d,), length / math.sqrt(d)))
