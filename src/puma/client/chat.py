"""A conversation as a prompt: by the model's own chat template if it has one, else as one text that goes on.

Templates come from strangers, with the model: they run in a sandbox that lets them read the messages and nothing else.
This file must not know links or parties.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache

from jinja2 import Template, TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from puma.client.model_info import ModelInfo
from puma.errors import InputError


class Conversation:
    """What was said so far. `asked` gives the prompt of the next turn, and `answered` keeps its answer."""

    def __init__(self, model: ModelInfo) -> None:
        self._model = model
        self._messages: list[dict[str, str]] = []
        self._text = ""  # of a conversation without a template
        self._template, self._specials = model.chat_settings()

    @property
    def templated(self) -> bool:
        """Whether the model has a chat template."""
        return self._template is not None

    def prompt_ids(self, line: str, tokens: int) -> list[int]:
        """Token ids of everything so far and this line; InputError if that is too long, and the line is forgotten."""
        messages = [*self._messages, {"role": "user", "content": line}]
        if self._template is None:
            so_far = f"{self._text} {line}".strip()
            ids = self._model.prompt_ids(so_far, tokens)
            self._text = so_far
            return ids
        ids = self._model.prompt_ids(render(self._template, messages, self._specials), tokens, special=False)
        self._messages = messages
        return ids

    def answered(self, ids: Sequence[int]) -> str:
        """The answer's text, which belongs to the conversation from now on."""
        end = next((i for i, new in enumerate(ids) if new in self._model.eos), len(ids))
        answer = self._model.decode(ids[:end])
        self._messages.append({"role": "assistant", "content": answer.strip()})
        self._text += answer if answer[:1].isspace() else f" {answer}"
        return answer.strip()


def render(template: str, messages: Sequence[dict[str, str]], specials: dict[str, str]) -> str:
    """The prompt that a chat template makes of messages; InputError if it does not want them."""
    try:
        return _compiled(template).render(messages=messages, add_generation_prompt=True, **specials)
    except TemplateError as error:
        what = f"the model's chat template refuses this chat: {error}"
        raise InputError(what, "look at its roles and their order, or ask without a template") from None


@cache
def _compiled(template: str) -> Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.globals["raise_exception"] = _raise
    environment.filters["tojson"] = lambda x, indent=None: json.dumps(x, ensure_ascii=False, indent=indent)
    return environment.from_string(template)


def _raise(message: str) -> str:
    raise TemplateError(message)
