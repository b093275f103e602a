"""What a text has said before, it may say again."""

from __future__ import annotations

from collections.abc import Sequence

from puma.client.drafts.draft import Draft
from puma.client.drafts.lookup import Copied, Lookup
from puma.client.drafts.tempo import Tempo
from puma.client.sampling import Sampling
from tests.client.drafts.test_tempo import measured

SLOW = 0.1  # what a further token adds on one machine; next to nothing over a network


def begun(ids: Sequence[int], share: float = SLOW) -> Copied:
    return Lookup().begin(ids, Sampling(), measured(1.0, share))


def paths(draft: Draft) -> list[tuple[int, ...]]:
    """The texts that a draft holds, one for each of its tokens."""
    found: list[tuple[int, ...]] = [()]
    for token, parent in zip(draft.tokens, draft.follows, strict=True):
        found.append((*found[parent], token))
    return found[1:]


def longest(ids: Sequence[int], most: int = 8, share: float = SLOW) -> list[int]:
    return list(max(paths(begun(ids, share).propose(most, most)), key=len, default=()))


def test_the_longest_end_that_stood_before_is_copied() -> None:
    assert longest([1, 2, 3, 4, 5, 6, 9, 2, 3], 4, 0.02) == [4, 5, 6, 9]
    assert paths(begun([1, 2, 3, 8, 2, 3, 7, 7, 7, 9, 1, 2, 3]).propose(1, 1)) == [(8,)]  # three tokens agree, not two


def test_over_a_network_several_go_side_by_side_and_on_one_machine_one_or_none() -> None:
    text = [1, 2, 8, 0, 1, 2, 9, 0, 1, 2]
    near, far = (begun(text, share).propose(32, 8) for share in (0.3, 0.002))
    assert {(8,), (9,)} <= set(paths(far)) and len(far.tokens) > 8 > len(near.tokens)
    assert len(set(paths(far))) == len(far.tokens), "no text is there twice"
    assert not begun(text, 2.0).propose(32, 8).tokens


def test_bounds_are_kept() -> None:
    drafter = begun([5, 6, 7] * 20, 0.001)
    for most, deep in ((0, 0), (3, 1), (7, 3), (64, 20)):
        draft = drafter.propose(most, deep)
        assert len(draft.tokens) <= most and max(map(len, paths(draft)), default=0) <= deep
        assert draft.within(most, deep) == draft or not draft.tokens


def test_where_there_is_nothing_to_copy_there_is_no_draft() -> None:
    assert not begun(range(20)).propose(8, 8).tokens


def test_a_repetition_goes_on() -> None:
    assert longest([5, 5, 5, 5, 5, 5], 6, 0.02) == [5] * 6


def test_answers_are_looked_up_too() -> None:
    drafter = begun(range(20, 40))
    assert not drafter.propose(8, 8).tokens
    drafter.learn([9, 8, 7, 6, 9, 8])
    assert paths(drafter.propose(2, 2))[0] == (7,)


def test_it_gives_up_what_is_always_wrong_and_comes_back_once_it_is_right() -> None:
    """What is not worth sending is judged all the same, so that it costs nothing to find out."""
    pair, drafter, sent = [1, 2], begun([1, 2, 3], 0.15), []
    for fresh in range(10, 60):
        drafter.learn([fresh, *pair])
        sent.append(len(drafter.propose(8, 8).tokens))
    assert sent[0] > 0 and sent[-1] == 0, "what follows 1 2 is always new"
    for _ in range(40):
        drafter.learn([3, 4, *pair])
        sent.append(len(drafter.propose(8, 8).tokens))
    assert sent[-1] >= 4


def test_long_texts_are_looked_up_at_once() -> None:
    text = [i * 7919 % 97 for i in range(20_000)]
    drafter, token = begun(text), 0
    for _ in range(100):
        token = drafter.propose(8, 8).tokens[0]
        drafter.learn([token])
    assert token == text[(20_000 + 99) % 97]


def test_before_anything_is_measured_there_are_drafts() -> None:
    assert Lookup().begin([1, 2, 3, 4, 1, 2, 3], Sampling(), Tempo()).propose(8, 8).tokens[0] == 4
