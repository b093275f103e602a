"""Models whose residual stream is as large as published ones', in formats that follow from a run: in the clear, and by
three parties."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from puma.models import Config, architecture, with_layers
from puma.models.config import Llama
from puma.mpc.fixed import formatted
from puma.mpc.party import Party
from puma.reference.fixed_session import FixedSession
from puma.reference.float_session import Plain
from puma.wire.parameters import tensor_specs
from tests.measured import measured
from tests.trio import given, parties, value

LARGEST = {  # of their residual stream, as published (arXiv:2605.15572), and measured for SmolLM2
    "Qwen2.5-7B": 13_248.0, "SmolLM2-135M-Instruct": 25_662.0, "Qwen3-32B": 35_072.0, "gemma-2-27b": 157_696.0,
    "gemma-3-27b-it": 696_320.0,
}  # fmt: skip
BOUND = 2.0**-8  # of an error's root mean square, relative to the row's
IDS = [1, 9, 16, 23, 30, 7, 14]


def model(massive: float, width: int, layers: int) -> tuple[Llama, dict[str, Tensor]]:
    """Random parameters; the first layer makes three channels of the first token massive, and they stay."""
    config = Llama(vocab_size=64, hidden_size=width, intermediate_size=2 * width, layers=layers, heads=4, tied=True)
    draw = torch.Generator().manual_seed(5)
    params = {
        name: torch.randn(shape, generator=draw) * (0.3 if "embed" in name else 0.5 / shape[-1] ** 0.5)
        for name, shape in architecture(config).parameters(config).items()
    }
    params["model.norm.weight"] = torch.ones(width)
    first = params["model.embed_tokens.weight"][1]
    first = first / first.norm()
    mlp = "model.layers.0.mlp."
    for part in ("gate_proj", "up_proj"):
        params[f"{mlp}{part}.weight"][0] = first * 110 / width**0.5
    params[f"{mlp}down_proj.weight"][:, 0] = 0
    params[f"{mlp}down_proj.weight"][[3, width // 2, width - 5], 0] = massive / 1e4 * torch.tensor([1, -0.5, 0.25])
    return config, params


def deviation(found: Tensor, plain: Tensor) -> float:
    """The largest relative error of a row."""
    return float(((found - plain).norm(dim=-1) / plain.norm(dim=-1)).max())


@pytest.mark.parametrize("name", LARGEST)
def test_real_sizes_hold_at_every_layer_in_the_clear(name: str) -> None:
    """The states behind each layer are normalised by the last norm, whose scale is 1 here: their error is relative."""
    config, params = model(LARGEST[name], 256, 4)
    fitted = measured(config, params, [IDS], margin=2)
    assert fitted.formats.stream > 14
    for layers in range(1, 5):
        shallow = with_layers(fitted, layers)
        alone = FixedSession(shallow, params)
        (found,) = alone.encode([IDS], "hidden")
        (plain,) = Plain(shallow, params).encode([IDS], "hidden")
        assert all(note.used < 1 for note in alone.notes), [n for n in alone.notes if n.used >= 1]
        assert deviation(found, plain) < BOUND
    largest = max(note.largest for note in alone.notes if note.component == "norm" and note.what == "value")
    assert 0.5 * LARGEST[name] < largest < 2 * LARGEST[name]


def secure(config: Config, params: dict[str, Tensor], ids: list[int]) -> Tensor:
    """The hidden states that three parties compute."""
    shapes = {spec.name: spec for spec in tensor_specs(config)}
    rows = torch.eye(config.vocab_size)[ids]

    def compute(party: Party) -> Any:
        shares = {n: given(party, t, shapes[n].bits, shapes[n].frac, n) for n, t in params.items() if n in shapes}
        hidden = architecture(config).model(config, shares).hidden(given(party, rows, 34, 0))
        return party.run(formatted((hidden, 14, 30)))[0]

    return value(parties(compute))


@pytest.mark.parametrize("name", ["SmolLM2-135M-Instruct", "gemma-3-27b-it"])
def test_real_sizes_hold_among_three_parties(name: str) -> None:
    config, params = model(LARGEST[name], 256, 2)
    fitted = measured(config, params, [IDS], margin=2)
    (plain,) = Plain(fitted, params).encode([IDS], "hidden")
    assert deviation(secure(fitted, params, IDS), plain) < BOUND


def test_without_formats_they_do_not_hold() -> None:
    """What the formats are for."""
    config, params = model(LARGEST["SmolLM2-135M-Instruct"], 64, 2)
    (plain,) = Plain(config, params).encode([IDS], "hidden")
    assert deviation(FixedSession(config, params).encode([IDS], "hidden")[0], plain) > 0.1
