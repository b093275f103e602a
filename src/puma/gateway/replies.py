"""What is said over HTTP: OpenAI's replies, as plain dictionaries. This file must not know clusters."""

from __future__ import annotations

import time
import uuid
from typing import Any


def fresh_id(prefix: str) -> str:
    """A new identifier, as OpenAI's start with a prefix."""
    return f"{prefix}-{uuid.uuid4().hex}"


def now() -> int:
    """Whole seconds since 1970."""
    return int(time.time())


def models(names: list[str], created: int) -> dict[str, Any]:
    """GET /v1/models: a list of models."""
    return {"object": "list", "data": [model(name, created) for name in names]}


def model(name: str, created: int) -> dict[str, Any]:
    """One model, as OpenAI describes it."""
    return {"id": name, "object": "model", "created": created, "owned_by": "puma"}


def usage(prompt: int, completion: int | None = None, cached: int = 0) -> dict[str, Any]:
    """Counts of tokens; of the prompt's so many were `cached`, as OpenAI calls it."""
    if completion is None:
        return {"prompt_tokens": prompt, "total_tokens": prompt}
    found = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return found | {"prompt_tokens_details": {"cached_tokens": cached}}


def envelope(kind: str, identity: str, name: str, created: int) -> dict[str, Any]:
    """What every completion, chat and piece of a stream begins with."""
    return {"id": identity, "object": kind, "created": created, "model": name}


def completion_choice(index: int, text: str, finish: str | None, logprobs: Any = None) -> dict[str, Any]:
    """One text among the choices of a completion."""
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}


def chat_choice(index: int, text: str, finish: str | None, logprobs: Any = None) -> dict[str, Any]:
    """One message among the choices of a chat."""
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


def rerank(results: list[dict[str, Any]], name: str, tokens: int) -> dict[str, Any]:
    """The answer to a request for a ranking; the best document comes first."""
    return {"id": fresh_id("rerank"), "model": name, "results": results, "usage": usage(tokens)}


def embeddings(vectors: list[Any], name: str, tokens: int) -> dict[str, Any]:
    """The answer to a request for embeddings; vectors as numbers or as base64."""
    data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
    return {"object": "list", "data": data, "model": name, "usage": usage(tokens)}
