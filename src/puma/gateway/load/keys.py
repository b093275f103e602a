"""Who may ask a gateway, and how much: keys in a file of the operator's, or anybody where there is none.

A key is looked up by its SHA-256, which is all that is kept of it. Limits are told with the seconds after which it may
help to ask again. It must not know HTTP, nor what is asked.
"""

from __future__ import annotations

import hashlib
import threading
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Annotated

import msgspec

from puma.errors import ConfigError
from puma.gateway.refusals import Refused, busy, unknown_key

MINUTE = 60.0
SOON = 2.0  # seconds after which some of the tokens under way may have come
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Secret = Annotated[str, msgspec.Meta(min_length=8, max_length=256)]
Most = Annotated[int, msgspec.Meta(ge=0)]


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key of the file: itself or its SHA-256, whose it is, and what it may; 0 is any number."""

    name: Name
    key: Secret = ""
    sha256: Hash = ""
    requests_a_minute: Most = 0
    tokens_in_flight: Most = 0

    def __repr__(self) -> str:
        return f"Line({self.name})"

    @property
    def digest(self) -> str:
        """Of the key, in hexadecimal digits."""
        return self.sha256 or digest(self.key)


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    key: tuple[Line, ...] = ()


@dataclass(eq=False)
class Key:
    """Whoever asks under one name: how many requests it may still make, and the tokens that it has under way."""

    name: str = ""
    requests: int = 0
    tokens: int = 0
    clock: Callable[[], float] = field(default=monotonic, repr=False)
    _left: float = 0.0
    _then: float = 0.0
    _flying: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self._left, self._then = float(self.requests), self.clock()

    def begin(self, tokens: int) -> None:
        """One more request, of so many tokens at most; Refused if that is more than it may. `end` gives tokens back."""
        with self._lock:
            if self.tokens and tokens > self.tokens:
                what = f"the request takes up to {tokens} tokens, and this key may have {self.tokens} in flight"
                raise Refused(what, "max_tokens", "tokens_exceeded", 400)
            if self.tokens and self._flying + tokens > self.tokens:
                what = f"{self._flying} tokens of this key are in flight, and {self.tokens} may be with {tokens} more"
                raise busy(what, SOON, "tokens")
            self._spend()
            self._flying += tokens

    def end(self, tokens: int) -> None:
        """These are answered, or nobody waits for them any more."""
        with self._lock:
            self._flying -= tokens

    def _spend(self) -> None:
        if not self.requests:
            return
        now = self.clock()
        self._left = min(float(self.requests), self._left + self.requests * (now - self._then) / MINUTE)
        self._then = now
        if self._left < 1:
            wait = (1 - self._left) * MINUTE / self.requests
            raise busy(f"this key has had its {self.requests} requests of this minute", wait)
        self._left -= 1


ANYBODY = Key()


class Keys:
    """All that may ask; without any, whoever reaches the gateway may."""

    def __init__(self, lines: Mapping[str, Key] | None = None) -> None:
        self._keys = lines

    def __repr__(self) -> str:
        return f"Keys({len(self._keys or ())})"

    @classmethod
    def read(cls, path: Path) -> Keys:
        """Those of a file; ConfigError if it is none."""
        hint = 'write [[key]] with name = "..." and key = "..." or sha256 = "..."; see docs/gateway.md'
        try:
            found = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), File).key
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
            raise ConfigError(f"{path} holds no API keys: {error}", hint) from None
        if not found or any(bool(line.key) == bool(line.sha256) for line in found):
            raise ConfigError(f"{path} names no key, or one in two ways or none", hint)
        if len({line.name for line in found}) < len(found) or len({line.digest for line in found}) < len(found):
            raise ConfigError(f"{path} names two keys alike", "give each a name of its own")
        return cls({line.digest: Key(line.name, line.requests_a_minute, line.tokens_in_flight) for line in found})

    @property
    def asked(self) -> bool:
        """Whether a key has to be shown."""
        return self._keys is not None

    def of(self, authorization: str | None) -> Key:
        """Whose header this is; Refused for a key that is not known."""
        if self._keys is None:
            return ANYBODY
        scheme, _, secret = (authorization or "").strip().partition(" ")
        found = self._keys.get(digest(secret.strip())) if scheme.lower() == "bearer" else None
        if found is None:
            raise unknown_key(bool(authorization))
        return found


def digest(key: str) -> str:
    """SHA-256 of a key, in hexadecimal digits."""
    return hashlib.sha256(key.encode()).hexdigest()
