"""Errors as OpenAI's clients expect them: a status, a message, the parameter at fault. It must not know clusters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any

from puma.errors import (
    CheckpointError,
    InputError,
    OutOfRange,
    PeerLost,
    PeerTimeout,
    PolicyError,
    ProtocolError,
    PumaError,
    UsageError,
)

MOST_SECONDS = 60  # of a Retry-After


class Refused(Exception):
    """A request that gets no answer: an HTTP status and what OpenAI's clients expect to read.

    `again`: whether a program may ask the same once more by itself; None leaves that to the status. `after` so many
    seconds that may help.
    """

    def __init__(
        self, message: str, param: str | None = None, code: str | None = None, status: int = 400,
        kind: str = "invalid_request_error", again: bool | None = None, after: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.message, self.param, self.code, self.status = message, param, code, status
        self.kind, self.again, self.after = kind, again, after

    @property
    def body(self) -> dict[str, Any]:
        """The error as JSON."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """When to come again, if that may help; OpenAI's clients obey x-should-retry."""
        found = {"retry-after": str(min(MOST_SECONDS, max(1, ceil(self.after))))} if self.after else {}
        found |= {"www-authenticate": "Bearer"} if self.status == 401 else {}
        return found if self.again is None else found | {"x-should-retry": str(self.again).lower()}


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
    if isinstance(error, ProtocolError):
        return _over(error, name)
    if isinstance(error, OutOfRange):
        return Refused(str(error), None, "out_of_range", 422, "out_of_range", again=False)
    if isinstance(error, PumaError) and not isinstance(error, CheckpointError):
        return Refused(str(error), None, name, 503, "service_unavailable", again=False)
    message = str(error) if isinstance(error, PumaError) else f"{name}: {error}"
    return Refused(message, None, name, 500, "server_error", again=False)


@contextmanager
def blamed(param: str) -> Iterator[None]:
    """Errors about a text that is not served, with the parameter that holds it; so are those of the model's files that
    nothing else of the request needs."""
    try:
        yield
    except (UsageError, CheckpointError) as error:
        found = refusal(error)
        found.param, found.status, found.kind = found.param or param, 400, "invalid_request_error"
        raise found from None


def _over(error: ProtocolError, name: str) -> Refused:
    """The end of a session. No program asks again by itself: a party that makes sessions fail could learn from what
    is asked again, so a person decides."""
    lost = isinstance(error, PeerLost | PeerTimeout)
    return Refused(str(error), None, name, 503 if lost else 502, "service_unavailable", again=False)


def not_sent(error: ProtocolError) -> Refused:
    """To who waited behind a request whose session has ended: nothing of theirs went to the parties."""
    found = refusal(error)
    message = f"the session ended before this request was sent: {found.message}; ask again to begin a new one"
    return Refused(message, None, found.code, found.status, found.kind, again=False)


def busy(what: str, after: float, kind: str = "requests") -> Refused:
    """Too many requests wait already, or too much is under way: so many seconds later there may be room."""
    return Refused(f"{what}: ask again later", None, "rate_limit_exceeded", 429, kind, after=after)


def leaving(after: float) -> Refused:
    """The gateway is about to stop."""
    return Refused("this gateway is about to stop", None, "draining", 503, "service_unavailable", after=after)


def unknown_key(shown: bool) -> Refused:
    """Nobody has this API key."""
    what = "the API key is not known here" if shown else "there is no API key: send Authorization: Bearer KEY"
    return Refused(what, None, "invalid_api_key", 401)


def _named(error: PumaError) -> str | None:
    """The parameter with which a policy's refusal begins."""
    first = error.message.partition(" ")[0]
    return first if first in ("temperature", "top_k", "top_p", "seed", "logprobs", "echo") else None
