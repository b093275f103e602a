"""Scores are those of sentence-transformers' CrossEncoder itself, of pairs with one label or more, cut or whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.models import tiny
from tests.models.library.compare import quiet

pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")

QUERY = "the cat sat"
TEXTS = ["a dog ran on the mat", "they went home", "the big red dog " * 20, "the red hat"]
IDENTITY = "torch.nn.modules.linear.Identity"
ONE = {"id2label": {"0": "LABEL_0"}, "num_hidden_layers": 1}
MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "sigmoid": ("BertForSequenceClassification", tiny.BERT | ONE, "[CLS] $A [SEP]"),
    "identity": (
        "BertForSequenceClassification",
        tiny.BERT | ONE | {"sentence_transformers": {"activation_fn": IDENTITY}},
        "[CLS] $A [SEP]",
    ),
    "old": (
        "BertForSequenceClassification",
        tiny.BERT | ONE | {"sbert_ce_default_activation_function": IDENTITY},
        "[CLS] $A [SEP]",
    ),
    "decoder": ("LlamaForSequenceClassification", tiny.LLAMA | ONE | {"pad_token_id": 0}, "<s> $A"),
}
Serve = Callable[[Path], Any]


def write(folder: Path, name: str, **more: Any) -> Path:
    """A folder that the library opens, too."""
    architecture, settings, template = MODELS[name]
    tiny.write(folder, architecture, settings | more, template)
    read = ["input_ids", "token_type_ids", "attention_mask"][:: 1 if "Bert" in architecture else 2]
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<unk>", "model_input_names": read}
    (folder / "tokenizer_config.json").write_text(json.dumps(words | {"model_max_length": 24}))
    return folder


@contextmanager
def library(folder: Path) -> Iterator[Any]:
    with quiet():
        from sentence_transformers import CrossEncoder

        yield CrossEncoder(str(folder), device="cpu")


@pytest.mark.parametrize("name", MODELS)
def test_rank(name: str, tmp_path: Path, plainly: Serve) -> None:
    folder = write(tmp_path, name)
    with library(folder) as theirs:
        expected = theirs.rank(QUERY, TEXTS)
    found = plainly(folder).rank(QUERY, TEXTS)
    assert [each.index for each in found] == [each["corpus_id"] for each in expected]
    assert [each.score for each in found] == pytest.approx([each["score"] for each in expected], abs=1e-5)
    assert [each.index for each in found if each.cut] == [2]


def test_what_the_library_saved_itself(tmp_path: Path, plainly: Serve) -> None:
    import torch

    folder = write(tmp_path / "first", "sigmoid")
    with library(folder) as theirs:
        theirs.activation_fn = torch.nn.Identity()
        theirs.save_pretrained(str(tmp_path / "saved"))
    (tmp_path / "saved" / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    with library(tmp_path / "saved") as theirs:
        expected = theirs.predict([(QUERY, text) for text in TEXTS]).tolist()
    found = {each.index: each.score for each in plainly(tmp_path / "saved").rank(QUERY, TEXTS)}
    assert found == pytest.approx(dict(enumerate(expected)), abs=1e-5)


def test_several_labels(tmp_path: Path, plainly: Serve) -> None:
    folder = write(tmp_path, "sigmoid", id2label={"0": "no", "1": "perhaps", "2": "yes"})
    with library(folder) as theirs:
        expected = theirs.predict([(QUERY, text) for text in TEXTS], apply_softmax=True)[:, 2].tolist()
        logits = theirs.predict([(QUERY, text) for text in TEXTS])[:, 2].tolist()
    served = plainly(folder)
    for raw, values in ((False, expected), (True, logits)):
        found = {each.index: each.score for each in served.rank(QUERY, TEXTS, label="yes", raw=raw)}
        assert found == pytest.approx(dict(enumerate(values)), abs=1e-5)
