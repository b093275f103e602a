"""The building blocks that model files share: a tree of named parameters, attention, its rotary angles.

It knows the names and shapes of parameters and calls `puma.nn.functional`; it must not know whether a
parameter is a torch tensor or a share, nor anything about parties, links or files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from puma.errors import TensorError
from puma.mpc.fixed import ACTIVATION, RING
from puma.mpc.public import Public
from puma.mpc.share import Additive, Share
from puma.nn import functional as F
from puma.nn import gates
from puma.nn.absorbing import absorb as absorb  # models use these by the names of this file, too
from puma.nn.absorbing import absorb_norms as absorb_norms
from puma.nn.absorbing import rescale as rescale
from puma.nn.attention import sunk
from puma.nn.layout import Layout as Layout
from puma.nn.layout import Rows as Rows
from puma.nn.places import Place

Value = Any  # a torch tensor in the plain run, a share (or a product not yet truncated) in the secure run


class Parameter(tuple[int, ...]):
    """The shape of a parameter that is still to be filled in."""


class Module:
    """A tree of parameters; attributes are named as in the checkpoint, so that loading is name for name.

    Attributes may be places, too, at most one besides one of the stream: `places` are these.
    """

    def __init__(self, /, **children: Any) -> None:
        vars(self).update(children)

    @property
    def places(self) -> list[Place]:
        """Where numbers of limited size come about in this module itself."""
        return [value for value in vars(self).values() if isinstance(value, Place)]

    @property
    def ring(self) -> int:
        """Of its parameters: what its places ask for, or the usual one."""
        places = sorted(self.places, key=lambda place: place.kind != "stream")
        return places[0].ring if places else RING

    def modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, with their names; the root's is empty."""
        yield prefix.removesuffix("."), self
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield from value.modules(f"{prefix}{name}.")
            elif isinstance(value, list):
                for i, child in enumerate(value):
                    yield from child.modules(f"{prefix}{name}.{i}.")

    def slots(self, prefix: str = "") -> Iterator[tuple[str, Module, str]]:
        """Every unfilled parameter: its full name, its module, its attribute."""
        for name, value in vars(self).items():
            if isinstance(value, Parameter):
                yield prefix + name, self, name
            elif isinstance(value, Module):
                yield from value.slots(f"{prefix}{name}.")
            elif isinstance(value, list):
                for i, child in enumerate(value):
                    yield from child.slots(f"{prefix}{name}.{i}.")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the unfilled parameters."""
        return {name: tuple(getattr(owner, attribute)) for name, owner, attribute in self.slots()}

    def fill(self, params: Mapping[str, Value] | None) -> None:
        """Put each parameter in its place; without any, the module stays a skeleton that has only shapes."""
        if params is None:
            return
        for name, owner, attribute in list(self.slots()):
            expected, hint = tuple(getattr(owner, attribute)), "pass what fold returns for the same config"
            if name not in params:
                raise TensorError(f"parameter {name} is missing", hint)
            value = params[name]  # once: it may be computed at each look
            if tuple(value.shape) != expected:
                raise TensorError(f"parameter {name} has shape {tuple(value.shape)}, expected {expected}", hint)
            setattr(owner, attribute, value)


ITS_OWN = ("stream", "activation", "relu", "value")  # kinds of places that are about a matrix's results themselves


class LowRank(Module):
    """What an adapter of its own adds to a matrix's results: two small matrices, one behind the other."""

    def __init__(self, inputs: int, outputs: int, rank: int, of: Module) -> None:
        self.a: Value = Parameter((rank, inputs))
        self.b: Value = Parameter((outputs, rank))
        self._of = (of,)  # in a tuple, for it is no part of this one

    @property
    def ring(self) -> int:
        """Of both: what stands between them has the usual room at least."""
        return max(RING, self._of[0].ring)

    def __call__(self, x: Value) -> Value:
        inner = F.linear(x, self.a)
        if isinstance(inner, Additive):
            inner.unproven = True
        return F.linear(inner, self.b)


class Linear(Module):
    """A matrix (outputs, inputs) and perhaps a bias; `place` is the kind of what its results are used for.

    The place is told of results that are what it is about; of others (a gated product, scores, logits) by those who
    compute them. `unproven`: nobody has proven that results can be lifted, so whoever lifts them notes it.
    """

    unproven = False

    def __init__(self, inputs: int, outputs: int, bias: bool = True, place: str = "") -> None:
        self.weight: Value = Parameter((outputs, inputs))
        self.bias: Value = Parameter((outputs,)) if bias else None
        self.place = Place(place) if place else None
        self.adapter: LowRank | None = None

    def adapt(self, rank: int) -> None:
        """Have an adapter of this rank; before parameters are filled in."""
        outputs, inputs = self.weight
        self.adapter = LowRank(inputs, outputs, rank, self)

    def __call__(self, x: Value) -> Value:
        result = F.linear(x, self.weight, self.bias)
        if self.adapter is not None:
            result = result + self.adapter(x)
        if self.place and self.place.kind in ITS_OWN:
            self.place.seen(result)
        if self.unproven and isinstance(result, Additive):
            result.unproven = True
        return result


class Embedding(Module):
    """A table of rows: looked up in secret by one-hot vectors, or indexed in public by positions."""

    def __init__(self, rows: int, width: int) -> None:
        self.weight: Value = Parameter((rows, width))
        self.added = Place("stream")

    def __call__(self, one_hot: Value) -> Value:
        rows = F.embedding(one_hot, self.weight, self.added.ring - ACTIVATION)
        self.added.seen(rows)
        return rows

    @property
    def ring(self) -> int:
        """Rows are looked up in any ring; those that are indexed must fit the stream's."""
        return max(RING, self.added.ring - ACTIVATION)


class Head(Module):
    """What gives the logits of words: a matrix of its own for so many, or with none the table of embeddings."""

    def __init__(self, inputs: int, words: int, bias: bool = False) -> None:
        self.weight: Value = Parameter((words, inputs)) if words else None
        self.bias: Value = Parameter((words,)) if words and bias else None
        self.place = Place("logits")

    def __call__(self, x: Value, table: Embedding, bias: Value | None = None) -> Value:
        own = self.bias if bias is None else bias
        logits = F.linear(x, table.weight if self.weight is None else self.weight, own)
        if self.place.observer is not None and isinstance(logits, torch.Tensor):
            self.place.seen(spread(logits))
        return logits


class Norm(Module):
    """Layer norm ("layer") or RMS norm ("rms") of rows; the affine, if it has a `size` here, has not been absorbed by
    what reads it. `writes`: the result is added to the residual stream.
    """

    def __init__(self, kind: str, eps: float, size: int = 0, bias: bool = False, writes: bool = False) -> None:
        self.kind, self.eps = kind, eps
        self.weight: Value = Parameter((size,)) if size else None
        self.bias: Value = Parameter((size,)) if size and bias else None
        self.place = Place("norm", centred=kind == "layer")
        self.added = Place("stream") if writes else None
        self.answers = not writes  # whether what it gives may leave, or be read as it is

    @property
    def ring(self) -> int:
        """Of the affine."""
        return max(RING, self.added.ring) if self.added and self.answers else super().ring

    def __call__(self, x: Value, *readers: Module | None) -> Value:
        with F.component("norm", x):
            return self.affine(self.normalised(x, *readers))

    def normalised(self, x: Value, *readers: Module | None) -> Value:
        """Without the affine, in a ring for those who read it, of whom it is itself one if it has an affine."""
        self.place.seen(x)
        norm, own = F.rms_norm if self.kind == "rms" else F.layer_norm, None if self.weight is None else self
        with F.component("norm", x):
            return norm(x, self.eps, self.place.reach, ring_for(own, *readers), grows(own, *readers))

    def affine(self, n: Value) -> Value:
        """What the norm gives to those that have not absorbed its affine."""
        result = n if self.weight is None else F.affine(n, self.weight, self.bias)
        if self.added:
            self.added.seen(result)
        return result


class Limits(NamedTuple):
    """The places of one attention."""

    scores: Place
    values: Place

    @classmethod
    def of(cls, queries: Linear, values: Linear) -> Limits:
        """Those that belong to these matrices."""
        assert queries.place and values.place
        return cls(queries.place, values.place)


USUAL = Limits(Place("scores"), Place("value"))


def heads(
    q: Value, k: Value, v: Value, size: int, limits: Limits, at: Layout, angles: Sequence[torch.Tensor] = (),
    cached: bool = False,
) -> list[Value]:  # fmt: skip
    """Queries, keys and values as `attend` takes them; see `functional.heads`.

    Some scores may be hidden now, and those of keys that are `cached` later.
    """
    place = limits.scores
    asked, hides = (place.reach, place.hidden_reach)[at.hidden is not None], at.hidden is not None or cached
    keys, watched = place.hidden_reach if hides else asked, (place.watched, limits.values.watched)
    return F.heads(q, k, v, size, angles, asked, keys, limits.values.reach, watched)


def attend(
    q: Value, k: Value, v: Value, at: Layout, bias: Value | None = None, cap: float = 0.0, limits: Limits = USUAL,
    sinks: Value | None = None,
) -> Value:  # fmt: skip
    """Attention of queries (rows, heads, size), already scaled: (rows, heads * size).

    Keys and values (prompts, kv_heads, length, size) are padded. Query heads that share a key head are further rows of
    one matmul, so grouped keys are never repeated. Scores are first soft-capped, if there is a `cap`, and then added to
    a `bias` that broadcasts to (prompts, kv_heads, groups * rows, length); what the layout hides is lowered. With
    `sinks` (heads,) each row may also look at nothing, by these scores.
    """
    if at.turns > 1:
        assert bias is None and sinks is None
        turns = at.parts()
        seen = [attend(q[rows], k, v, part, None, cap, limits) for rows, part in turns]
        whole = seen[0].joined(seen[1:]) if hasattr(seen[0], "joined") else F.cat(seen, 0)
        return whole[torch.cat([rows for rows, _ in turns]).argsort()]
    scored = limits.scores
    q = at.queries.pad(q)
    if sinks is not None:
        q, k, v = sunk(q, k, v, sinks)
    prompts, heads, rows, size = q.shape
    groups = heads // k.shape[1]
    q = q.reshape(prompts, k.shape[1], groups * rows, size)
    mask = _seen(q, at, groups, sinks is not None)
    scores = F.scores(q, k)
    reach = scored.reach
    if cap:
        scored.seen(scores)
        scores = F.softcap(scores, cap, reach, scored.watched)
    scores = scores if bias is None else scores + bias
    if scored.observer is not None and isinstance(scores, torch.Tensor):
        scored.seen(spread(scores, mask))
    if at.hidden is not None:
        hidden = at.hidden if sinks is None else F.cat([at.hidden, _mapped(at.hidden[..., :1], torch.zeros_like)], -1)
        lowered, reach = F.times(hidden, -scored.hiding), scored.hidden_reach
        scores = scores + (lowered if lowered.shape[2] == 1 else F.cat([lowered] * groups, 2))
    context = F.softmax_matmul(scores, v, mask, reach, limits.values.reach, scored.watched)
    return at.queries.unpad(context.reshape(prompts, heads, rows, -1))


def _seen(q: Value, at: Layout, groups: int, sinks: bool) -> torch.Tensor:
    """What each row may see (prompts, 1, groups * rows, length), a sink behind it; of a dry run only how much that is.

    q is (prompts, kv_heads, groups * rows, size).
    """
    if isinstance(q, torch.Tensor) or not q.party.dry:
        seen = torch.cat([at.mask, torch.ones_like(at.mask[..., :1])], -1) if sinks else at.mask
        return seen.repeat(1, groups, 1).unsqueeze(1)
    prompts, rows = q.shape[0], q.shape[2]
    return q.party.outline((prompts, 1, rows, at.seen + sinks), groups * at.allowed + sinks * prompts * rows)


def _mapped(x: Value, change: Callable[[torch.Tensor], torch.Tensor]) -> Value:
    return change(x) if isinstance(x, torch.Tensor) else x.apply(change)


def spread(rows: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """How far the largest and the least of each row lie apart, of those that the mask allows."""
    if mask is None:
        return rows.amax(-1) - rows.amin(-1)
    mask = mask.to(rows.device)
    return rows.masked_fill(~mask, -torch.inf).amax(-1) - rows.masked_fill(~mask, torch.inf).amin(-1)


def rotary_angles(positions: torch.Tensor, frequencies: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Cosine and sine (2, rows, 1, size) of the rotary angles of positions (rows,), frequencies (size / 2,)."""
    if device.type == "meta":
        return torch.empty((2, len(positions), 1, 2 * len(frequencies)), device=device)
    angles = positions.to(device, torch.float32)[:, None] * frequencies.to(device)
    # In float32 the last place of a cosine depends on the processor; all parties must multiply by the same.
    angles = torch.cat((angles, angles), dim=-1).unsqueeze(1).double()
    return torch.stack((angles.cos(), angles.sin())).float()


QUICK = 1.702  # quick_gelu(x) is silu(QUICK x) / QUICK; the factors are folded into matrices
ACTIVATIONS: dict[str, Callable[..., Value]] = {  # of (x, reach, ring) and `watched`, `fine`, `grows`, by name
    "gelu": lambda x, *formats, **kept: F.gelu(x, "none", *formats, **kept),
    "gelu_tanh": lambda x, *formats, **kept: F.gelu(x, "tanh", *formats, **kept),
    "silu": F.silu,
    "quick_gelu": F.silu,  # of a folded model
    "relu": lambda x, reach, ring, watched=True, **_: F.relu(x, watched),  # what reads it lifts it
    "tanh": lambda x, reach, ring, watched=True, **_: F.tanh(x, reach, ring, watched),
    "sigmoid": lambda x, reach, ring, watched=True, **_: F.sigmoid(x, reach, ring, watched),
}


def place_of(activation: str) -> str:
    """The kind of place that the input of the activation of this name is."""
    return "relu" if activation == "relu" else "activation"


def ring_for(*readers: Module | None) -> int:
    """The largest ring among the matrices and norms that read what is to be lifted once for all of them."""
    weights = [vars(reader).get("weight") for reader in readers if reader is not None]
    weights += [a.a for a in (vars(reader).get("adapter") for reader in readers if reader is not None) if a]
    return max((weight.bits for weight in weights if isinstance(weight, Share)), default=RING)


def grows(*readers: Module | None) -> bool:
    """Whether all that read something are public, and nothing secret stands beside one: what they read grows there."""
    found = [vars(reader) for reader in readers if reader is not None]
    return bool(found) and all(isinstance(each.get("weight"), Public) and not each.get("adapter") for each in found)


def activate(name: str, dense: Linear, x: Value, *readers: Module) -> Value:
    """The activation of this name of a matrix's results, whose place says how large these become."""
    place = dense.place
    assert place
    kept = {"watched": place.watched, "fine": place.fine, "grows": grows(*readers)}
    return ACTIVATIONS[name](dense(x), place.reach, ring_for(*readers), **kept)


def gated_place(activation: str) -> str:
    """The kind of place that what is multiplied by a gate of this name is."""
    return "activation" if activation == "clamped" else "gated"


def gated(name: str, gate: Linear, up: Linear, x: Value, *readers: Module) -> Value:
    """activation(gate(x)) * up(x) for the activation of this name."""
    assert gate.place and up.place
    reaches, watched = (gate.place.reach, up.place.reach), (gate.place.watched, up.place.watched)
    if name == "clamped":
        return gates.clamped(gate(x), up(x), *reaches)
    if name in ("silu", "quick_gelu"):
        result = F.silu_gated(gate(x), up(x), *reaches, watched, gate.place.fine, grows(*readers))
    else:
        form = "tanh" if name == "gelu_tanh" else "none"
        result = F.gelu_gated(gate(x), up(x), form, *reaches, watched, gate.place.fine, grows(*readers))
    up.place.seen(result)
    return result
