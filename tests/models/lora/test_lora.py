"""LoRA adapters are merged by peft's formulas, and refused by name where they do not belong to a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from puma.errors import CheckpointError, PumaError, TensorError, UnsupportedModel, UsageError
from puma.local.cluster import LocalCluster
from puma.models import files
from puma.models.adapters import lora
from puma.models.checkpoint import load
from puma.models.files import adapter as adapter_files
from puma.reference.plain_model import PlainModel
from puma.store.models import content_name
from tests.models import tiny
from tests.models.lora.adapters import low, write
from tests.models.quantised.packing import quantise

Q = "model.layers.0.self_attn.q_proj"
V = "model.layers.1.self_attn.v_proj"
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def product(tensors: dict[str, Tensor], module: str) -> Tensor:
    return tensors[f"{module}.lora_B.weight"] @ tensors[f"{module}.lora_A.weight"]


def state(folder: Path, adapter: Path | None = None) -> dict[str, Tensor]:
    return dict(load(folder, adapter=adapter).state)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return tiny.llama(tmp_path / "llama")


@pytest.fixture
def tied(tmp_path: Path) -> Path:
    return tiny.llama(tmp_path / "tied", tie_word_embeddings=True)


# What is merged.


@pytest.mark.parametrize(
    "settings,scale",
    [
        ({}, 2.0),
        ({"use_rslora": True}, 6 / 3**0.5),
        ({"alpha_pattern": {"q_proj": 9}}, 3.0),
        ({"alpha_pattern": {"layers.1.self_attn.q_proj": 9}}, 2.0),
        ({"r": 8, "rank_pattern": {"layers.0.self_attn.q_proj": 3}}, 2.0),
        ({"r": 8, "rank_pattern": {".*q_proj": 3}, "use_rslora": True}, 6 / 3**0.5),
    ],
)
def test_a_product_is_added(settings: dict[str, Any], scale: float, llama: Path, tmp_path: Path) -> None:
    tensors = low(Q, 24, 24)
    before, after = state(llama), state(llama, write(tmp_path / "adapter", tensors, **settings))
    assert_close(after[f"{Q}.weight"], before[f"{Q}.weight"] + scale * product(tensors, Q))
    others = before.keys() - {f"{Q}.weight"}
    assert all(torch.equal(before[name], after[name]) for name in others)


def test_transposed_matrices(tmp_path: Path) -> None:
    """GPT-2's, whatever fan_in_fan_out says: peft goes by the module, too."""
    folder, module = tiny.gpt2(tmp_path / "gpt2"), "transformer.h.0.attn.c_attn"
    tensors = low(module, 72, 24)
    for said in (True, False):
        after = state(folder, write(tmp_path / "adapter", tensors, fan_in_fan_out=said))[f"{module}.weight"]
        assert_close(after, state(folder)[f"{module}.weight"] + 2 * product(tensors, module).T)


@pytest.mark.parametrize("conv", [False, True])
def test_dora(conv: bool, tmp_path: Path) -> None:
    """Rows of what is merged get the lengths that were learned."""
    write_base, module = (tiny.gpt2, "transformer.h.1.attn.c_proj") if conv else (tiny.llama, Q)
    folder = write_base(tmp_path / "base")
    lengths = random(24).abs() + 1
    tensors = low(module, 24, 24) | {f"{module}.lora_magnitude_vector": lengths}
    after = state(folder, write(tmp_path / "adapter", tensors, use_dora=True))[f"{module}.weight"]
    before = state(folder)[f"{module}.weight"]
    added = before + 2 * (product(tensors, module).T if conv else product(tensors, module))
    along = 0 if conv else 1
    assert_close(after.norm(dim=along), lengths)
    assert_close(torch.nn.functional.cosine_similarity(after, added, dim=along), torch.ones(24))


def test_a_quantised_base(tmp_path: Path) -> None:
    """Merged with what the quantised matrix stands for, transposed or not."""
    for name, write_base, transposed in (("llama", tiny.llama, False), ("gpt2", tiny.gpt2, True)):
        wide = {"n_embd": 32, "n_head": 4} if transposed else {"hidden_size": 32, "intermediate_size": 64}
        folder = write_base(tmp_path / name, **wide)
        meant = quantise(folder, "gptq", transposed)
        module = "transformer.h.0.mlp.c_proj" if transposed else "model.layers.0.mlp.down_proj"
        tensors = low(module, 32, 128 if transposed else 64)
        added = product(tensors, module).T if transposed else product(tensors, module)
        after = state(folder, write(tmp_path / f"{name} adapter", tensors))[f"{module}.weight"]
        assert_close(after, meant[f"{module}.weight"] + 2 * added)


def test_embeddings(llama: Path, tmp_path: Path) -> None:
    a, b = random(3, 28), random(24, 3)
    tensors = {"model.embed_tokens.lora_embedding_A": a, "model.embed_tokens.lora_embedding_B": b}
    after = state(llama, write(tmp_path / "adapter", tensors))
    assert_close(after[TABLE], state(llama)[TABLE] + 2 * (b @ a).T)


@pytest.mark.parametrize("module", ["model.embed_tokens", "lm_head"])
def test_one_end_of_a_tied_model(module: str, tied: Path, tmp_path: Path) -> None:
    """As in peft, the other end stays what it was."""
    tensors = low(module, 28, 24)
    if module == "model.embed_tokens":
        tensors = {f"{module}.lora_embedding_A": random(3, 28), f"{module}.lora_embedding_B": random(24, 3)}
    adapter = write(tmp_path / "adapter", tensors)
    assert load(tied).config.tied
    assert not load(tied, adapter=adapter).config.tied
    before, after = state(tied)[TABLE], state(tied, adapter)
    changed, same = (TABLE, HEAD) if module == "model.embed_tokens" else (HEAD, TABLE)
    assert torch.equal(after[same], before)
    assert not torch.allclose(after[changed], before, atol=0.1)


def test_both_ends_that_stay_tied(tied: Path, tmp_path: Path) -> None:
    tensors = {"model.embed_tokens.weight": random(28, 24)}
    adapter = write(tmp_path / "adapter", tensors, ensure_weight_tying=True)
    for _ in range(2):
        assert load(tied, adapter=adapter).config.tied
        assert torch.equal(state(tied, adapter)[TABLE], tensors["model.embed_tokens.weight"])
        tiny.edit(tied, lambda found: found.update({HEAD: found[TABLE].clone()}))  # the base stores it twice


def test_single_tokens(llama: Path, tmp_path: Path) -> None:
    rows = random(2, 24)
    tensors = {"model.embed_tokens.token_adapter.trainable_tokens_delta": rows}
    for named in ([7, 3], {"embed_tokens": [7, 3]}):
        after = state(llama, write(tmp_path / "adapter", tensors, trainable_token_indices=named))[TABLE]
        assert torch.equal(after[[7, 3]], rows)
        assert torch.equal(after[8:], state(llama)[TABLE][8:])


def test_more_tokens(llama: Path, tmp_path: Path) -> None:
    """Embedding and head saved whole, with more rows than the base has, and the tokenizer that knows them."""
    tensors = {"model.embed_tokens.weight": random(40, 24), "lm_head.weight": random(40, 24)}
    tensors["lm_head.original_module.weight"] = random(40, 24)
    adapter = write(tmp_path / "adapter", tensors)
    tokenizer = tiny.tokenizer("<s> $A")
    tokenizer.add_tokens(["platypus"])
    tokenizer.save(str(adapter / "tokenizer.json"))
    model = PlainModel(llama, adapter)
    assert model.config.vocab_size == 40
    assert model.prompt_ids("the platypus", 1) == [1, 5, 28]
    assert torch.equal(model.checkpoint.state[HEAD], tensors["lm_head.weight"])


def test_biases(tmp_path: Path) -> None:
    """Whole ones, with the base layer's name or without, and those of B."""
    folder, module = tiny.bert(tmp_path / "bert"), "bert.encoder.layer.0.attention.self.query"
    for name in (f"{module}.bias", f"{module}.base_layer.bias"):
        adapter = write(tmp_path / "whole", {name: random(24)}, bias="all")
        assert torch.equal(state(folder, adapter)[f"{module}.bias"], random(24))
    tensors = low(module, 24, 24) | {f"{module}.lora_B.bias": random(24)}
    after = state(folder, write(tmp_path / "of B", tensors, lora_bias=True))
    assert_close(after[f"{module}.bias"], state(folder)[f"{module}.bias"] + 2 * random(24))


def test_names_of_a_model_without_head(tmp_path: Path) -> None:
    folder, module = tiny.bert(tmp_path / "bert"), "encoder.layer.0.attention.self.query"
    tensors = low(module, 24, 24)
    after = state(folder, write(tmp_path / "adapter", tensors, task_type="FEATURE_EXTRACTION"))
    assert_close(after[f"bert.{module}.weight"], state(folder)[f"bert.{module}.weight"] + 2 * product(tensors, module))


@pytest.mark.parametrize(
    "write_base,task,head,architecture",
    [
        (tiny.llama, "SEQ_CLS", "score.weight", "LlamaForSequenceClassification"),
        (tiny.bert, "SEQ_CLS", "classifier.weight", "BertForSequenceClassification"),
        (tiny.bert, "TOKEN_CLS", "classifier.weight", "BertForTokenClassification"),
        (tiny.llama, "TOKEN_CLS", "score.weight", "LlamaForTokenClassification"),
        (tiny.bert, "QUESTION_ANS", "qa_outputs.weight", "BertForQuestionAnswering"),
        (tiny.llama, "QUESTION_ANS", "qa_outputs.weight", "LlamaForQuestionAnswering"),
    ],
)
def test_a_head_of_its_own(
    write_base: Callable[[Path], Path], task: str, head: str, architecture: str, tmp_path: Path
) -> None:
    """The task names the class, and the head's rows say how many labels there are."""
    rows = 2 if task == "QUESTION_ANS" else 5
    folder, tensors = write_base(tmp_path / "base"), {head: random(rows, 24)}
    if architecture != "LlamaForSequenceClassification":
        tensors[head.replace("weight", "bias")] = random(rows)
    checkpoint = load(folder, adapter=write(tmp_path / "adapter", tensors, task_type=task))
    assert checkpoint.architecture == architecture
    assert checkpoint.config.labels == (("start", "end") if rows == 2 else tuple(f"LABEL_{i}" for i in range(5)))
    assert torch.equal(checkpoint.state[head], random(rows, 24))


def test_it_is_merged_when_it_is_looked_up(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []
    merged = lora.merged
    monkeypatch.setattr(lora, "merged", lambda change, *rest: (found.append(change.low.a), merged(change, *rest))[1])
    checkpoint = load(llama, adapter=write(tmp_path / "adapter", low(Q, 24, 24) | low(V, 12, 24)))
    assert not found
    checkpoint.state[f"{V}.weight"]
    assert found == [f"base_model.model.{V}.lora_A.weight"]


# What is shared.


def test_what_is_shared_depends_on_it(llama: Path, tmp_path: Path) -> None:
    one = write(tmp_path / "one", low(Q, 24, 24))
    two = write(tmp_path / "two", low(Q, 24, 24, seed=1))
    models = [PlainModel(llama), PlainModel(llama, one), PlainModel(llama, two)]
    assert [model.name for model in models] == ["llama", "llama+one", "llama+two"]
    assert len({content_name(b"key", "same", model.config, model.params) for model in models}) == 3
    assert models[0].greedy([1, 7, 9], 8) != models[1].greedy([1, 7, 9], 8)


def test_a_cluster_takes_it_with_a_source_only(llama: Path, tmp_path: Path) -> None:
    adapter = write(tmp_path / "adapter", low(Q, 24, 24))
    with pytest.raises(UsageError, match="adapter"):
        LocalCluster(PlainModel(llama), adapter=adapter)


# What is refused.


def refused(kind: type[PumaError], folder: Path, adapter: Path | str, *words: str) -> None:
    with pytest.raises(kind) as caught:
        dict(load(folder, adapter=adapter).state)
    assert type(caught.value) is kind
    assert caught.value.hint
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "settings,words",
    [
        ({"peft_type": "IA3"}, ["IA3"]),
        ({"peft_type": "ADALORA"}, ["ADALORA"]),
        ({"init_lora_weights": "pissa_niter_4"}, ["pissa"]),
        ({"init_lora_weights": "olora"}, ["olora"]),
        ({"alora_invocation_tokens": [1, 2]}, ["alora_invocation_tokens"]),
        ({"target_parameters": ["mlp.experts"]}, ["target_parameters"]),
        ({"layer_replication": [[0, 2]]}, ["layer_replication"]),
        ({"of_a_later_version": True}, ["of_a_later_version"]),
        ({"r": "eight"}, ["adapter_config.json"]),
        ({"alpha_pattern": {"(": 1}}, ["("]),
    ],
)
def test_kinds_that_are_not_implemented(
    settings: dict[str, Any], words: list[str], llama: Path, tmp_path: Path
) -> None:
    refused(UnsupportedModel, llama, write(tmp_path / "adapter", low(Q, 24, 24), **settings), *words)


def test_settings_that_change_nothing(llama: Path, tmp_path: Path) -> None:
    """Later versions add settings; those that are off are no reason to refuse."""
    settings = {"of_a_later_version": False, "another": None, "lora_dropout": 0.1, "eva_config": {"rho": 2.0}}
    state(llama, write(tmp_path / "adapter", low(Q, 24, 24), **settings))


@pytest.mark.parametrize(
    "tensors,settings,words",
    [
        (low("model.layers.0.self_attn.w_proj", 24, 24), {}, ["w_proj", "has not"]),
        (low("model.layers.7.self_attn.q_proj", 24, 24), {}, ["layers.7", "has not"]),
        (low(Q, 24, 32), {}, ["q_proj.lora_A", "[3, 32]", "[3, 24]"]),
        (low(Q, 32, 24), {}, ["q_proj.lora_B", "[32, 3]", "[24, 3]"]),
        (low(Q, 24, 24, rank=2), {}, ["rank 2", "expected 3"]),
        (low(Q, 24, 24), {"use_dora": True}, ["use_dora"]),
        (low(Q, 24, 24) | {f"{Q}.lora_magnitude_vector": random(24)}, {}, ["use_dora"]),
        ({f"{Q}.lora_A.weight": random(3, 24)}, {}, ["lora_A", "only"]),
        ({f"{Q}.lora_magnitude_vector": random(24)}, {"use_dora": True}, ["lora_magnitude_vector"]),
        ({f"{Q}.weight": random(20, 24)}, {}, ["q_proj", "[20, 24]"]),
        ({"lm_head.weight": random(40, 24)}, {}, ["lm_head"]),
        ({"model.embed_tokens.weight": random(40, 24)}, {}, ["lm_head"]),
        ({f"{Q}.lora_A.weight": random(3, 24).int(), f"{Q}.lora_B.weight": random(24, 3)}, {}, ["I32"]),
        (low(Q, 24, 24) | {f"{Q}.lora_B.bias": random(24)}, {}, ["q_proj.bias", "has not"]),
        (
            {"model.embed_tokens.token_adapter.trainable_tokens_delta": random(2, 24)},
            {"trainable_token_indices": [1, 2, 3]},
            ["3 tokens"],
        ),
        (
            {"model.embed_tokens.token_adapter.trainable_tokens_delta": random(1, 24)},
            {"trainable_token_indices": [28]},
            ["a token"],
        ),
    ],
)
def test_what_does_not_belong_to_the_base(
    tensors: dict[str, Tensor], settings: dict[str, Any], words: list[str], llama: Path, tmp_path: Path
) -> None:
    refused(TensorError, llama, write(tmp_path / "adapter", tensors, **settings), *words)


def test_numbers_that_are_not_finite(llama: Path, tmp_path: Path) -> None:
    tensors = low(Q, 24, 24)
    tensors[f"{Q}.lora_B.weight"][0, 0] = torch.nan
    refused(TensorError, llama, write(tmp_path / "adapter", tensors), "lora_B", "NaN")


def test_folders_that_are_no_adapter(llama: Path, tmp_path: Path) -> None:
    refused(CheckpointError, llama, tmp_path / "nowhere", "no adapter")
    refused(CheckpointError, llama, llama, "adapter_config.json")
    adapter = write(tmp_path / "adapter", low(Q, 24, 24))
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    refused(CheckpointError, llama, adapter, "adapter_model.bin", "convert it", "weights_only=True")
    (adapter / "adapter_model.bin").unlink()
    refused(CheckpointError, llama, adapter, "adapter_model.safetensors")


def test_the_recipe_for_old_weights(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the hint says, done."""
    adapter = write(tmp_path / "adapter", low(Q, 24, 24))
    before = state(llama, adapter)
    from safetensors.torch import load_file

    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    code = adapter_files.CONVERT.split('"')[1]
    monkeypatch.chdir(adapter)
    exec(code)
    after = state(llama, adapter)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    "hub,fits",
    [
        ("someone/tiny", True),
        ("another/tiny-bnb-4bit", True),
        ("another/TINY-AWQ", True),
        ("someone/large", False),
    ],
)
def test_a_base_of_another_name(
    hub: str, fits: bool, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the hub, where models have names."""
    monkeypatch.setattr(files.opening, "download", lambda *_: llama)
    adapter = write(tmp_path / "adapter", low(Q, 24, 24))
    if fits:
        assert load(hub, adapter=adapter).name == f"{hub}+adapter"
        return
    with pytest.raises(TensorError, match="someone/tiny"):
        load(hub, adapter=adapter)


def test_no_base_named(llama: Path, tmp_path: Path) -> None:
    adapter = write(tmp_path / "adapter", low(Q, 24, 24))
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": settings["r"]}))
    state(llama, adapter)
