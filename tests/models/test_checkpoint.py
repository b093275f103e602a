"""A checkpoint is read in all its dialects, and refused, with the reason, where it cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import msgspec
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from puma.errors import CheckpointError, PumaError, RangeError, TensorError, UnsupportedModel
from puma.models import stories
from puma.models.checkpoint import load
from puma.models.config import Config
from puma.models.files.folder import CONVERT
from puma.models.ranges import check_weights
from tests.models import tiny, zoo
from tests.models.tiny import State


def refused(kind: type[PumaError], source: Path | str, *words: str, fold: bool = False) -> None:
    """Loading fails with an error of exactly this kind, with a hint, that says all these words."""
    with pytest.raises(kind) as caught:
        checkpoint = load(source)
        if fold:
            check_weights(checkpoint.fold())
    assert type(caught.value) is kind
    assert caught.value.hint
    for word in words:
        assert word in str(caught.value)


# What is read.


def test_what_a_checkpoint_says(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path / "story")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 4], "bos_token_id": 3}))
    checkpoint = load(str(folder))
    assert checkpoint.architecture == "LlamaForCausalLM"
    assert (checkpoint.bos, checkpoint.eos) == (3, (2, 4))
    assert [*checkpoint.files] == ["tokenizer.json"]
    assert "state" not in repr(checkpoint)
    assert all(tensor.dtype == torch.float32 for tensor in checkpoint.state.values())


def test_a_client_needs_no_weights(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path)
    (folder / "model.safetensors").unlink()
    checkpoint = load(folder, weights=False)
    assert checkpoint.config.layers == 2
    assert not checkpoint.state


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_number_formats(dtype: torch.dtype, tmp_path: Path) -> None:
    before = dict(load(tiny.gpt2(tmp_path)).state)
    tiny.edit(tmp_path, lambda state: state.update({name: tensor.to(dtype) for name, tensor in state.items()}))
    for name, tensor in load(tmp_path).state.items():
        assert_close(tensor, before[name].to(dtype).float(), atol=0, rtol=0)


def test_shards(tmp_path: Path) -> None:
    before = dict(load(tiny.llama(tmp_path)).state)
    state = load_file(tmp_path / "model.safetensors")
    names = sorted(state)
    weight_map = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(names)}
    for file in set(weight_map.values()):
        save_file({name: state[name] for name in names if weight_map[name] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (tmp_path / "model.safetensors").unlink()
    after = load(tmp_path).state
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    (tmp_path / "part-1.safetensors").unlink()
    refused(CheckpointError, tmp_path, "part-1.safetensors")


def test_an_index_stays_in_its_folder(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path / "inner")
    (folder / "model.safetensors").rename(tmp_path / "outer.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../outer.safetensors"}}')
    refused(CheckpointError, folder, "outer.safetensors")


@pytest.mark.parametrize("write,prefix", [(tiny.llama, "model."), (tiny.gpt2, "transformer."), (tiny.bert, "bert.")])
def test_names_without_prefix(write: Callable[..., Path], prefix: str, tmp_path: Path) -> None:
    before = load(write(tmp_path)).state

    def strip(state: State) -> None:
        for name in list(state):
            state[name.removeprefix(prefix)] = state.pop(name)

    assert load(tiny.edit(tmp_path, strip)).state.keys() == before.keys()


def test_old_names_of_layer_norm(tmp_path: Path) -> None:
    before = load(tiny.bert(tmp_path)).state

    def rename(state: State) -> None:
        for name in [name for name in state if "LayerNorm" in name]:
            state[name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta")] = state.pop(name)

    assert load(tiny.edit(tmp_path, rename)).state.keys() == before.keys()


@pytest.mark.parametrize(
    "write,names",
    [
        (tiny.llama, ["model.layers.0.self_attn.rotary_emb.inv_freq"]),
        (tiny.gpt2, ["transformer.h.0.attn.bias", "transformer.h.1.attn.masked_bias"]),
        (tiny.bert, ["bert.embeddings.position_ids", "cls.predictions.bias"]),
    ],
)
def test_buffers_are_ignored(write: Callable[..., Path], names: list[str], tmp_path: Path) -> None:
    before = load(write(tmp_path)).state
    tiny.edit(tmp_path, lambda state: state.update({name: torch.zeros(3) for name in names}))
    assert load(tmp_path).state.keys() == before.keys()


def test_an_encoder_may_lack_its_pooler(tmp_path: Path) -> None:
    def drop(state: State) -> None:
        del state["bert.pooler.dense.weight"], state["bert.pooler.dense.bias"]

    assert not load(tiny.edit(tiny.bert(tmp_path / "bert"), drop)).config.pooler  # type: ignore[attr-defined]
    refused(UnsupportedModel, tiny.edit(tiny.classifier(tmp_path / "classifier"), drop), "pooler")


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_theta": 500.0},
        {"rope_theta": None, "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}},
        {"rope_theta": 500.0, "rope_scaling": {"type": "default"}},
    ],
)
def test_rotary_settings(settings: dict[str, Any], tmp_path: Path) -> None:
    assert load(tiny.llama(tmp_path, **settings)).config.rope.theta == 500.0  # type: ignore[attr-defined]


@pytest.mark.parametrize("write", [tiny.llama, tiny.gpt2, tiny.bert, tiny.classifier])
def test_configs_travel(write: Callable[..., Path], tmp_path: Path) -> None:
    config = load(write(tmp_path)).config
    assert msgspec.json.decode(msgspec.json.encode(config), type=Config) == config
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=Config) == config


def test_a_received_config_is_checked(tmp_path: Path) -> None:
    config = msgspec.to_builtins(load(tiny.llama(tmp_path)).config)
    for change in (
        {"hidden_size": 0},
        {"vocab_size": 1 << 40},
        {"kv_heads": 3},
        {"model_type": "mixture"},
    ):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(config | change, Config)


# Where it is.


def test_folders_that_are_no_checkpoint(tmp_path: Path) -> None:
    refused(CheckpointError, tmp_path / "nowhere", "no folder")
    refused(CheckpointError, "./nowhere", "no folder")
    refused(CheckpointError, tmp_path, "config.json")
    (tmp_path / "config.json").write_text("{")
    refused(CheckpointError, tmp_path, "config.json", "cannot be read")
    (tmp_path / "config.json").write_text("[]")
    refused(CheckpointError, tmp_path, "no JSON object")


def test_weights_that_cannot_be_read(tmp_path: Path) -> None:
    path = tiny.llama(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    refused(CheckpointError, tmp_path, "model.safetensors", "cannot be read")
    path.unlink()
    refused(CheckpointError, tmp_path, "no model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    refused(CheckpointError, tmp_path, "pytorch_model.bin", "convert it")
    (tmp_path / "pytorch_model.bin").unlink()


@pytest.mark.parametrize("write", [tiny.llama, tiny.gpt2, tiny.classifier])
def test_the_recipe_for_old_weights(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: object
) -> None:
    """What the hint says, done: the head is there, too."""
    before = load(write(tmp_path))
    tensors = dict(before.state)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    monkeypatch.chdir(tmp_path)
    exec(CONVERT.split('"')[1])
    after = load(tmp_path)
    assert after.config == before.config
    assert after.state.keys() == tensors.keys()
    assert all(torch.equal(after.state[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("name", ["gpt2-hub", "opt", "roberta", "Bert-MaskedLM", "t5"])
def test_tied_weights_may_be_stored_twice(name: str, tmp_path: Path) -> None:
    before = load(zoo.write(tmp_path, name)).state
    copies = {
        "gpt2-hub": ("transformer.wte.weight", "lm_head.weight"),
        "opt": ("model.decoder.embed_tokens.weight", "lm_head.weight"),
        "roberta": ("roberta.embeddings.word_embeddings.weight", "embeddings.position_ids"),
        "Bert-MaskedLM": ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
        "t5": ("shared.weight", "encoder.embed_tokens.weight"),
    }
    bare = load_file(tmp_path / "model.safetensors")
    source, copy = copies[name]
    prefix = "" if source in bare else source.partition(".")[0] + "."
    tiny.edit(tmp_path, lambda state: state.update({copy: state[source.removeprefix(prefix)].clone()}))
    assert load(tmp_path).state.keys() == before.keys()


@pytest.mark.parametrize("name", ["phi3", "neox", "gemma3", "Albert-MaskedLM", "t5-gated", "vit"])
def test_half_precision_in_shards(name: str, tmp_path: Path) -> None:
    """As the hub has them: bfloat16, several files, an index."""
    before = dict(load(zoo.write(tmp_path, name)).fold())
    state = load_file(tmp_path / "model.safetensors")
    weight_map = {key: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, key in enumerate(sorted(state))}
    for file in set(weight_map.values()):
        save_file({k: t.bfloat16() for k, t in state.items() if weight_map[k] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (tmp_path / "model.safetensors").unlink()
    after = load(tmp_path).fold()
    assert after.keys() == before.keys()
    for key, tensor in after.items():
        assert_close(tensor, before[key], atol=0.05, rtol=0.02)


def test_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[str]]] = []

    def snapshot(name: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(tiny.llama(tmp_path))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert load("someone/story").name == "someone/story"
    load("someone/story", weights=False)
    assert asked[0] == ("someone/story", ["*.json", "*.txt", "*.model", "*.spm", "*.jinja", "*.safetensors"])
    assert not any("*.safetensors" in patterns for _, patterns in asked[1:]) and len(asked) == 4


def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(*args: Any, **kwargs: Any) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    refused(
        CheckpointError,
        "someone/story",
        "no folder someone/story",
        "hub cannot be reached",
        "pass its folder",
    )


def test_the_embedded_model_has_a_name_unless_a_folder_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(weights=False).folder == load("stories", weights=False).folder == stories.FOLDER
    (tmp_path / "stories").mkdir()
    refused(CheckpointError, "stories", "stories is no checkpoint", "config.json")


# What is refused.


@pytest.mark.parametrize(
    "write,settings,words",
    [
        (
            tiny.llama,
            {"architectures": ["MambaForCausalLM"]},
            ["MambaFor", "LlamaForCausalLM", "BertModel"],
        ),
        (tiny.llama, {"architectures": None}, ["no architecture"]),
        (tiny.llama, {"quantization_config": {"quant_method": "hqq"}}, ["hqq", "fp16"]),
        (tiny.llama, {"quantization_config": {"quant_method": "quanto"}}, ["quanto"]),
        (
            tiny.llama,
            {"rope_scaling": {"rope_type": "longrope", "factor": 8.0}},
            ["short_factor", "longrope"],
        ),
        (tiny.llama, {"rope_scaling": {"type": "proportional"}}, ["proportional", "linear"]),
        (tiny.llama, {"rope_scaling": {"type": "linear", "factor": -2.0}}, ["config.json", "0"]),
        (tiny.llama, {"hidden_act": "relu"}, ["hidden_act", "silu"]),
        (tiny.llama, {"num_key_value_heads": 3}, ["num_key_value_heads"]),
        (tiny.llama, {"head_dim": 5}, ["head_dim"]),
        (tiny.llama, {"hidden_size": "wide"}, ["hidden_size"]),
        (tiny.gpt2, {"activation_function": "mish"}, ["activation_function", "gelu_new"]),
        (tiny.classifier, {"id2label": None, "num_labels": 0}, ["num_labels"]),
        (tiny.classifier, {"id2label": {"x": "y"}}, ["id2label"]),
        (tiny.gpt2, {"n_head": 5}, ["n_head"]),
        (tiny.bert, {"hidden_act": "mish"}, ["hidden_act"]),
        (tiny.bert, {"position_embedding_type": "relative_key"}, ["relative_key", "absolute"]),
        (tiny.bert, {"is_decoder": True}, ["is_decoder"]),
    ],
)
def test_unsupported(write: Callable[..., Path], settings: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    refused(UnsupportedModel, tiny.configure_folder(write(tmp_path), **settings), *words)


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda s: s.pop("model.norm.weight"), ["model.norm.weight", "missing", "24"]),
        (
            lambda s: s.update({"model.layers.1.mlp.up_proj.weight": torch.zeros(5, 24)}),
            ["model.layers.1.mlp.up_proj.weight", "[5, 24]", "expected [20, 24]"],
        ),
        (lambda s: s["lm_head.weight"][0].fill_(float("nan")), ["lm_head.weight", "NaN"]),
        (lambda s: s["lm_head.weight"][0].fill_(float("-inf")), ["lm_head.weight", "infinite"]),
        (
            lambda s: s.update({"lm_head.weight": s["lm_head.weight"].to(torch.int8)}),
            ["lm_head.weight", "I8"],
        ),
        (lambda s: s.update({"model.layers.0.self_attn.q_proj.bias": torch.zeros(24)}), ["q_proj.bias"]),
        (lambda s: s.update({"model.layers.2.input_layernorm.bias": torch.zeros(24)}), ["layers.2"]),
        (
            lambda s: s.update({"module.lm_head.weight": s["lm_head.weight"].clone()}),
            ["module.lm_head.weight", "one tensor"],
        ),
    ],
)
def test_bad_tensors(change: Callable[[State], object], words: list[str], tmp_path: Path) -> None:
    refused(TensorError, tiny.edit(tiny.llama(tmp_path), change), *words, fold=True)


def test_weights_that_change_while_they_are_in_use_are_refused(tmp_path: Path) -> None:
    params = load(tiny.llama(tmp_path)).fold()
    tiny.edit(tmp_path, lambda state: state["lm_head.weight"].fill_(1e6))
    with pytest.raises(CheckpointError, match=r"model\.safetensors has been changed meanwhile"):
        params["lm_head.weight"]
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        params["lm_head.weight"]


def test_weights_out_of_range(tmp_path: Path) -> None:
    def enlarge(state: State) -> None:
        # Each is in range; their product, which is what fixed point sees, is not.
        state["model.layers.0.input_layernorm.weight"].fill_(100.0)
        state["model.layers.0.self_attn.v_proj.weight"].fill_(-2.0)

    refused(RangeError, tiny.edit(tiny.llama(tmp_path), enlarge), "v_proj.weight", "200", "128", fold=True)
