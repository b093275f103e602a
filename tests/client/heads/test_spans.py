"""Answers are quoted from a text as every span's two probabilities say, whatever pieces a long text is read in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from puma.client.heads import spans
from puma.client.heads.spans import Quote
from puma.errors import InputError, UsageError
from puma.models.reading.cutting import Portion
from puma.reference.plain_model import PlainModel
from tests.models import tiny
from tests.models.library.compare import quiet

QUESTION, TEXT = "it sat on", "a big dog saw the red cat under the mat"
LONG = TEXT + " then they went home and the little hat ran on " + TEXT + " and it was one day"
Serve = Callable[[Path], Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write(tmp_path, "BertForQuestionAnswering", tiny.BERT | {"num_hidden_layers": 1}, "[CLS] $A [SEP]")


def every_span(folder: Path, question: str, text: str, most: int, stride: int, longest: int) -> dict[Any, float]:
    """The library's logits, and of each span of the text the largest product of probabilities in any piece."""
    with quiet() as transformers:
        model = transformers.BertForQuestionAnswering.from_pretrained(folder)
        words = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        found = words(
            question, text, truncation="only_second", max_length=most, stride=stride, return_overflowing_tokens=True,
            return_offsets_mapping=True, return_token_type_ids=True,
        )  # fmt: skip
    best = dict[Any, float]()
    none = list[float]()
    for i, ids in enumerate(found.input_ids):
        with torch.no_grad():
            out = model(torch.tensor([ids]), token_type_ids=torch.tensor([found.token_type_ids[i]]))
        allowed = torch.tensor([j == 0 or text == 1 for j, text in enumerate(found.sequence_ids(i))])
        first, last = (
            torch.where(allowed, x[0], torch.tensor(-1e9)).softmax(0) for x in (out.start_logits, out.end_logits)
        )
        none.append(float(first[0] * last[0]))
        for s in range(1, len(ids)):
            for e in range(s, min(len(ids), s + longest)):
                if allowed[s] and allowed[e]:
                    place = found.offset_mapping[i][s][0], found.offset_mapping[i][e][1]
                    best[place] = max(best.get(place, 0.0), float(first[s] * last[e]))
    return best | {"none": min(none)}


@pytest.mark.parametrize(("text", "most"), [(TEXT, 32), (LONG, 32), (LONG, 14)])
def test_the_best_spans(text: str, most: int, folder: Path, plainly: Serve) -> None:
    served = plainly(folder)
    best = every_span(folder, QUESTION, text, most, stride=3, longest=4)
    none = best.pop("none")
    order = sorted(best, key=lambda place: -best[place])[:5]
    found = served.answer(QUESTION, text, top=5, longest=4, window=most, stride=3)
    assert [(each.start, each.end) for each in found] == order
    assert [each.text for each in found] == [text[start:end] for start, end in order]
    assert [each.score for each in found] == pytest.approx([best[place] for place in order], abs=1e-5)
    every = {each.text: each.score for each in served.answer(QUESTION, text, 10_000, 4, True, most, 3)}
    assert every[""] == pytest.approx(none, abs=1e-5)
    assert (sum(map(len, served.asked)) > 2) == (text == LONG)  # two questions, of a piece or several


def test_three_parties_answer(folder: Path, cluster: Serve, plainly: Serve) -> None:
    found, expected = (
        {each.text: each.score for each in serve(folder).answer(QUESTION, LONG, top=2000)}
        for serve in (cluster, plainly)
    )
    assert found == pytest.approx(expected, abs=0.002) and len(found) > 100


def test_answers_are_whole_words() -> None:
    """The second token of a word stands for all of it."""
    text = "she unpacked boxes"
    piece = Portion(
        [1, 9, 2, 5, 6, 7, 8, 2], [0] * 3 + [1] * 5, [None, 0, None, 1, 1, 1, 1, None],
        [(0, 0), (0, 3), (0, 0), (0, 3), (4, 6), (6, 12), (13, 18), (0, 0)], [None, 0, None, 0, 1, 1, 2, None],
    )  # fmt: skip
    logits = torch.zeros(8, 2)
    logits[5, 0] = logits[5, 1] = 9.0
    (best,) = spans.quotes(text, [piece], [logits], 1, 15, False, None)  # type: ignore[arg-type]
    assert (best.text, best.start, best.end) == ("unpacked", 4, 12) and isinstance(best, Quote)
    logits[1] = 50.0  # the question's own words are no answer
    assert spans.quotes(text, [piece], [logits], 1, 15, False, None)[0].text == "unpacked"  # type: ignore[arg-type]
    logits[0] = 50.0
    assert spans.quotes(text, [piece], [logits], 1, 15, True, None)[0].text == ""  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"text": " "}, "empty"),
        ({"top": 0}, "top"),
        ({"longest": 0}, "longest"),
        ({"question": "the " * 40}, "no room"),
    ],
)
def test_what_makes_no_sense(asked: dict[str, Any], says: str, folder: Path, plainly: Serve) -> None:
    served = plainly(folder)
    with pytest.raises(InputError if says in ("empty", "no room") else UsageError, match=says):
        served.answer(**{"question": QUESTION, "text": TEXT} | asked)
    assert not served.asked


def test_parties_give_an_asker_no_more_than_the_head(folder: Path) -> None:
    """What a card allows by itself is logits of the two ends, and neither states nor their sum."""
    from puma.wire.policy import usual_outputs

    assert usual_outputs(PlainModel(folder).config) == ("logits",)
