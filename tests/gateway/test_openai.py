"""OpenAI's own client, unchanged, against the gateway: what it asks, what it gets, and errors as it knows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.gateway.conftest import Served, openai, serving
from tests.models import tiny

PROMPT = "the cat sat on"


def plain(served: Served, tokens: int, prompt: str = PROMPT) -> str:
    """What the plain model says."""
    ids = served.clear.prompt_ids(prompt, tokens)
    before = served.clear.decode(ids)
    return served.clear.decode([*ids, *served.clear.greedy(ids, tokens)])[len(before) :]


def test_models(served: Served) -> None:
    (found,) = served.client.models.list().data
    assert (found.id, found.object) == ("tiny", "model")
    assert served.client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError) as missing:
        served.client.models.retrieve("huge")
    assert missing.value.code == "model_not_found"


def test_completion(served: Served) -> None:
    found = served.client.completions.create(model="tiny", prompt=PROMPT, max_tokens=5)
    (choice,) = found.choices
    assert choice.text == plain(served, 5) and choice.finish_reason == "length" and choice.logprobs is None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (5, 5, 10)


def test_prompts_and_choices_go_in_one_batch(served: Served) -> None:
    ids = served.clear.prompt_ids("a dog", 3)
    found = served.client.completions.create(model="tiny", prompt=[PROMPT, "a dog"], max_tokens=3, n=2, echo=True)
    texts = [choice.text for choice in found.choices]
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    assert texts[0] == texts[1] == PROMPT + plain(served, 3)
    assert texts[2] == texts[3] == "a dog" + plain(served, 3, "a dog")
    assert found.usage.prompt_tokens == 8 and found.usage.completion_tokens == 12
    by_ids = served.client.completions.create(model="tiny", prompt=ids, max_tokens=3)
    assert by_ids.choices[0].text == plain(served, 3, "a dog")


def test_chat_without_a_template_continues_the_text(served: Served) -> None:
    parts = [{"type": "text", "text": "the cat "}, {"type": "text", "text": "sat on"}]
    found = served.client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": parts}], max_completion_tokens=4
    )
    assert found.choices[0].message.role == "assistant"
    assert found.choices[0].message.content == plain(served, 4)


def test_chat_streams(served: Served) -> None:
    stream = served.client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": PROMPT}], max_tokens=4, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    *pieces, last = list(stream)
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(p.choices[0].delta.content or "" for p in pieces) == plain(served, 4)
    assert [p.choices[0].finish_reason for p in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].choices[0].finish_reason == "length"
    assert last.choices == [] and last.usage.completion_tokens == 4 and last.usage.prompt_tokens == 5


def test_completion_streams(served: Served) -> None:
    stream = served.client.completions.create(model="tiny", prompt=[PROMPT, "a dog"], max_tokens=3, stream=True)
    texts = {0: "", 1: ""}
    for piece in stream:
        texts[piece.choices[0].index] += piece.choices[0].text
    assert texts == {0: plain(served, 3), 1: plain(served, 3, "a dog")}


@pytest.mark.parametrize("fixed", [False, True])
def test_a_stop_string_ends_an_answer(fixed: bool, served: Served, llama: Path) -> None:
    whole = plain(served, 6)
    stop = whole.split()[2]

    def check(found: Any) -> None:
        asked = {"model": "tiny", "prompt": PROMPT, "max_tokens": 6, "stop": ["nothing like it", stop]}
        choice = found.client.completions.create(**asked).choices[0]
        assert choice.text == whole[: whole.index(stop)] and choice.finish_reason == "stop"
        streamed = "".join(p.choices[0].text for p in found.client.completions.create(**asked, stream=True))
        assert streamed == choice.text

    with serving(llama, fixed=fixed) as found:
        check(found)
        session = found.session
        spent = session.cost.rounds
        list(session.continued([found.clear.prompt_ids(PROMPT, 6)], 6))
        assert spent == session.cost.rounds if fixed else spent < session.cost.rounds


def test_an_end_of_text_token_ends_an_answer(llama: Path, served: Served) -> None:
    tokens = served.clear.greedy(served.clear.prompt_ids(PROMPT, 3), 3)
    third = tokens[2]
    folder = tiny.llama(llama.parent / "ending", num_hidden_layers=1, eos_token_id=third)
    with serving(folder) as found:
        answer = found.client.completions.create(model="tiny", prompt=PROMPT, max_tokens=9)
        assert answer.choices[0].finish_reason == "stop" and answer.usage.completion_tokens == tokens.index(third) + 1
        chat = found.client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": PROMPT}])
        assert chat.choices[0].finish_reason == "stop"


def test_embeddings(checkpoints: dict[str, Path]) -> None:
    with serving(checkpoints["bert"]) as found:
        texts = ["the cat sat", "a dog"]
        for form in ({}, {"encoding_format": "float"}):
            answer = found.client.embeddings.create(model="tiny", input=texts, **form)
            assert answer.usage.prompt_tokens == 9
            for one, text in zip(answer.data, texts, strict=True):
                plain = found.clear.encoded(found.clear.sentence_ids(text))
                assert float((torch.tensor(one.embedding, dtype=torch.float64) - plain).abs().max()) < 0.01
        with pytest.raises(openai.BadRequestError) as refused:
            found.client.completions.create(model="tiny", prompt="the cat")
        assert "does not generate" in refused.value.message
        with pytest.raises(openai.BadRequestError) as refused:
            found.client.embeddings.create(model="tiny", input="the cat", dimensions=99)
        assert refused.value.param == "dimensions"


CHAT = {"messages": [{"role": "user", "content": "the cat"}], "max_tokens": 2}


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"frequency_penalty": -1}, "frequency_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"max_tokens": 25}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_completion_tokens": 2}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": 1, "top_p": 0.5}, "top_p"),
        ({"temperature": 1, "seed": 5}, "seed"),
        ({"temperature": 1, "extra_body": {"top_k": 4}}, "top_k"),
        ({"temperature": 1, "top_p": 2}, "top_p"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "the"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages"),
        ({"extra_body": {"min_p": 0.1}}, "min_p"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(asked: dict[str, Any], param: str, served: Served) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        served.client.chat.completions.create(**({"model": "tiny"} | CHAT | asked))
    assert refused.value.param == param and refused.value.type == "invalid_request_error"
    assert refused.value.body["message"]


def test_what_changes_nothing_may_be_said(served: Served) -> None:
    found = served.client.chat.completions.create(
        model="tiny", **CHAT, temperature=0, top_p=0.5, seed=3, presence_penalty=0, frequency_penalty=0.0,
        logit_bias={}, user="me", n=1, metadata={"a": "b"}, response_format={"type": "text"},
    )  # fmt: skip
    assert len(found.choices) == 1


def test_wrong_models_and_prompts(served: Served) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        served.client.chat.completions.create(model="gpt-4", **CHAT)
    assert missing.value.param == "model" and missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        served.client.completions.create(model="tiny", prompt="the " * 40, max_tokens=2)
    assert long.value.code == "context_length_exceeded" and long.value.param == "prompt"
    with pytest.raises(openai.BadRequestError):
        served.client.completions.create(model="tiny", prompt="", max_tokens=2)
    with pytest.raises(openai.BadRequestError):
        served.client.completions.create(model="tiny", prompt=[1, 999], max_tokens=2)
    with pytest.raises(openai.BadRequestError) as no_embedding:
        served.client.embeddings.create(model="tiny", input="the cat")
    assert no_embedding.value.param == "model"


def test_sampling_from_revealed_logits(revealing: Served) -> None:
    asked = {"model": "tiny", "prompt": PROMPT, "max_tokens": 6, "temperature": 1.5}
    first, again, other = (
        revealing.client.completions.create(**asked, seed=seed, top_p=0.9).choices[0].text for seed in (1, 1, 2)
    )
    assert first == again != other
    greedy = revealing.client.completions.create(**asked, extra_body={"top_k": 1}).choices[0].text
    assert greedy == plain(revealing, 6)


def test_logprobs(revealing: Served) -> None:
    found = revealing.client.completions.create(model="tiny", prompt=PROMPT, max_tokens=3, temperature=0, logprobs=2)
    noted = found.choices[0].logprobs
    assert len(noted.tokens) == len(noted.token_logprobs) == len(noted.top_logprobs) == 3
    for token, value, top in zip(noted.tokens, noted.token_logprobs, noted.top_logprobs, strict=True):
        assert value < 0 and max(top.values()) == value == top[token]
    chat = revealing.client.chat.completions.create(model="tiny", **CHAT, temperature=0, logprobs=True, top_logprobs=3)
    content = chat.choices[0].logprobs.content
    assert len(content) == 2 and all(len(one.top_logprobs) == 3 and one.logprob < 0 for one in content)
    assert content[0].bytes == list(content[0].token.encode())
