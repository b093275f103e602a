"""Chats with tools, reasoning, documents and whatever OpenAI's client dumps: passed to a template that reads them, as
transformers would, or refused by name.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from puma.client.chat.format import ChatFormat, chat_format
from puma.gateway.prompts import Asked, Message, prompt_ids
from puma.gateway.refusals import Refused
from puma.gateway.requests import ChatRequest, read
from puma.reference.plain_model import PlainModel
from tests.client.chat.templates import CHATML, GEMMA_PARTS, MARKS, QWEN3, SMOL
from tests.gateway.conftest import Served, openai, serving
from tests.models import tiny

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": "ü"}'}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
USER = {"role": "user", "content": "1+2?"}
TALK: list[dict[str, Any]] = [
    USER,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "3"},
    {"role": "assistant", "content": "It is 3.", "tool_calls": None},
    {"role": "user", "content": "Thanks"},
]


class Text:
    """A model whose prompts are texts."""

    def prompt_ids(self, prompt: str, tokens: int, special: bool = True) -> Any:
        return prompt


def prompt(template: str | None, messages: list[dict[str, Any]], **asked: Any) -> str:
    """What the model reads of a request's body."""
    body = json.dumps({"model": "tiny", "messages": messages, **asked}).encode()
    form = ChatFormat({} if template is None else {"default": template}, MARKS)
    return prompt_ids(Text(), form, read(body, ChatRequest).asked, 1)  # type: ignore[arg-type, return-value]


def library(template: str, messages: Any, **asked: Any) -> str:
    """What transformers makes of messages as Hugging Face has them."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=tiny.tokenizer("$A"))
    asked = {"add_generation_prompt": True} | asked
    return made.apply_chat_template(messages, chat_template=template, tokenize=False, **MARKS, **asked)


def test_tools_reach_a_template_that_reads_them() -> None:
    call = {**CALL, "function": {"name": "add", "arguments": {"a": 1, "b": "ü"}}}
    talk = [*TALK[:1], {"role": "assistant", "tool_calls": [call]}, *TALK[2:]]
    found = prompt(QWEN3, TALK, tools=[TOOL])
    assert found == library(QWEN3, talk, tools=[TOOL]) and '"b": "ü"}}\n</tool_call>' in found and "<tools>" in found
    assert prompt(QWEN3, TALK, tools=[TOOL], tool_choice="none") == library(QWEN3, talk)


@pytest.mark.parametrize("template", [CHATML, SMOL, None])
@pytest.mark.parametrize(
    ("messages", "asked", "param"),
    [
        ([USER], {"tools": [TOOL]}, "tools"),
        (TALK, {}, "messages"),
        ([USER, {"role": "assistant", "content": "so", "tool_calls": [CALL]}], {}, "messages"),
        ([USER, {"role": "tool", "content": "3", "tool_call_id": "c1"}], {}, "messages"),
        ([USER], {"documents": [{"title": "t", "text": "x"}]}, "documents"),
        ([USER], {"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs"),
    ],
)
def test_what_a_template_does_not_read_is_refused(
    messages: Any, asked: dict[str, Any], param: str, template: str | None
) -> None:
    with pytest.raises(Refused) as refused:
        prompt(template, messages, **asked)
    assert refused.value.param == param and "template" in refused.value.message and refused.value.status == 400


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "no", "refusal": "I will not"},
        {"role": "assistant", "content": "so", "annotations": [{"type": "url_citation"}]},
        {"role": "assistant", "content": "so", "audio": {"id": "a"}},
        {"role": "assistant", "content": "so", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "user", "content": "so", "tool_calls": [CALL]},
        {"role": "user", "content": "so", "tool_call_id": "c1"},
        {"role": "user"},
        {"role": "system", "content": None},
        {"role": "function", "name": "f", "content": "3"},
        {"role": "user", "content": [{"type": "text", "text": "so", "citations": {"enabled": True}}]},
        {"role": "user", "content": [{"type": "text"}]},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x"}}]},
        {"role": "user", "content": [{"type": "image_url", "text": "so", "image_url": {"url": "x"}}]},
        {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "add", "arguments": "{"}}]},
        {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "add", "arguments": "[1]"}}]},
        {"role": "assistant", "tool_calls": [{**CALL, "type": "custom"}]},
    ],
)
def test_what_cannot_be_passed_on_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        prompt(QWEN3, [USER, message])
    assert refused.value.param == "messages"


def test_parts_and_roles_as_the_template_has_them() -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "so "}, {"type": "text", "text": " it is"}]}]
    assert prompt(GEMMA_PARTS, parts) == library(GEMMA_PARTS, parts)
    assert prompt(CHATML, parts) == library(CHATML, [{"role": "user", "content": "so  it is"}])
    hinted = {"cache_control": {"type": "ephemeral"}, "annotations": []}
    more = [parts[0] | {"content": [{**each, **hinted} for each in parts[0]["content"]]}]
    assert prompt(GEMMA_PARTS, more) == library(GEMMA_PARTS, parts)
    developer = [{"role": "developer", "content": "Be brief."}, USER]
    assert prompt(CHATML, developer) == library(CHATML, [{"role": "system", "content": "Be brief."}, USER])
    names = "{% for m in messages %}{% if m.role == 'developer' %}!{% endif %}{{ m.content }}{% endfor %}"
    assert prompt(names, developer) == "!Be brief.1+2?"


def test_how_a_prompt_ends() -> None:
    begun = [USER, {"role": "assistant", "content": "It is"}]
    assert prompt(CHATML, begun, continue_final_message=True).endswith("assistant\nIt is")
    assert prompt(CHATML, [USER], add_generation_prompt=False).endswith("1+2?<|im_end|>\n")
    assert prompt(QWEN3, [USER], chat_template_kwargs={"enable_thinking": False}).endswith("<think>\n\n</think>\n\n")
    thought = [USER, {"role": "assistant", "content": "3", "reasoning_content": "1 and 2"}]
    assert prompt(QWEN3, thought) == library(QWEN3, thought)
    for asked in ({"continue_final_message": True, "add_generation_prompt": True}, {"continue_final_message": True}):
        with pytest.raises(Refused) as refused:
            prompt(CHATML, [*begun, *([] if len(asked) > 1 else [USER])], **asked)
        assert refused.value.param == "continue_final_message"
    with pytest.raises(Refused):
        prompt(CHATML, [USER], chat_template_kwargs={"messages": []})


@pytest.fixture(scope="module")
def chatting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A model whose template reads tools, and says what it is given in words of its vocabulary."""
    template = (
        "{{ raise_exception('no wizards') if messages[0].content == 'wizard' }}{{ 1 / 0 if messages | length > 8 }}"
        "{% for m in messages %}{{ m.content or 'it' }} {% for call in m.tool_calls or [] %}{{ call.function.name }} "
        "{% endfor %}{% endfor %}{% if tools is not none %}cat {% endif %}"
    )
    folder = tiny.llama(tmp_path_factory.mktemp("chatting") / "model", num_hidden_layers=1)
    (folder / "chat_template.jinja").write_text(template)
    with serving(folder) as found:
        yield found


def test_a_message_is_replayed_as_the_client_dumps_it(chatting: Served) -> None:
    create = chatting.client.chat.completions.create
    first = create(model="tiny", messages=[{"role": "user", "content": "the cat"}], max_tokens=2)
    dumps = [first.choices[0].message.model_dump(), first.choices[0].message]
    full = {
        "annotations": None,
        "refusal": None,
        "audio": None,
        "function_call": None,
        "tool_calls": None,
        "name": None,
    }
    talks = [
        [{"role": "user", "content": "the cat"}, said, {"role": "user", "content": "sat", "name": "me"}]
        for said in (*dumps, full | dumps[0], full | dumps[0] | {"tool_calls": [], "annotations": []})
    ]
    answers = [create(model="tiny", messages=talk, max_tokens=3) for talk in talks]
    assert len({answer.choices[0].message.content for answer in answers}) == 1
    assert len({answer.usage.prompt_tokens for answer in answers}) == 1


def test_tools_over_http(chatting: Served) -> None:
    create = chatting.client.chat.completions.create
    call = {**CALL, "function": {"name": "dog", "arguments": "{}"}}
    talk = [{"role": "user", "content": "the"}, {"role": "assistant", "tool_calls": [call]}]
    with_tools = create(model="tiny", messages=talk, tools=[TOOL], max_tokens=1, tool_choice="auto")
    assert with_tools.usage.prompt_tokens == 4  # the, it, dog, cat
    assert create(model="tiny", messages=talk, tools=[TOOL], max_tokens=1, tool_choice="none").usage.prompt_tokens == 3
    for choice in ("required", {"type": "function", "function": {"name": "dog"}}):
        with pytest.raises(openai.BadRequestError) as refused:
            create(model="tiny", messages=talk, tools=[TOOL], max_tokens=1, tool_choice=choice)
        assert refused.value.param == "tool_choice"


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([{"role": "user", "content": "wizard"}], "refuses this chat: no wizards"),
        ([{"role": "user", "content": "the"}] * 9, "ZeroDivisionError"),
    ],
)
def test_a_template_that_fails_is_a_bad_request(messages: Any, said: str, chatting: Served) -> None:
    sessions = len(chatting.clusters)
    with pytest.raises(openai.BadRequestError) as refused:
        chatting.client.chat.completions.create(model="tiny", messages=messages, max_tokens=1)
    assert said in refused.value.message and refused.value.param == "messages"
    assert len(chatting.clusters) == sessions


def test_a_template_that_cannot_be_read_spoils_chats_alone(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path, num_hidden_layers=1)
    (folder / "tokenizer_config.json").write_text('{"chat_template": [{"name": "rag", "template": "x"}]}')
    with serving(folder) as found:
        with pytest.raises(openai.BadRequestError) as refused:
            found.client.chat.completions.create(model="tiny", messages=[USER], max_tokens=1)
        assert "none the default" in refused.value.message and refused.value.param == "messages"
        (folder / "chat_template.jinja").write_bytes(b"\xff")
    with serving(folder) as found:
        with pytest.raises(openai.BadRequestError) as refused:
            found.client.chat.completions.create(model="tiny", messages=[USER], max_tokens=1)
        assert "cannot be read" in refused.value.message
        connection = http.client.HTTPConnection("127.0.0.1", found.port, timeout=30)
        connection.request("GET", "/health")
        health = connection.getresponse()
        assert health.status == 200 and json.loads(health.read())["chat"] is False
        connection.close()
        assert found.client.completions.create(model="tiny", prompt="the", max_tokens=1).choices


def test_the_prompt_of_a_real_model_has_its_template(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path, num_hidden_layers=1)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }} cat")
    model = PlainModel(folder)
    ids = prompt_ids(model, chat_format(model), Asked([Message("user", "the")]), 2)
    assert model.decode(ids) == "the cat"
