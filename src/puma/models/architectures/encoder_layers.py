"""Layers that normalise last: attention and an MLP, each added to what comes in and normed.

The modules have BERT's names, whatever a checkpoint calls them. `c` is an Encoder's config here, or one with its
fields. This file must not know tensors from shares, nor what stands before and behind the layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

import puma.nn.modules as nn
from puma.models import bounds as b
from puma.models import rope
from puma.models.architecture import Bound, Params, Shapes
from puma.models.architectures.relative import Apart
from puma.mpc.fixed import RING
from puma.nn import functional as F
from puma.nn.modules import Value
from puma.nn.places import Place

ATTENTION = ("attention.self.query", "attention.self.key", "attention.self.value")
INNER = ("intermediate.dense", "intermediate.up")
PROJECTED = ("pos_key_proj", "pos_query_proj")
APART = ("attention.self.apart.keys", "attention.self.apart.queries")


class Normed(NamedTuple):
    """A hidden state as a norm left it: matrices that absorbed the affine read n; residuals and others `full`."""

    n: Value
    norm: nn.Norm | None

    @property
    def full(self) -> Value:
        """n with its affine."""
        return self.norm.affine(self.n) if self.norm else self.n


class Attention(nn.Module):
    """Attention without a mask but padding's: rows (rows, hidden_size) to the same shape."""

    def __init__(self, c: Any) -> None:
        self.head_dim = c.head_dim
        self.query = nn.Linear(c.hidden_size, c.hidden_size, place="scores")
        self.key = nn.Linear(c.hidden_size, c.hidden_size)
        self.value = nn.Linear(c.hidden_size, c.hidden_size, place="value")
        self.limits = nn.Limits.of(self.query, self.value)
        self.frequencies = c.rope and rope.frequencies(c.rope, c.head_dim, c.context)
        self.apart = Apart(c.disentangled, c.hidden_size, self.limits.scores) if c.disentangled else None

    def __call__(self, x: Value, at: nn.Layout, bias: Value | None = None) -> Value:
        """`bias` (prompts, heads, rows, rows) is added to scores."""
        turns = [] if self.frequencies is None else [nn.rotary_angles(at.positions, self.frequencies, x.device)] * 2
        q, k, v = self.query(x), self.key(x), self.value(x)
        q, k, v = nn.heads(q, k, v, self.head_dim, self.limits, at, turns)
        bias = self.apart(q, k, at) if self.apart else bias
        return nn.attend(q, at.rows.pad(k), at.rows.pad(v), at, bias, limits=self.limits)


def normed(c: Any, size: int) -> nn.Norm:
    """A norm whose result is a residual, too."""
    return nn.Norm("layer", c.eps, size, bias=True, writes=True)


class Output(nn.Module):
    """The end of either half of a layer: a matrix, and the norm of its sum with the residual."""

    def __init__(self, c: Any, inputs: int, bias: bool = True) -> None:
        self.dense = nn.Linear(inputs, c.hidden_size, bias, place="stream")
        self.LayerNorm = normed(c, c.hidden_size)

    def norm(self, x: Value, *readers: nn.Module) -> Normed:
        """Rows that these read."""
        return Normed(self.LayerNorm.normalised(x, *readers), self.LayerNorm)


class Intermediate(nn.Module):
    """The inner layer, perhaps with a gate: rows (rows, hidden_size) to (rows, intermediate_size)."""

    def __init__(self, c: Any) -> None:
        self.activation, sizes = c.activation, (c.hidden_size, c.intermediate_size)
        self.dense = nn.Linear(*sizes, place=nn.place_of(c.activation))
        self.up = nn.Linear(*sizes, place="gated") if c.gated else None

    @property
    def readers(self) -> list[nn.Module]:
        """What reads the norm before."""
        return [self.dense, self.up] if self.up else [self.dense]

    def __call__(self, n: Value, *readers: nn.Module) -> Value:
        if self.up:
            return nn.gated(self.activation, self.dense, self.up, n, *readers)
        return nn.activate(self.activation, self.dense, n, *readers)


class Layer(nn.Module):
    """One layer; where several share its weights, what comes in is not always a norm's, and nothing is absorbed."""

    def __init__(self, c: Any) -> None:
        self.absorbed = not c.groups
        self.attention: Any = nn.Module(self=Attention(c), output=Output(c, c.hidden_size, c.out_bias))
        self.intermediate = Intermediate(c)
        self.output = Output(c, c.intermediate_size, c.down_bias)

    @property
    def readers(self) -> list[nn.Module]:
        """What reads the norm before this layer."""
        own = self.attention.self
        return [own.query, own.key, own.value] if self.absorbed else []

    def __call__(self, h: Normed, at: nn.Layout, *readers: nn.Module, bias: Value | None = None) -> Normed:
        """The rows that come out are for these readers."""
        with F.component("attention", h.n):
            full = h.full
            x = self.attention.output.dense(self.attention.self(h.n if self.absorbed else full, at, bias)) + full
        h = self.attention.output.norm(x, *self.intermediate.readers)
        with F.component("mlp", h.n):
            x = self.output.dense(self.intermediate(h.n, self.output.dense)) + h.full
        return self.output.norm(x, *readers)


class Neighbours(nn.Module):
    """A matrix for each of `width` rows around one: rows (rows, size) and how they lie to their sum (rows, size)."""

    def __init__(self, width: int, size: int, activation: str) -> None:
        self.width, self.size = width, size
        self.weight: Value = nn.Parameter((width * size, size))
        self.bias: Value = nn.Parameter((size,))
        self.place = Place(nn.place_of(activation))

    def __call__(self, x: Value, rows: nn.Rows) -> Value:
        each, total = F.linear(x, self.weight), self.bias
        for i in range(self.width):
            part = each[:, i * self.size : (i + 1) * self.size]
            total = rows.moved(part, i - self.width // 2) + total
        self.place.seen(total)
        return total


class Convolution(nn.Module):
    """A matrix of each row of the embeddings and its neighbours, activated, added to a layer's result and normed."""

    def __init__(self, c: Any) -> None:
        self.activation = c.convolved
        self.conv = Neighbours(c.convolution, c.hidden_size, c.convolved)
        self.LayerNorm = normed(c, c.hidden_size)
        self.LayerNorm.answers = c.layers == 1

    def __call__(self, h: Normed, embedded: Normed, at: nn.Layout, *readers: nn.Module) -> Normed:
        """The rows that come out are for these readers."""
        with F.component("mlp", h.n):
            reach = self.conv.place.reach
            x = nn.ACTIVATIONS[self.activation](self.conv(embedded.full, at.rows), reach, RING) + h.full
        return Normed(self.LayerNorm.normalised(x, *readers), self.LayerNorm)


# -- at the owner ---------------------------------------------------------------------------------------------------


def fold_layer(folded: dict[str, Value], layer: str, norm: str, c: Any) -> None:
    """Fold one layer, and into what it reads first the norm before it, if that is named."""
    if c.disentangled:
        _fold_apart(folded, layer, c)
    if norm:
        nn.absorb(folded, norm, [layer + name for name in ATTENTION])
    nn.rescale(folded, layer + ATTENTION[0], scale(c))
    if c.rope:
        for name in (f"{layer}{ATTENTION[0]}.{kind}" for kind in ("weight", "bias")):
            folded |= {name: rope.stretched(folded[name], c.rope, c.head_dim)} if name in folded else {}
    inner = [layer + name for name in INNER if f"{layer}{name}.weight" in folded]
    nn.absorb(folded, f"{layer}attention.output.LayerNorm", inner)


def scale(c: Any) -> float:
    """What scores are multiplied by."""
    return (c.head_dim * (c.disentangled.terms if c.disentangled else 1)) ** -0.5


def unfolded(c: Any, shapes: Shapes) -> Shapes:
    """Names and shapes with what positions and a convolution are made of, instead of what is made of them."""
    found = {name: shape for name, shape in shapes.items() if not name.endswith(tuple(f"{a}.weight" for a in APART))}
    if c.disentangled:
        found["bert.encoder.rel_embeddings.weight"] = (2 * c.disentangled.span, c.hidden_size)
        norm = dict.fromkeys(("bert.encoder.LayerNorm.weight", "bert.encoder.LayerNorm.bias"), (c.hidden_size,))
        found |= norm if c.disentangled.normed else {}
        for layer in range(0 if c.disentangled.shared else c.layers):
            for name in PROJECTED[not c.disentangled.keys : 1 + c.disentangled.queries]:
                reads = f"bert.encoder.layer.{layer}.attention.self.{name}"
                found |= {f"{reads}.weight": (c.hidden_size, c.hidden_size), f"{reads}.bias": (c.hidden_size,)}
    if c.convolution:
        found["bert.conv.conv.weight"] = (c.hidden_size, c.hidden_size, c.convolution)
    return found


def _fold_apart(folded: dict[str, Value], layer: str, c: Any) -> None:
    """A distance's row as the layer's matrices see it: then nobody has to compute it again for each text."""
    rows = folded["bert.encoder.rel_embeddings.weight"]
    if c.disentangled.normed:
        centred = rows - rows.mean(1, keepdim=True)
        rows = centred * (centred.pow(2).mean(1, keepdim=True) + c.eps).rsqrt()
        rows = rows * folded["bert.encoder.LayerNorm.weight"] + folded["bert.encoder.LayerNorm.bias"]
    for name, own, shared in zip(APART, PROJECTED, ("key", "query"), strict=True):
        if getattr(c.disentangled, name.rpartition(".")[2]):
            reads = f"{layer}attention.self.{shared if c.disentangled.shared else own}"
            folded[f"{layer}{name}.weight"] = rows @ folded[f"{reads}.weight"].T + folded[f"{reads}.bias"]
    if c.disentangled.queries:
        nn.rescale(folded, layer + APART[1], scale(c))


def layer_bounds(c: Any, params: Params, layer: str, reads: list[b.Source], between: float = 0.0) -> Iterator[Bound]:
    """One layer, which reads one of these; `between` lies between numbers that are added to a row's scores."""
    names = [layer + "." + part for part in ATTENTION]
    spread: Any = b.turned_spread if c.rope else b.spread
    for name in names[:2]:
        b.factor(name, max(float(b.rows(params, name, source).max()) for source in reads))
    added = max(_apart(c, params, layer, source) for source in reads) if c.disentangled else between
    yield b.scores(names[0], added + max(spread(params, *names[:2], c.head_dim, source) for source in reads))
    yield b.value(names[2], max(float(b.rows(params, names[2], source).max()) for source in reads))
    dense, n = f"{layer}.intermediate.dense", b.Source(c.hidden_size)
    rows = b.rows(params, dense, n)
    yield b.activation(c.activation, dense, float(rows.max()))
    if c.gated:
        up = b.rows(params, f"{layer}.intermediate.up", n)
        b.factor(f"{layer}.intermediate.up", float(up.max()))
        yield b.gated(f"{layer}.intermediate.up", float((rows * up).max()))
    rest, output = _residual(c, params, reads), f"{layer}.attention.output.dense"
    for source in reads:
        yield b.added(output, b.attended(params, names[2], output, c.head_dim, source), rest)
    inner = [f"{layer}.{name}" for name in (INNER if c.gated else INNER[:1])]
    yield b.added(f"{layer}.output.dense", b.activated(params, inner, f"{layer}.output.dense", n), rest)


def _residual(c: Any, params: Params, reads: list[b.Source]) -> float:
    """The largest number that a half of a layer is added to: what some norm gives, or what the first layer reads."""
    norms = [name.removesuffix(".weight") for name in params if name.endswith("LayerNorm.weight")]
    given = [b.Source(c.hidden_size, params[f"{norm}.weight"], params.get(f"{norm}.bias")) for norm in norms]
    return max(float(source.largest().max()) for source in [*given, *reads])


def _apart(c: Any, params: Params, layer: str, source: b.Source) -> float:
    """How far apart a row's scores can be by what positions add to them."""
    widest = 0.0
    for name, reads in zip(APART, ATTENTION[:2], strict=True):
        if f"{layer}.{name}.weight" in params:
            table = params[f"{layer}.{name}.weight"].reshape(-1, c.heads, c.head_dim).transpose(0, 1)
            weight = params[f"{layer}.{reads}.weight"].reshape(c.heads, c.head_dim, -1)
            bias = params[f"{layer}.{reads}.bias"].reshape(c.heads, c.head_dim, 1)
            seen = {"all.weight": (table @ weight).flatten(0, 1), "all.bias": (table @ bias).flatten()}
            widest += 2 * float(b.rows(seen, "all", source).max())
    return widest


def table_spread(table: torch.Tensor) -> float:
    """How far apart a row's scores can be by a number that is added to each."""
    return float((table.max(0).values - table.min(0).values).max())


def convolution_bounds(c: Any, params: Params, source: b.Source) -> Iterator[Bound]:
    """A convolution each of whose rows reads this, and which is added to the first layer's rows."""
    name, before = "bert.conv.conv", "bert.encoder.layer.0.output.LayerNorm"
    parts = params[f"{name}.weight"].split(c.hidden_size)
    sizes = sum(b.rows({"part.weight": part}, "part", source) for part in parts) + params[f"{name}.bias"].abs()
    yield b.activation(c.convolved, name, float(sizes.max()))
    rest = b.Source(c.hidden_size, params[f"{before}.weight"], params[f"{before}.bias"])
    yield b.added("bert.conv", sizes + b.APART, float(rest.largest().max()))
