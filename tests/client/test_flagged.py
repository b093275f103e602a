"""A number that leaves its reach raises the flag of its prompt at the client, whatever is asked, and at nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from puma.client.batch import Batch
from puma.client.beam_search import Beams
from puma.client.channel import judgement
from puma.client.sampling import Sampler, Sampling
from puma.client.tokens.remembered import Remembered
from puma.errors import OutOfRange, OutOfRangeWarning, UsageError
from puma.models.formats import Formats
from puma.reference.fixed_session import FixedSession
from puma.reference.plain_model import PlainModel
from puma.store.prepared_requests import PreparedRequests
from puma.wire.messages import Encode, Generate, Input
from tests.threads import Threads

LOUD, QUIET = [3, 7, 5], [3, 4, 5, 6]  # token 7 is the one that is too large
BOTH, NAMES = [QUIET, LOUD], [1]


def loud(clear: PlainModel, table: str, place: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """The model with one token whose row is ten times as long as a norm's reach, all others being within it."""
    params = dict(clear.params)
    words = params[table].clone()
    words[7] = torch.tensor([100.0, -100.0]).repeat(words.shape[1] // 2)
    config = msgspec.structs.replace(clear.config, formats=Formats(places={place: 6}))
    return config, params | {table: words}


@pytest.fixture(scope="module")
def decoder(checkpoints: dict[str, Path]) -> tuple[Any, dict[str, torch.Tensor]]:
    return loud(PlainModel(checkpoints["llama"]), "model.embed_tokens.weight", "model.layers.0.input_layernorm")


@pytest.fixture(scope="module")
def encoder(checkpoints: dict[str, Path]) -> tuple[Any, dict[str, torch.Tensor]]:
    clear = PlainModel(checkpoints["classifier"])
    config, params = loud(clear, "bert.embeddings.word_embeddings.weight", "bert.embeddings.LayerNorm")
    return config, params


@pytest.fixture(scope="module")
def generating(decoder: Any) -> Iterator[Threads]:
    with Threads() as trio:
        trio.share(*decoder, reveal_logits=True)
        yield trio


@pytest.fixture(scope="module")
def encoding(encoder: Any) -> Iterator[Threads]:
    with Threads() as trio:
        trio.share(*encoder)
        yield trio


def test_a_generation_ends_with_the_first_token_that_may_be_wrong(generating: Threads) -> None:
    session = generating.session
    assert len(list(session.continued([QUIET], 2))) == 2
    sampled = Sampler(Sampling(0.5, seed=1))
    hows: list[Any] = [{}, {"paced": True}, {"ahead": 2}, {"temperature": 0.7}, {"choose": sampled}]
    for how in hows:
        with pytest.raises(OutOfRange, match="left its range") as caught:
            list(session.continued(BOTH, 3, **how))
        assert caught.value.prompts == NAMES and "prompt 2 of 2" in caught.value.message
    assert len(list(session.continued([QUIET], 2))) == 2  # the session goes on


def test_it_can_be_taken_all_the_same(generating: Threads) -> None:
    session = generating.session
    session.out_of_range = "warn"
    try:
        with pytest.warns(OutOfRangeWarning, match="may be wrong"):
            assert len(list(session.continued([LOUD], 2))) == 2
    finally:
        session.out_of_range = "refuse"


def test_what_may_be_wrong_is_not_gone_on_from(generating: Threads) -> None:
    """The next turn would take over what left its range, and nothing would be said of it."""
    session, memory, long = generating.session, Remembered(), [*LOUD, *QUIET, *QUIET]
    session.out_of_range = "warn"
    try:
        for _ in range(2):
            with pytest.warns(OutOfRangeWarning, match="may be wrong"):
                first = [token for (token,) in session.continued([long], 2, memory=memory)]
            assert session.held == 0
            long += [*first, 4]
        quiet = [token for _ in range(3) for token in QUIET]
        for held in (0, len(quiet) - 1):
            assert len(list(session.continued([quiet], 2, memory=memory))) == 2 and session.held == held
    finally:
        session.out_of_range = "refuse"


def test_every_step_has_a_flag_of_its_own(generating: Threads) -> None:
    """The client chooses the loud token in the second step: the first is sound, and from then on all are wrong."""
    session, chosen = generating.session, iter([4, 7, 4])
    steps = session.continued([QUIET], 3, choose=lambda _: [next(chosen)])
    assert next(steps) == [4] and next(steps) == [7]
    with pytest.raises(OutOfRange):
        next(steps)


def test_a_beam_search_is_one_prompt(generating: Threads) -> None:
    assert list(generating.session.search(QUIET, Beams(2, 3))) == [1, 2, 3]
    with pytest.raises(OutOfRange):
        list(generating.session.search(LOUD, Beams(2, 3)))


def test_askers_of_one_batch_hear_of_their_own_prompts(generating: Threads) -> None:
    with Batch(generating.session) as batch:
        sound = batch.add([QUIET, QUIET], 3)
        batch.step()
        assert not sound.flagged
        wrong = batch.add([QUIET, LOUD], 2)
        found = batch.step()
        assert sound.flagged == set() and wrong.flagged == {1}
        assert sorted(found[wrong]) == [0, 1]
        batch.drop(wrong)
        batch.step()
        assert not sound.flagged


def test_padded_prompts(generating: Threads) -> None:
    session = generating.session
    assert len(list(session.continued([QUIET], 1, lengths="secret"))) == 1
    with pytest.raises(OutOfRange):
        list(session.continued([LOUD], 1, lengths="secret"))


@pytest.mark.parametrize("output", ["hidden", "pooled", "logits"])
def test_encodings(output: str, encoding: Threads) -> None:
    session = encoding.session
    assert len(session.encode([QUIET, QUIET], output)) == 2
    with pytest.raises(OutOfRange) as caught:
        session.encode([LOUD, QUIET, LOUD], output)
    assert caught.value.prompts == [0, 2]
    assert len(session.encode([QUIET], output)) == 1


def test_what_was_prepared(decoder: Any, memory: Path) -> None:
    with Threads(memory / "store") as trio:
        trio.share(*decoder)
        assert isinstance(trio.session.prepared_requests, PreparedRequests)
        for ids in (QUIET, LOUD):
            trio.session.prepare(Generate(Input([len(ids)], []), 2))
            trio.session.prepare(Encode(Input([len(ids)], []), "hidden"))
        assert len(list(trio.session.continued([QUIET], 2))) == 2 and trio.session.cost.prepared  # type: ignore[union-attr]
        with pytest.raises(OutOfRange):
            list(trio.session.continued([LOUD], 2))
        assert len(trio.session.encode([QUIET], "hidden")) == 1
        with pytest.raises(OutOfRange):
            trio.session.encode([LOUD], "hidden")


def test_the_clear_run_says_it_too(decoder: Any, encoder: Any) -> None:
    alone = FixedSession(*decoder)
    list(alone.continued(BOTH, 2))
    assert alone.flagged == [1]
    list(alone.continued([QUIET], 2))
    assert alone.flagged == []
    alone = FixedSession(*encoder)
    alone.encode([LOUD, QUIET], "pooled")
    assert alone.flagged == [0]


def test_a_choice_is_one_of_two() -> None:
    assert judgement("warn") == "warn"
    with pytest.raises(UsageError, match="out_of_range"):
        judgement("ignore")
