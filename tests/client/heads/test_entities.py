"""What a text names is what transformers' pipeline finds, however tokens are joined, in one piece or several."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from puma.errors import InputError, UsageError
from tests.client.heads.test_labels import pipeline
from tests.models import tiny
from tests.models.library.compare import quiet

TEXT = "a big dog saw the red cat under the mat then they went home"
LABELS = ("O", "B-ANIMAL", "I-ANIMAL", "I-PLACE")
NAMED = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
Serve = Callable[[Path], Any]


def write(folder: Path, **settings: Any) -> Path:
    settings = tiny.BERT | {"num_hidden_layers": 1} | NAMED | settings
    return tiny.write(folder, "BertForTokenClassification", settings, "[CLS] $A [SEP]")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("join", ["none", "simple", "first", "average", "max"])
def test_as_the_library_joins(join: str, tmp_path: Path, plainly: Serve) -> None:
    folder = write(tmp_path)
    served, library = plainly(folder), pipeline("token-classification", folder)
    found = served.entities(TEXT, join)
    with quiet():
        expected = library(TEXT, aggregation_strategy=join)
    assert [(e.label, e.start, e.end, e.text) for e in found] == [
        (e.get("entity_group", e.get("entity")), e["start"], e["end"], TEXT[e["start"] : e["end"]]) for e in expected
    ]
    assert [e.score for e in found] == pytest.approx([e["score"] for e in expected], abs=1e-5)
    assert {e.label for e in found} >= ({"ANIMAL", "PLACE"} if join != "none" else {"I-PLACE"})


def test_a_long_text_in_pieces(tmp_path: Path, plainly: Serve) -> None:
    folder, long = write(tmp_path), " ".join([TEXT] * 4)
    served, library = plainly(folder), pipeline("token-classification", folder)
    with pytest.raises(InputError, match="context"):
        served.entities(long)
    with quiet():
        expected = library(long, aggregation_strategy="simple", stride=4)
    found = served.entities(long, stride=4)
    assert [(e.label, e.start, e.end) for e in found] == [(e["entity_group"], e["start"], e["end"]) for e in expected]


def test_tokens_of_a_word_agree(tmp_path: Path, plainly: Serve) -> None:
    """Two tokens that no space parts are one word."""
    folder = write(tmp_path)
    from tokenizers import pre_tokenizers

    words = tiny.tokenizer("[CLS] $A [SEP]")
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(folder / "tokenizer.json"))
    served = plainly(folder)
    (given,) = served.model.pieces("the cat-mat")
    assert given.words == [None, 0, 1, 2, 3, None]
    assert all(e.text for e in served.entities("the cat-mat", "first"))


def test_a_decoder_names_too(tmp_path: Path, cluster: Serve, plainly: Serve) -> None:
    settings = tiny.LLAMA | {"num_hidden_layers": 1} | NAMED
    folder = tiny.write(tmp_path, "LlamaForTokenClassification", settings, "<s> $A")
    parties, plain = cluster(folder), plainly(folder)
    values, expected = parties.encode(TEXT).values, plain.model.encoded(plain.model.sentence_ids(TEXT))
    assert float((values - expected).abs().max()) < 0.02
    found = {e.start: e.label for e in parties.entities(TEXT, "none")}
    (given,) = plain.model.pieces(TEXT)
    sure = expected[1:].topk(2).values.diff()[:, 0] < -0.1  # the first token is put before the text
    rows = zip(expected[1:].argmax(-1).tolist(), given.spans[1:], sure.tolist(), strict=True)
    named = {start: LABELS[i] for i, (start, _), clear in rows if clear}
    assert len(named) > 5 and all(found.get(start, "O") == label for start, label in named.items())


def test_what_makes_no_sense(tmp_path: Path, plainly: Serve) -> None:
    served = plainly(write(tmp_path))
    with pytest.raises(UsageError, match="join"):
        served.entities(TEXT, "last")
    with pytest.raises(UsageError, match="no head for classes of texts"):
        served.classify(TEXT)
    with pytest.raises(UsageError, match="no head for answers"):
        served.answer("a dog", TEXT)
