"""How an answer is worded for completions and for chats: whole, or piece by piece. Knows OpenAI's shapes and pieces of
text; must not know how either is sent or made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from puma.gateway import replies
from puma.gateway.answers import Likely, Piece


@dataclass(frozen=True)
class Wording:
    """One request's id and shapes."""

    kind: str  # of a whole answer
    piece_kind: str
    identity: str
    model: str
    created: int
    choice: Callable[[int, str, str | None, Any], dict[str, Any]]
    part: Callable[[int, str | None, str | None, Any], dict[str, Any]]
    noted: Callable[[Sequence[Likely]], Any]
    roles: bool  # whether a stream begins by saying who speaks

    def whole(self, pieces: Sequence[Piece], rows: int, prompts: int, cached: int = 0) -> dict[str, Any]:
        """The answer, with usage; `cached` tokens of the prompts the parties held already."""
        choices = []
        for index in range(rows):
            mine = [piece for piece in pieces if piece.index == index]
            likely = [one for piece in mine for one in piece.likely]
            text = "".join(piece.text for piece in mine)
            choices.append(self.choice(index, text, mine[-1].finish, self.noted(likely) if likely else None))
        return self._about(self.kind) | {
            "choices": choices,
            "usage": replies.usage(prompts, sum(piece.new for piece in pieces), cached),
        }

    def opening(self, rows: int) -> list[dict[str, Any]]:
        """What a stream begins with."""
        if not self.roles:
            return []
        return [self._streamed([replies.chat_piece(index, None, None, first=True)]) for index in range(rows)]

    def piece(self, piece: Piece) -> dict[str, Any]:
        """A piece of a stream."""
        likely = self.noted(piece.likely) if piece.likely else None
        return self._streamed([self.part(piece.index, piece.text, piece.finish, likely)])

    def usage(self, prompts: int, count: int, cached: int = 0) -> dict[str, Any]:
        """The end of a stream whose asker wants counts."""
        return self._streamed([]) | {"usage": replies.usage(prompts, count, cached)}

    def _streamed(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return self._about(self.piece_kind) | {"choices": choices}

    def _about(self, kind: str) -> dict[str, Any]:
        return replies.envelope(kind, self.identity, self.model, self.created)


def completion_wording(model: str) -> Wording:
    """Of POST /v1/completions."""
    return Wording(
        "text_completion", "text_completion", replies.fresh_id("cmpl"), model, replies.now(),
        replies.completion_choice, _completion_part, _completion_noted, roles=False,
    )  # fmt: skip


def chat_wording(model: str) -> Wording:
    """Of POST /v1/chat/completions."""
    return Wording(
        "chat.completion", "chat.completion.chunk", replies.fresh_id("chatcmpl"), model, replies.now(),
        replies.chat_choice, lambda i, text, finish, noted: replies.chat_piece(i, text, finish, logprobs=noted),
        _chat_noted, roles=True,
    )  # fmt: skip


def _completion_part(index: int, text: str | None, finish: str | None, noted: Any) -> dict[str, Any]:
    return replies.completion_choice(index, text or "", finish, noted)


def _completion_noted(likely: Sequence[Likely]) -> dict[str, Any]:
    """Tokens are named alike wherever they are named, so that one can be looked up among the likeliest, where the
    chosen one always is."""
    return {
        "tokens": [one.token for one in likely],
        "token_logprobs": [one.logprob for one in likely],
        "top_logprobs": [
            None if one.logprob is None else {text: value for text, _, value in one.top} | {one.token: one.logprob}
            for one in likely
        ],
        "text_offset": [one.at for one in likely],
    }


def _chat_noted(likely: Sequence[Likely]) -> dict[str, Any]:
    content = [
        _noted(one.token, one.bytes, one.logprob) | {"top_logprobs": [_noted(*top) for top in one.top]}
        for one in likely
    ]
    return {"content": content, "refusal": None}


def _noted(token: str, data: bytes, logprob: float | None) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(data)}
