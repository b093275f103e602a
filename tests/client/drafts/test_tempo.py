"""How long a draft is worth its time, by what steps have taken."""

from __future__ import annotations

import pytest

from puma.client.drafts.tempo import SHARE, Tempo


def measured(seconds: float, token: float, reads: tuple[int, ...] = (1, 4, 2, 8, 1, 3)) -> Tempo:
    """A session whose steps take so long, and so much more for each further token."""
    found = Tempo()
    for _ in range(10):
        for read in reads:
            found.heard(read, seconds + token * (read - 1))
    return found


def test_it_finds_what_a_step_and_a_further_token_take() -> None:
    for token in (0.0, 0.01, 0.2):
        found = measured(1.0, token)
        assert found.seconds(1) == pytest.approx(1.0, rel=0.3) and found.share == pytest.approx(token, abs=0.05)
    assert Tempo().share == SHARE and Tempo().seconds() == 0.0


def test_a_slow_network_takes_longer_drafts_than_a_slow_machine() -> None:
    chances = [0.7] * 16
    waiting, computing = measured(1.0, 0.001), measured(0.01, 0.005)
    assert waiting.worth(chances) > 6 and 0 < computing.worth(chances) <= 2
    assert measured(0.01, 0.01).worth([0.4] * 16) == 0


def test_what_is_never_right_is_never_sent_and_what_is_right_is() -> None:
    tempo = measured(1.0, 0.01)
    assert tempo.worth([]) == 0 and tempo.worth([0.001] * 9) == 0 and tempo.worth([1.0] * 9) == 9
    assert tempo.worth([0.9, 0.9, 0.0, 1.0, 1.0]) == 2


def test_what_the_client_spends_itself_counts() -> None:
    tempo = measured(1.0, 0.01)
    assert tempo.worth([0.5] * 9) > tempo.worth([0.5] * 9, own=0.3) and tempo.worth([0.5] * 9, own=2.0) == 0


def test_what_is_long_ago_is_forgotten() -> None:
    tempo = measured(1.0, 0.0)
    for _ in range(20):
        for read in (1, 5, 9):
            tempo.heard(read, 0.1 + 0.1 * (read - 1))
    assert tempo.worth([0.4] * 9) == 0
