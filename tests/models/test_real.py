"""Real checkpoints, if PUMA_TEST_DATA names a folder that holds them: the plain run equals transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.testing import assert_close

from puma.client.chat.format import chat_format
from puma.models import Cache
from puma.models.text import decode, encode
from puma.reference.plain_model import PlainModel
from tests.models.plain import one_hot, open_model

Find = Callable[[str], Path]
SENTENCE = "An uncommonly good film, if a little long."


def greedy(model: Any, size: int, ids: list[int], tokens: int) -> list[int]:
    """Greedy continuation with a cache."""
    cache, new = Cache(model.config.layers), list(ids)
    for _ in range(tokens):
        feed = new if cache.length == 0 else new[-1:]
        new.append(int(model(one_hot(feed, size), cache).argmax()))
    return new[len(ids) :]


def test_stories(real: Find, reference: Any) -> None:
    folder = real("stories260k-hf")
    checkpoint, model = open_model(folder)
    tokenizer = checkpoint.open_tokenizer()
    ids = encode(tokenizer, checkpoint.config, "Once upon a time").ids
    assert ids[0] == checkpoint.bos == 1
    settings = {"max_new_tokens": 40, "do_sample": False, "pad_token_id": 0}
    prompt = torch.tensor([ids])
    expected = reference(folder).generate(prompt, attention_mask=torch.ones_like(prompt), **settings)[0]
    found = greedy(model, checkpoint.config.vocab_size, ids, 40)
    assert found == expected[len(ids) :].tolist()
    assert "there was a little girl" in decode(tokenizer, found)


def test_adder(real: Find) -> None:
    checkpoint, model = open_model(real("minigpt-adder-hf"))
    tokenizer = checkpoint.open_tokenizer()
    for a, b in ((47, 52), (0, 0), (99, 99), (5, 68), (81, 19)):
        ids = encode(tokenizer, checkpoint.config, f"{a:02}{b:02}").ids
        digits = greedy(model, checkpoint.config.vocab_size, ids, 3)
        assert sum(digit * 10**i for i, digit in enumerate(digits)) == a + b


def test_sentence_encoder(real: Find, reference: Any) -> None:
    folder = real("minilm-hf-fp16")
    checkpoint, model = open_model(folder)
    ids = encode(checkpoint.open_tokenizer(), checkpoint.config, SENTENCE).ids
    with torch.no_grad():
        expected = reference(folder)(torch.tensor([ids]))
    hidden = model(one_hot(ids, checkpoint.config.vocab_size))
    assert_close(hidden, expected.last_hidden_state[0], atol=1e-5, rtol=1e-5)
    assert_close(model.pool(hidden)[0], expected.pooler_output[0], atol=1e-5, rtol=1e-5)


def test_sentiment(real: Find, reference: Any) -> None:
    folder = real("minilm-sst2-hf")
    checkpoint, model = open_model(folder)
    ids = encode(checkpoint.open_tokenizer(), checkpoint.config, SENTENCE).ids
    with torch.no_grad():
        expected = reference(folder)(torch.tensor([ids])).logits[0]
    logits = model.classify(model(one_hot(ids, checkpoint.config.vocab_size)))[0]
    assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert checkpoint.config.labels[int(logits.argmax())] == "positive"


def test_chat_model_in_a_gguf_file(real: Find) -> None:
    """SmolLM2-135M-Instruct, mostly Q4_1: 12 tokens of the dequantised weights in float32, token for token."""
    checkpoint, model = open_model(real("smollm2"))
    tokenizer = checkpoint.open_tokenizer()
    ids = encode(tokenizer, checkpoint.config, "The capital of France is").ids
    found = greedy(model, checkpoint.config.vocab_size, ids, 12)
    assert decode(tokenizer, found) == " Paris.\n\nThe answer is: 201"
    clear = PlainModel(real("smollm2"))
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    ids = clear.prompt_ids(chat_format(clear).render(chat), 16, special=False)
    found = greedy(model, checkpoint.config.vocab_size, ids, 8)
    assert decode(tokenizer, found) == "The capital of France is Paris."
    assert found[-1:] == list(checkpoint.eos) == [2]
