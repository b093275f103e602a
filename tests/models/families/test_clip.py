"""CLIP's towers: two models in one folder, whose vectors lie side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from puma import LocalCluster
from puma.errors import CheckpointError, UnsupportedModel
from puma.models import architecture, heads, images
from puma.models.checkpoint import load
from puma.models.text import checked
from puma.reference.plain_model import PlainModel
from tests.models import zoo
from tests.models.library.compare import quiet
from tests.models.plain import one_hot, open_model
from tests.threads import Threads

PROMPTS = [[2, 5, 7, 3], [2, 8, 3], [2, 20, 9, 11, 6, 3]]


@pytest.fixture
def whole(tmp_path: Path) -> tuple[Path, Any]:
    """A folder of both towers, and the library's model of it."""
    with quiet() as transformers:
        text, seen = (
            {k: v for k, v in sizes.items() if k != "projection_dim"} for sizes in (zoo.CLIP_TEXT, zoo.CLIP_VISION)
        )
        config = transformers.CLIPConfig(text_config=text, vision_config=seen, projection_dim=10)
        model = transformers.CLIPModel(config).eval()
        zoo.fill(model)
        model.save_pretrained(tmp_path)
    return tmp_path, model


def vectors(folder: Path, rows: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """What a tower makes of rows, of length one."""
    _, model = open_model(folder)
    found = model.embed(model.states(rows, lengths), lengths)
    return found / found.norm(dim=-1, keepdim=True)


def test_images_are_classified_by_words_of_ones_own(whole: tuple[Path, Any]) -> None:
    folder, model = whole
    pixels = torch.randn(2, 3, 8, 8)
    config: Any = load(folder / "vision_model").config
    patches = torch.cat([images.patches(config, image) for image in pixels])
    seen = vectors(folder / "vision_model", patches, [5, 5])
    ids = [token for prompt in PROMPTS for token in prompt]
    said = vectors(folder / "text_model", one_hot(ids, zoo.VOCABULARY), [len(prompt) for prompt in PROMPTS])
    with torch.no_grad():
        alone = [model(input_ids=torch.tensor([ids]), pixel_values=pixels).logits_per_image for ids in PROMPTS]
    assert_close(model.logit_scale.exp() * seen @ said.T, torch.cat(alone, 1), atol=2e-4, rtol=2e-4)


def test_parties_see_an_image_as_the_owner_does(whole: tuple[Path, Any], tmp_path: Path) -> None:
    clear = PlainModel(whole[0] / "vision_model")
    numpy.save(tmp_path / "it.npy", numpy.arange(8 * 8 * 3, dtype=numpy.uint8).reshape(8, 8, 3))
    with Threads() as trio, LocalCluster(clear, trio=trio) as cluster:  # type: ignore[arg-type]
        (found,) = cluster.encode([str(tmp_path / "it.npy")])
    expected = clear.encoded(clear.sentence_ids(str(tmp_path / "it.npy")))
    assert_close(found.values.float(), expected.float(), atol=0.02, rtol=0)
    assert found.values.shape == (10,) and abs(float(found.values.norm()) - 1) < 1e-3


def test_a_tower_is_named(whole: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = whole
    checkpoint = load(folder / "text_model")
    monkeypatch.chdir(folder)
    for named in (f"{folder}/text_model/", "text_model"):
        assert load(named).config == checkpoint.config
    assert checkpoint.name == f"{folder.name}-text_model" and checkpoint.architecture == "CLIPTextModelWithProjection"
    assert not architecture(checkpoint.config).heads(checkpoint.config).generates
    with pytest.raises(UnsupportedModel, match="several models") as refused:
        load(folder)
    assert "vision_model" in refused.value.hint
    with pytest.raises(CheckpointError, match="there is no folder"):
        load(folder / "audio_model")


def test_matrices_beside_an_encoder(tmp_path: Path) -> None:
    folder = zoo.write(tmp_path, "xlm-roberta")
    body = open_model(folder)[1]
    states = body.states(one_hot([2, 5, 7, 9], zoo.VOCABULARY), [4])
    with pytest.raises(CheckpointError, match="could run code") as refused:
        load(folder / "sparse_linear")
    assert "sparse_linear.safetensors" in refused.value.hint
    for name, rows in (("sparse_linear", 1), ("colbert_linear", 24)):
        weight, bias = torch.randn(rows, 24), torch.randn(rows)
        save_file({"weight": weight, "bias": bias}, folder / f"{name}.safetensors")
        checkpoint, model = open_model(folder / name)
        answers = heads(checkpoint.config)
        assert len(answers.labels) == rows and answers.each_token
        found = model.classify(model.states(one_hot([2, 5, 7, 9], zoo.VOCABULARY), [4]))
        assert_close(found, states @ weight.T + bias, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(("part", "rows"), [("sparse_linear", 1), ("colbert_linear", 24)])
def test_parties_give_a_matrix_of_tokens(part: str, rows: int, tmp_path: Path) -> None:
    """The weights, or vectors, of all tokens of texts of several lengths, as BGE-M3's own code computes them."""
    folder = zoo.write(tmp_path, "xlm-roberta")
    weight, bias = torch.randn(rows, 24), torch.randn(rows)
    save_file({"weight": weight, "bias": bias}, folder / f"{part}.safetensors")
    clear, body = PlainModel(folder / part), open_model(folder)[1]
    texts = ["the cat sat on the mat", "a dog", "they went home then"]
    with Threads() as trio, LocalCluster(clear, trio=trio) as cluster:  # type: ignore[arg-type]
        found = cluster.encode(texts)
    for text, each in zip(texts, found, strict=True):
        ids = clear.sentence_ids(text).ids
        states = body.states(one_hot(ids, zoo.VOCABULARY), [len(ids)])
        assert each.values.shape == (len(ids), rows)
        assert_close(each.values.float(), states @ weight.T + bias, atol=0.03, rtol=0)


def test_what_has_no_towers_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="no model with a text_model"):
        load(zoo.write(tmp_path, "mpnet") / "text_model")


@pytest.mark.parametrize(("end", "read"), [(3, 5), (2, 3), (9, 6), (28, 1)])
def test_a_text_ends_where_the_library_looks_for_its_end(end: int, read: int, tmp_path: Path, reference: Any) -> None:
    """At the first token that ends it; at the largest one in older files, which say 2; at the first where none does."""
    ids, folder = [2, 5, 20, 7, 3, 9, 3], zoo.write(tmp_path, "clip-text", eos_token_id=end)
    tokens = checked(load(folder).config, ids, [0] * len(ids)).ids
    assert tokens == ids[:read]
    with torch.no_grad():
        expected = reference(folder)(input_ids=torch.tensor([ids])).text_embeds
    found = vectors(folder, one_hot(tokens, zoo.VOCABULARY), [len(tokens)])
    assert_close(found, expected / expected.norm(dim=-1, keepdim=True), atol=2e-5, rtol=2e-5)
