"""What a party refuses of a client's word between two steps."""

from __future__ import annotations

from typing import Any

import pytest

from puma.engine.admission import OWNER, Allowed
from puma.engine.request import Request
from puma.engine.turns import admit_word
from puma.errors import AdmissionError, InputError, ProtocolError, PumaError, UsageError
from puma.models.config import Llama
from puma.wire.messages import Generate, Input, Pace, canonical, public

CONFIG = Llama(vocab_size=16, hidden_size=8, intermediate_size=8, layers=1, heads=2, context=8)
FEW = Allowed((), tokens=20)


def job(lengths: list[int], tokens: int = 3, **settings: Any) -> Generate:
    how: dict[str, Any] = {"paced": True} | settings
    return Generate(Input(lengths, []), tokens, **how)


def refused(word: Pace, first: Generate, allowed: Allowed = OWNER, flags: int = 0) -> None:
    requests = [Request(first, None, [2] * len(first.input.lengths), [(n, 3) for n in first.input.lengths])]
    admit_word(CONFIG, "spline", requests, word, flags, allowed)


@pytest.mark.parametrize(
    ("word", "first", "error"),
    [
        (Pace(True, leave=[2]), job([3, 1]), ProtocolError),
        (Pace(True, leave=[0, 0]), job([3, 1]), ProtocolError),
        (Pace(True, leave=[0, 1]), job([3, 1]), ProtocolError),
        (Pace(True, Input([1, 1], [])), job([3, 1]), ProtocolError),
        (Pace(True), job([3, 1], reveal=True), ProtocolError),
        (Pace(True, Input([1, 1], []), leave=[0]), job([3, 1], reveal=True), ProtocolError),
        (Pace(True, Input([1, 2], [])), job([3, 1], reveal=True), ProtocolError),
        (Pace(True, Input([1, 1], [], padded=True)), job([3, 1], reveal=True), ProtocolError),
        (Pace(True, Input([1, 1], []), leave=[0]), job([3], reveal=True, beams=2), ProtocolError),
        (Pace(True, join=[job([2], 9)]), job([3, 1]), InputError),
        (Pace(True, join=[job([0])]), job([3, 1]), InputError),
        (Pace(True, join=[job([2], 0)]), job([3, 1]), UsageError),
        (Pace(True, join=[job([2], paced=False)]), job([3, 1]), UsageError),
        (Pace(True, join=[job([2], reveal=True)]), job([3, 1]), UsageError),
        (Pace(True, join=[job([2], temperature=1e-9)]), job([3, 1]), UsageError),
        (Pace(True, join=[job([1] * 128)] * 2), job([3, 1]), InputError),
        (Pace(True, kept=[[0], [0]]), job([3, 1]), ProtocolError),
        (Pace(True, Input([1, 1], []), kept=[[0], [0]]), job([3, 1], reveal=True), ProtocolError),
        (Pace(True, Input([1, 1], [])), job([3, 1], drafts=2), ProtocolError),
        (Pace(True, Input([1, 1], []), kept=[[0]]), job([3, 1], drafts=2), ProtocolError),
        (Pace(True, Input([1, 1], []), kept=[[0], [0, 1]]), job([3, 1], drafts=2), ProtocolError),
        (Pace(True, Input([1, 4], []), kept=[[0], [0]]), job([3, 1], drafts=4), ProtocolError),  # it is owed two
        (Pace(True, Input([1, 3], []), kept=[[0], [0]]), job([3, 1], drafts=1), ProtocolError),
        (Pace(True, Input([0, 1], []), kept=[[0], [0]]), job([3, 1], drafts=4), ProtocolError),
        (Pace(True, Input([1], []), kept=[[0], [0]]), job([3, 1], drafts=4), ProtocolError),
        (Pace(True, Input([2, 1], []), kept=[[0], [0]], parents=[[1], []]), job([3, 1], drafts=4), ProtocolError),
        (Pace(True, Input([2, 1], []), kept=[[0], [0]], parents=[[0]]), job([3, 1], drafts=4), ProtocolError),
        (Pace(True, Input([2, 1], []), kept=[[0], [0]], parents=[[0], [0]]), job([3, 1], drafts=4), ProtocolError),
        (Pace(True, Input([3, 1], []), kept=[[0], [0]], parents=[[0, 1], []]), job([3, 1], drafts=4), ProtocolError),
        (Pace(True, parents=[[]]), job([3, 1]), ProtocolError),
        (Pace(True, Input([1, 1], []), kept=[[0], [0]], join=[job([2])]), job([3, 1], drafts=4), UsageError),
        (Pace(True, Input([1, 1], []), kept=[[0], []]), job([3, 1], drafts=4), ProtocolError),  # its prompt
        (Pace(True, Input([1], []), kept=[[0], []], leave=[1]), job([3, 1], drafts=4), ProtocolError),
        (Pace(True, Input([1, 1], [], begun=1)), job([3, 1], reveal=True), ProtocolError),
        (Pace(True, Input([1, 1], [], types=[0, 0])), job([3, 1], reveal=True), ProtocolError),
        (Pace(True, Input([1, 1], [], quick=("norm",))), job([3, 1], reveal=True), ProtocolError),
    ],
)
def test_words_that_contradict_what_is_under_way(word: Pace, first: Generate, error: type[PumaError]) -> None:
    with pytest.raises(error) as found:
        refused(word, first)
    assert found.value.hint


@pytest.mark.parametrize("kept", [[1], [0, 2, 3], [0, 1, 2], [0, 3, 1], [0, 4], [0, 0], [0, -1], [0, 1, 1]])
def test_what_counts_is_a_path(kept: list[int]) -> None:
    """Of a token and three drafts, of which the third follows the first."""
    first = job([3], 9, drafts=4)
    request = Request(first, None, [7], [(3, 9)])
    request.follows = [[0, 0, 1]]
    for right in ([], [0], [0, 1], [0, 2], [0, 1, 3]):
        admit_word(CONFIG, "spline", [request], Pace(True, Input([1], []), kept=[right]), 0, OWNER)
    with pytest.raises(ProtocolError, match="which tokens"):
        admit_word(CONFIG, "spline", [request], Pace(True, Input([1], []), kept=[kept]), 0, OWNER)


def test_a_word_with_drafts() -> None:
    refused(Pace(True, Input([4, 1], []), kept=[[0], [0]], parents=[[0, 0, 0], []]), job([3, 1], drafts=3))
    refused(Pace(True, Input([2, 1], []), kept=[[0], [0]]), job([3, 1], drafts=2))
    later = Request(job([3, 1], 4, drafts=2), None, [2, 2], [(3, 4), (1, 4)])
    again = Pace(True, Input([3], []), kept=[[], [0]], leave=[1])
    admit_word(CONFIG, "spline", [later], again, 0, OWNER)


def test_a_step_with_too_many_logits_is_refused() -> None:
    config = Llama(vocab_size=1 << 20, hidden_size=8, intermediate_size=8, layers=1, heads=2, context=64)
    first = job([3], 20, drafts=16)
    request = Request(first, None, [19], [(3, 20)])
    admit_word(config, "spline", [request], Pace(True, Input([8], []), kept=[[0]]), 0, OWNER)
    with pytest.raises(InputError, match="too many for one step"):
        admit_word(config, "spline", [request], Pace(True, Input([9], []), kept=[[0]]), 0, OWNER)


def test_all_rows_count_against_the_limit() -> None:
    refused(Pace(True, join=[job([1], 5)]), job([3, 1]), FEW)  # 10 under way and 6
    with pytest.raises(AdmissionError, match="21 tokens"):
        refused(Pace(True, join=[job([1], 5), job([1], 4)]), job([3, 1]), FEW)
    refused(Pace(True, leave=[0], join=[job([1], 5), job([1], 4)]), job([3, 1]), FEW)


def test_the_digest_of_a_word_has_no_seed_in_it() -> None:
    seeds = [b"s" * 32]
    word = Pace(True, Input([1], seeds, seeds), join=[Generate(Input([2], seeds, seeds), 3, paced=True)])
    assert b"ssss" not in canonical(public(word))
    assert canonical(public(word)) != canonical(public(Pace(True, Input([1], []), join=[job([2], 2)])))
