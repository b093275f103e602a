"""What a text has said before, it may say again."""

from __future__ import annotations

from collections.abc import Sequence

from puma.client.drafts.lookup import Lookup
from puma.client.drafts.tempo import Tempo
from puma.client.sampling import Sampling
from tests.client.drafts.test_tempo import measured


def begun(ids: Sequence[int], tempo: Tempo | None = None) -> object:
    return Lookup().begin(ids, Sampling(), tempo or measured(1.0, 0.001))


def proposed(ids: Sequence[int], most: int = 8) -> list[int]:
    return list(begun(ids).propose(most).tokens)  # type: ignore[attr-defined]


def test_the_longest_end_that_stood_before_is_copied() -> None:
    assert proposed([1, 2, 3, 4, 5, 6, 9, 2, 3]) == [4, 5, 6, 9, 2, 3, 4, 5]  # beyond the end it copies itself
    assert proposed([1, 2, 3, 8, 2, 3, 7, 7, 7, 9, 1, 2, 3], 2) == [8, 2]  # three tokens agree, not two
    assert proposed([2, 3, 8, 0, 2, 3, 7, 0, 2, 3], 1) == [7]  # of equals the latest


def test_where_there_is_nothing_to_copy_there_is_no_draft() -> None:
    assert proposed([1, 2, 3, 4, 5]) == [] and proposed([7]) == []
    assert proposed([1, 2, 3, 1, 2, 3], 0) == []


def test_a_repetition_goes_on() -> None:
    assert proposed([5, 5, 5, 5, 5, 5], 6) == [5] * 6


def test_answers_are_looked_up_too() -> None:
    drafter = begun([1, 2, 3])
    assert not drafter.propose(8).tokens  # type: ignore[attr-defined]
    drafter.learn([9, 8, 7, 6, 9, 8])  # type: ignore[attr-defined]
    assert list(drafter.propose(2).tokens) == [7, 6]  # type: ignore[attr-defined]


def test_it_gives_up_what_is_always_wrong_and_comes_back_once_it_is_right() -> None:
    """What is not worth sending is still guessed, so that it costs nothing to find out."""
    pair, drafter = [1, 2], begun([1, 2, 3], measured(1.0, 0.1))
    sent = []
    for fresh in range(10, 40):
        drafter.learn([fresh, *pair])  # type: ignore[attr-defined]
        sent.append(len(drafter.propose(8).tokens))  # type: ignore[attr-defined]
    assert sent[0] > 0 and sent[-1] == 0, "what follows 1 2 is always new"
    sent = []
    for _ in range(30):
        drafter.learn([3, 4, *pair])  # type: ignore[attr-defined]
        sent.append(len(drafter.propose(8).tokens))  # type: ignore[attr-defined]
    assert sent[-1] >= 4


def test_long_texts_are_looked_up_at_once() -> None:
    text = [i * 7919 % 97 for i in range(20_000)]
    drafter = begun(text)
    for _ in range(200):
        token = drafter.propose(8).tokens[0]  # type: ignore[attr-defined]
        drafter.learn([token])  # type: ignore[attr-defined]
    assert token == text[(20_000 + 199) % 97]
