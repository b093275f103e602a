"""On tensors, a model equals transformers, at the prompt and at every cached step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from puma.errors import TensorError, UsageError
from puma.models import Cache, architecture
from tests.models import tiny
from tests.models.plain import one_hot, open_model

IDS = [1, 5, 7, 9, 27, 6, 8, 20, 3]
CAUSAL: dict[str, tuple[Callable[..., Path], dict[str, Any]]] = {
    "llama": (tiny.llama, {}),
    "llama-tied": (tiny.llama, {"tie_word_embeddings": True}),
    "llama-no-groups": (tiny.llama, {"num_key_value_heads": None}),
    "llama-one-key-head": (tiny.llama, {"num_key_value_heads": 1, "rope_theta": 500.0}),
    "llama-biases": (tiny.llama, {"attention_bias": True, "mlp_bias": True}),
    "llama-own-head-size": (tiny.llama, {"head_dim": 10}),
    "gpt2": (tiny.gpt2, {}),
    "gpt2-untied": (tiny.gpt2, {"tie_word_embeddings": False}),
    "gpt2-exact": (tiny.gpt2, {"activation_function": "gelu", "n_inner": 13}),
    "gpt2-tanh": (tiny.gpt2, {"activation_function": "gelu_pytorch_tanh"}),
    "gpt2-odd": (tiny.gpt2, {"n_embd": 21, "n_layer": 1, "layer_norm_epsilon": 1e-3}),
}
ENCODER: dict[str, dict[str, Any]] = {
    "exact": {},
    "tanh": {"hidden_act": "gelu_new"},
    "odd": {"hidden_size": 21, "intermediate_size": 13, "num_hidden_layers": 1, "layer_norm_eps": 1e-3},
}


def near(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CAUSAL)
def test_causal(name: str, tmp_path: Path, reference: Any) -> None:
    write, settings = CAUSAL[name]
    folder = write(tmp_path, **settings)
    checkpoint, model = open_model(folder)
    with torch.no_grad():
        expected = reference(folder)(torch.tensor([IDS]), output_hidden_states=True)
    rows = one_hot(IDS, checkpoint.config.vocab_size)
    near(model(rows), expected.logits[0, -1])
    near(model.hidden(rows), expected.hidden_states[-1][0])
    cache = Cache(checkpoint.config.layers)
    near(model(rows[:4], cache), expected.logits[0, 3])
    near(model(rows[4:7], cache), expected.logits[0, 6])  # several tokens after a cached prefix
    for i in (7, 8):
        near(model(rows[i : i + 1], cache), expected.logits[0, i])
    assert cache.length == len(IDS)


@pytest.mark.parametrize("name", ENCODER)
def test_encoder(name: str, tmp_path: Path, reference: Any) -> None:
    folder = tiny.bert(tmp_path, **ENCODER[name])
    checkpoint, model = open_model(folder)
    types = [0] * 5 + [1] * 4
    with torch.no_grad():
        expected = reference(folder)(torch.tensor([IDS]), token_type_ids=torch.tensor([types]))
    hidden = model(one_hot(IDS, checkpoint.config.vocab_size), types)
    near(hidden, expected.last_hidden_state[0])
    near(model.pool(hidden), expected.pooler_output[0])


def test_classifier(tmp_path: Path, reference: Any) -> None:
    folder = tiny.classifier(tmp_path)
    checkpoint, model = open_model(folder)
    with torch.no_grad():
        expected = reference(folder)(torch.tensor([IDS])).logits[0]
    assert checkpoint.config.labels == ("bad", "fair", "good")
    near(model.classify(model(one_hot(IDS, checkpoint.config.vocab_size))), expected)


@pytest.mark.parametrize("write", [tiny.llama, tiny.gpt2, tiny.classifier])
def test_folded_parameters_are_those_declared(write: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint, _ = open_model(write(tmp_path))
    declared = architecture(checkpoint.config).parameters(checkpoint.config)
    assert {name: tuple(tensor.shape) for name, tensor in checkpoint.fold().items()} == declared


def test_parameters_must_fit_the_config(tmp_path: Path) -> None:
    checkpoint, _ = open_model(tiny.llama(tmp_path))
    make, params = architecture(checkpoint.config).model, checkpoint.fold()
    name = "model.layers.1.mlp.up_proj.weight"
    with pytest.raises(TensorError, match=r"up_proj\.weight has shape .20, 23., expected .20, 24."):
        make(checkpoint.config, params | {name: params[name][:, 1:]})
    del params[name]
    with pytest.raises(TensorError, match=r"up_proj\.weight is missing"):
        make(checkpoint.config, params)


def test_heads_that_are_not_there(tmp_path: Path) -> None:
    def drop_pooler(state: tiny.State) -> None:
        del state["bert.pooler.dense.weight"], state["bert.pooler.dense.bias"]

    checkpoint, model = open_model(tiny.edit(tiny.bert(tmp_path), drop_pooler))
    hidden = model(one_hot(IDS, checkpoint.config.vocab_size))
    for head in (model.pool, model.classify):
        with pytest.raises(UsageError):
            head(hidden)
