"""`puma rank` prints texts, the best first, wherever they come from."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from puma.reference.plain_model import PlainModel
from tests.cli.conftest import Run
from tests.models import tiny

QUERY = "the cat sat"
TEXTS = ["a dog ran on the mat", "they went home", "the red hat"]
pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("lent")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.classifier(tmp_path / "model", ("LABEL_0",), num_hidden_layers=1)


def test_from_arguments_a_file_and_standard_input(
    puma: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear = PlainModel(folder)
    expected = [float(clear.encoded(clear.sentence_ids(QUERY, text)).sigmoid()) for text in TEXTS]
    found = puma("rank", folder, QUERY, *TEXTS, "--json").json
    assert list(found) == ["query", "results", "seconds", "rounds", "bytes"]
    assert {one["index"]: one["score"] for one in found["results"]} == pytest.approx(
        dict(enumerate(expected)), abs=0.005
    )
    order = [one["index"] for one in found["results"]]
    (tmp_path / "texts.txt").write_text("\n\n".join(TEXTS) + "\n")
    for where in (("--texts", tmp_path / "texts.txt"), ()):
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(TEXTS) + "\n"))
        again = puma("rank", folder, QUERY, *where, "--top", 2, "--json").json
        assert [one["index"] for one in again["results"]] == order[:2]


def test_for_people(puma: Run, folder: Path) -> None:
    ran = puma("rank", folder, QUERY, *TEXTS[:2], "the big red dog " * 20)
    assert ran.code == 0 and "cut" in ran.err
    *lines, cost, where = ran.out.splitlines()
    assert sorted(line.split()[1] for line in lines) == ["1", "2", "3"]
    assert sum(line.endswith("(cut)") for line in lines) == 1
    assert "texts/s" in cost and "one machine" in where


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "QUERY"),
        ((QUERY, "the", "--texts", "some.txt"), "--texts"),
        ((QUERY, "the", "--label", "best"), "best"),
        ((QUERY, "the cat " * 30, "--cut", "refuse"), "context"),
    ],
)
def test_what_makes_no_sense(words: tuple[str, ...], says: str, puma: Run, folder: Path) -> None:
    ran = puma("rank", folder, *words)
    assert ran.code == 2 and says in ran.err


def test_classify_says_classes_of_texts_and_pairs(puma: Run, tmp_path: Path) -> None:
    folder = tiny.classifier(tmp_path / "model", ("bad", "fair", "good"), num_hidden_layers=1)
    clear = PlainModel(folder)
    found = puma("classify", folder, QUERY, TEXTS[0], "--json").json
    assert list(found) == ["results", "seconds", "rounds", "bytes"]
    for one, text in zip(found["results"], (QUERY, TEXTS[0]), strict=True):
        scores = clear.encoded(clear.sentence_ids(text)).softmax(-1).tolist()
        expected = dict(zip(("bad", "fair", "good"), scores, strict=True))
        assert one["text"] == text
        assert dict(zip(one["labels"], one["scores"], strict=True)) == pytest.approx(expected, abs=0.01)
    (pair,) = puma("classify", folder, QUERY, TEXTS[0], "--pairs", "--json").json["results"]
    assert pair["text"] == [QUERY, TEXTS[0]]
    ran = puma("classify", folder, QUERY, TEXTS[0], "--pairs")
    assert ran.out.splitlines()[0] == f"{QUERY} | {TEXTS[0]}" and "texts/s" in ran.out
    assert "no pairs" in puma("classify", folder, QUERY, "--pairs").err
    assert "entails" in puma("classify", folder, QUERY, "--label", "cat").err


def test_classify_by_names_of_ones_own_and_what_texts_name(puma: Run, tmp_path: Path) -> None:
    nli = tiny.classifier(tmp_path / "nli", ("contradiction", "entailment"), num_hidden_layers=1)
    (found,) = puma("classify", nli, QUERY, "--label", "cat", "--label", "dog", "--json").json["results"]
    assert sorted(found["labels"]) == ["cat", "dog"] and sum(found["scores"]) == pytest.approx(1.0)
    labels = {"id2label": {"0": "O", "1": "B-A", "2": "I-A"}}
    tokens = tiny.write(tmp_path / "ner", "BertForTokenClassification", tiny.BERT | labels, "[CLS] $A [SEP]")
    (named,) = puma("classify", tokens, TEXTS[0], "--join", "none", "--json").json["results"]
    assert all(TEXTS[0][e["start"] : e["end"]] == e["text"] for e in named["entities"])
    assert puma("classify", tokens, TEXTS[0]).out.startswith(TEXTS[0])


def test_answer_quotes_a_text(puma: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.write(tmp_path / "model", "BertForQuestionAnswering", tiny.BERT, "[CLS] $A [SEP]")
    found = puma("answer", folder, QUERY, TEXTS[0], "--top", 3, "--json").json
    assert list(found) == ["question", "answers", "seconds", "rounds", "bytes"]
    assert [TEXTS[0][a["start"] : a["end"]] for a in found["answers"]] == [a["answer"] for a in found["answers"]]
    (tmp_path / "text.txt").write_text(TEXTS[0])
    for where in (("--text", tmp_path / "text.txt"), ()):
        monkeypatch.setattr(sys, "stdin", io.StringIO(TEXTS[0]))
        ran = puma("answer", folder, QUERY, *where)
        assert ran.out.splitlines()[0].endswith(found["answers"][0]["answer"])
    assert "QUESTION" in puma("answer", folder).err
