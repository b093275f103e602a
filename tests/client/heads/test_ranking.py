"""Texts are ranked as the plain model ranks them, in one request or several, and scores are the model's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from puma.client.heads import asking
from puma.errors import InputError, UnsupportedModel, UsageError
from puma.models.checkpoint import load
from puma.models.text import MAX_ELEMENTS, MAX_PROMPTS
from puma.reference.plain_model import PlainModel
from tests.models import tiny
from tests.models.library.compare import quiet

QUERY = "the cat sat"
TEXTS = ["a dog ran on the mat", "they went home", "the red hat", "a big dog saw it one day"]
Serve = Callable[[Path], Any]


def plain(folder: Path, query: str = QUERY, texts: list[str] = TEXTS) -> torch.Tensor:
    clear = PlainModel(folder)
    return torch.stack([clear.encoded(clear.sentence_ids(query, text)) for text in texts])


def one_label(folder: Path, **settings: Any) -> Path:
    return tiny.classifier(folder, ("LABEL_0",), **settings)


@pytest.mark.parametrize(
    ("settings", "function"),
    [
        ({}, torch.sigmoid),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, lambda x: x),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, lambda x: x),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}, torch.sigmoid),
        ({"sbert_ce_default_activation_function": "mine.Own"}, torch.sigmoid),
    ],
)
def test_the_scores_are_the_models_own(settings: Any, function: Any, tmp_path: Path, plainly: Serve) -> None:
    folder = one_label(tmp_path, num_hidden_layers=1, **settings)
    ranked = plainly(folder).rank(QUERY, TEXTS)
    expected = function(plain(folder)[:, 0])
    assert [one.index for one in ranked] == expected.argsort(descending=True).tolist()
    for one in ranked:
        assert one.text == TEXTS[one.index] and not one.cut
        assert one.score == pytest.approx(float(expected[one.index]), abs=1e-5)
    assert all(a.score >= b.score for a, b in pairwise(ranked))


def test_an_activation_that_is_not_implemented_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"torch\.nn\.Tanh"):
        load(one_label(tmp_path, sentence_transformers={"activation_fn": "torch.nn.Tanh"}))


def test_one_of_several_labels_counts(tmp_path: Path, plainly: Serve) -> None:
    folder = tiny.classifier(tmp_path, num_hidden_layers=1)
    served, expected = plainly(folder), plain(folder)
    with pytest.raises(UsageError, match="3 labels") as several:
        served.rank(QUERY, TEXTS)
    assert "bad, fair, good" in several.value.hint
    with pytest.raises(UsageError, match="no label best"):
        served.rank(QUERY, TEXTS, label="best")
    for raw, values in ((False, expected.softmax(-1)), (True, expected)):
        found = {one.index: one.score for one in served.rank(QUERY, TEXTS, label="fair", raw=raw)}
        assert [found[i] for i in range(4)] == pytest.approx(values[:, 1].tolist(), abs=1e-5)


def test_the_best_only(tmp_path: Path, plainly: Serve) -> None:
    served = plainly(one_label(tmp_path, num_hidden_layers=1))
    every = served.rank(QUERY, TEXTS)
    assert [one.index for one in served.rank(QUERY, TEXTS, top=2)] == [one.index for one in every[:2]]


def test_long_pairs_are_cut_and_say_so_or_are_refused(tmp_path: Path, plainly: Serve) -> None:
    folder = one_label(tmp_path, num_hidden_layers=1)
    served, texts = plainly(folder), [TEXTS[0], "the big red dog " * 20]
    found = {one.index: one for one in served.rank(QUERY, texts)}
    assert not found[0].cut and found[1].cut
    kept = plain(
        folder, texts=["the big red dog " * 6 + "the big"]
    )  # 3 of the query, 26 of the text, and 3 around them
    assert found[1].score == pytest.approx(float(kept.sigmoid()), abs=1e-5)
    with pytest.raises(InputError, match="context"):
        served.rank(QUERY, texts, cut="")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 10}))
    (short,) = plainly(folder).rank(QUERY, [TEXTS[3]], cut="only_second")
    assert short.cut
    assert short.score == pytest.approx(float(plain(folder, texts=["a big dog saw"]).sigmoid()), abs=1e-5)


def test_too_many_for_one_request_go_in_several(
    tmp_path: Path, cluster: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = one_label(tmp_path, num_hidden_layers=1)
    served = cluster(folder)
    together, alone, expected = served.rank(QUERY, TEXTS), served.cost, plain(folder).sigmoid()[:, 0].tolist()
    monkeypatch.setattr(asking, "MAX_PROMPTS", 2)
    apart = served.rank(QUERY, TEXTS)
    assert served.cost.rounds == 2 * alone.rounds
    scores = [{one.index: one.score for one in ranked} for ranked in (together, apart)]
    for found in scores:
        assert [found[i] for i in range(4)] == pytest.approx(expected, abs=0.005)


def test_who_leaves_sends_no_more(tmp_path: Path, plainly: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = plainly(one_label(tmp_path, num_hidden_layers=1))
    monkeypatch.setattr(asking, "MAX_PROMPTS", 2)
    steps = served.ranking(QUERY, TEXTS)
    assert next(steps) == [] and len(served.asked) == 1
    steps.close()
    assert len(served.asked) == 1
    assert [len(found) for found in served.ranking(QUERY, TEXTS)] == [0, 4]


def test_portions_hold_every_text_once_and_keep_to_the_limits(tmp_path: Path) -> None:
    config = load(one_label(tmp_path)).config
    lengths = [1 + i * 7 % 30 for i in range(600)]
    batches = asking.portions(config, lengths, 200)
    assert sorted(i for batch in batches for i in batch) == list(range(600))
    assert all(sum(lengths[i] for i in batch) <= 200 for batch in batches)
    assert max(len(batch) for batch in asking.portions(config, lengths)) == MAX_PROMPTS
    wide = tiny.bert(tmp_path / "wide", max_position_embeddings=512)
    long = load(wide).config
    counts = [len(batch) for batch in asking.portions(long, [512] * 40)]
    assert sum(counts) == 40 and max(counts) * 3 * 512**2 <= MAX_ELEMENTS < (max(counts) + 1) * 3 * 512**2


def test_without_token_types_lengths_can_be_secret(tmp_path: Path, cluster: Serve) -> None:
    folder = one_label(tmp_path, num_hidden_layers=1, type_vocab_size=1)
    served, sizes = cluster(folder), list[object]()
    served.model.hides = True
    for texts in (TEXTS[:2], TEXTS[2:]):
        ranked = served.rank(QUERY, texts, lengths="secret")
        expected = plain(folder, texts=texts).sigmoid()[:, 0]
        assert {one.index: one.score for one in ranked} == pytest.approx(dict(enumerate(expected.tolist())), abs=0.005)
        sizes.append(served.cost.bytes())
    assert sizes[0] == sizes[1]


def test_what_the_parties_see_depends_on_lengths_alone(tmp_path: Path, cluster: Serve) -> None:
    """Other words of the same number, and another wish for the best, change no byte and no round."""
    served, costs = cluster(one_label(tmp_path, num_hidden_layers=1)), list[object]()
    for query, texts, top in ((QUERY, TEXTS[1:3], None), ("a big hat", ["it was red", "the little mat"], 1)):
        served.rank(query, texts, top)
        costs.append((served.cost.rounds, served.cost.bytes()))
    assert costs[0] == costs[1]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"texts": []}, "no text"),
        ({"texts": ["the cat", ""]}, "empty"),
        ({"texts": 5}, "type|5"),
        ({"query": None}, "None"),
        ({"top": 0}, "top"),
        ({"cut": "middle"}, "cut"),
        ({"raw": 1}, "raw"),
        ({"progress": "say"}, "progress"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_sent(
    asked: dict[str, Any], says: str, tmp_path: Path, plainly: Serve
) -> None:
    served = plainly(one_label(tmp_path, num_hidden_layers=1))
    with pytest.raises(UsageError, match=says):
        served.rank(**{"query": QUERY, "texts": TEXTS} | asked)
    assert not served.asked


def test_a_model_without_a_head_ranks_nothing(tmp_path: Path, plainly: Serve) -> None:
    with pytest.raises(UsageError, match="no head") as refused:
        plainly(tiny.bert(tmp_path, num_hidden_layers=1)).rank(QUERY, TEXTS)
    assert "ForSequenceClassification" in refused.value.hint


def test_choices_are_ranked_against_each_other(tmp_path: Path, plainly: Serve) -> None:
    folder = tiny.write(tmp_path, "BertForMultipleChoice", tiny.BERT | {"num_hidden_layers": 1}, "[CLS] $A [SEP]")
    served = plainly(folder)
    with quiet() as transformers:
        model = transformers.BertForMultipleChoice.from_pretrained(folder)
        read = [served.model.pieces(QUERY, text)[0] for text in TEXTS[1:3]]  # as long as each other
        ids, types = (torch.tensor([[getattr(piece, name) for piece in read]]) for name in ("ids", "types"))
        with torch.no_grad():
            expected = model(ids, token_type_ids=types).logits[0].softmax(0).tolist()
    found = {one.index: one.score for one in served.rank(QUERY, TEXTS[1:3])}
    assert found == pytest.approx(dict(enumerate(expected)), abs=1e-5)
