"""What tokens stand for: bytes that join to the text, spellings that differ, places in the text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from puma.models.reading.spelling import Spelling, settled
from tests.models import lettered, tiny

KINDS = {"byte level": lettered.byte_level(), "falling back": lettered.falling_back()}
TEXT = "hi hi ü€🙂a hi"


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text).ids


def token(tokenizer: Tokenizer, word: str) -> int:
    found = tokenizer.token_to_id(word)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_join_to_the_text(kind: str) -> None:
    tokenizer = KINDS[kind]
    spelling = Spelling(tokenizer, lettered.SIZE)
    parts = [spelling.bytes_of(i) for i in ids_of(tokenizer, TEXT)]
    assert b"".join(parts).decode().removeprefix(" ") == TEXT
    assert b"\xe2" in parts and b"\xf0" in parts
    assert spelling.bytes_of(token(tokenizer, "</s>")) == b"</s>"
    assert spelling.bytes_of(lettered.SIZE - 1) == b""


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_tokens_are_spelled_alike(kind: str) -> None:
    tokenizer = KINDS[kind]
    spelling = Spelling(tokenizer, lettered.SIZE)
    texts = [spelling.text(i) for i in range(lettered.SIZE)]
    assert len(set(texts)) == lettered.SIZE
    assert {"hi", " hi", "a", "bytes:\\xe2", "</s>"} <= set(texts)
    if kind == "falling back":
        assert texts[token(tokenizer, "a")] == "a"
        assert texts[token(tokenizer, "<0x61>")] == "bytes:\\x61"
        assert texts[token(tokenizer, "<0x0A>")] == "\n"


@pytest.mark.parametrize("kind", KINDS)
def test_places_of_a_text_and_of_its_tokens(kind: str) -> None:
    tokenizer = KINDS[kind]
    spelling, ids = Spelling(tokenizer, lettered.SIZE), ids_of(tokenizer, TEXT)
    for places in (spelling.places(ids), spelling.places_in(TEXT)):
        assert len(places) == len(ids) and places == sorted(places) and places[0] == 0
        euro = [place for place, i in zip(places, ids, strict=True) if spelling.bytes_of(i) == b"\xe2"]
        assert [TEXT[place] for place in euro] == ["€"]
        second = [place for place, i in zip(places, ids, strict=True) if spelling.text(i) == " hi"]
        assert TEXT[second[-1] :] == " hi"


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, lettered.SIZE - 1), max_size=12), st.sampled_from(sorted(KINDS)))
def test_any_tokens_have_places(ids: list[int], kind: str) -> None:
    """Arbitrary ids, broken characters and all: within the text, in order, and at a character's beginning."""
    tokenizer = KINDS[kind]
    places, text = Spelling(tokenizer, lettered.SIZE).places(ids), tokenizer.decode(ids)
    assert len(places) == len(ids) and places == sorted(places)
    assert all(0 <= place <= max(len(text), 0) for place in places)


def test_words_without_a_decoder_are_themselves() -> None:
    tokenizer = tiny.tokenizer("<s> $A")
    spelling = Spelling(tokenizer, tiny.VOCABULARY)
    assert spelling.text(token(tokenizer, "cat")) == "cat" and spelling.bytes_of(1) == b"<s>"
    assert spelling.places_in("the cat sat") == [0, 0, 4, 8]
    assert spelling.places(tokenizer.encode("the cat sat").ids) == [0, 0, 3, 7]


def test_what_is_settled() -> None:
    assert settled("ab\ufffd\ufffd") == 2 and settled("ab") == 2 and settled("") == 0
