"""Layers of linear attention: the gated delta rule in place of softmax, with a memory of constant size.

As Qwen3-Next and Qwen3.5 have them: a causal convolution of what queries, keys and values are made of, a rate of
writing and a decay of each head and token, and an output that is normalised and gated. This file must not know tensors
from shares.
"""

from __future__ import annotations

from typing import Any

import torch

import puma.nn.modules as nn
from puma.models.architectures.decoder.config import Decoder
from puma.models.cache import LayerCache, Recurrent
from puma.nn import delta
from puma.nn import functional as F
from puma.nn.modules import Value
from puma.nn.places import Place


class Spot(nn.Module):
    """A place that belongs to no parameter."""

    def __init__(self, kind: str) -> None:
        self.place = Place(kind)


class Rows(nn.Module):
    """RMS norm of the heads of rows, without weights, by an epsilon that may count for more than they do."""

    def __init__(self) -> None:
        self.place = Place("norm")

    def normalised(self, heads: Value, eps: float) -> Value:
        """Of (rows, heads, size); the place is told of them together with the epsilon, below which they fade."""
        if isinstance(heads, torch.Tensor):
            self.place.seen((heads.square() + eps).sqrt())
        with F.component("norm", heads):
            return F.rms_norm(heads, eps, self.place.reach)


class Convolution(nn.Module):
    """Of each column by itself over a token and those before it; silu reads it."""

    def __init__(self, taps: int, size: int) -> None:
        self.weight: Value = nn.Parameter((taps, size))
        self.place = Place("activation")


class Decay(nn.Module):
    """How fast each head forgets, and how far the logarithms of its decays add up in a chunk."""

    def __init__(self, heads: int) -> None:
        self.rate: Value = nn.Parameter((heads,))
        self.place = Place("scores")


class DeltaNet(nn.Module):
    """Rows (rows, hidden_size) to the same shape."""

    def __init__(self, c: Decoder) -> None:
        assert c.delta
        self.sizes, self.eps = c.delta, c.eps
        keys, values, biased = c.delta.keys, c.delta.values, c.norm_bias
        self.qkv_proj = nn.Linear(c.hidden_size, 2 * keys + values, biased)
        self.conv = Convolution(c.delta.taps, 2 * keys + values)
        self.keys_norm = Rows()
        self.z_proj = nn.Linear(c.hidden_size, values, biased, "activation")
        self.b_proj = nn.Linear(c.hidden_size, c.delta.value_heads, biased, "activation")
        self.a_proj = nn.Linear(c.hidden_size, c.delta.value_heads, True, "activation")
        self.decay = Decay(c.delta.value_heads)
        self.state, self.output = Spot("value"), Rows()
        self.o_proj = nn.Linear(values, c.hidden_size, False, "stream")

    @property
    def readers(self) -> list[nn.Module | None]:
        """What reads the rows."""
        return [self.qkv_proj, self.z_proj, self.b_proj, self.a_proj]

    def __call__(self, x: Value, at: nn.Layout, cache: LayerCache) -> Value:
        assert isinstance(cache, Recurrent)
        q, k, v = self._mixed(x, at, cache)
        with F.component("memory", x):
            rate, g = self._gates(x)
            rate, g = (at.rows.pad(t.unsqueeze(-1))[..., 0] for t in (rate, g))
            if isinstance(g, torch.Tensor):
                self.decay.place.seen(delta.spread(g))
            q, k, v = (at.rows.pad(t) for t in (q, k, v))
            read, cache.memory = delta.remembered(
                q, k, v, rate, g, cache.memory, self.decay.place.reach, self.state.place.reach
            )
            if cache.memory.state is not None:
                self.state.place.seen(cache.memory.state)
        return self.o_proj(self._gated(at.asking(at.rows.unpad(read)), at.asking(x)))

    def _mixed(self, x: Value, at: nn.Layout, cache: Recurrent) -> list[Value]:
        """Queries, keys and values (rows, value_heads, size); the first two of length sqrt(d)."""
        s = self.sizes
        with F.component("convolution", x):
            rows = at.rows.pad(F.read(self.qkv_proj(x), nn.ring_for(self.conv)).unsqueeze(1))[:, 0]
            mixed, cache.before = delta.convolved(rows, self.conv.weight, cache.before)
            mixed = at.rows.unpad(mixed.unsqueeze(1))
            self.conv.place.seen(mixed)
            mixed = delta.silu(mixed, self.conv.place.reach)
        heads = mixed[:, : 2 * s.keys].reshape(-1, 2 * s.key_heads, s.key_size)
        heads = self.keys_norm.normalised(heads, 1e-6 / s.key_size)
        each = torch.arange(s.value_heads) // (s.value_heads // s.key_heads)
        q, k = (heads[:, (first + each).to(x.device)] for first in (0, s.key_heads))
        return [q, k, mixed[:, 2 * s.keys :].reshape(-1, s.value_heads, s.value_size)]

    def _gates(self, x: Value) -> tuple[Value, Value]:
        """The rate of writing and the logarithm of the decay (rows, value_heads)."""
        assert self.a_proj.place and self.b_proj.place
        rate = F.sigmoid(self.b_proj(x), self.b_proj.place.reach)
        return rate, delta.logarithms(self.a_proj(x), self.decay.rate, self.a_proj.place.reach)

    def _gated(self, read: Value, x: Value) -> Any:
        """What was read, normalised by heads, times its gate; the norm's weight lies in o_proj."""
        assert self.z_proj.place
        heads = read.reshape(-1, self.sizes.value_heads, self.sizes.value_size)
        n = self.output.normalised(heads, self.eps * self.sizes.key_size)
        return F.mul(n.reshape(read.shape[0], -1), F.silu(self.z_proj(x), self.z_proj.place.reach))
