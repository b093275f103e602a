"""Texts and pairs are cut where the library's tokenizers cut them, and every token keeps its type and its place."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from tokenizers import Tokenizer, processors

from puma.errors import InputError
from puma.models.reading.cutting import pieces
from tests.models import tiny

CLS, SEP = ("[CLS]", 3), ("[SEP]", 4)
FRAMES = {
    "bert": tiny.tokenizer("[CLS] $A [SEP]").post_processor,
    "old bert": processors.BertProcessing(SEP, CLS),
    "roberta": processors.RobertaProcessing(SEP, CLS, trim_offsets=False, add_prefix_space=False),
    "none": None,
}
TEXTS = ["the", "the cat sat on the mat", "a big dog ran and ran under it", "the [SEP] cat"]


def framed(name: str) -> Tokenizer:
    words = tiny.tokenizer("<s> $A")
    words.post_processor = FRAMES[name]
    return words


def theirs(words: Tokenizer, *texts: str, **how: Any) -> Any:
    import transformers

    side = {"truncation_side": how.pop("side", "right")}
    library = transformers.PreTrainedTokenizerFast(tokenizer_object=words, **side)
    return library(*texts, return_token_type_ids=True, return_offsets_mapping=True, **how)


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("how", ["longest_first", "only_first", "only_second"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_pairs_are_cut_as_the_library_cuts_them(name: str, how: Any, side: str) -> None:
    cut = 0
    for first, second, most in product(TEXTS, TEXTS, (7, 8, 9, 12)):
        try:
            (mine,) = pieces(framed(name).encode(first, second), most, how, left=side == "left")
        except InputError:  # nothing would be left of one
            continue
        found = theirs(framed(name), first, second, truncation=how, max_length=most, side=side)
        assert (mine.ids, mine.types, mine.spans) == (found.input_ids, found.token_type_ids, found.offset_mapping)
        assert mine.texts == found.sequence_ids() and len(mine.ids) <= most
        assert mine.whole == (len(theirs(framed(name), first, second).input_ids) <= most)
        cut += not mine.whole
    assert cut > 3


def test_a_single_text_is_cut_at_its_end() -> None:
    for text, most in product(TEXTS, (3, 4, 6, 40)):
        (mine,) = pieces(framed("bert").encode(text), most, "longest_first")
        assert mine.ids == theirs(framed("bert"), text, truncation=True, max_length=most).input_ids


@pytest.mark.parametrize(("most", "stride"), [(9, 1), (9, 2), (11, 3), (40, 2)])
def test_windows_are_the_librarys(most: int, stride: int) -> None:
    pair = "the cat", "a big dog ran and ran under the mat and it sat on a hat"
    mine = [*pieces(framed("bert").encode(*pair), most, "only_second", stride)]
    found = theirs(
        framed("bert"), *pair, truncation="only_second", max_length=most, stride=stride, return_overflowing_tokens=True
    )
    assert [piece.ids for piece in mine] == found.input_ids
    assert [piece.spans for piece in mine] == found.offset_mapping
    assert all(1 in piece.types for piece in mine)


def test_pieces_have_half_of_what_they_hold_in_common_at_most() -> None:
    given = framed("bert").encode("the cat", "a big dog ran and ran under the mat and it sat on a hat")
    assert [*pieces(given, 9, "only_second", 3)] == [*pieces(given, 9, "only_second", 2)]


def test_what_cannot_be_cut_is_refused() -> None:
    long = framed("bert").encode(TEXTS[2], TEXTS[2])
    with pytest.raises(InputError, match="19 tokens"):
        list(pieces(long, 12))
    with pytest.raises(InputError, match="no room"):
        list(pieces(long, 10, "only_second"))
