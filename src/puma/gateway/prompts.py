"""A chat as one prompt: by the model's own template, or, where it has none, as plain text to be continued.

This file must not know clusters.
"""

from __future__ import annotations

from collections.abc import Sequence

from puma.client.chat import render
from puma.client.model_info import ModelInfo
from puma.gateway.refusals import Refused
from puma.gateway.requests import Message

ROLES = ("system", "developer", "user", "assistant")


def prompt_ids(model: ModelInfo, messages: Sequence[Message], tokens: int) -> list[int]:
    """Token ids of a chat, up to where the assistant speaks; checked against the context."""
    turns = [{"role": _role(message), "content": message.text} for message in messages]
    if not turns:
        raise Refused("a chat has at least one message", "messages")
    template, special = model.chat_settings()
    if template is None:
        return model.prompt_ids("\n".join(turn["content"] for turn in turns), tokens)
    return model.prompt_ids(render(template, turns, special), tokens, special=False)


def _role(message: Message) -> str:
    if message.role not in ROLES:
        raise Refused(f"a message of role {message.role!r}: the roles are {', '.join(ROLES)}", "messages")
    return message.role
