"""Classes by name have the scores of transformers' pipelines, of texts and pairs, known or named by the client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from puma.errors import InputError, UsageError
from tests.models import tiny
from tests.models.library.compare import quiet

TEXT, PAIR = "the cat sat on the mat", ("the cat sat", "a dog ran on the mat")
NLI = ("contradiction", "neutral", "entailment")
NAMES = ["cat", "big dog", "hat"]
Serve = Callable[[Path], Any]


def pipeline(task: str, folder: Path) -> Any:
    """transformers' own, with the folder's tokenizer."""
    with quiet() as transformers:
        read = ["input_ids", "token_type_ids", "attention_mask"]
        words = transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"), model_input_names=read
        )
        words.pad_token, words.model_max_length = "<unk>", 32
        kind = "AutoModelForTokenClassification" if "token" in task else "AutoModelForSequenceClassification"
        model = getattr(transformers, kind).from_pretrained(folder)
        return transformers.pipeline(task, model=model, tokenizer=words, device="cpu")


@pytest.mark.parametrize(
    ("names", "settings"),
    [
        (("bad", "fair", "good"), {}),
        (("bad", "fair", "good"), {"problem_type": "multi_label_classification"}),
        (("bad", "fair", "good"), {"problem_type": "regression"}),
        (("LABEL_0",), {}),
        (("stars",), {"problem_type": "regression"}),
    ],
)
def test_texts_and_pairs(names: tuple[str, ...], settings: Any, tmp_path: Path, plainly: Serve) -> None:
    folder = tiny.classifier(tmp_path, names, num_hidden_layers=1, **settings)
    served, library = plainly(folder), pipeline("text-classification", folder)
    found = served.classify([TEXT, PAIR])
    with quiet():
        expected = [library(text, top_k=None) for text in (TEXT, {"text": PAIR[0], "text_pair": PAIR[1]})]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.labels == [one["label"].replace("LABEL_0", "score") for one in theirs]
        assert mine.scores == pytest.approx([one["score"] for one in theirs], abs=1e-5)
        assert (mine.label, mine.score, mine.cut) == (mine.labels[0], mine.scores[0], False)
    assert served.classify(PAIR).scores == pytest.approx(found[1].scores, abs=1e-5)  # a pair, and not two texts


def test_what_is_too_long_is_refused_or_cut(tmp_path: Path, plainly: Serve) -> None:
    served = plainly(tiny.classifier(tmp_path, num_hidden_layers=1))
    with pytest.raises(InputError, match="context"):
        served.classify(TEXT * 10)
    assert served.classify("the cat " * 40, cut="longest_first").cut


@pytest.mark.parametrize("names", [NLI, ("ENTAILMENT", "not entailed"), ("no", "Entails", "maybe")])
@pytest.mark.parametrize("multi", [False, True])
def test_names_of_the_clients_own(names: tuple[str, ...], multi: bool, tmp_path: Path, plainly: Serve) -> None:
    folder = tiny.classifier(tmp_path, names, num_hidden_layers=1)
    served, library = plainly(folder), pipeline("zero-shot-classification", folder)
    for text, labels in ((TEXT, NAMES), ("the big red dog " * 10, NAMES), (TEXT, NAMES[:1])):
        found = served.zero_shot(text, labels, hypothesis="it was {}", multi_label=multi)
        with quiet():
            expected = library(text, labels, hypothesis_template="it was {}", multi_label=multi)
        assert found.labels == expected["labels"] and found.cut == (len(text) > 100)
        assert found.scores == pytest.approx(expected["scores"], abs=1e-5)


def test_three_parties_name_classes(tmp_path: Path, cluster: Serve, plainly: Serve) -> None:
    folder = tiny.classifier(tmp_path, NLI, num_hidden_layers=1)
    parties, plain = cluster(folder), plainly(folder)
    found, expected = parties.zero_shot(TEXT, NAMES), plain.zero_shot(TEXT, NAMES)
    assert dict(zip(found.labels, found.scores, strict=True)) == pytest.approx(
        dict(zip(expected.labels, expected.scores, strict=True)), abs=0.01
    )
    assert parties.cost.rounds < 200  # in one request


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"names": []}, "no label"),
        ({"hypothesis": "it was"}, "no place"),
        ({"entails": "neither"}, "neither"),
        ({"multi_label": 1}, "multi_label"),
    ],
)
def test_what_makes_no_sense(asked: dict[str, Any], says: str, tmp_path: Path, plainly: Serve) -> None:
    served = plainly(tiny.classifier(tmp_path, NLI, num_hidden_layers=1))
    with pytest.raises(UsageError, match=says):
        served.zero_shot(**{"text": TEXT, "names": NAMES} | asked)
    assert not served.asked


def test_a_label_that_says_entailment_is_named_or_known(tmp_path: Path, plainly: Serve) -> None:
    served = plainly(tiny.classifier(tmp_path, ("no", "yes"), num_hidden_layers=1))
    with pytest.raises(UsageError, match="says entailment") as unknown:
        served.zero_shot(TEXT, NAMES)
    assert "no, yes" in unknown.value.hint
    assert sum(served.zero_shot(TEXT, NAMES, entails="yes").scores) == pytest.approx(1.0)


def test_other_heads_are_named(tmp_path: Path, plainly: Serve) -> None:
    with pytest.raises(UsageError, match="no head for classes of texts"):
        plainly(tiny.bert(tmp_path, num_hidden_layers=1)).classify(TEXT)
