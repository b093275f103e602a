"""What a name on the hub brings: every file that a model needs, and no copy of it in another form."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from puma.client.chat.format import chat_format
from puma.errors import CheckpointError
from puma.models.checkpoint import load
from puma.models.files import adapter
from puma.reference.plain_model import PlainModel
from tests.models import tiny
from tests.models.files.hubs import Hub
from tests.models.lora import adapters

NAME = "someone/model"
COPIES = (
    "onnx/model.onnx", "onnx/config.json", "openvino/openvino_model.bin", "pytorch_model.bin", "tf_model.h5",
    "flax_model.msgpack", "original/consolidated.00.pth", "consolidated.safetensors", "README.md", "rust_model.ot",
    "checkpoint-500/model.safetensors", "checkpoint-500/config.json", "coreml/model.mlpackage/weights.bin",
)  # fmt: skip
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    return Hub(tmp_path / "hub", tmp_path / "cache", monkeypatch)


def add(folder: Path, *files: str, content: str = "{}") -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(content)


def test_a_chat_model(hub: Hub) -> None:
    folder = tiny.llama(hub.folder / NAME)
    public = ["generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]
    add(folder, *COPIES, *public)
    add(folder, "chat_template.jinja", "additional_chat_templates/tool_use.jinja", content="{{ messages }}")
    vocabularies = {"merges.txt", "tokenizer.model", "vocab.json", "source.spm", "target.spm"}
    add(folder, *vocabularies)
    found = PlainModel(NAME)
    needed = {"config.json", "model.safetensors", "tokenizer.json"} | vocabularies
    templates = {"chat_template.jinja", "additional_chat_templates/tool_use.jinja"}
    assert set(hub.fetched) == needed | templates | set(public)
    assert chat_format(found).templates.keys() == {"default", "tool_use"}


def test_a_client_needs_no_weights(hub: Hub) -> None:
    add(tiny.llama(hub.folder / NAME), *COPIES)
    load(NAME, weights=False)
    assert set(hub.fetched) == {"config.json", "tokenizer.json"}


def test_sentences(hub: Hub) -> None:
    folder = tiny.bert(hub.folder / NAME)
    add(folder, *COPIES, "sentence_bert_config.json", "config_sentence_transformers.json", "vocab.txt")
    add(folder, "modules.json", content=json.dumps(MODULES))
    add(folder, "1_Pooling/config.json", content='{"pooling_mode_cls_token": true}')
    add(folder, "2_Unused/config.json", "1_Pooling/notes.md")
    assert load(NAME).config.pooling.modes == ("cls",)  # type: ignore[union-attr]
    wanted = {"modules.json", "1_Pooling/config.json", "sentence_bert_config.json"}
    assert wanted | {"config_sentence_transformers.json", "vocab.txt"} <= set(hub.fetched)
    assert not {"2_Unused/config.json", "1_Pooling/notes.md", *COPIES} & set(hub.fetched)


def test_weights_of_modules(hub: Hub) -> None:
    """Whether such a module is computed is said elsewhere; what is refused must not be a file that did not come."""
    folder = tiny.bert(hub.folder / NAME)
    module = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    add(folder, "modules.json", content=json.dumps([*MODULES, module]))
    add(folder, "1_Pooling/config.json", content='{"pooling_mode_cls_token": true}')
    add(folder, "2_Dense/config.json", "2_Dense/model.safetensors", "2_Dense/pytorch_model.bin")
    with contextlib.suppress(CheckpointError):
        load(NAME)
    assert {"2_Dense/config.json", "2_Dense/model.safetensors"} <= set(hub.fetched)
    assert "2_Dense/pytorch_model.bin" not in hub.fetched


def test_a_file_in_a_folder_of_its_own(hub: Hub) -> None:
    """As large models lie in parts, a folder for each way of quantising."""
    parts = [f"Q8_0/model-0000{i}-of-00002.gguf" for i in (1, 2)]
    add(hub.folder / NAME, *parts, "Q4_0/model-00001-of-00002.gguf", content="GGUF")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(f"{NAME}/{parts[0]}")
    assert hub.fetched == parts
    for strange in ("../other.gguf", "Q8_0/../../other.gguf"):
        with pytest.raises(CheckpointError, match="there is no file"):
            load(f"{NAME}/{strange}")


def test_an_adapter(hub: Hub) -> None:
    tiny.llama(hub.folder / NAME)
    folder = adapters.write(hub.folder / "someone/lora", adapters.low("model.layers.0.self_attn.q_proj", 24, 24))
    add(folder, "checkpoint-9/adapter_model.safetensors", "optimizer.pt", "adapter_model.bin")
    adapter.opened("someone/lora")
    assert set(hub.fetched) == {"adapter_config.json", "adapter_model.safetensors"}


@pytest.mark.parametrize(
    "files,words",
    [
        (("pytorch_model.bin",), ("could run code", "hf download someone/model", "save_pretrained")),
        (("pytorch_model-00001-of-00002.bin",), ("could run code",)),
        (("model-Q4_K_M.gguf", "model-Q8_0.gguf"), ("GGUF files", "someone/model/model-Q4_K_M.gguf")),
        (("Q8_0/model-00001-of-00002.gguf",), ("GGUF files", "someone/model/Q8_0/model-00001-of-00002.gguf")),
        ((), ("no model.safetensors",)),
    ],
)
def test_weights_in_another_form_only(files: tuple[str, ...], words: tuple[str, ...], hub: Hub) -> None:
    folder = tiny.llama(hub.folder / NAME)
    (folder / "model.safetensors").unlink()
    add(folder, *files)
    with pytest.raises(CheckpointError) as error:
        load(NAME)
    assert all(word in str(error.value) for word in words), error.value
    assert not set(files) & set(hub.fetched)
