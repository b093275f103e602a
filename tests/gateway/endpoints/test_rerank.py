"""/v1/rerank answers in the shape that Jina's, Cohere's and vLLM's clients read, with the cross-encoder's scores."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from puma.client.heads.ranking import read as pairs
from tests.gateway.conftest import Served, serving
from tests.models import sentences, tiny

QUERY = "the cat sat"
TEXTS = ["a dog ran on the mat", "they went home", "the red hat"]
ASKED = {"model": "tiny", "query": QUERY, "documents": TEXTS}


def post(url: str, body: dict[str, Any], path: str = "/v1/rerank") -> tuple[int, Any]:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.fixture(scope="module")
def ranking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tiny.classifier(tmp_path_factory.mktemp("rerank") / "model", ("LABEL_0",), num_hidden_layers=1)
    with serving(folder) as served:
        yield served


def test_documents_are_ranked_as_the_plain_model_ranks_them(ranking: Served) -> None:
    clear = ranking.clear
    expected = [float(clear.encoded(clear.sentence_ids(QUERY, text)).sigmoid()) for text in TEXTS]
    status, found = post(ranking.url, ASKED)
    assert status == 200 and found["id"].startswith("rerank-") and found["model"] == "tiny"
    assert [one["index"] for one in found["results"]] == sorted(range(3), key=lambda i: -expected[i])
    for one in found["results"]:
        assert set(one) == {"index", "relevance_score"}
        assert one["relevance_score"] == pytest.approx(expected[one["index"]], abs=0.005)
    tokens = sum(len(clear.sentence_ids(QUERY, text).ids) for text in TEXTS)
    assert found["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_the_best_with_their_texts_by_other_clients_paths(ranking: Served) -> None:
    documents = [TEXTS[0], {"text": TEXTS[1]}, {"text": TEXTS[2]}]
    status, found = post(
        ranking.url, ASKED | {"documents": documents, "top_n": 2, "return_documents": True}, "/v2/rerank"
    )
    assert status == 200 and len(found["results"]) == 2
    assert all(one["document"] == {"text": TEXTS[one["index"]]} for one in found["results"])
    status, raw = post(ranking.url, ASKED | {"raw_scores": True, "top_n": 9}, "/rerank")
    assert status == 200 and [one["index"] for one in raw["results"][:2]] == [one["index"] for one in found["results"]]


def test_texts_are_ranked_as_tei_has_them(ranking: Served) -> None:
    """A bare list with scores; no model need be named, and if one is, then this one."""
    _, documents = post(ranking.url, ASKED)
    status, found = post(ranking.url, {"query": QUERY, "texts": TEXTS, "return_text": True}, "/rerank")
    assert status == 200 and [set(one) for one in found] == [{"index", "score", "text"}] * 3
    expected = [(one["index"], pytest.approx(one["relevance_score"], abs=0.005)) for one in documents["results"]]
    assert [(one["index"], one["score"]) for one in found] == expected
    assert all(one["text"] == TEXTS[one["index"]] for one in found)
    status, few = post(ranking.url, {"query": QUERY, "texts": TEXTS, "top_n": 1, "truncate": True}, "/rerank")
    assert status == 200 and [set(one) for one in few] == [{"index", "score"}]
    assert post(ranking.url, {"model": "other", "query": QUERY, "texts": TEXTS}, "/rerank")[0] == 404


def test_what_was_cut_says_so_or_is_refused(ranking: Served) -> None:
    long = ASKED | {"documents": [TEXTS[0], "the big red dog " * 20]}
    status, found = post(ranking.url, long)
    assert status == 200 and {one["index"]: one.get("truncated") for one in found["results"]} == {0: None, 1: True}
    status, refused = post(ranking.url, long | {"truncate": False})
    assert status == 400
    assert (refused["error"]["param"], refused["error"]["code"]) == ("documents", "context_length_exceeded")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"documents": []}, "documents"),
        ({"documents": ["the"] * 1001}, "documents"),
        ({"documents": ["the", " "]}, "documents"),
        ({"documents": [{"title": "the"}]}, "title"),
        ({"top_n": 0}, "top_n"),
        ({"label": "best"}, "label"),
        ({"rank_fields": ["text"]}, "rank_fields"),
        ({"documents": None}, "documents"),
        ({"texts": TEXTS}, "texts"),
        ({"documents": None, "texts": []}, "texts"),
        ({"documents": None, "texts": ["the", " "]}, "texts"),
        ({"model": None}, "model"),
        ({"truncation_direction": "left"}, "truncation_direction"),
        ({"query": 5}, "query"),
        ({"query": " "}, "query"),
        ({"query": "x" * 5000, "documents": ["the"] * 900}, "query"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(change: dict[str, Any], param: str, ranking: Served) -> None:
    status, found = post(ranking.url, ASKED | change)
    assert status == 400 and found["error"]["param"] == param, found


def test_a_model_without_a_head_ranks_nothing(tmp_path: Path) -> None:
    with serving(tiny.bert(tmp_path, num_hidden_layers=1)) as served:
        status, found = post(served.url, ASKED)
        assert status == 400 and found["error"]["param"] == "model" and not served.clusters


def test_a_model_that_generates_ranks_by_two_words(tmp_path: Path) -> None:
    """As Qwen3-Reranker does, in its chat template; no logit but the difference leaves the parties."""
    with serving(sentences.judge(tmp_path / "model")) as served:
        clear = served.clear
        pieces = pairs(clear, QUERY, TEXTS, "longest_first")
        expected = [float(clear.session.encode([piece.ids], "logits")[0].sigmoid()) for piece in pieces]
        status, found = post(served.url, ASKED)
        assert status == 200 and found["usage"]["total_tokens"] == sum(len(piece.ids) for piece in pieces)
        scores = {one["index"]: one["relevance_score"] for one in found["results"]}
        assert scores == pytest.approx(dict(enumerate(expected)), abs=0.005) and len(set(expected)) == 3
        status, refused = post(served.url, ASKED | {"documents": [TEXTS[0], "the cat " * 40]})
        assert status == 400 and refused["error"]["param"] == "documents"
