"""Mixtures of experts in place of an MLP: a router, and experts that are all computed because nobody knows its choice.

The experts of a layer lie side by side in one MLP as wide as all of them, whose inner numbers are multiplied by their
expert's weight. This file must not know tensors from shares.
"""

from __future__ import annotations

import torch

import puma.nn.modules as nn
from puma.models.architectures.decoder.config import Decoder
from puma.mpc.fixed import GATED_REACH
from puma.nn import functional as F
from puma.nn import mixture
from puma.nn.modules import Value


class Experts(nn.Module):
    """Rows (rows, hidden_size) to the same shape; one that all rows share lies behind the others, if there is one."""

    def __init__(self, c: Decoder) -> None:
        self.activation, self.chosen, self.renormalised = c.activation, c.chosen, c.renormalised
        self.sizes = torch.tensor([c.expert_size] * c.experts + [c.shared_size] * bool(c.shared_size))
        width, biased = int(self.sizes.sum()), c.norm_bias or c.mlp_bias
        self.router = nn.Linear(c.hidden_size, c.experts, biased, "scores")
        self.shared_gate = nn.Linear(c.hidden_size, 1, biased, "activation") if c.shared_size else None
        self.gate_proj = nn.Linear(c.hidden_size, width, biased, nn.place_of(c.activation))
        self.up_proj = nn.Linear(c.hidden_size, width, biased, nn.gated_place(c.activation))
        self.down_proj = nn.Linear(width, c.hidden_size, False, "stream")
        self.biases = nn.Linear(c.experts, c.hidden_size, False, "stream") if c.mlp_bias else None

    def __call__(self, x: Value) -> Value:
        inner = nn.gated(self.activation, self.gate_proj, self.up_proj, x)
        assert self.up_proj.place
        weights, product = self.weights(x), GATED_REACH if self.activation == "clamped" else self.up_proj.place.reach
        found = self.down_proj(mixture.weighted(inner, weights, self.sizes, product))
        return found if self.biases is None else found + self.biases(weights)

    @property
    def readers(self) -> list[nn.Module | None]:
        """What reads the rows."""
        return [self.gate_proj, self.up_proj, self.router, self.shared_gate]

    def weights(self, x: Value) -> Value:
        """Of each row's experts (rows, experts); 0 of those that it does not take."""
        assert self.router.place
        with F.component("router", x):
            logits = self.router(x)
            if isinstance(logits, torch.Tensor):
                self.router.place.seen(nn.spread(logits))
            found = mixture.weights(logits, self.chosen, self.renormalised, self.router.place.reach)
            if self.shared_gate is None:
                return found
            assert self.shared_gate.place
            return F.cat([found, F.sigmoid(self.shared_gate(x), self.shared_gate.place.reach)], -1)
