"""Experts that fixed point takes are those of plaintext, but where two logits nearly meet."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from puma.models import architecture
from puma.models.architectures.decoder.experts import Experts
from puma.models.config import Llama
from puma.mpc.clear import ClearParty, held
from puma.mpc.fixed import ACTIVATION, RESIDUAL_RING, RING, formatted
from puma.mpc.share import encode
from puma.wire.parameters import parameter_frac

CONFIG = Llama(
    vocab_size=512, hidden_size=256, intermediate_size=64, layers=6, heads=4, kv_heads=2, head_norms=True, experts=64,
    chosen=8, expert_size=64, context=512,
)  # fmt: skip


def drawn(generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Random parameters whose router gives logits of a deviation of 1.5."""
    params = dict[str, torch.Tensor]()
    for name, shape in architecture(CONFIG).parameters(CONFIG).items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("norm.weight"):
            params[name] = (1 + 0.2 * noise) * (CONFIG.head_dim**-0.5 if "q_norm" in name else 1)
        else:
            scale = 0.5 if "embed" in name else shape[-1] ** -0.5
            less = 0.5 if "o_proj" in name or "down_proj" in name else 1.5 if "router" in name else 1.0
            params[name] = noise * scale * less
    return params


@pytest.mark.slow
def test_the_experts_are_those_of_plaintext(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, taken, logits = torch.Generator().manual_seed(1), list[torch.Tensor](), list[torch.Tensor]()
    params, plain, secret = drawn(generator), Experts.weights, ClearParty()

    def noted(self: Any, x: Any) -> Any:
        weights = plain(self, x)
        if isinstance(weights, torch.Tensor):
            logits.append(self.router(x))
        words = weights if isinstance(weights, torch.Tensor) else weights.value
        taken.append(torch.zeros_like(words, dtype=torch.bool).scatter(-1, words.topk(8, -1).indices, True))
        return weights

    monkeypatch.setattr(Experts, "weights", noted)
    rows = torch.nn.functional.one_hot(torch.randint(0, 512, (300,), generator=generator), 512)
    expected = architecture(CONFIG).model(CONFIG, params).every(rows.float())
    shares = {
        name: held(secret, encode(t, parameter_frac(name)), RING, parameter_frac(name)) for name, t in params.items()
    }
    found = architecture(CONFIG).model(CONFIG, shares).every(held(secret, rows, RESIDUAL_RING, 0))
    (found,) = secret.run(formatted((found, ACTIVATION, 28)))
    error = (found.value - expected).abs()
    assert error.max() < 0.05 and error.mean() < 5e-4
    mine, theirs, routed = torch.cat(taken[:6]), torch.cat(taken[6:]), torch.cat(logits)
    differs = (mine != theirs).any(-1)
    gaps = routed.sort(-1, descending=True).values.diff(dim=-1)[:, 7].abs()
    assert differs.sum() <= 12 and gaps[differs].max() < 2e-3
    assert (mine & theirs).sum() > 0.999 * mine.sum()
