"""Text becomes the checkpoint's tokens; what cannot be served is refused with a hint."""

from __future__ import annotations

from pathlib import Path

import pytest

from puma.errors import CheckpointError, InputError
from puma.models import presets
from puma.models.checkpoint import load
from puma.models.text import check_batch, check_length, decode, encode, open_tokenizer
from tests.models import tiny


def test_special_tokens_are_the_checkpoints(tmp_path: Path) -> None:
    llama = load(tiny.llama(tmp_path / "llama"))
    tokenizer = llama.open_tokenizer()
    tokens = encode(tokenizer, llama.config, "the cat sat")
    assert tokens.ids == [1, 5, 7, 9]
    assert decode(tokenizer, [*tokens.ids, 2]) == "the cat sat"
    bert = load(tiny.bert(tmp_path / "bert"))
    tokens = encode(bert.open_tokenizer(), bert.config, "the cat", "a dog sat")
    assert tokens.ids == [3, 5, 7, 4, 6, 8, 9, 4]
    assert tokens.types == [0, 0, 0, 0, 1, 1, 1, 1]


def test_padding_and_truncation_are_switched_off(tmp_path: Path) -> None:
    checkpoint = load(tiny.bert(tmp_path))
    tokenizer = checkpoint.open_tokenizer()
    tokenizer.enable_padding(length=8)
    tokenizer.enable_truncation(4)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    checkpoint = load(tmp_path)
    tokenizer = checkpoint.open_tokenizer()
    assert len(encode(tokenizer, checkpoint.config, "the").ids) == 3
    assert len(encode(tokenizer, checkpoint.config, "the cat sat on the mat").ids) == 8


def test_a_context_that_longrope_cuts_short_is_named(tmp_path: Path) -> None:
    factors = {"short_factor": [1.0, 1.1, 1.3], "long_factor": [2.0, 3.0, 4.0]}
    scaling = {"rope_type": "longrope", "original_max_position_embeddings": 8} | factors
    config = load(tiny.llama(tmp_path, rope_scaling=scaling)).config
    check_length(config, 8)
    for lengths in ((9, 1), (8, 2)):
        with pytest.raises(InputError, match="longrope turns every token in another way"):
            check_length(config, *lengths)


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_empty_prompt(prompt: str, tmp_path: Path) -> None:
    checkpoint = load(tiny.llama(tmp_path))
    with pytest.raises(InputError, match="empty"):
        encode(checkpoint.open_tokenizer(), checkpoint.config, prompt)


def test_tokens_outside_the_vocabulary(tmp_path: Path) -> None:
    checkpoint = load(tiny.llama(tmp_path, vocab_size=10))
    with pytest.raises(InputError, match="vocabulary of 10"):
        encode(checkpoint.open_tokenizer(), checkpoint.config, "the mat")


def test_length() -> None:
    config = presets.preset("bert-base")
    check_length(config, 512)
    check_length(config, 500, 13)  # the thirteenth is answered, and not fed back
    for prompt, tokens in ((0, 1), (513, 1), (500, 14)):
        with pytest.raises(InputError) as caught:
            check_length(config, prompt, tokens)
        assert caught.value.hint


def test_batches() -> None:
    config = presets.preset("gpt2")
    check_batch(config, [1000])  # a single prompt may fill the context, whatever it takes
    check_batch(config, [5, 400, 30], 25)
    for lengths, tokens, says in (
        ([], 1, "no prompt"),
        ([5, 0], 1, "empty"),
        ([-3, 5], 1, "empty"),
        ([5, 1025], 1, "context 1024"),
        ([5, 1000], 26, "exceed the model's context"),
        ([1] * 257, 1, "257 prompts are more than 256"),
        ([1000] * 2, 1, "make tensors of 24,000,000 numbers"),
        ([1] * 8, 1000, "make tensors of 24,576,000 numbers"),
    ):
        with pytest.raises(InputError, match=says) as caught:
            check_batch(config, lengths, tokens)
        assert caught.value.hint


def test_tokenizer_that_cannot_be_read(tmp_path: Path) -> None:
    (tiny.llama(tmp_path) / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        load(tmp_path).open_tokenizer()
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_tokenizer(tmp_path / "tokenizer.json")
