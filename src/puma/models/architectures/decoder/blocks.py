"""The blocks of causal decoders: attention, MLP, and how norms and residuals lie around them.

The modules have LLaMA's names, whatever a checkpoint calls them. This file must not know tensors from shares.
"""

from __future__ import annotations

import puma.nn.modules as nn
from puma.models import rope
from puma.models.architectures.decoder.config import Decoder
from puma.models.architectures.decoder.experts import Experts
from puma.models.architectures.decoder.recurrent import DeltaNet
from puma.models.cache import LayerCache
from puma.nn import functional as F
from puma.nn.attention import query_ring, value_ring
from puma.nn.modules import Value
from puma.nn.places import Place


class HeadNorm(nn.Module):
    """RMSNorm of each head of a projection, or of so many heads together."""

    def __init__(self, c: Decoder, heads: int) -> None:
        self.eps, self.place = c.eps, Place("norm")
        self.weight: Value = nn.Parameter((c.head_dim * (heads if c.whole_norms else 1),))

    def __call__(self, x: Value) -> Value:
        rows, width = x.shape
        heads = x.reshape(rows, -1, self.weight.shape[0])
        self.place.seen(heads)
        with F.component("norm", x):
            n = F.rms_norm(heads, self.eps, self.place.reach, nn.ring_for(self), nn.grows(self))
            return F.affine(n, self.weight).reshape(rows, width)


class Known(nn.Module):
    """Keys or values of the preamble's tokens (tokens, heads * head_dim), as a cache holds them: turned already."""

    def __init__(self, c: Decoder, kind: str, limits: nn.Limits) -> None:
        self.known: Value = nn.Parameter((len(c.preamble), c.kv_heads * c.head_dim))
        self._kind, self._limits, self._size = kind, (limits,), c.head_dim  # in a tuple, for they are others' places

    @property
    def ring(self) -> int:
        """The one in which attention keeps them (nn.heads)."""
        scores, values = self._limits[0]
        return query_ring(scores.hidden_reach, scores.watched) if self._kind == "keys" else value_ring(values.reach)

    def columns(self) -> Value:
        """(1, heads, tokens, head_dim)."""
        rows = self.known[: self.known.shape[0]]
        return rows.reshape(1, rows.shape[0], -1, self._size).transpose(1, 2)


class Attention(nn.Module):
    """Causal attention with grouped heads: rows (rows, hidden_size) to the same shape."""

    def __init__(self, c: Decoder, layer: int = 0) -> None:
        self.head_dim, self.cap = c.head_dim, c.attention_cap
        bias = c.qkv_bias or c.norm_bias  # that of the norm before it becomes one
        self.q_proj = nn.Linear(c.hidden_size, c.heads * c.head_dim, bias, "scores")
        self.k_proj = nn.Linear(c.hidden_size, c.kv_heads * c.head_dim, bias)
        self.v_proj = nn.Linear(c.hidden_size, c.kv_heads * c.head_dim, bias, "value")
        self.o_proj = nn.Linear(c.heads * c.head_dim, c.hidden_size, c.out_bias, "stream")
        self.limits = nn.Limits.of(self.q_proj, self.v_proj)
        self.q_norm, self.k_norm = (HeadNorm(c, c.heads), HeadNorm(c, c.kv_heads)) if c.head_norms else (None, None)
        self.gate = nn.Linear(c.hidden_size, c.heads * c.head_dim, bias, "activation") if c.output_gate else None
        self.sinks: Value = nn.Parameter((c.heads,)) if c.sinks else None
        self.preamble_keys, self.preamble_values = (
            [Known(c, kind, self.limits) for kind in ("keys", "values")] if c.preamble else (None, None)
        )
        turning = c.turning(layer)
        self.frequencies = turning and rope.frequencies(turning, c.head_dim, c.context)

    @property
    def readers(self) -> list[nn.Module | None]:
        """What reads the rows."""
        return [self.q_proj, self.k_proj, self.v_proj, self.gate]

    def __call__(self, x: Value, at: nn.Layout, cache: LayerCache, bias: Value | None = None) -> Value:
        q, k = self.q_proj(at.asking(x)), self.k_proj(x)
        if self.q_norm and self.k_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = nn.heads(q, k, self.v_proj(x), self.head_dim, self.limits, at, self._angles(at, x), cached=True)
        k, v = cache.append(at.rows.pad(k), at.rows.pad(v))
        seen = nn.attend(q, k, v, at, bias, self.cap, self.limits, self.sinks)
        if self.gate is not None and self.gate.place:
            seen = F.mul(seen, F.sigmoid(self.gate(at.asking(x)), self.gate.place.reach))
        return self.o_proj(seen)

    def _angles(self, at: nn.Layout, x: Value) -> list[Value]:
        if self.frequencies is None:
            return []
        asked, own = at.asking(at.positions), nn.rotary_angles(at.positions, self.frequencies, x.device)
        return [own if asked is at.positions else nn.rotary_angles(asked, self.frequencies, x.device), own]


class MLP(nn.Module):
    """Two matrices around an activation, or three with a gate: rows (rows, hidden_size) to the same shape."""

    def __init__(self, c: Decoder) -> None:
        self.activation = c.activation
        sizes = (c.hidden_size, c.intermediate_size, c.mlp_bias or c.norm_bias)
        activated = nn.place_of(c.activation)
        self.gate_proj = nn.Linear(*sizes, activated) if c.gated else None
        self.up_proj = nn.Linear(*sizes, "gated" if c.gated else activated)
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, c.mlp_bias, "stream")
        self.up_proj.unproven = not c.pre_norms

    @property
    def readers(self) -> list[nn.Module | None]:
        """What reads the rows."""
        return [self.gate_proj, self.up_proj]

    def __call__(self, x: Value) -> Value:
        if self.gate_proj is None:
            return self.down_proj(nn.activate(self.activation, self.up_proj, x, self.down_proj))
        return self.down_proj(nn.gated(self.activation, self.gate_proj, self.up_proj, x, self.down_proj))


def norm(c: Decoder, affine: bool, writes: bool = False) -> nn.Norm:
    """The norm that a config chooses; `writes`: what it gives is added to the residual stream."""
    size = c.hidden_size if affine and c.affine != "none" else 0
    return nn.Norm(c.norm, c.eps, size, bias=c.norm_bias, writes=writes)


class Block(nn.Module):
    """A layer: attention and MLP, each between a norm and a residual."""

    def __init__(self, c: Decoder, layer: int) -> None:
        self.input_layernorm = norm(c, affine=False) if c.pre_norms else _streamed
        after = norm(c, affine=False) if c.pre_norms else _streamed
        self.post_attention_layernorm = None if c.parallel else after
        self.self_attn = DeltaNet(c) if c.recurrent(layer) else Attention(c, layer)
        self.mlp = Experts(c) if c.mixed(layer) else MLP(c)
        self.self_attn_norm, self.mlp_norm = (_written(c), _written(c)) if c.post_norms else (_same, _same)

    @property
    def readers(self) -> list[nn.Module | None]:
        """What reads the first norm; where both halves of a block do, only their affines differed."""
        return [*self.self_attn.readers, *(self.mlp.readers if self.post_attention_layernorm is None else [])]

    def __call__(self, x: Value, at: nn.Layout, cache: LayerCache) -> Value:
        n = self.input_layernorm(x, *self.readers)
        with F.component("attention", n):
            added, x = self.self_attn(n, at, cache), at.asking(x)
        if self.post_attention_layernorm is None:
            with F.component("mlp", n):
                return x + added + self.mlp(at.asking(n))
        x = x + self.self_attn_norm(added)
        n = self.post_attention_layernorm(x, *self.mlp.readers)
        with F.component("mlp", n):
            added = self.mlp(n)
        return x + self.mlp_norm(added)


def _written(c: Decoder) -> nn.Norm:
    return norm(c, affine=True, writes=True)


def _same(x: Value) -> Value:
    return x


def _streamed(x: Value, *readers: nn.Module | None) -> Value:
    """The stream itself, where matrices read it without a norm."""
    return F.read(x, nn.ring_for(*readers))
