"""Folders of sentence-transformers: which states make a text's vector, and what is refused rather than ignored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from puma.errors import CheckpointError, UnsupportedModel
from puma.local.cluster import LocalCluster
from puma.models import heads
from puma.models.checkpoint import load
from puma.reference.plain_model import PlainModel
from tests.models import tiny
from tests.threads import Threads

OWN = "sentence_transformers.models."
TEXTS = ["the cat sat", "a big dog ran", "it"]


def sentences(folder: Path, pooling: dict[str, Any] | None, *more: str) -> Path:
    """A tiny BERT with modules.json as the library writes it."""
    made = tiny.bert(folder, num_hidden_layers=1)
    kinds = ["Transformer", *([] if pooling is None else ["Pooling"]), *more]
    paths = ["", *(f"{i}_{kind}" for i, kind in enumerate(kinds[1:], 1))]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": OWN + kind}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    (made / "modules.json").write_text(json.dumps(modules))
    if pooling is not None:
        (made / "1_Pooling").mkdir()
        (made / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 24} | pooling))
    return made


CLS, MEAN = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, {"pooling_mode_mean_tokens": True}


@pytest.mark.parametrize(
    ("pooling", "found"),
    [
        (CLS, "cls"),
        (MEAN, "mean"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "mean", "include_prompt": True}, "mean"),
        (None, ""),
    ],
)
def test_what_the_folder_says(pooling: Any, found: str, tmp_path: Path) -> None:
    assert heads(load(sentences(tmp_path, pooling, "Normalize")).config).pooling == found


@pytest.mark.parametrize(
    ("pooling", "more", "what"),
    [
        ({"pooling_mode_max_tokens": True}, (), "max_tokens"),
        ({"pooling_mode_lasttoken": True}, (), "lasttoken"),
        ({"pooling_mode": "weightedmean"}, (), "weightedmean"),
        (CLS | MEAN, (), "cls_token and mean_tokens"),
        ({}, (), "nothing"),
        (MEAN | {"include_prompt": False}, (), "prompt"),
        (MEAN, ("Dense", "Normalize"), "Dense"),
        (None, ("WordWeights",), "WordWeights"),
    ],
)
def test_what_would_be_another_vector_is_refused(pooling: Any, more: Any, what: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=what):
        load(sentences(tmp_path, pooling, *more))


@pytest.mark.parametrize("content", ["{", "{}", "[5]", '[{"type": "x"}]', '[{"type": "x.Pooling", "path": "../x"}]'])
def test_modules_that_cannot_be_read(content: str, tmp_path: Path) -> None:
    folder = tiny.bert(tmp_path, num_hidden_layers=1)
    (folder / "modules.json").write_text(content)
    with pytest.raises(CheckpointError):
        load(folder)


@pytest.mark.parametrize("pooling", [CLS, MEAN])
@pytest.mark.parametrize("lengths", ["public", "secret"])
def test_three_parties_give_the_librarys_vector(pooling: Any, lengths: Any, tmp_path: Path) -> None:
    clear = PlainModel(sentences(tmp_path, pooling, "Normalize"))
    with LocalCluster(clear, trio=Threads()) as cluster:  # type: ignore[arg-type]
        found = [encoding.values for encoding in cluster.encode(TEXTS, lengths)]
    for text, values in zip(TEXTS, found, strict=True):
        (hidden,) = clear.session.encode([clear.sentence_ids(text).ids], "hidden")
        wanted = hidden[0] if pooling is CLS else hidden.mean(0)
        assert float(torch.cosine_similarity(values, wanted, dim=0)) > 0.9999
        assert abs(float(values.norm()) - 1) < 1e-6


def test_the_hub_is_asked_for_the_pooling_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its absence would be taken for the mean."""
    folder, asked = sentences(tmp_path, CLS), list[list[str]]()

    def snapshot(name: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert heads(load("someone/sentences").config).pooling == "cls"
    assert "1_Pooling/*.json" in asked[1]
