"""Bodies that make no sense: each refused with OpenAI's shape and the parameter's name, and the session lives."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.conftest import Served, openai, serving

DEEP = '{"a":' * 5000 + "1" + "}" * 5000


def post(served: Served, path: str, body: str | bytes) -> tuple[int, Any]:
    """The status and error of a body as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    connection.request("POST", path, body, {"content-type": "application/json"})
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read()).get("error")
    connection.close()
    return found


def refused(served: Served, path: str, body: str | bytes, param: str | None) -> None:
    sessions = len(served.clusters)
    status, error = post(served, path, body)
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param), error
    assert error["message"] and "Error" not in error["message"] and len(error["message"]) < 300
    assert len(served.clusters) == sessions and served.gateway.worker.state in ("idle", "ready")


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ('"temperature": 1e999', "temperature"),
        ('"temperature": 5e-324', "temperature"),
        ('"temperature": "1"', "temperature"),
        ('"temperature": true', "temperature"),
        ('"temperature": NaN', None),  # is no JSON
        ('"temperature": -Infinity', None),
        ('"logit_bias": {"1": NaN}', None),
        ('"max_tokens": 1e30', "max_tokens"),
        ('"max_tokens": 99999999999999999999999999', "max_tokens"),
        ('"max_tokens": 1.5', "max_tokens"),
        ('"n": -1', "n"),
        ('"seed": 99999999999999999999', "seed"),
        ('"top_k": 99999999999999999999', "top_k"),
        ('"stop": [1]', "stop"),
        ('"stream": "yes"', "stream"),
        ('"logprobs": true', "logprobs"),
        ('"metadata": ' + DEEP, None),
        ('"nonsense": 1', "nonsense"),
    ],
)
def test_wrong_values(value: str, param: str | None, served: Served) -> None:
    refused(served, "/v1/completions", f'{{"model": "tiny", "prompt": "the cat", "max_tokens": 1, {value}}}', param)


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        ('""', "prompt"),
        ("[]", "prompt"),
        ("[[]]", "prompt"),
        ("null", "prompt"),
        ("[1, -1]", "prompt"),
        ("[1, 28]", "prompt"),
        ("[99999999999999999999]", "prompt"),
        ("[1, 1e30]", "prompt"),
        ("[true]", "prompt"),
        ('["a", [1]]', "prompt"),
        ('"\\ud800"', None),
        (json.dumps(["the"] * 2049), "n"),
        (json.dumps([[-1]] * 129), "n"),  # before any is read
        (json.dumps("the " * 100000), "prompt"),
        (json.dumps([1] * 33), "prompt"),
    ],
)
def test_wrong_prompts(prompt: str, param: str | None, served: Served) -> None:
    refused(served, "/v1/completions", f'{{"model": "tiny", "max_tokens": 1, "prompt": {prompt}}}', param)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ("[]", "messages"),
        ("[null]", "messages"),
        ('"hi"', "messages"),
        ('[{"role": "user", "content": ""}]', "messages"),
        ('[{"role": "user", "content": 5}]', "messages"),
        ('[{"role": "user", "content": "the", "x": 1}]', "x"),
        (json.dumps([{"role": "user", "content": "the " * 50}]), "messages"),
    ],
)
def test_wrong_messages(messages: str, param: str, served: Served) -> None:
    refused(served, "/v1/chat/completions", f'{{"model": "tiny", "max_tokens": 1, "messages": {messages}}}', param)


@pytest.mark.parametrize("body", ["", "[" * 100000, "null", b"\xff\xfe", '{"model": "tiny"', DEEP])
def test_wrong_bodies(body: str | bytes, served: Served) -> None:
    status, error = post(served, "/v1/completions", body)
    assert status == 400 and error["type"] == "invalid_request_error" and len(error["message"]) < 300


def test_a_long_name_is_not_repeated_whole(served: Served) -> None:
    status, error = post(served, "/v1/completions", json.dumps({"model": "x" * 100000, "prompt": "the"}))
    assert status == 404 and len(error["message"]) < 300


@pytest.mark.parametrize("texts", [[], ["the"] * 2049, [""], ["the " * 600]])
def test_wrong_texts(texts: list[str], checkpoints: dict[str, Path]) -> None:
    with serving(checkpoints["bert"]) as found:
        with pytest.raises(openai.BadRequestError) as error:
            found.client.embeddings.create(model="tiny", input=texts)
        assert error.value.param == "input" and not found.clusters


def test_seeds_of_64_bits_are_honoured(revealing: Served) -> None:
    asked = {"model": "tiny", "prompt": "the cat", "max_tokens": 1, "temperature": 1.0}
    for seed in (-(1 << 63), (1 << 63) - 1):
        assert revealing.client.completions.create(**asked, seed=seed).choices
    assert revealing.client.completions.create(**asked, extra_body={"top_k": 1 << 31}).choices
