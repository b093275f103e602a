"""On tensors, a model equals transformers, at the prompt and at every cached step."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from puma.errors import TensorError, UsageError
from puma.models import Cache, architecture
from puma.nn.layout import Rows
from tests.models import tiny
from tests.models.plain import continues, one_hot, open_model

IDS = [1, 5, 7, 9, 27, 6, 8, 20, 3]
BATCH = [IDS[:3], IDS[2:], IDS[5:6], IDS[1:8]]
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
    continues(model, checkpoint.config, IDS, expected, near)


@pytest.mark.parametrize("name", ENCODER)
def test_encoder(name: str, tmp_path: Path, reference: Any) -> None:
    folder = tiny.bert(tmp_path, **ENCODER[name])
    checkpoint, model = open_model(folder)
    types = [0] * 5 + [1] * 4
    with torch.no_grad():
        expected = reference(folder)(torch.tensor([IDS]), token_type_ids=torch.tensor([types]))
    hidden = model(one_hot(IDS, checkpoint.config.vocab_size), types)
    near(hidden, expected.last_hidden_state[0])
    near(model.pool(hidden)[0], expected.pooler_output[0])


def test_classifier(tmp_path: Path, reference: Any) -> None:
    folder = tiny.classifier(tmp_path)
    checkpoint, model = open_model(folder)
    with torch.no_grad():
        expected = reference(folder)(torch.tensor([IDS])).logits[0]
    assert checkpoint.config.labels == ("bad", "fair", "good")
    near(model.classify(model(one_hot(IDS, checkpoint.config.vocab_size)))[0], expected)


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("prompts", [BATCH, [IDS[:2], IDS[2:4]], [IDS[:1]] * 3])
def test_a_batch_is_its_prompts(name: str, prompts: list[list[int]], tmp_path: Path) -> None:
    """The prompts, then two more tokens of each, one by one: as each prompt has it alone."""
    write, settings = CAUSAL[name]
    checkpoint, model = open_model(write(tmp_path, **settings))
    size, layers = checkpoint.config.vocab_size, checkpoint.config.layers
    steps = [prompts, [[5 + i] for i in range(len(prompts))], [[9]] * len(prompts)]
    together = Cache(layers, [len(ids) for ids in prompts])
    alone = [Cache(layers) for _ in prompts]
    for step in steps:
        found = model(one_hot([*chain(*step)], size), together)
        near(found, torch.cat([model(one_hot(ids, size), cache) for ids, cache in zip(step, alone, strict=True)]))
    hidden = model.hidden(one_hot([*chain(*prompts)], size), Cache(layers, [len(ids) for ids in prompts]))
    near(hidden, torch.cat([model.hidden(one_hot(ids, size)) for ids in prompts]))


def test_a_batch_of_texts_is_each_of_them(tmp_path: Path) -> None:
    checkpoint, model = open_model(tiny.classifier(tmp_path))
    size, lengths = checkpoint.config.vocab_size, [len(ids) for ids in BATCH]
    types = [[i % 2 for i in range(n)] for n in lengths]
    hidden = model(one_hot([*chain(*BATCH)], size), [*chain(*types)], lengths)
    alone = [model(one_hot(ids, size), kinds) for ids, kinds in zip(BATCH, types, strict=True)]
    near(hidden, torch.cat(alone))
    near(model.classify(hidden, lengths), torch.cat([model.classify(states) for states in alone]))
    near(Rows(lengths).sum(hidden), torch.stack([states.sum(0) for states in alone]))


def test_rows_must_be_those_of_the_prompts(tmp_path: Path) -> None:
    checkpoint, model = open_model(tiny.llama(tmp_path))
    size, layers = checkpoint.config.vocab_size, checkpoint.config.layers
    cache = Cache(layers, [2, 4])
    with pytest.raises(UsageError, match="5 rows are not those of 2 prompts"):
        model(one_hot(IDS[:5], size), cache)
    model(one_hot(IDS[:6], size), cache)
    with pytest.raises(UsageError, match="3 rows"):
        model(one_hot(IDS[:3], size), cache)
    with pytest.raises(UsageError, match="make no batch"):
        model(one_hot(IDS[:4], size), Cache(layers, [4, 0]))


@pytest.mark.parametrize("write", [tiny.llama, tiny.gpt2, tiny.classifier])
def test_folded_parameters_are_those_declared(write: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint, _ = open_model(write(tmp_path))
    declared = architecture(checkpoint.config).parameters(checkpoint.config)
    assert {name: tuple(tensor.shape) for name, tensor in checkpoint.fold().items()} == declared


def test_parameters_must_fit_the_config(tmp_path: Path) -> None:
    checkpoint, _ = open_model(tiny.llama(tmp_path))
    make, params = architecture(checkpoint.config).model, dict(checkpoint.fold())
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
