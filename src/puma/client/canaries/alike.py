"""What sessions that may be audited have in common with canaries: what they read of a model, and which requests they
ask.

A party that can tell a canary from other sessions behaves in the former and deviates in the latter. So whatever a
canary could not be like is not asked in such a session. This file must not know sessions, nor whether one is a canary.
"""

from __future__ import annotations

from functools import partial
from typing import TypeVar

from puma.client.model_info import ModelInfo
from puma.errors import UsageError
from puma.wire.messages import Encode, Generate

M = TypeVar("M", bound=ModelInfo)
HINT = "ask it in a session that is not audited"


def check(request: Generate | Encode) -> None:
    """UsageError for a request that no canary is like, before anything of it leaves."""
    if isinstance(request, Encode):
        return
    if request.beams > 1:
        raise unlike("a search by several beams ends early where its texts do")
    if request.drafts:
        raise unlike("drafts of a real text are right more often than those of random tokens")
    if request.keep or request.prefix is not None:
        raise unlike("nothing is kept for later under secrets that may be disclosed")


def unlike(why: str) -> UsageError:
    """The error about it."""
    return UsageError(f"no canary could look like this request: {why}", HINT)


def read_whole(model: M) -> M:
    """The model with its owner's files at hand: what a party is asked for then does not depend on what a client makes
    of them, and when."""
    model.files = {name: partial(_given, read()) for name, read in model.files.items()}
    return model


def _given(content: bytes) -> bytes:
    return content
