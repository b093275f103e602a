"""Checkpoints made up so that every layer's numbers are as large as those of a published one, in its real width.

What fifteen public models reach, layer by layer, is known (`$PUMA_TEST_DATA/activations`); their weights are not here.
So random weights are scaled, matrix by matrix along a run in float, until a few tokens give the published largest value
and root mean square of what attention and the MLP add, of the residual stream and of what enters the activation. A
stretch of layers begins with one that brings the stream to where the published layer before it left it. Massive values
stand in a few channels of the first token alone, as in real models; one token is eight times fainter than others. What
a matrix adds is small in equal parts because its entries are and because what it reads is.
"""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import puma.nn.modules as nn
from puma.models.architectures.decoder import Attention
from puma.models.cache import LayerCache
from puma.models.config import Decoder
from puma.nn import functional as F

Params = dict[str, Tensor]
TOKENS, FIRST, FAINT, BEYOND = 12, 0, 5, 13  # ids in use are 0 to 11, BEYOND goes much further
VOCABULARY, HEADS, HEAD_DIM, INNER = 16, 4, 64, 1024
TEXT, BEYOND_TEXT = tuple(range(TOKENS)), (BEYOND, *range(1, TOKENS))
GATE, UP = 40.0, 30.0  # what enters the unit that makes the first token massive
WEIGHT = 60.0  # the largest weight of that unit
FAINTER = 1 / 8


@dataclass(frozen=True)
class Layer:
    """What a layer of a published model reaches: largest value and root mean square."""

    attention: tuple[float, float]
    gate: tuple[float, float]
    mlp: tuple[float, float]
    residual: tuple[float, float]


def read(folder: Path) -> dict[str, Any]:
    """The published figures by model."""
    return json.loads((folder / "activations.json").read_text())


def layers(figures: dict[str, Any]) -> list[Layer]:
    """Those of every layer; where experts are gated, nothing is known of what enters them but its kind."""
    largest, rms = figures["layer_max"], figures["layer_rms"]
    entering = "input_of_activation"
    return [
        Layer(
            *(
                (largest[part][i], rms[part][i]) if i < len(largest.get(part, ())) else (30.0, 1.0)
                for part in ("attention_added", entering, "mlp_added", "residual_after_layer")
            )
        )
        for i in range(figures["layers"])
    ]


def stretches(figures: dict[str, Any]) -> dict[str, list[Layer]]:
    """Three layers around the one that changes most, and the last three, each behind one for what came before."""
    every = layers(figures)
    peak = max(range(1, len(every)), key=lambda i: abs(every[i].residual[0] - every[i - 1].residual[0]))
    starts = {"rise": min(max(1, peak - 1), len(every) - 3), "end": len(every) - 3}
    return {name: every[start - 1 : start + 3] for name, start in starts.items()}


def config_of(name: str, figures: dict[str, Any], count: int) -> Decoder:
    """The nearest decoder: the real width, fewer heads and inner columns."""
    gemma = name.startswith("gemma")
    return Decoder(
        vocab_size=VOCABULARY, hidden_size=figures["hidden_size"], intermediate_size=INNER, layers=count, heads=HEADS,
        kv_heads=2, head_dim=HEAD_DIM, context=64, activation="gelu_tanh" if gemma else "silu",
        qkv_bias=name.startswith("Qwen2.5"), head_norms=name.startswith("Qwen3") or "gemma-3" in name,
        tied=False,
    )  # fmt: skip


class Builder:
    """Makes a checkpoint, layer after layer, along the run of two texts: that of the first tokens, and one that begins
    with BEYOND instead, which makes the massive channels so many `times` as large.
    """

    def __init__(self, config: Decoder, seed: int, times: float = 16.0) -> None:
        self.c, self.params, self.further = config, Params(), math.sqrt(times)
        self._draw = torch.Generator().manual_seed(seed)
        self.at = nn.Layout([TOKENS, TOKENS])
        self.massive = [7 % config.hidden_size, 415 % config.hidden_size]

    def build(self, stretch: list[Layer]) -> Params:
        """Of a stretch of layers; the first one only leads there."""
        d = self.c.hidden_size
        table = torch.randn(VOCABULARY, d, generator=self._draw) * min(stretch[0].residual[1], 1.0) * 0.3
        table[FAINT] *= FAINTER
        self.params |= {"model.embed_tokens.weight": table, "model.norm.weight": torch.ones(d)}
        self.params["lm_head.weight"] = self._matrix(VOCABULARY, d, 3.0)
        x = table[[*TEXT, *BEYOND_TEXT]]
        for i, layer in enumerate(stretch):
            x = x + self._attention(i, layer.attention, F.rms_norm(x, self.c.eps))
            grown = math.sqrt(max(layer.residual[1] ** 2 - _rms(x[1:TOKENS]) ** 2, 0.0))
            size = grown if i == 0 else max(layer.mlp[1], grown) if grown else layer.mlp[1]
            held = [float(x[FIRST, c]) for c in self.massive]
            jump = [layer.residual[0] * share - was for share, was in zip((1.0, -0.4), held, strict=True)]
            x = x + self._mlp(i, layer.gate, size, jump, F.rms_norm(x, self.c.eps))
        return self.params

    def _matrix(self, rows: int, columns: int, scale: float = 1.0) -> Tensor:
        """Random, so that a normalised row becomes one of root mean square `scale`."""
        return torch.randn(rows, columns, generator=self._draw) * scale / columns**0.5

    def _attention(self, i: int, goal: tuple[float, float], n: Tensor) -> Tensor:
        c, own = self.c, Params()
        inner, keys = c.heads * c.head_dim, c.kv_heads * c.head_dim
        for part, rows in (("q_proj", inner), ("k_proj", keys), ("v_proj", keys)):
            own[f"{part}.weight"] = self._matrix(rows, c.hidden_size, 1.0 if part == "v_proj" else c.head_dim**-0.25)
            if c.qkv_bias:
                own[f"{part}.bias"] = self._matrix(rows, 1)[:, 0]
        if c.head_norms:
            own |= {
                "q_norm.weight": torch.full((c.head_dim,), c.head_dim**-0.5),
                "k_norm.weight": torch.ones(c.head_dim),
            }
        own["o_proj.weight"] = self._matrix(c.hidden_size, inner)
        module = Attention(c)
        module.fill(own)
        added = module(n, self.at, LayerCache())
        factors = torch.full((c.hidden_size, 1), goal[1] / _rms(added[:TOKENS]))
        one = 91 % c.hidden_size  # every row has something there: no more than what doubles the mean square
        factors[one] = min(goal[0], goal[1] * c.hidden_size**0.5) / float(added[:TOKENS, one].abs().max())
        own["o_proj.weight"] *= factors
        less = _shared(own["v_proj.weight"], own["o_proj.weight"])
        own["o_proj.weight"] /= less
        own |= {name: own[name] * less for name in ("v_proj.weight", "v_proj.bias") if name in own}
        self.params |= {f"model.layers.{i}.self_attn.{name}": tensor for name, tensor in own.items()}
        return added * factors.T

    def _mlp(self, i: int, goal: tuple[float, float], size: float, jump: list[float], n: Tensor) -> Tensor:
        c = self.c
        gate, up = (self._matrix(c.intermediate_size, c.hidden_size, scale) for scale in (goal[1], 1.0))
        down = self._matrix(c.hidden_size, c.intermediate_size)
        alike = float(torch.nn.functional.cosine_similarity(n[FIRST], n[TOKENS], dim=0)) > 0.5
        lever = min(GATE, goal[0])
        opened = max(UP, max(map(abs, jump)) / (WEIGHT * lever))
        solved, more = torch.linalg.pinv(n.double()), 1.0 if alike else self.further
        gate[0], up[0] = (_unit(solved, {FIRST: one, TOKENS: more * one}) for one in (lever, opened))
        gate[1] = _unit(solved, {3: goal[0], TOKENS + 3: goal[0]})
        activation = F.silu if c.activation == "silu" else partial(F.gelu, approximate="tanh")
        inner = activation(n @ gate.T) * (n @ up.T)
        down[:, :2] = 0.0
        down *= size / _rms(inner[1:TOKENS] @ down.T)
        for channel, wanted in zip(self.massive, jump, strict=True):
            down[channel, 0] = wanted / float(inner[FIRST, 0])
        added, less = inner @ down.T, _shared(up[2:], down[:, 2:])
        up[2:] *= less
        down[:, 2:] /= less
        parts = {"gate_proj": gate, "up_proj": up, "down_proj": down}
        self.params |= {f"model.layers.{i}.mlp.{part}.weight": weight for part, weight in parts.items()}
        return added


def _unit(solved: Tensor, goals: dict[int, float]) -> Tensor:
    """A row of a matrix that gives these numbers for these rows and 0 for the others."""
    wanted = torch.zeros(solved.shape[1], dtype=torch.float64)
    for row, value in goals.items():
        wanted[row] = value
    return (solved @ wanted).float()


def _shared(first: Tensor, second: Tensor) -> float:
    """What to multiply the first of two matrices by, and to divide the second by, if the second has smaller entries."""
    return min(1.0, (_rms(second) / _rms(first)) ** 0.5)


def _rms(x: Tensor) -> float:
    return float(x.pow(2).mean().sqrt())


def made(name: str, figures: dict[str, Any], stretch: list[Layer], times: float = 16.0) -> tuple[Decoder, Params]:
    """A folded checkpoint of a stretch of layers of this model; see `Builder` for `times`."""
    config = config_of(name, figures, len(stretch))
    return config, Builder(config, zlib.crc32(name.encode()), times).build(stretch)
