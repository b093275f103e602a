"""Probabilities: of prompts that are echoed, as evaluations score texts, and of tokens that are parts of characters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from puma.wire.messages import NEXT
from tests.gateway.conftest import Served, openai, serving, until
from tests.models import lettered

PROMPT = "hi hi ü€ hi"


@pytest.fixture(scope="module", params=["byte_level", "falling_back"])
def spelled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Logits revealed, tokens of bytes."""
    folder = lettered.llama(tmp_path_factory.mktemp("spelled") / "model", getattr(lettered, request.param)())
    with serving(folder, reveal=True) as found:
        yield found


def plain(served: Served, ids: list[int]) -> torch.Tensor:
    """Logarithms of probability of every next token, in the clear."""
    (logits,) = served.clear.session.encode([ids], NEXT)
    return torch.log_softmax(logits, -1)


def ids_of(served: Served, prompt: str | list[int]) -> list[int]:
    return prompt if isinstance(prompt, list) else served.clear.prompt_ids(prompt, 1)


def checked(served: Served, choice: Any, ids: list[int]) -> list[int]:
    """The tokens of an answer with its prompt, whose probabilities are those of the plain model."""
    noted, spelling = choice.logprobs, served.clear.spelling
    tokens = [next(i for i in range(lettered.SIZE) if spelling.text(i) == text) for text in noted.tokens]
    assert tokens[: len(ids)] == ids
    assert len(noted.tokens) == len(noted.token_logprobs) == len(noted.top_logprobs) == len(noted.text_offset)
    assert noted.token_logprobs[0] is None and noted.top_logprobs[0] is None
    wanted = plain(served, tokens)
    for place, (token, value, top) in enumerate(
        zip(tokens[1:], noted.token_logprobs[1:], noted.top_logprobs[1:], strict=True)
    ):
        assert abs(value - float(wanted[place, token])) < 0.02
        assert top[noted.tokens[place + 1]] == value and max(top.values()) - float(wanted[place].max()) < 0.02
        assert len(top) <= 3
    assert noted.text_offset == sorted(noted.text_offset) and noted.text_offset[-1] <= len(choice.text)
    return tokens


@pytest.mark.parametrize("tokens", [0, 1, 4])
def test_a_prompt_is_scored(tokens: int, spelled: Served) -> None:
    asked = {"model": "tiny", "max_tokens": tokens, "echo": True, "logprobs": 2, "temperature": 0}
    for prompt in (PROMPT, spelled.clear.prompt_ids(PROMPT, 1)):
        ids = ids_of(spelled, prompt)
        answer = spelled.client.completions.create(prompt=prompt, **asked)
        (choice,) = answer.choices
        found = checked(spelled, choice, ids)
        assert found[len(ids) :] == (spelled.clear.greedy(ids, tokens) if tokens else [])
        assert choice.text.startswith(PROMPT) and choice.finish_reason == "length"
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(ids), tokens)
        for token, at in zip(choice.logprobs.tokens[: len(ids)], choice.logprobs.text_offset, strict=False):
            if not token.startswith("bytes:"):
                assert choice.text[at:].startswith(token) or f" {choice.text}"[at:].startswith(token)


def test_several_prompts_choices_and_a_stream(spelled: Served) -> None:
    prompts = [spelled.clear.prompt_ids(text, 1) for text in ("hi hi", "ü", "hi hi")]
    asked = {"model": "tiny", "prompt": prompts, "max_tokens": 2, "echo": True, "logprobs": 2, "temperature": 0, "n": 2}
    choices = spelled.client.completions.create(**asked).choices
    assert len(choices) == 6
    for choice in choices:
        checked(spelled, choice, prompts[choice.index // 2])
    pieces = list(spelled.client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert pieces[-1].usage.completion_tokens == 12 and pieces[-1].usage.prompt_tokens == sum(map(len, prompts))
    for choice in choices:
        mine = [p.choices[0] for p in pieces[:-1] if p.choices[0].index == choice.index]
        assert "".join(piece.text for piece in mine) == choice.text
        assert [x for piece in mine for x in piece.logprobs.tokens] == choice.logprobs.tokens
        assert [x for piece in mine for x in piece.logprobs.text_offset] == choice.logprobs.text_offset


def test_the_same_tokens_with_a_seed_as_without_an_echo(spelled: Served) -> None:
    asked = {"model": "tiny", "prompt": PROMPT, "max_tokens": 1, "temperature": 1.5, "seed": 4, "logprobs": 2}
    alone = spelled.client.completions.create(**asked).choices[0]
    echoed = spelled.client.completions.create(**asked, echo=True).choices[0]
    assert echoed.text == PROMPT + alone.text and echoed.logprobs.tokens[-1] == alone.logprobs.tokens[0]
    assert alone.logprobs.text_offset == [0] and echoed.logprobs.text_offset[-1] == len(PROMPT)


def test_bytes_are_a_tokens_own(spelled: Served) -> None:
    chat = spelled.client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": PROMPT}], max_tokens=24, temperature=2, seed=1,
        logprobs=True, top_logprobs=20,
    )  # fmt: skip
    spelling, parts = spelled.clear.spelling, 0
    by_text = {spelling.text(i): spelling.bytes_of(i) for i in range(lettered.SIZE)}
    for one in chat.choices[0].logprobs.content:
        for token in (one, *one.top_logprobs):
            assert bytes(token.bytes) == by_text[token.token]
            parts += token.token.startswith("bytes:")
        assert len({token.token for token in one.top_logprobs}) == 20
    assert parts


def test_an_echo_alone_asks_the_parties_nothing(spelled: Served) -> None:
    spelled.client.completions.create(model="tiny", prompt="hi", max_tokens=1, temperature=0)
    before = spelled.session.cost
    answer = spelled.client.completions.create(model="tiny", prompt=[PROMPT, "hi"], max_tokens=0, echo=True)
    assert [choice.text for choice in answer.choices] == [PROMPT, "hi"] and answer.usage.completion_tokens == 0
    assert spelled.session.cost is before


def test_a_stop_string_cuts_offsets_too(spelled: Served) -> None:
    asked = {"model": "tiny", "prompt": PROMPT, "max_tokens": 8, "temperature": 2, "seed": 7, "logprobs": 0}
    whole = spelled.client.completions.create(**asked).choices[0]
    stop = next(letter for letter in whole.text if letter.isprintable())
    cut = spelled.client.completions.create(**asked, stop=stop).choices[0]
    assert cut.text == whole.text[: whole.text.index(stop)] and max(cut.logprobs.text_offset) <= len(cut.text)
    assert cut.logprobs.tokens == whole.logprobs.tokens[: len(cut.logprobs.tokens)]


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 0, "echo": False}, "max_tokens"),
        ({"max_tokens": -1, "echo": True}, "max_tokens"),
        ({"echo": True, "logprobs": 21}, "logprobs"),
        ({"echo": True, "logprobs": 1, "prompt": []}, "prompt"),
        ({"echo": True, "logprobs": 1, "prompt": [0] * 65}, "prompt"),
    ],
)
def test_what_cannot_be_scored(asked: dict[str, Any], param: str, spelled: Served) -> None:
    sessions = len(spelled.clusters)
    with pytest.raises(openai.BadRequestError) as refused:
        spelled.client.completions.create(**{"model": "tiny", "prompt": PROMPT} | asked)
    assert refused.value.param == param and len(spelled.clusters) == sessions


def test_an_owner_who_hides_logits_lets_nobody_score(served: Served) -> None:
    asked = {"model": "tiny", "prompt": "the cat", "max_tokens": 0, "echo": True}
    with pytest.raises(openai.BadRequestError) as refused:
        served.client.completions.create(**asked, logprobs=1)
    assert refused.value.param == "logprobs" and "owner does not let" in refused.value.message
    assert served.client.completions.create(**asked).choices[0].text == "the cat"


def test_a_clusters_client_scores_only_what_the_models_card_allows(spelled: Served) -> None:
    """The parties here let who started them have all; a client of others asks for no more than the card says."""
    spelled.client.completions.create(model="tiny", prompt="hi", max_tokens=1, temperature=0)
    session = spelled.session
    session.owns = False
    try:
        with pytest.raises(openai.BadRequestError) as refused:
            spelled.client.completions.create(model="tiny", prompt="hi", max_tokens=0, echo=True, logprobs=1)
    finally:
        session.owns = True
    assert refused.value.param == "echo" and "--outputs next-logits" in refused.value.message
    assert not session.over


def test_long_prompts_of_large_vocabularies_are_refused_before_anything_is_sent(
    spelled: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("puma.gateway.scoring.MAX_ELEMENTS", 5 * lettered.SIZE)
    asked = {"model": "tiny", "max_tokens": 0, "echo": True, "logprobs": 2}
    with pytest.raises(openai.BadRequestError) as refused:
        spelled.client.completions.create(prompt=[5] * 6, **asked)
    assert refused.value.param == "prompt" and "up to 5" in refused.value.message
    prompts = [[5, 6, 7], [8, 9, 10], [5, 6, 7], [11, 12]]
    choices = spelled.client.completions.create(prompt=prompts, **asked).choices
    assert [len(choice.logprobs.tokens) for choice in choices] == [3, 3, 3, 2]
    for choice, prompt in zip(choices, prompts, strict=True):
        checked(spelled, choice, prompt)


def test_what_it_costs_is_the_sum(spelled: Served) -> None:
    """Of the pass over the prompt, and of the answer."""

    def spent(**asked: Any) -> Any:
        answer = spelled.client.completions.create(model="tiny", prompt=PROMPT, temperature=0, logprobs=1, **asked)
        until(lambda: spelled.gateway.watches.of(answer._request_id).cost)
        return spelled.gateway.watches.of(answer._request_id).cost

    score, answer, both = spent(max_tokens=0, echo=True), spent(max_tokens=2), spent(max_tokens=2, echo=True)
    assert both.rounds == score.rounds + answer.rounds and both.client == score.client + answer.client
    assert both.per_party == [sum(each) for each in zip(score.per_party, answer.per_party, strict=True)]
    rounds = {part["name"]: part["rounds"] for part in both.breakdown}
    assert rounds == {
        name: sum(p["rounds"] for cost in (score, answer) for p in cost.breakdown if p["name"] == name)
        for name in rounds
    }
