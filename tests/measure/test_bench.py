"""Public random models: the same for everybody, of a trained model's size, and measured as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from puma.errors import UsageError
from puma.kernels.startup import warmup
from puma.measure import bench
from puma.measure.bench import STD, RandomParams, configured, random_ids
from puma.models.architectures.decoder.config import Delta
from puma.models.config import Llama
from puma.models.presets import PRESETS, preset
from puma.reference.fixed_session import FixedSession
from puma.reference.planning import Settings
from puma.wire.parameters import tensor_specs

KNOWN_IDS = [45332, 17370, 22691]
KNOWN_BIAS = [-0.018419, -0.016944, -0.000484]


@pytest.mark.parametrize("name", ["gpt2", "bert-base", "llama-7b"])
def test_random_parameters(name: str) -> None:
    config = preset(name, 1)
    params = RandomParams(config)
    assert list(params) == [spec.name for spec in tensor_specs(config)]
    small = {n: params._shapes[n] for n in params if torch.Size(params._shapes[n]).numel() < 2_000_000}
    for parameter, shape in small.items():
        tensor = params[parameter]
        assert tuple(tensor.shape) == shape and torch.equal(tensor, params[parameter])
        affine = len(shape) == 1 and parameter.endswith(".weight")
        query = any(part in parameter for part in bench.QUERIES)
        std = STD * config.head_dim**-0.5 if query else STD
        assert abs(float(tensor.mean()) - affine) < 0.003
        assert abs(float(tensor.std()) / std - 1) < 0.1 or tensor.numel() < 100


def test_layers_of_another_kind_are_no_repetition_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "REPEATED_ABOVE", 0)
    sizes: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 32, "layers": 4, "heads": 2}
    sizes |= {"vocab_size": 20, "context": 16}
    mixed = Llama(**sizes, full_every=2, delta=Delta(key_heads=2, value_heads=2, key_size=4, value_size=4))
    for config, repeated in ((Llama(**sizes), 3), (mixed, 1)):
        params = RandomParams(config)
        assert all(params[name].shape == params[source].shape for name, source in params.alias.items())
        per_layer = [name for name in params if ".0." in name]
        assert len(params.alias) >= repeated * len(per_layer)
        assert not {*params.alias} & {*params.alias.values()}


def test_known_answers() -> None:
    """Everybody measures these numbers; a change of them is a new benchmark."""
    config = preset("gpt2")
    assert random_ids(config, [3]) == [KNOWN_IDS]
    assert random_ids(config, [1, 2]) == [KNOWN_IDS[:1], KNOWN_IDS[1:]]
    bias = RandomParams(config)["model.norm.bias"][:3]
    assert [round(float(x), 6) for x in bias] == KNOWN_BIAS


def test_sources(checkpoints: dict[str, Path]) -> None:
    for name in PRESETS:
        assert configured(name, None)[1] == PRESETS[name]
    assert configured("gpt2", 3)[1].layers == 3
    name, config, params = configured(str(checkpoints["llama"]), 1)
    assert (name, config.layers) == ("llama", 1)
    assert set(params) == {spec.name for spec in tensor_specs(config)}
    settings = checkpoints["llama"] / "config.json"
    name, alone, random = configured(str(settings), None)  # without weights: random ones
    assert name == "llama" and alone == configured(str(checkpoints["llama"]), None)[1] and set(random) > set(params)
    for source, layers in (("gpt3", None), ("gpt2", 0), ("gpt2", -1), (str(checkpoints["llama"]), 3)):
        with pytest.raises(UsageError) as error:
            configured(source, layers)
        assert error.value.hint


def test_formats_by_a_plan(checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint's own, of its first layers only; and what a preset's random weights need, which a run holds."""
    settings, quiet = Settings(), lambda what, done, of: None
    _, config, params = configured(str(checkpoints["llama"]), 1)
    found = bench.fitted(str(checkpoints["llama"]), config, params, settings, quiet)
    assert found.layers == 1 and found.formats.proven and "model.layers.0.mlp.gate_proj" in found.formats.places
    assert "model.layers.1.mlp.gate_proj" not in found.formats.places
    small = Llama(vocab_size=50, hidden_size=32, intermediate_size=64, layers=2, heads=2)
    monkeypatch.setattr(bench, "PRESETS", {"small": small})
    params = RandomParams(small)
    found = bench.fitted("small", small, params, settings, quiet)
    assert found.formats.stream < 14 and found.formats.proven
    alone = FixedSession(found, params)
    alone.encode(random_ids(found, [9, 12]), "hidden")
    assert not alone.flagged and all(note.used < 1 for note in alone.notes)


def test_kernels_are_compiled_once() -> None:
    warmup.compile_kernels()
    state = warmup.state()
    assert state.ready or state.folder is None
    assert state.total > 10
