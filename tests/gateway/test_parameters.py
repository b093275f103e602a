"""Every parameter of OpenAI's client with every kind of value: an answer, or a refusal that names it; never a 500."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest

from tests.gateway.conftest import Served
from tests.gateway.test_bad_input import post

OURS = ("timeout", "extra_headers", "extra_query", "extra_body", "self", "model")  # of the client, not of the endpoint
MORE = {
    "/v1/completions": ("top_k", "min_p"),
    "/v1/chat/completions": (
        "top_k", "min_p", "documents", "chat_template_kwargs", "add_generation_prompt", "continue_final_message",
    ),
}  # fmt: skip
VALUES: list[Any] = [
    True, False, 0, 1, -1, 1.5, 1e30, 2**63, 10**40, "", "x", "none", [], [1], [-1], ["x"], [[]], [None], {}, {"a": 1},
    {"type": "text"}, [{}], [{"role": "user"}], {"1": 5}, [[1], [-5]], [2**70], [1.0],
]  # fmt: skip
ALSO = {"n": ("prompt",), "messages": ("role", "content"), "stream_options": ("a", "type", "1")}
NEVER = {"min_p", "audio", "prediction", "verbosity", "web_search_options", "moderation", "suffix", "functions"}
NEUTRAL = {"suffix": [""], "functions": [[]]}


def resources(served: Served) -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Of each endpoint a request without options, and all parameters: the client's and those spoken here besides."""
    client = served.client
    creates = {"/v1/completions": client.completions.create, "/v1/chat/completions": client.chat.completions.create}
    plain = {"prompt": "the"}, {"messages": [{"role": "user", "content": "the"}]}
    return {
        path: (asked, sorted({*inspect.signature(create).parameters, *MORE[path]} - {*OURS}))
        for (path, create), asked in zip(creates.items(), plain, strict=True)
    }


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_every_parameter_with_every_kind_of_value(path: str, served: Served) -> None:
    plain, names = resources(served)[path]
    answered = dict[str, list[Any]]()
    assert len(names) > 17
    served.client.completions.create(model="tiny", prompt="the", max_tokens=1)
    sessions = len(served.clusters)
    for name in names:
        for value in VALUES:
            if name == "stream" and value is True:
                continue  # is no JSON
            body = {"model": "tiny", "max_tokens": 1, **plain, name: value}
            if name == "max_completion_tokens":
                del body["max_tokens"]
            status, error = post(served, path, json.dumps(body))
            assert status in (200, 400), (name, value, error)
            if status == 200:
                answered.setdefault(name, []).append(value)
            else:
                assert error["message"] and len(error["message"]) < 400, (name, value)
                assert error["param"] in (name, *ALSO.get(name, ())), (name, value, error)
    assert len(served.clusters) == sessions and served.gateway.worker.state == "ready"
    assert not [name for name in NEVER & set(answered) if answered[name] != NEUTRAL.get(name)]


def test_null_is_as_good_as_nothing(served: Served) -> None:
    """Some programs write out every parameter."""
    for path, (plain, names) in resources(served).items():
        nulls = dict.fromkeys(name for name in names if name != "min_p")
        status, error = post(served, path, json.dumps(nulls | {"model": "tiny", "max_tokens": 1, **plain}))
        assert status == 200, error
