"""/v1/embeddings as programs use it: many texts, prompts by name, fewer dimensions, token ids, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

openai = pytest.importorskip("openai", reason="the openai client is not installed")

from puma.client import sentences as wording  # noqa: E402
from puma.client.sentences import Asked  # noqa: E402
from puma.wire.messages import Encode  # noqa: E402
from tests.gateway.conftest import Served, serving  # noqa: E402
from tests.models import sentences  # noqa: E402

GENERAL = {"prompts": {"query": "the cat ", "corpus": "a "}}


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    pooling = {"pooling_mode": "max", "include_prompt": False}
    folder = tmp_path_factory.mktemp("embedder") / "it"
    sentences.write(folder, pooling, own={"max_seq_length": 12}, general=GENERAL, normalise=True)
    with serving(folder) as found:
        yield found


def vectors(found: Served, texts: Any, **asked: Any) -> torch.Tensor:
    answer = found.client.embeddings.create(model="tiny", input=texts, **asked)
    assert [one.index for one in answer.data] == list(range(len(answer.data)))
    return torch.tensor([one.embedding for one in answer.data])


def plain(found: Served, texts: list[str], **asked: Any) -> torch.Tensor:
    how = Asked.of(**asked)
    return torch.stack([found.clear.encoded(found.clear.reading(t, asked=how).tokens, how) for t in texts]).float()


@pytest.mark.parametrize(
    ("more", "asked"),
    [
        ({}, {}),
        ({"prompt_name": "query"}, {"prompt_name": "query"}),
        ({"input_type": "search_query"}, {"prompt_name": "query"}),
        ({"input_type": "passage"}, {"prompt_name": "corpus"}),
        ({"normalize": False}, {"normalize": False}),
    ],
)
def test_prompts_and_lengths(more: dict[str, Any], asked: dict[str, Any], embedder: Served) -> None:
    found = vectors(embedder, ["a dog", "the red hat"], extra_body=more)
    torch.testing.assert_close(found, plain(embedder, ["a dog", "the red hat"], **asked), atol=0.01, rtol=0.01)


def test_fewer_dimensions_have_length_one(embedder: Served) -> None:
    found = vectors(embedder, "a dog", dimensions=5)
    torch.testing.assert_close(found, plain(embedder, ["a dog"], dimensions=5, normalize=True), atol=0.01, rtol=0.01)
    assert abs(float(found.norm()) - 1) < 1e-5


def test_more_texts_than_the_parties_take_at_a_time(embedder: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in several requests, of which each is as large as it may be."""
    monkeypatch.setattr(wording, "MAX_PROMPTS", 3)
    session, sizes = embedder.gateway.worker, list[int]()
    texts = ["a dog", "it", "the red hat", "one day", "they ran", "a", "little dog"]
    vectors(embedder, "it")  # so that there is a session
    real = embedder.session.encode

    def counted(ids: Any, *more: Any) -> Any:
        sizes.append(len(ids))
        return real(ids, *more)

    monkeypatch.setattr(embedder.session, "encode", counted)
    found = vectors(embedder, texts)
    assert sizes == [3, 3, 1] and session.state == "ready"
    torch.testing.assert_close(found, plain(embedder, texts), atol=0.01, rtol=0.01)


def test_token_ids_of_the_model(embedder: Served) -> None:
    """With its special tokens; those of another tokenizer are refused with what to do in LangChain."""
    text = "the red hat"
    ids = embedder.clear.tokenizer.encode(text).ids
    expected = plain(embedder, [text])
    for given in ([ids], ids):
        torch.testing.assert_close(vectors(embedder, given), expected, atol=0.01, rtol=0.01)
    for wrong in ([[5, 6, 7]], [ids[:-1]], [[]], [[*ids, 4000]], [[-1]], [ids[:1] + ids[-1:]]):
        with pytest.raises(openai.BadRequestError, match=r"check_embedding_ctx_length=False|from 1 to") as refused:
            vectors(embedder, wrong)
        assert refused.value.param == "input"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"prompt_name": "other"}, "prompt_name"),
        ({"input_type": "clustering"}, "input_type"),
        ({"input_type": "query", "prompt_name": "query"}, "input_type"),
        ({"truncate": "START"}, "truncate"),
        ({"dimensions": 25}, "dimensions"),
        ({"dimensions": 0}, "dimensions"),
        ({"normalize": "yes"}, "normalize"),
        ({"encoding_format": "int8"}, "encoding_format"),
    ],
)
def test_what_makes_no_sense(more: dict[str, Any], param: str, embedder: Served) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        vectors(embedder, "a dog", extra_body=more)
    assert refused.value.param == param


def test_texts_that_are_too_long(embedder: Served) -> None:
    text = "the red hat sat on a cat and then they went home under it"
    with pytest.raises(openai.BadRequestError) as refused:
        vectors(embedder, text)
    assert refused.value.code == "context_length_exceeded" and refused.value.param == "input"
    for truncate in (True, "END"):
        answer = embedder.client.embeddings.create(model="tiny", input=text, extra_body={"truncate": truncate})
        assert answer.usage.prompt_tokens == 12


def test_a_prompt_that_does_not_count_is_told_to_the_parties(embedder: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many tokens it has is public, and nothing else of it."""
    vectors(embedder, "it")
    sent = list[int]()
    session = embedder.session
    real = session._ask

    def ask(request: Any, *more: Any) -> Any:
        def noted(job: Any) -> Any:
            found = request(job)
            assert isinstance(found, Encode)
            sent.append(found.skip)
            return found

        return real(noted, *more)

    monkeypatch.setattr(session, "_ask", ask)
    vectors(embedder, "a dog", extra_body={"prompt_name": "query"})
    vectors(embedder, "a dog")
    assert set(sent) == {3, 0}  # [CLS] the cat
