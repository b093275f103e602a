"""A conversation as a prompt: by the model's own chat template if it has one, else as one text that goes on.

Templates come from strangers, with the model: they run in a sandbox that lets them read the messages and nothing else.
This file must not know links or parties.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from puma.errors import CheckpointError, InputError
from puma.serving.public import PublicModel

SETTINGS, TEMPLATE = "tokenizer_config.json", "chat_template.jinja"


class Conversation:
    """What was said so far. `asked` gives the prompt of the next turn, and `answered` keeps its answer."""

    def __init__(self, model: PublicModel) -> None:
        self._model = model
        self._messages: list[dict[str, str]] = []
        self._text = ""  # of a conversation without a template
        self._template, self._specials = _template(model)

    @property
    def templated(self) -> bool:
        """Whether the model has a chat template."""
        return self._template is not None

    def asked(self, line: str, tokens: int) -> list[int]:
        """Token ids of everything so far and this line; InputError if that is too long, and the line is forgotten."""
        messages = [*self._messages, {"role": "user", "content": line}]
        if self._template is None:
            so_far = f"{self._text} {line}".strip()
            ids = self._model.prompt_ids(so_far, tokens)
            self._text = so_far
            return ids
        ids = self._ids(render(self._template, messages, self._specials), tokens)
        self._messages = messages
        return ids

    def answered(self, ids: Sequence[int]) -> str:
        """The answer's text, which belongs to the conversation from now on."""
        end = next((i for i, new in enumerate(ids) if new in self._model.eos), len(ids))
        answer = self._model.decode(ids[:end])
        self._messages.append({"role": "assistant", "content": answer.strip()})
        self._text += answer if answer[:1].isspace() else f" {answer}"
        return answer.strip()

    def _ids(self, prompt: str, tokens: int) -> list[int]:
        """A template writes the special tokens itself."""
        found = self._model.tokenizer.encode(prompt, add_special_tokens=False).ids
        if not found:
            raise InputError("no character of the prompt is a token of this model", "use the model's alphabet")
        self._model.check_length(len(found), tokens)
        return found


def render(template: str, messages: Sequence[dict[str, str]], specials: dict[str, str]) -> str:
    """The prompt that a chat template makes of messages."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _raise
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    try:
        return environment.from_string(template).render(messages=messages, add_generation_prompt=True, **specials)
    except TemplateError as error:
        raise CheckpointError(f"the model's chat template fails: {error}", "talk to it with `puma generate`") from None


def _template(model: PublicModel) -> tuple[str | None, dict[str, str]]:
    """The template and the special tokens that it may name."""
    files = model.files
    settings: dict[str, Any] = json.loads(files[SETTINGS]()) if SETTINGS in files else {}
    found = files[TEMPLATE]().decode() if TEMPLATE in files else settings.get("chat_template")
    if isinstance(found, list):  # several, by name
        found = next((each["template"] for each in found if each.get("name") == "default"), None)
    specials = {}
    for key in ("bos_token", "eos_token", "pad_token", "unk_token"):
        value = settings.get(key)
        specials[key] = value.get("content", "") if isinstance(value, dict) else value or ""
    return found, specials


def _raise(message: str) -> str:
    raise TemplateError(message)
