"""The blocks of an encoder and of a decoder that reads it: attention, MLP, and the norms before or behind each half.

The halves are those of the causal decoders. This file must not know tensors from shares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import puma.nn.modules as nn
from puma.models.architectures.crossing import Memory, crossed
from puma.models.architectures.decoder import MLP, Attention
from puma.models.architectures.seq2seq.config import Seq2Seq
from puma.models.cache import LayerCache
from puma.nn import functional as F
from puma.nn.modules import Value

Readers = Sequence[nn.Module | None]


class State(NamedTuple):
    """Hidden states: matrices that have absorbed the norm before them read `n`, all else `full`. There is no n where
    a block's own norm comes first."""

    n: Value
    full: Value


def normed(norm: nn.Norm, x: Value, readers: Readers) -> State:
    """What a norm makes of rows, for these readers."""
    n = norm.normalised(x, *readers)
    return State(n, norm.affine(n))


def half_norm(c: Seq2Seq) -> nn.Norm:
    """The norm of one half of a block: what it gives is read alone, or is the residual, too."""
    return nn.Norm("layer", c.eps) if c.pre_norms else written(c)


def written(c: Seq2Seq) -> nn.Norm:
    """A norm whose result is a residual."""
    return nn.Norm("layer", c.eps, c.hidden_size, bias=True, writes=True)


class Block(nn.Module):
    """A layer: attention to its own rows, in a decoder also to the prompt's, and an MLP."""

    def __init__(self, c: Seq2Seq, reads: bool) -> None:
        self.first, half = c.pre_norms, c.decoder if reads else c.encoder
        self.attention_norm, self.mlp_norm = half_norm(c), half_norm(c)
        self.cross_norm = half_norm(c) if reads else None
        self.self_attn, self.mlp = Attention(half), MLP(half)
        self.cross_attn = Attention(half) if reads else None

    @property
    def readers(self) -> Readers:
        """What reads the norm behind the block before."""
        return [] if self.first else self.self_attn.readers

    def __call__(
        self,
        h: State,
        at: nn.Layout,
        cache: LayerCache,
        readers: Readers,
        read: tuple[Memory, LayerCache] | None = None,
    ) -> State:
        """The rows that come out are for these readers; `read` is what a decoder knows of the prompts."""
        own, cross, inner = self.self_attn, self.cross_attn, self.mlp.readers
        behind = [cross.q_proj] if cross else inner
        h = self._half("attention", self.attention_norm, lambda n: own(n, at, cache), h, own.readers, behind)
        if cross and self.cross_norm and read:
            memory, kept = read
            h = self._half(
                "attention", self.cross_norm, lambda n: crossed(cross, n, at, memory, kept), h, behind, inner
            )
        return self._half("mlp", self.mlp_norm, self.mlp, h, inner, readers)

    def _half(
        self, what: str, norm: nn.Norm, half: Callable[[Value], Value], h: State, own: Readers, behind: Readers
    ) -> State:  # fmt: skip
        """One half of the block, which `own` matrices begin, between its norm and the residual."""
        if self.first:
            n = norm.normalised(h.full, *own)
            with F.component(what, n):
                return State(None, h.full + half(n))
        with F.component(what, h.n):
            x = half(h.n) + h.full
        return normed(norm, x, behind)


class Stack(nn.Module):
    """Positions, layers, and the norms before and behind them: rows of the embedding to states."""

    def __init__(self, c: Seq2Seq, reads: bool) -> None:
        count, layers = (c.answers, c.layers) if reads else (c.context, c.encoder_layers)
        self.positions = nn.Embedding(count, c.hidden_size)
        self.embedded_norm = written(c) if c.embedded_norm else None
        self.layers = [Block(c, reads) for _ in range(layers)]
        self.norm = nn.Norm("layer", c.eps, c.hidden_size, bias=True) if c.pre_norms else None
        if not c.pre_norms:
            self.layers[-1].mlp_norm.answers = True

    def __call__(
        self, x: Value, at: nn.Layout, caches: Sequence[LayerCache], readers: Readers = (), memory: Memory | None = None
    ) -> State:
        """States of the rows of words, for these readers; a decoder's with what it knows of the prompts."""
        with F.component("embedding", x):
            x = x + self.positions.weight[at.positions]
        h = self._embedded(x)
        for i, (layer, cache) in enumerate(zip(self.layers, caches, strict=True)):
            after = self.layers[i + 1].readers if i + 1 < len(self.layers) else [] if self.norm else readers
            h = layer(h, at, cache, after, (memory, memory.cross[i]) if memory else None)
        return normed(self.norm, h.full, readers) if self.norm else h

    def _embedded(self, x: Value) -> State:
        first = self.layers[0].readers
        if self.embedded_norm:
            with F.component("norm", x):
                found = normed(self.embedded_norm, x, first)
            return State(None, found.full) if self.norm else found
        return State(None, x) if self.norm else State(F.read(x, nn.ring_for(*first)), x)
