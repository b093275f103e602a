"""Whole quantised folders: the model that they stand for answers, tensor by tensor and logit by logit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from puma.errors import PumaError, TensorError, UnsupportedModel
from puma.models.checkpoint import load
from puma.reference.plain_model import PlainModel
from tests.models import tiny, zoo
from tests.models.quantised.packing import METHODS, quantise

IDS = [1, 7, 12, 5, 20, 9]
WIDE: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_key_value_heads": 4}


def write_llama(folder: Path) -> Path:
    return tiny.llama(folder, **WIDE)


def write_gpt2(folder: Path) -> Path:
    return tiny.gpt2(folder, n_embd=32, n_head=4)


def write_bert(folder: Path) -> Path:
    return tiny.classifier(folder, hidden_size=32, intermediate_size=64, num_attention_heads=4)


def answers(folder: Path) -> torch.Tensor:
    """All that a model says of a few tokens."""
    model = PlainModel(folder)
    kind = "hidden" if model.causal else "logits"
    (found,) = model.session.encode([IDS], kind, [[0] * len(IDS)])
    return found


CASES = [(write_llama, method) for method in METHODS]
CASES += [(write_gpt2, "gptq"), (write_gpt2, "nf4"), (write_bert, "awq"), (write_bert, "fp8")]


@pytest.mark.parametrize("write,method", CASES)
def test_answers_as_what_it_stands_for(write: Callable[[Path], Path], method: str, tmp_path: Path) -> None:
    folder, plain = write(tmp_path / "quantised"), write(tmp_path / "plain")
    before = answers(plain)
    meant = quantise(folder, method, transposed=write is write_gpt2)
    save_file(meant, plain / "model.safetensors")
    found, expected = load(folder).state, load(plain).state
    assert found.keys() == expected.keys()
    for name in expected:
        assert_close(found[name], expected[name], atol=1e-6, rtol=1e-6)
    after = answers(plain)
    assert_close(answers(folder), after, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(after, before, atol=1e-4)  # rounding shows


@pytest.mark.parametrize("name", ["neox", "phi3"])
def test_fused_matrices(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several modules of the model in one quantised matrix."""
    architecture, settings = zoo.ALL[name]
    wide = settings | {"hidden_size": 32, "intermediate_size": 64, "rotary_pct": 0.5}
    monkeypatch.setitem(zoo.ALL, name, (architecture, wide))
    zoo.write(tmp_path, name)
    folder = shutil.copytree(tmp_path, tmp_path / "quantised")
    save_file(quantise(folder, "gptq"), tmp_path / "model.safetensors")
    assert_close(answers(folder), answers(tmp_path), atol=1e-5, rtol=1e-5)


def test_a_tensor_is_made_when_it_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from puma.models.files import dequantised

    made: list[str] = []
    read = dequantised._read
    monkeypatch.setattr(
        dequantised, "_read", lambda packed, parts: (made.append(parts[0].name), read(packed, parts))[1]
    )
    folder = write_llama(tmp_path)
    quantise(folder, "awq")
    state = load(folder).state
    assert not made
    state["model.layers.1.mlp.up_proj.weight"]
    assert made == ["model.layers.1.mlp.up_proj.qweight"]


def test_a_client_needs_no_weights(tmp_path: Path) -> None:
    folder = write_llama(tmp_path)
    quantise(folder, "nf4")
    (folder / "model.safetensors").unlink()
    assert load(folder, weights=False).config.hidden_size == 32


def test_old_settings_of_gptq(tmp_path: Path) -> None:
    """A file of their own, before config.json had a place for them."""
    folder = write_llama(tmp_path)
    meant = quantise(folder, "gptq")
    tiny.configure_folder(folder, quantization_config=None)
    refused(folder, TensorError, "qweight")
    (folder / "quantize_config.json").write_text('{"bits": 4, "group_size": 16, "desc_act": false}')
    name = "model.layers.0.mlp.up_proj.weight"
    assert_close(load(folder).state[name], meant[name])


# What is refused.


def refused(folder: Path, kind: type[PumaError], *words: str) -> None:
    with pytest.raises(kind) as caught:
        load(folder)
    assert type(caught.value) is kind
    assert caught.value.hint
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "method,settings,words",
    [
        ("gptq", {"quant_method": "hqq"}, ["hqq"]),
        ("gptq", {"quant_method": "torchao"}, ["torchao"]),
        ("gptq", {"quant_method": None}, ["unknown"]),
        ("gptq", {"bits": 5}, ["5 bits"]),
        ("gptq", {"checkpoint_format": "marlin"}, ["marlin"]),
        ("gptq", {"is_marlin_format": True}, ["marlin"]),
        ("awq", {"version": "gemv_fast"}, ["gemv_fast"]),
        ("awq", {"backend": "llm-awq"}, ["llm-awq"]),
        ("awq", {"bits": 3}, ["3 bits"]),
        ("awq", {"zero_point": False}, ["zeros"]),
        ("compressed-tensors", {"format": "nvfp4-pack-quantized"}, ["nvfp4"]),
        ("compressed-tensors", {"sparsity_config": {"format": "sparse-24-bitmask"}}, ["sparsity"]),
        ("compressed-tensors", {"transform_config": {"config_groups": {"R1": {}}}}, ["transform"]),
        ("fp8", {"weight_block_size": [16]}, ["weight_block_size"]),
        ("nf4", {"load_in_4bit": False}, ["bitsandbytes"]),
        ("compressed-tensors", {"config_groups": [1]}, ["quantization_config", "cannot be read"]),
        ("compressed-tensors", {"ignore": [1]}, ["cannot be read"]),
        ("awq", {"modules_to_not_convert": ["("]}, ["modules_to_not_convert"]),
        ("awq", {"modules_to_not_convert": 3}, ["cannot be read"]),
        ("gptq", {"bits": "four"}, ["four"]),
    ],
)
def test_ways_that_are_not_implemented(method: str, settings: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    folder = write_llama(tmp_path)
    quantise(folder, method)
    tiny.configure_folder(folder, quantization_config=METHODS[method][0] | settings)
    refused(folder, UnsupportedModel, *words)


@pytest.mark.parametrize(
    "method,settings",
    [
        ("gptq", {"modules_to_not_convert": ["mlp.up_proj"]}),
        ("awq", {"modules_to_not_convert": ["model.layers.0.mlp"]}),
        ("fp8", {"modules_to_not_convert": ["up_proj"]}),
        ("fp8", {"ignored_layers": ["model.layers.1.mlp.up_proj"]}),
        ("int8", {"llm_int8_skip_modules": ["model.layers.0"]}),
        ("compressed-tensors", {"ignore": ["model.layers.0.mlp.up_proj"]}),
        ("compressed-tensors", {"ignore": ["re:.*up_proj"]}),
        ("compressed-tensors", {"ignore": ["Linear"]}),
    ],
)
def test_modules_that_are_said_not_to_be_quantised(method: str, settings: dict[str, Any], tmp_path: Path) -> None:
    folder = write_llama(tmp_path)
    quantise(folder, method)
    tiny.configure_folder(folder, quantization_config=METHODS[method][0] | settings)
    refused(folder, TensorError, "says that it is not", "proj")


def test_modules_that_are_no_target(tmp_path: Path) -> None:
    folder = write_llama(tmp_path)
    quantise(folder, "compressed-tensors")
    settings = METHODS["compressed-tensors"][0]
    for targets in (["re:.*q_proj"], ["Embedding"]):
        group = settings["config_groups"]["group_0"] | {"targets": targets}
        tiny.configure_folder(folder, quantization_config=settings | {"config_groups": {"a": group}})
        refused(folder, TensorError, "targets")


def test_a_name_is_a_target_before_its_class(tmp_path: Path) -> None:
    folder = write_llama(tmp_path)
    meant = quantise(folder, "compressed-tensors")
    settings = METHODS["compressed-tensors"][0]
    right = settings["config_groups"]["group_0"]["weights"]
    groups = {
        "a": {"targets": ["Linear"], "weights": right | {"num_bits": 8}},
        "b": {"targets": ["re:.*layers.*"], "weights": right},
    }
    tiny.configure_folder(folder, quantization_config=settings | {"config_groups": groups})
    name = "model.layers.1.self_attn.q_proj.weight"
    assert_close(load(folder).state[name], meant[name])


@pytest.mark.parametrize(
    "method,part,changed",
    [
        ("gptq", "qzeros", None),
        ("gptq", "scales", lambda t: t[:1]),
        ("gptq", "qweight", lambda t: t[:1]),
        ("gptq", "qweight", lambda t: t.float()),
        ("gptq-3", "g_idx", lambda t: t + 100),
        ("gptq-3", "g_idx", lambda t: t[:-1]),
        ("awq", "scales", None),
        ("awq", "qzeros", lambda t: t[:, :1]),
        ("awq-gemv", "qzeros", lambda t: t[:, :0]),
        ("compressed-tensors", "weight_scale", None),
        ("compressed-tensors", "weight_shape", lambda t: t * 2),
        ("compressed-tensors", "weight_zero_point", lambda t: t[:1]),
        ("fp8", "weight_scale_inv", None),
        ("fp8", "weight_scale_inv", lambda t: t[:1, :1]),
        ("fp8", "weight_scale_inv", lambda t: t.double().int()),
        ("int8", "weight", lambda t: t.float()),
        ("int8", "SCB", lambda t: t[:1]),
        ("nf4", "weight.quant_map", None),
        ("nf4", "weight.absmax", lambda t: t[:1]),
        ("nf4", "weight", lambda t: t[:1]),
        ("nf4", "weight.quant_state.bitsandbytes__nf4", lambda t: t[:-1]),
        ("nf4", "weight.quant_state.bitsandbytes__nf4", lambda t: t * 0 + 200),
    ],
)
def test_parts_that_do_not_fit(method: str, part: str, changed: Any, tmp_path: Path) -> None:
    """Each is refused by its module's name, at the latest when the tensor is made."""
    folder = write_llama(tmp_path)
    quantise(folder, method)
    state = load_file(folder / "model.safetensors")
    module = "model.layers.1.mlp.up_proj"
    before = state.pop(f"{module}.{part}")
    if changed is not None:
        state[f"{module}.{part}"] = changed(before).contiguous()
    save_file(state, folder / "model.safetensors")
    with pytest.raises(TensorError, match="up_proj") as caught:
        dict(load(folder).state)
    assert caught.value.hint


def test_plain_numbers_that_are_said_to_be_quantised(tmp_path: Path) -> None:
    folder = write_llama(tmp_path)
    tiny.configure_folder(folder, quantization_config=METHODS["gptq"][0])
    refused(folder, TensorError, "gptq", "none is")


def test_a_matrix_of_another_shape(tmp_path: Path) -> None:
    folder = write_llama(tmp_path)
    quantise(folder, "gptq")
    tiny.configure_folder(folder, intermediate_size=80)
    refused(folder, TensorError, "proj", "expected [")
