"""A chat as one prompt: by the model's own template, or, where it has none, as plain text to be continued.

Templates come with checkpoints, so they run in Jinja's sandbox, and change nothing. This file must not know clusters.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from puma.errors import InputError
from puma.gateway.replies import Refused
from puma.gateway.requests import Message

ROLES = ("system", "developer", "user", "assistant")


def prompt_ids(model: Any, messages: Sequence[Message], tokens: int) -> list[int]:
    """Token ids of a chat, up to where the assistant speaks; checked against the context."""
    turns = [{"role": _role(message), "content": message.text} for message in messages]
    if not turns:
        raise Refused("a chat has at least one message", "messages")
    template = model.chat_template
    if template is None:
        return model.prompt_ids("\n".join(turn["content"] for turn in turns), tokens)
    special = {f"{name}_token": token for name, token in _special(model).items()}
    return model.prompt_ids(rendered(template, turns, special), tokens, special=False)


def rendered(template: str, turns: Sequence[dict[str, str]], special: dict[str, str]) -> str:
    """What the template makes of a chat; InputError if it does not want it."""
    import jinja2

    try:
        return _compiled(template).render(messages=turns, add_generation_prompt=True, **special)
    except jinja2.TemplateError as error:
        raise InputError(
            f"the model's chat template refuses this chat: {error}", "look at its roles and order"
        ) from None


@cache
def _compiled(template: str) -> Any:
    from jinja2.exceptions import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda x, indent=None: json.dumps(x, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = refuse
    return environment.from_string(template)


def _special(model: Any) -> dict[str, str]:
    """The words of the tokens that begin and end a text."""
    ids = {"bos": model.bos, "eos": model.eos[0] if model.eos else None}
    words = {name: model.tokenizer.id_to_token(i) for name, i in ids.items() if i is not None}
    return {name: word for name, word in words.items() if word is not None}


def _role(message: Message) -> str:
    if message.role not in ROLES:
        raise Refused(f"a message of role {message.role!r}: the roles are {', '.join(ROLES)}", "messages")
    return message.role
