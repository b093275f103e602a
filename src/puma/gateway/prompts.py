"""A chat's messages as one prompt: by the model's own template, or, where it has none, as plain text to be continued.

A message's field reaches the template, or is known to be empty, or is refused; none is dropped. This file must not know
clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from puma.client.chat.format import GIVEN, ChatFormat
from puma.client.model_info import ModelInfo
from puma.gateway.refusals import Refused

ROLES = ("system", "developer", "user", "assistant", "tool")
EMPTY = ("refusal", "annotations", "audio", "function_call", "parsed")  # as OpenAI's client writes them, when null
CACHED = "cache_control"  # of a part: what a service may keep for a next request, which changes no prompt
NO_TOOLS = "the model's chat template takes no tools: leave out"
_arguments = msgspec.json.Decoder(dict[str, Any])


class Function(msgspec.Struct, forbid_unknown_fields=True):
    """What a model has called: a name, and arguments as JSON in a text."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, forbid_unknown_fields=True):
    """One call in a message of the assistant's."""

    function: Function
    id: str | None = None
    type: str = "function"
    index: int | None = None  # in a stream


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """One turn of a chat."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: Any = None
    annotations: Any = None
    audio: Any = None
    function_call: Any = None
    parsed: Any = None

    @property
    def text(self) -> str:
        """What it says; Refused for anything but words."""
        if isinstance(self.content, str):
            return self.content
        return "".join(map(_said, self.content or []))

    @property
    def tools(self) -> bool:
        """Whether it is part of a talk with tools."""
        return self.role == "tool" or bool(self.tool_calls) or self.tool_call_id is not None

    @property
    def thought(self) -> str | None:
        """What the model thought before it spoke."""
        return self.reasoning if self.reasoning_content is None else self.reasoning_content

    def check(self) -> None:
        """Refused for what cannot be passed on, whatever the template."""
        if self.role not in ROLES:
            raise Refused(f"a message of role {self.role[:40]!r}: the roles are {', '.join(ROLES)}", "messages")
        full = [name for name in EMPTY if getattr(self, name) not in (None, [], "")]
        if full:
            raise Refused(f"the {full[0]} of a message cannot be passed on to this model: leave it out", "messages")
        if self.tool_calls and self.role != "assistant":
            raise Refused("tool_calls belong to a message of the assistant's", "messages")
        if self.tool_call_id is not None and self.role != "tool":
            raise Refused("tool_call_id belongs to a message of a tool's", "messages")
        if self.content is None and self.role != "assistant":
            raise Refused(f"a message of role {self.role} has no content", "messages")


@dataclass(frozen=True)
class Asked:
    """A chat as it was asked: its messages, the tools and documents that it may use, and how the prompt ends.

    `go_on`: the last message is to be continued; else the assistant begins (`answer`). `more` are variables of the
    template's own.
    """

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] | None = None
    documents: Sequence[Mapping[str, Any]] | None = None
    answer: bool = True
    go_on: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)


def prompt_ids(model: ModelInfo, form: ChatFormat, asked: Asked, tokens: int) -> list[int]:
    """Token ids of a chat, up to where the assistant speaks; checked against the context."""
    if not asked.messages:
        raise Refused("a chat has at least one message", "messages")
    for message in asked.messages:
        message.check()
    if not form.templated:
        return model.prompt_ids(_joined(asked), tokens)
    _check(form, asked)
    turns = [_turn(form, message, asked) for message in asked.messages]
    text = form.render(turns, asked.tools, asked.documents, asked.answer, asked.go_on, **asked.more)
    return model.prompt_ids(text, tokens, special=False)


def _joined(asked: Asked) -> str:
    """Without a template, texts are all there is."""
    for name, given in _for_templates(asked).items():
        if given:
            raise Refused(f"{name} needs a chat template, and this model came without", name)
    for message in asked.messages:
        if message.tools or message.thought:
            what = "tool calls" if message.tools else "reasoning"
            raise Refused(f"{what} in a message need a chat template, and this model came without", "messages")
    return "\n".join(message.text for message in asked.messages)


def _for_templates(asked: Asked) -> dict[str, Any]:
    """By their names, parameters that a template alone can honour, and whether they are asked for."""
    return {
        "tools": asked.tools, "documents": asked.documents, "chat_template_kwargs": asked.more,
        "continue_final_message": asked.go_on, "add_generation_prompt": not asked.answer,
    }  # fmt: skip


def _check(form: ChatFormat, asked: Asked) -> None:
    """Refused for what the template does not look at, and so would drop."""
    tools = asked.tools is not None
    if tools and not form.names("tools", tools):
        raise Refused(f"{NO_TOOLS} tools", "tools")
    if asked.documents is not None and not form.names("documents", tools):
        raise Refused("the model's chat template takes no documents: leave them out", "documents")
    for name in asked.more:
        if name in GIVEN or not form.names(name, tools):
            raise Refused(f"the model's chat template has no variable {name[:40]!r}", "chat_template_kwargs")
    for message in asked.messages:
        if message.tool_calls and not form.names("tool_calls", tools):
            raise Refused(f"{NO_TOOLS} tool_calls", "messages")
        if message.role == "tool" and not (form.names("tool", tools) or form.names("tools", tools)):
            raise Refused(f"{NO_TOOLS} messages of role tool", "messages")
    if asked.go_on and asked.messages[-1].role != "assistant":
        raise Refused("the last message is to go on, and is not the assistant's", "continue_final_message")


def _turn(form: ChatFormat, message: Message, asked: Asked) -> dict[str, Any]:
    """A message as templates read it; one of the developer's is the system's where a template knows no developers."""
    tools, content = asked.tools is not None, None if message.content is None else message.text
    if isinstance(message.content, list) and form.takes_parts(tools):
        content = [{"type": "text", "text": part["text"]} for part in message.content]
    elif content is None and not message.tool_calls:
        content = ""
    developer = message.role == "developer" and not form.names("developer", tools)
    return {
        "role": "system" if developer else message.role,
        "content": content,
        "name": message.name,
        "tool_calls": [_call(call) for call in message.tool_calls] if message.tool_calls else None,
        "tool_call_id": message.tool_call_id,
        "reasoning_content": message.thought,
    }


def _said(part: Mapping[str, Any]) -> str:
    """The words of a part of a message; Refused for one that holds anything else."""
    if part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise Refused("messages hold text only: no images, audio or files", "messages")
    full = [name for name, x in part.items() if name not in ("type", "text", CACHED) and x not in (None, [], "")]
    if full:
        what = f"the {full[0][:40]} of a part of a message cannot be passed on to this model: leave it out"
        raise Refused(what, "messages")
    return part["text"]


def _call(call: ToolCall) -> dict[str, Any]:
    """A call as templates read it: its arguments are an object, not a text, which they would quote once more."""
    try:
        arguments = _arguments.decode(call.function.arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        raise Refused("the arguments of a tool call are no JSON object", "messages") from None
    if call.type != "function":
        raise Refused(f"a tool call of type {call.type[:40]!r}: the only type is function", "messages")
    function = {"name": call.function.name, "arguments": arguments}
    return {key: x for key, x in {"id": call.id, "type": call.type, "function": function}.items() if x is not None}
