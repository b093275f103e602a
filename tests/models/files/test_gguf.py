"""A GGUF file gives the model that its folder gives, for every architecture; what would be wrong is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import huggingface_hub
import pytest
import torch
from torch.testing import assert_close

from puma.errors import CheckpointError, PumaError, TensorError, UnsupportedModel
from puma.models import rope
from puma.models.checkpoint import load
from puma.models.files.gguf import header
from puma.models.files.gguf.dialects import DIALECTS
from tests.models import tiny, zoo
from tests.models.files import ggufs

ZOO = (
    "llama-linear", "llama-yarn", "mistral-no-window", "qwen2", "qwen3", "phi3", "gemma2", "gemma3", "neox",
    "neox-serial", "gpt2-hub", "t5", "t5-gated", "smollm3", "olmo2", "granite", "gemma",
)  # fmt: skip


SAID = {  # in config.json, and in no field of such a file: what its reader takes is what all published models have
    "phi3": {"sliding_window": 7},
    "gemma2": {"query_pre_attn_scalar": 8},
    "gemma3": {"query_pre_attn_scalar": 8},
    "smollm3": {"no_rope_layers": [1, 1], "no_rope_layer_interval": 4},
    "granite": {"attention_multiplier": 0.25, "residual_multiplier": 0.5},  # which float32 holds
    "t5": {"relative_attention_max_distance": 128},
    "t5-gated": {"tie_word_embeddings": False, "scale_decoder_outputs": False},
}


def alike(folder: Path, file: Path) -> None:
    """Both give the same config and the same parameters."""
    ours, theirs = load(file), load(folder)
    assert ours.config == theirs.config
    found = ours.fold()
    for name, tensor in theirs.fold().items():
        assert_close(found[name], tensor, atol=1e-6, rtol=1e-6, msg=name)


@pytest.mark.parametrize("name", ZOO)
def test_architectures(name: str, tmp_path: Path) -> None:
    folder = zoo.write(tmp_path / "folder", name)
    tiny.configure_folder(folder, **SAID.get(name, {}))
    if name == "t5-gated":
        tiny.edit(folder, lambda state: state.update({"lm_head.weight": state["shared.weight"] / 3}))
    alike(folder, ggufs.write(tmp_path / "model.gguf", folder))


def test_every_architecture_is_tried() -> None:
    tried = {zoo.ALL[name][0] for name in ZOO} | {"BertModel", "LlamaForCausalLM"}
    assert {dialect.architecture for dialect in DIALECTS.values()} <= tried


@pytest.mark.parametrize("settings", [{}, {"tie_word_embeddings": True}, {"head_dim": 8}, {"attention_bias": True}])
def test_llama(settings: dict[str, Any], tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path / "folder", **settings)
    alike(folder, ggufs.write(tmp_path / "model.gguf", folder))


def test_frequencies_that_the_file_lists(tmp_path: Path) -> None:
    """LLaMA 3's: the converter writes what each is divided by, and nothing of how it came to be."""
    folder = zoo.write(tmp_path / "folder", "llama-3")
    ours, theirs = (load(path).config for path in (ggufs.write(tmp_path / "model.gguf", folder), folder))
    found, right = (rope.frequencies(config.rope, config.head_dim, config.context) for config in (ours, theirs))
    assert_close(found, right, atol=0, rtol=1e-6)
    assert rope.attention_factor(ours.rope) == 1
    assert ours.context == theirs.context


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert"])
def test_encoders(name: str, tmp_path: Path) -> None:
    """States are those of the folder; the pooler, which the converter leaves away, is missed by nobody."""
    folder = tiny.bert(tmp_path / "folder") if name == "bert" else zoo.write(tmp_path / "folder", name)
    ours, theirs = load(ggufs.write(tmp_path / "model.gguf", folder)), load(folder)
    assert ours.config.context == theirs.config.context
    assert not ours.config.pooler
    right = theirs.fold()
    for key, tensor in ours.fold().items():
        assert_close(tensor, right[key], atol=1e-6, rtol=1e-6, msg=key)
    assert {key for key in right if "pooler" not in key} == set(ours.fold())


def test_a_head_of_its_own_and_one_that_is_tied(tmp_path: Path) -> None:
    folder = zoo.write(tmp_path / "folder", "gpt2-hub")

    def head(writer: gguf.GGUFWriter) -> None:
        writer.add_tensor("output.weight", torch.full((zoo.VOCABULARY, 24), 0.5).numpy())

    assert load(ggufs.write(tmp_path / "tied.gguf", folder)).config.tied
    untied = load(ggufs.write(tmp_path / "untied.gguf", folder, extra=head))
    assert not untied.config.tied
    assert untied.state["lm_head.weight"].unique().tolist() == [0.5]


@pytest.mark.parametrize("layers,scalar", [(3, 8), (46, 6)])
def test_what_scales_queries_of_gemma(layers: int, scalar: int, tmp_path: Path) -> None:
    """The largest one divides its width by its heads, which no field says."""
    folder = zoo.write(tmp_path / "folder", "gemma2")
    path = ggufs.write(tmp_path / "model.gguf", folder)
    content = path.read_bytes()
    count = b"gemma2.block_count" + (4).to_bytes(4, "little")
    path.write_bytes(content.replace(count + (3).to_bytes(4, "little"), count + layers.to_bytes(4, "little")))
    assert load(path, weights=False).config.query_scale == pytest.approx(scalar**-0.5)


# Where it is.


def test_a_file_and_a_folder_with_one(tmp_path: Path) -> None:
    path = ggufs.write(tmp_path / "my-model.Q8_0.gguf", tiny.llama(tmp_path / "folder"))
    assert load(path).name == load(str(path)).name == "my-model.Q8_0"
    assert load(tmp_path).name == tmp_path.name
    (tmp_path / "linked").mkdir()
    link = tmp_path / "linked" / "called.gguf"  # as the hub's cache has files, which are named by their digests
    link.symlink_to(path)
    assert load(link).name == "called"
    assert load(tmp_path).config == load(path).config
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')  # as repositories of such files have it
    assert load(tmp_path).config == load(path).config
    (tmp_path / "mmproj-model.gguf").write_bytes(b"GGUF")
    assert load(tmp_path).config == load(path).config
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    refused(CheckpointError, tmp_path, "2 models", "my-model.Q8_0.gguf", "other.gguf")


def test_a_file_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[str]]] = []

    def snapshot(name: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    ggufs.write(tmp_path / "small.gguf", tiny.llama(tmp_path / "folder"))
    ggufs.write(tmp_path / "large.gguf", tmp_path / "folder")
    assert load("someone/some-GGUF/small.gguf").name == "someone/some-GGUF/small.gguf"
    assert asked == [("someone/some-GGUF", ["small.gguf"])]
    refused(CheckpointError, "someone/some-GGUF/other-00001-of-00002.gguf", "no file")
    assert asked[-1][1] == ["other-00001-of-00002.gguf", "other-00002-of-00002.gguf"]
    (tmp_path / "small.gguf").unlink()
    (tmp_path / "large.gguf").unlink()
    refused(CheckpointError, "someone/some-GGUF", "no config.json", "owner/name/file.gguf")


def test_safetensors_come_first(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path)
    (folder / "other.gguf").write_bytes(b"GGUF")
    assert load(folder).config.layers == 2


def split(path: Path, folder: Path) -> list[Path]:
    """The same model in two files, as llama.cpp's tool for that names and marks them."""
    whole = gguf.GGUFReader(ggufs.write(path, folder))
    paths = [path.with_name(f"{path.stem}-0000{i}-of-00002.gguf") for i in (1, 2)]
    for i, part in enumerate(paths):
        writer = gguf.GGUFWriter(part, "llama")
        for name, field in whole.fields.items() if i == 0 else ():
            if not name.startswith(("GGUF.", "general.architecture")):
                writer.add_key_value(name, field.contents(), field.types[0])
        writer.add_uint16("split.no", i)
        writer.add_uint16("split.count", 2)
        for tensor in whole.tensors[i::2]:
            writer.add_tensor(tensor.name, tensor.data)
        ggufs.finish(writer)
    path.unlink()
    return paths


def test_a_model_in_several_files(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path / "folder")
    first, second = split(tmp_path / "big.gguf", folder)
    for source in (first, second, tmp_path):
        alike(folder, source)
    assert load(second).name == "big"
    second.rename(tmp_path / "elsewhere.bin")
    refused(CheckpointError, first, "lacks big-00002-of-00002.gguf")
    refused(CheckpointError, first.rename(tmp_path / "renamed.gguf"), "one of 2 parts")


def test_weights_that_change_while_they_are_in_use(tmp_path: Path) -> None:
    path = ggufs.write(tmp_path / "model.gguf", tiny.llama(tmp_path / "folder"))
    params = load(path).fold()
    path.write_bytes(path.read_bytes())
    with pytest.raises(CheckpointError, match=r"model\.gguf has been changed meanwhile"):
        params["lm_head.weight"]
    path.unlink()
    with pytest.raises(CheckpointError, match=r"model\.gguf cannot be read"):
        params["lm_head.weight"]


# What is refused.


def refused(kind: type[PumaError], source: Path | str, *words: str) -> None:
    """Loading fails with an error of exactly this kind, with a hint, that says all these words."""
    with pytest.raises(kind) as caught:
        for _ in load(source).fold().values():  # each is read when it is looked up
            pass
    assert type(caught.value) is kind
    assert caught.value.hint
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "extra,words",
    [
        (lambda w: w.add_expert_count(8), ["llama.expert_count", "8"]),
        (lambda w: w.add_logit_scale(0.5), ["llama.logit_scale"]),
        (lambda w: w.add_uint32("llama.something_new", 3), ["llama.something_new", "llama without it"]),
        (lambda w: w.add_sliding_window(8), ["sliding_window", "window"]),
        (lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE), ["rope.scaling.type", "longrope"]),
        (lambda w: w.add_rope_scaling_yarn_ext_factor(0.5), ["yarn_ext_factor"]),
        (lambda w: w.add_rope_scaling_attn_factors(1.2), ["attn_factor"]),
        (lambda w: w.add_type("adapter"), ["adapter", "no model"]),
        (lambda w: w.add_value_length(7), ["value_length"]),
        (lambda w: w.add_causal_attention(False), ["attention.causal", "look ahead"]),
    ],
)
def test_settings_that_are_not_implemented(extra: ggufs.Extra, words: list[str], tmp_path: Path) -> None:
    path = ggufs.write(tmp_path / "model.gguf", tiny.llama(tmp_path / "folder"), extra=extra)
    refused(UnsupportedModel, path, *words)


def test_settings_that_change_nothing(tmp_path: Path) -> None:
    def extra(writer: gguf.GGUFWriter) -> None:
        writer.add_expert_count(0)
        writer.add_sliding_window(4096)
        writer.add_name("A name")
        writer.add_rope_scaling_finetuned(False)

    folder = tiny.llama(tmp_path / "folder")
    alike(folder, ggufs.write(tmp_path / "model.gguf", folder, extra=extra))


def test_an_architecture_that_is_not_implemented(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "mamba")
    ggufs.finish(writer)
    refused(UnsupportedModel, tmp_path / "model.gguf", "mamba", "llama, qwen2")


def test_layers_that_differ(tmp_path: Path) -> None:
    path = ggufs.write(tmp_path / "model.gguf", tiny.llama(tmp_path / "folder"), extra=lambda w: None)
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "llama")
    for name, field in gguf.GGUFReader(path).fields.items():
        if not name.startswith(("GGUF.", "general.architecture", "llama.attention.head_count_kv")):
            writer.add_key_value(name, field.contents(), field.types[0])
    writer.add_head_count_kv([2, 4])
    ggufs.finish(writer)
    refused(UnsupportedModel, tmp_path / "other.gguf", "head_count_kv", "alike")


@pytest.mark.parametrize(
    "tensor,words",
    [
        ("blk.0.ffn_gate_inp.weight", ["blk.0.ffn_gate_inp.weight", "has not"]),
        ("blk.0.attn_q_norm.weight", ["q_norm", "has not"]),
    ],
)
def test_tensors_that_no_such_model_has(tensor: str, words: list[str], tmp_path: Path) -> None:
    def extra(writer: gguf.GGUFWriter) -> None:
        writer.add_tensor(tensor, torch.zeros(6).numpy())

    path = ggufs.write(tmp_path / "model.gguf", tiny.llama(tmp_path / "folder"), extra=extra)
    refused(TensorError, path, *words)


def test_tensors_that_are_missing_or_not_finite(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path / "folder")
    tiny.edit(folder, lambda state: state["model.layers.1.mlp.up_proj.weight"][0].fill_(float("nan")))
    refused(TensorError, ggufs.write(tmp_path / "nan.gguf", folder), "up_proj.weight in nan.gguf", "NaN")
    tiny.edit(folder, lambda state: state.pop("model.layers.1.mlp.up_proj.weight"))
    refused(TensorError, ggufs.write(tmp_path / "less.gguf", folder), "up_proj.weight", "missing")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = ggufs.write(tmp_path / "model.gguf", tiny.llama(tmp_path / "folder"))
    content = path.read_bytes()
    refused(CheckpointError, tmp_path / "nowhere.gguf", "no file")
    for label, broken, words in (
        ("empty", b"", ["cannot be read"]),
        ("strange", b"PK\3\4" + content[4:], ["as GGUF files do"]),
        ("cut", content[:200], ["ends early"]),
        ("short", content[:-100], ["ends before"]),
        ("endless", content[:8] + b"\xff" * 16 + content[24:], ["cannot be read"]),
    ):
        path.write_bytes(broken)
        with pytest.raises(CheckpointError) as caught:
            load(path).fold()
        assert all(word in str(caught.value) for word in words), label
    path.write_bytes(content[:4] + (1).to_bytes(4, "little") + content[8:])
    refused(UnsupportedModel, path, "version 1")
    path.write_bytes(content[:4] + (3).to_bytes(4, "big") + content[8:])
    refused(UnsupportedModel, path, "big-endian")


def test_what_is_cut_anywhere_is_refused_by_name(tmp_path: Path) -> None:
    """However much of a download is there, it is an error of ours, with a hint."""
    path = ggufs.write(tmp_path / "model.gguf", tiny.llama(tmp_path / "folder"))
    content = path.read_bytes()
    for size in range(0, len(content), max(len(content) // 200, 1)):
        path.write_bytes(content[:size])
        with pytest.raises(CheckpointError) as caught:
            load(path).fold()
        assert caught.value.hint


@pytest.mark.parametrize("name", ["llama-3", "gemma3", "t5-gated", "gpt2-hub", "neox", "roberta", "phi3"])
def test_damaged_headers_are_refused_by_name(name: str, tmp_path: Path) -> None:
    """Whatever bytes there are, it is an error of ours, or a model."""
    path = ggufs.write(tmp_path / "model.gguf", zoo.write(tmp_path / "folder", name), extra=chatty)
    content = path.read_bytes()
    start = min(place.offset for place in header.read(path).places.values())
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        at, value = (int(torch.randint(end, (1,), generator=generator)) for end in (start, 256))
        path.write_bytes(content[:at] + bytes([value]) + content[at + 1 :])
        try:
            found = load(path)
            if found.files:
                found.open_tokenizer()
        except PumaError as error:
            assert error.hint


def chatty(writer: gguf.GGUFWriter) -> None:
    """A few fields of a tokenizer."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(4)), "▁", "a", "b", "ab", "▁ab"]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([float(-i) for i in range(len(words))])
    writer.add_token_types([2, 3, 3, 6, 6, 6, 6, 1, 1, 1, 1, 1])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ messages }}")


def test_a_client_needs_no_tensors(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path / "folder")
    checkpoint = load(ggufs.write(tmp_path / "model.gguf", folder), weights=False)
    assert checkpoint.config == load(folder, weights=False).config
    assert not checkpoint.state


def test_config_json_is_what_is_read(tmp_path: Path) -> None:
    """Float32 fields come back as they were written in decimal."""
    folder = tiny.llama(tmp_path / "folder", rms_norm_eps=1e-5, rope_theta=123456.7)
    config = load(ggufs.write(tmp_path / "model.gguf", folder)).config
    said = json.loads((folder / "config.json").read_text())
    assert (config.eps, config.rope.theta) == (said["rms_norm_eps"], 123456.7)
