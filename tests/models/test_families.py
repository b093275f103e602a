"""Every family equals transformers on tensors, at the prompt and at every cached step, alone and in a batch."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from puma.models import Cache, vit
from tests.models import zoo
from tests.models.plain import one_hot, open_model

IDS = [2, 5, 7, 9, 27, 6, 8, 20, 3]
BATCH = [IDS[:3], IDS[2:], IDS[5:6], IDS[1:8]]
LENGTHS = [len(ids) for ids in BATCH]
TYPES = [0] * 5 + [1] * 4


def near(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert_close(found, expected, atol=2e-5, rtol=2e-5)


def answered(reference: Any, folder: Path, ids: list[int], **more: Any) -> Any:
    """What transformers gives."""
    with torch.no_grad():
        return reference(folder)(torch.tensor([ids]), output_hidden_states=True, **more)


@pytest.mark.parametrize("name", zoo.CAUSAL)
def test_causal(name: str, tmp_path: Path, reference: Any) -> None:
    folder = zoo.write(tmp_path, name)
    checkpoint, model = open_model(folder)
    expected = answered(reference, folder, IDS)
    rows = one_hot(IDS, zoo.VOCABULARY)
    near(model(rows)[0], expected.logits[0, -1])
    near(model.hidden(rows), expected.hidden_states[-1][0])
    cache = Cache(checkpoint.config.layers)
    near(model(rows[:4], cache)[0], expected.logits[0, 3])
    near(model(rows[4:7], cache)[0], expected.logits[0, 6])  # several tokens after a cached prefix
    for i in (7, 8):
        near(model(rows[i : i + 1], cache)[0], expected.logits[0, i])
    assert model(rows, ranked=True).argmax() == expected.logits[0, -1].argmax()


@pytest.mark.parametrize("name", zoo.SEQ2SEQ)
def test_an_answer_to_a_prompt(name: str, tmp_path: Path, reference: Any) -> None:
    folder = zoo.write(tmp_path, name)
    checkpoint, model = open_model(folder)
    answer = [0, 9, 4, 12, 3, 3, 8]
    expected = answered(reference, folder, IDS, decoder_input_ids=torch.tensor([answer]))
    cache = Cache(checkpoint.config.layers)
    near(model(one_hot(IDS, zoo.VOCABULARY), cache)[0], expected.logits[0, 0])
    for i, token in enumerate(answer[1:], 1):
        near(model(one_hot([token], zoo.VOCABULARY), cache)[0], expected.logits[0, i])
    near(model.hidden(one_hot(IDS, zoo.VOCABULARY)), expected.encoder_last_hidden_state[0])


@pytest.mark.parametrize("name", ["t5", "mistral", "gemma2", "gemma3", "neox", "opt", "qwen3"])
def test_a_batch_is_its_prompts(name: str, tmp_path: Path) -> None:
    checkpoint, model = open_model(zoo.write(tmp_path, name))
    together, alone = Cache(checkpoint.config.layers, LENGTHS), [Cache(checkpoint.config.layers) for _ in BATCH]
    for step in (BATCH, [[5 + i] for i in range(4)], [[9]] * 4):
        found = model(one_hot([*chain(*step)], zoo.VOCABULARY), together)
        near(found, torch.cat([model(one_hot(ids, zoo.VOCABULARY), c) for ids, c in zip(step, alone, strict=True)]))


@pytest.mark.parametrize("name", zoo.ENCODERS)
def test_encoder(name: str, tmp_path: Path, reference: Any) -> None:
    folder = zoo.write(tmp_path, name)
    checkpoint, model = open_model(folder)
    kinds = TYPES if checkpoint.config.type_vocab_size > 1 else None
    expected = answered(reference, folder, IDS, **({"token_type_ids": torch.tensor([kinds])} if kinds else {}))
    hidden = model(one_hot(IDS, zoo.VOCABULARY), kinds)
    near(hidden, expected.last_hidden_state[0])
    if checkpoint.config.pooler:
        near(model.pool(hidden)[0], expected.pooler_output[0])


@pytest.mark.parametrize("name", zoo.HEADS)
def test_heads_of_encoders(name: str, tmp_path: Path, reference: Any) -> None:
    folder = zoo.write(tmp_path, name)
    checkpoint, model = open_model(folder)
    expected = answered(reference, folder, IDS).logits[0]
    hidden = model(one_hot(IDS, zoo.VOCABULARY))
    if "MaskedLM" in name:
        near(model.predict(hidden, [1, 4]), expected[[1, 4]])
        return
    assert checkpoint.config.labels == ("bad", "fair", "good")
    near(model.classify(hidden), expected.reshape(-1, 3))
    hidden = model(one_hot([*chain(*BATCH)], zoo.VOCABULARY), None, LENGTHS)
    alone = [model.classify(model(one_hot(ids, zoo.VOCABULARY))) for ids in BATCH]
    near(model.classify(hidden, LENGTHS), torch.cat(alone))


@pytest.mark.parametrize("name", zoo.IMAGES)
def test_images(name: str, tmp_path: Path, reference: Any) -> None:
    folder = zoo.write(tmp_path, name)
    checkpoint, model = open_model(folder)
    config = checkpoint.config
    pixels = torch.randn(2, config.channels, config.image_size, config.image_size)
    with torch.no_grad():
        expected = reference(folder)(pixels).logits
    hidden = model(torch.cat([vit.patches(config, image) for image in pixels]))
    near(model.classify(hidden), expected)


@pytest.mark.parametrize("name", zoo.LAST)
def test_heads_of_decoders(name: str, tmp_path: Path, reference: Any) -> None:
    folder = zoo.write(tmp_path, name)
    checkpoint, model = open_model(folder)
    near(
        model.classify(model.hidden(one_hot(IDS, checkpoint.config.vocab_size))),
        answered(reference, folder, IDS).logits,
    )
