"""A GGUF file wherever a model is named: it answers, is checked and priced, and its tokenizer goes with it."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
from tokenizers import pre_tokenizers

from puma.client.chat.format import chat_format
from puma.reference.plain_model import PlainModel
from tests.cli.conftest import Run
from tests.models import tiny
from tests.models.files import ggufs, vocabularies

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quantised LLaMA with a byte-level tokenizer and a chat template, alone in a folder."""
    place = tmp_path_factory.mktemp("gguf")
    vocabulary, merges = vocabularies.byte_pairs(pre_tokenizers.ByteLevel(add_prefix_space=False), SPECIAL, 400)

    def extra(writer: gguf.GGUFWriter) -> None:
        kinds = dict.fromkeys(SPECIAL, vocabularies.CONTROL)
        vocabularies.byte_fields(vocabulary, merges, "smollm", kinds, bos=1, eos=2)(writer)
        writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}")

    folder = tiny.llama(
        place / "folder", vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, max_position_embeddings=64
    )
    (place / "alone").mkdir()
    return ggufs.write(place / "alone" / "chatty.gguf", folder, gguf.GGMLQuantizationType.Q8_0, extra)


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
