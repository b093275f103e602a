"""A GGUF file wherever a model is named: it answers, is checked and priced, and its tokenizer goes with it."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
from torch.testing import assert_close

from puma.client.chat.format import chat_format
from puma.models.checkpoint import load
from puma.reference.plain_model import PlainModel
from tests.cli.conftest import Run
from tests.models import tiny
from tests.models.files import ggufs, talking
from tests.models.lora import adapters


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talking.write(tmp_path_factory.mktemp("gguf"))


@pytest.mark.processes
@pytest.mark.usefixtures("lent")
def test_generate(puma: Run, file: Path) -> None:
    found = puma("generate", file, "the cat sat", "--tokens", 3, "--compare", "--json").json
    assert found["compare"]["agree"] and len(found["token_ids"]) == 3
    again = puma("generate", file.parent, "the cat sat", "--tokens", 3, "--json").json
    assert again["token_ids"] == found["token_ids"]


def test_check_and_cost(puma: Run, file: Path) -> None:
    assert puma("check", file, "--limit", 2, "--json").json["holds"]
    from_file = puma("cost", file, "--prompt", 8, "--tokens", 2, "--json").json
    from_folder = puma("cost", file.parents[1] / "folder", "--prompt", 8, "--tokens", 2, "--json").json
    assert from_file["model"] == "chatty"
    assert {k: v for k, v in from_file.items() if k != "model"} == {
        k: v for k, v in from_folder.items() if k != "model"
    }


def test_what_goes_to_clients(file: Path) -> None:
    clear = PlainModel(file)
    assert clear.name == "chatty"
    assert set(clear.files) == {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert clear.decode(clear.prompt_ids("the cat", 1)) == "the cat"
    prompt = chat_format(clear).render([{"role": "user", "content": "hi"}])
    assert prompt == "<|im_start|>hi<|im_end|>"
    assert clear.prompt_ids(prompt, 1, special=False)[0] == 1


def test_a_file_that_is_not_there(puma: Run, tmp_path: Path) -> None:
    ran = puma("generate", tmp_path / "nowhere.gguf", "the cat")
    assert ran.code == 3
    assert "there is no file" in ran.err and "hint" in ran.err


@pytest.mark.processes
@pytest.mark.usefixtures("lent")
def test_an_adapter_over_it(puma: Run, file: Path, tmp_path: Path) -> None:
    """Merged with what the quantised matrix stands for, and in its own order of rows."""
    tensors = adapters.low("model.layers.0.self_attn.q_proj", 32, 32) | adapters.low(
        "model.layers.1.mlp.up_proj", 64, 32
    )
    adapter = adapters.write(tmp_path / "adapter", tensors)
    before, after = load(file).state, load(file, adapter=adapter).state
    for name, tensor in before.items():
        module = name.removesuffix(".weight")
        added = 0
        if f"{module}.lora_A.weight" in tensors:
            added = 2 * tensors[f"{module}.lora_B.weight"] @ tensors[f"{module}.lora_A.weight"]
        assert_close(after[name], tensor + added)
    asked = ("generate", file, "the cat sat", "--tokens", 3, "--json")
    found = puma(*asked, "--adapter", adapter, "--compare").json
    assert found["compare"]["agree"] and found["token_ids"] != puma(*asked).json["token_ids"]


def test_what_it_says_of_chance(tmp_path: Path) -> None:
    def extra(writer: gguf.GGUFWriter) -> None:
        writer.add_float32("general.sampling.temp", 0.5)
        writer.add_int32("general.sampling.top_k", 7)

    file = ggufs.write(tmp_path / "model.gguf", tiny.llama(tmp_path), extra=extra)
    assert load(file).files["generation_config.json"]() == b'{"do_sample": true, "temperature": 0.5, "top_k": 7}'
