"""How chats with a model become prompts: the templates that came with it, and the special tokens that they may name.

Which file and which setting decides is as in Hugging Face's transformers (tokenization_utils_base.py of version 5).
This file must not know links or parties.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from puma.client.chat import sandbox
from puma.client.model_info import ModelInfo
from puma.errors import CheckpointError, InputError
from puma.models.files.source import MORE_TEMPLATES, SETTINGS, SPECIALS, TEMPLATE
from puma.models.files.words import SPECIALS as CLASSES

Files = Mapping[str, Callable[[], bytes]]
Turn = Mapping[str, Any]

DEFAULT, TOOLS = "default", "tool_use"  # the names of templates that are chosen by themselves
GIVEN = ("messages", "tools", "documents", "add_generation_prompt")  # by whoever renders, and so nobody else
NAMED = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
REASONING = ("reasoning_content", "thinking", "reasoning")  # one thing by three names; the first is the usual one
# Stands behind a message that is to go on while the template is run; transformers' own, which a template may look at.
END = "CONTINUE_FINAL_MESSAGE_TAG "
PROBE = "A-TEXT-TO-BE-FOUND"


@dataclass(frozen=True)
class ChatFormat:
    """A model's templates by name, none for a model that came without, and the special tokens by theirs."""

    templates: Mapping[str, str] = field(default_factory=dict)
    specials: Mapping[str, str] = field(default_factory=dict)

    @property
    def templated(self) -> bool:
        """Whether there is any template."""
        return bool(self.templates)

    def template(self, tools: bool = False) -> str:
        """The one for chats with `tools` or without; CheckpointError if none of several is meant for that."""
        for name in (TOOLS, DEFAULT) if tools else (DEFAULT,):
            if name in self.templates:
                return self.templates[name]
        what = f"the model has several chat templates ({', '.join(sorted(self.templates)) or 'none'}), none the default"
        raise CheckpointError(what, "write the one that is to be used into chat_template.jinja")

    def names(self, word: str, tools: bool = False) -> bool:
        """Whether the template names a variable, a field or a role, such as `tools` or `developer`."""
        return word in sandbox.names(self.template(tools))

    def takes_parts(self, tools: bool = False) -> bool:
        """Whether it understands a message that is a list of parts rather than a text: tried out on one."""
        parts = [{"role": "user", "content": [{"type": "text", "text": PROBE}]}]
        try:
            text = sandbox.rendered(self.template(tools), self._variables(parts, True))
        except InputError:
            return False
        return PROBE in text and "'text'" not in text and '"text"' not in text

    def render(
        self, messages: Sequence[Turn], tools: Sequence[Any] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None, answer: bool = True, go_on: bool = False, **more: Any,
    ) -> str:  # fmt: skip
        """The prompt of a chat; InputError if the template does not want it.

        It ends where the assistant begins (`answer`), or in the middle of the last message, which is to `go_on`; `more`
        are variables of the template's own. A field of a message that is None counts as not there.
        """
        if not messages:
            raise InputError("the chat is empty", "say something first")
        wrong = next((name for name in more if name in GIVEN), None)
        if wrong is not None:
            raise InputError(f"{wrong} is no variable of the template's own", "pass it by its own name")
        turns = [_with_reasoning({key: x for key, x in turn.items() if x is not None}) for turn in messages]
        template = self.template(tools is not None)
        if go_on and "content" not in template:
            raise InputError("the model's chat template shows no message that could go on", sandbox.HINT)
        said = _marked(turns) if go_on else ""
        variables = self._variables(turns, answer and not go_on, tools, documents) | more
        text = sandbox.rendered(template, variables)
        return _cut(text, said) if go_on else text

    def _variables(
        self, turns: Sequence[Turn], answer: bool, tools: Sequence[Any] | None = None, documents: Any = None
    ) -> dict[str, Any]:
        given = {"messages": turns, "tools": tools, "documents": documents, "add_generation_prompt": answer}
        return {**self.specials, **given}


def chat_format(model: ModelInfo) -> ChatFormat:
    """What the model's files say; CheckpointError for files that cannot be read."""
    try:
        return ChatFormat(_templates(model.files), _specials(model.files))
    except (OSError, ValueError, RecursionError) as error:
        what = f"the chat template of {model.name} cannot be read: {error}"
        raise CheckpointError(what, "download the model again") from error


def _templates(files: Files) -> dict[str, str]:
    """Files of their own are all that counts; without any, the setting."""
    found = {DEFAULT: files[TEMPLATE]().decode()} if TEMPLATE in files else {}
    for name in files:
        if name.startswith(MORE_TEMPLATES):
            found[name.removeprefix(MORE_TEMPLATES).removesuffix(".jinja")] = files[name]().decode()
    said: Any = None if found else _object(files, SETTINGS).get("chat_template")
    if isinstance(said, str):
        said = {DEFAULT: said}
    if isinstance(said, list):
        pairs = [(each.get("name"), each.get("template")) if isinstance(each, dict) else (None, None) for each in said]
        said = dict(pairs)
    if said is None:
        return found
    if not isinstance(said, dict) or not all(isinstance(x, str) for pair in said.items() for x in pair):
        raise ValueError("it is neither a text nor texts with names")
    return said


def _specials(files: Files) -> dict[str, str]:
    """Special tokens by name. A token that is null is none, and one that is not named is the tokenizer class's.

    special_tokens_map.json counts where the settings list no added tokens, as older checkpoints have it.
    """
    settings = _object(files, SETTINGS)
    kind = str(settings.get("tokenizer_class", "")).removesuffix("Fast")
    older = {} if "added_tokens_decoder" in settings else _object(files, SPECIALS)
    extra = settings.get("extra_special_tokens")
    found = CLASSES.get(kind, {}) | {
        name: _word(value)
        for name, value in {**settings, **(extra if isinstance(extra, dict) else {}), **older}.items()
        if name in NAMED or (name.endswith("_token") and isinstance(value, str | dict))
    }
    return {name: word for name, word in found.items() if word is not None}


def _word(value: Any) -> str | None:
    """A token as text, or with what else is said of it."""
    text = value.get("content") if isinstance(value, dict) else value
    if not isinstance(text, str | None) or (value is not None and text is None):
        raise ValueError("a special token is no text")
    return text


def _object(files: Files, name: str) -> dict[str, Any]:
    found: Any = json.loads(files[name]()) if name in files else {}
    return found if isinstance(found, dict) else {}


def _with_reasoning(turn: dict[str, Any]) -> dict[str, Any]:
    """A message that says what was thought, by the names that templates read."""
    thought = next((turn[name] for name in REASONING if turn.get(name) is not None), None)
    return turn if thought is None else {"thinking": thought, **turn, "reasoning_content": thought}


def _marked(turns: list[dict[str, Any]]) -> str:
    """Put a mark behind the last message's text, in place of that message; what its text was."""
    last = dict(turns[-1])
    content = last.get("content")
    if isinstance(content, list):
        parts = [dict(part) for part in content]
        ending = next((part for part in reversed(parts) if isinstance(part.get("text"), str)), None)
        last["content"], text = parts, None if ending is None else ending["text"]
        if ending is not None:
            ending["text"] += END
    else:
        text = content
        last["content"] = None if text is None else text + END
    if not isinstance(text, str):
        raise InputError("the chat's last message has no text that could go on", "end it with an answer's beginning")
    turns[-1] = last
    return text


def _cut(text: str, said: str) -> str:
    """Up to the mark; a template that trims messages has trimmed what stands before it, too."""
    at = text.rfind(END.strip())
    if at < 0 or text.count(END.strip()) > 1 or said.strip() not in text:
        raise InputError("the model's chat template does not show once the message that is to go on", sandbox.HINT)
    return text[:at] if text[at:].startswith(END) else text[:at].rstrip()
