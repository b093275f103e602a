"""Shapes of large models in the clear: massive activations, 4096-wide sums, 32 layers, a context of 2048.

The limits that hold, and what is left of accuracy, are those of docs/numerics.md.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from puma.models.config import Llama
from puma.reference.fixed_session import FixedSession
from puma.reference.float_session import Plain

CHANNELS = [7, 1415, 2533]  # that are massive
REACHED = 0.4  # of what a row that is its token alone would give: attention has added to it
Params = dict[str, Tensor]


def model(config: Llama, massive: float = 0.0) -> tuple[Params, dict[str, str]]:
    """Random parameters, one layer's for all layers; the first token makes some channels massive, as LLaMA's does."""
    draw = torch.Generator().manual_seed(3)
    d, f, k = config.hidden_size, config.intermediate_size, config.kv_heads * config.head_dim

    def matrix(rows: int, columns: int, scale: float = 1.0) -> Tensor:
        return torch.randn(rows, columns, generator=draw) * scale / columns**0.5

    layer = {
        "self_attn.q_proj": matrix(d, d, config.head_dim**-0.5), "self_attn.k_proj": matrix(k, d),
        "self_attn.v_proj": matrix(k, d), "self_attn.o_proj": matrix(d, d, 0.3),
        "mlp.gate_proj": matrix(f, d), "mlp.up_proj": matrix(f, d), "mlp.down_proj": matrix(d, f, 0.3),
    }  # fmt: skip
    table = matrix(config.vocab_size, d, d**0.5 * 0.3)
    if massive:
        first = table[1] / table[1].norm()
        layer["mlp.gate_proj"][0], layer["mlp.up_proj"][0] = 1.6 * first, 1.6 * first  # about 100 each
        layer["mlp.down_proj"][:, 0] = 0.0
        layer["mlp.down_proj"][torch.tensor(CHANNELS) % d, 0] = massive / (REACHED * 1.6**2 * d)
    params = {f"model.layers.0.{name}.weight": w for name, w in layer.items()}
    params |= {"model.embed_tokens.weight": table, "model.norm.weight": torch.ones(d)}
    alias = {
        f"model.layers.{i}.{n}.weight": f"model.layers.0.{n}.weight" for i in range(1, config.layers) for n in layer
    }
    return params, alias


def run(config: Llama, massive: float, tokens: int) -> tuple[FixedSession, Tensor, Tensor]:
    """The computation in the clear, and both last hidden states."""
    params, alias = model(config, massive)
    ids = [1, *(torch.arange(tokens - 1) * 7 % (config.vocab_size - 2) + 2).tolist()]
    alone = FixedSession(config, params, alias=alias)
    found = alone.encode([ids], "hidden")[0]
    own = params | {n: params[s] for n, s in alias.items()}
    plain = Plain(config, own).encode([ids], "hidden")[0]
    return alone, found, plain.double()


def config(d: int, f: int, layers: int, heads: int, context: int = 2048) -> Llama:
    return Llama(
        vocab_size=64, hidden_size=d, intermediate_size=f, layers=layers, heads=heads, context=context, tied=True
    )


def largest(alone: FixedSession) -> float:
    return max(note.largest for note in alone.notes if note.component == "norm" and note.what == "value")


def error(found: Tensor, plain: Tensor) -> float:
    """Of the states behind the last norm, whose entries are about 1."""
    return float((found - plain).abs().max())


@pytest.mark.parametrize("massive", [1e3, 1e4])
def test_massive_activations_hold(massive: float) -> None:
    alone, found, plain = run(config(256, 128, 4, 4), massive, 12)
    assert 0.8 * massive < largest(alone) < 1.3 * massive
    assert all(note.used < 1 for note in alone.notes)
    assert error(found, plain) < 0.1


def test_what_is_too_massive_is_noted_where_it_happens() -> None:
    alone, _, _ = run(config(256, 128, 4, 4), 3e4, 6)
    first = next(note for note in alone.notes if note.used >= 1)
    assert first.where == "model.layers.0.mlp.down_proj"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("massive", [1e3, 1e4])
def test_a_wide_and_deep_model(massive: float) -> None:
    alone, found, plain = run(config(4096, 1024, 32, 32), massive, 16)
    assert 0.8 * massive < largest(alone) and all(note.used < 1 for note in alone.notes)
    assert error(found, plain) < 0.05


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_long_context() -> None:
    alone, found, plain = run(config(128, 256, 2, 2), 1e3, 2048)
    assert all(note.used < 1 for note in alone.notes)
    assert error(found, plain) < 0.02
