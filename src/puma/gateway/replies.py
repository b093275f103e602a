"""What is said over HTTP: OpenAI's replies and errors, as plain dictionaries. This file must not know clusters."""

from __future__ import annotations

import time
import uuid
from typing import Any

from puma.errors import CheckpointError, InputError, PolicyError, PumaError, UsageError

RETRY_SECONDS = 2


class Refused(Exception):
    """A request that gets no answer: an HTTP status and what OpenAI's clients expect to read."""

    def __init__(
        self, message: str, param: str | None = None, code: str | None = None, status: int = 400,
        kind: str = "invalid_request_error",
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.message, self.param, self.code, self.status, self.kind = message, param, code, status, kind

    @property
    def body(self) -> dict[str, Any]:
        """The error as JSON."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """When to come again, if that may help."""
        return {"retry-after": str(RETRY_SECONDS)} if self.status in (429, 503) else {}


def refusal(error: Exception) -> Refused:
    """Any error as one that can be told: what was asked wrongly is the asker's, the rest is ours."""
    if isinstance(error, Refused):
        return error
    name = type(error).__name__
    if isinstance(error, PolicyError):
        return Refused(str(error), _named(error), name, 400)
    if isinstance(error, UsageError):
        code = "context_length_exceeded" if isinstance(error, InputError) and "context" in error.message else name
        return Refused(str(error), None, code)
    if isinstance(error, PumaError) and not isinstance(error, CheckpointError):
        return Refused(str(error), None, name, 503, "service_unavailable")
    return Refused(str(error) if isinstance(error, PumaError) else f"{name}: {error}", None, name, 500, "server_error")


def _named(error: PumaError) -> str | None:
    """The parameter with which a policy's refusal begins."""
    first = error.message.partition(" ")[0]
    return first if first in ("temperature", "top_k", "top_p", "seed", "logprobs") else None


def busy(waiting: int) -> Refused:
    """Too many requests wait already."""
    message = f"{waiting} requests wait already: ask again later"
    return Refused(message, None, "rate_limit_exceeded", 429, "requests")


def fresh_id(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex}"


def now() -> int:
    return int(time.time())


def models(names: list[str], created: int) -> dict[str, Any]:
    return {"object": "list", "data": [model(name, created) for name in names]}


def model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "puma"}


def usage(prompt: int, completion: int | None = None) -> dict[str, int]:
    """Counts of tokens."""
    if completion is None:
        return {"prompt_tokens": prompt, "total_tokens": prompt}
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def envelope(kind: str, identity: str, name: str, created: int) -> dict[str, Any]:
    """What every completion, chat and piece of a stream begins with."""
    return {"id": identity, "object": kind, "created": created, "model": name}


def completion_choice(index: int, text: str, finish: str | None, logprobs: Any = None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}


def chat_choice(index: int, text: str, finish: str | None, logprobs: Any = None) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "refusal": None}
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}


def chat_piece(
    index: int, text: str | None, finish: str | None, first: bool = False, logprobs: Any = None
) -> dict[str, Any]:
    """A piece of a streamed chat: its role first, then words, a reason to end last."""
    delta: dict[str, str] = {"role": "assistant", "content": ""} if first else {}
    if text:
        delta["content"] = text
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def embeddings(vectors: list[Any], name: str, tokens: int) -> dict[str, Any]:
    data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
    return {"object": "list", "data": data, "model": name, "usage": usage(tokens)}
