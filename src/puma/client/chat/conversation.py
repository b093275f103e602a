"""What was said so far, and the prompt of the next turn: by the model's own chat template if it has one, else as one
text that goes on.

This file must not know links or parties.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from puma.client.chat.format import chat_format
from puma.client.model_info import ModelInfo
from puma.client.tokens.remembered import Remembered


class Conversation:
    """What was said so far. `prompt_ids` gives the prompt of the next turn, and `answered` keeps its answer.

    Its `memory` goes to a cluster with the prompt: then the parties keep what they compute, and each turn pays for its
    new tokens only.
    """

    def __init__(self, model: ModelInfo) -> None:
        self._model, self.memory = model, Remembered()
        self._messages: list[dict[str, str]] = []
        self._text = ""  # of a conversation without a template
        self._format = chat_format(model)

    @property
    def templated(self) -> bool:
        """Whether the model has a chat template."""
        return self._format.templated

    def say(self, cluster: Any, line: str, tokens: int = 128, stop: str | None = None, **sampling: Any) -> str:
        """One turn, asked of a cluster that serves the model: the answer's text. All else is as for its `stream`.

        A turn that failed is none: the next one has nothing of it.
        """
        before = self._messages, self._text
        ids = self.prompt_ids(line, tokens)
        try:
            found = list(cluster.stream_ids(ids, tokens, stop, memory=self.memory, **sampling))
        except BaseException:
            self._messages, self._text = before
            raise
        return self.answered(found)

    def prompt_ids(self, line: str, tokens: int) -> list[int]:
        """Token ids of everything so far and this line; InputError if that is too long, and the line is forgotten."""
        messages = [*self._messages, {"role": "user", "content": line}]
        if not self._format.templated:
            so_far = f"{self._text} {line}".strip()
            ids = self._model.prompt_ids(so_far, tokens)
            self._text = so_far
            return ids
        ids = self._model.prompt_ids(self._format.render(messages), tokens, special=False)
        self._messages = messages
        return ids

    def answered(self, ids: Sequence[int]) -> str:
        """The answer's text, which belongs to the conversation from now on."""
        end = next((i for i, new in enumerate(ids) if new in self._model.eos), len(ids))
        answer = self._model.decode(ids[:end])
        self._messages.append({"role": "assistant", "content": answer.strip()})
        self._text += answer if answer[:1].isspace() else f" {answer}"
        return answer.strip()
