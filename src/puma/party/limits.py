"""What one party serves at most, as its operator sets it: the one place where such a limit is kept and refused.

What a request may be is engine/admission's; what both sides of a link must know is wire/limits.py. This file must not
know what is asked.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from puma.config import Policy
from puma.engine.kept import BYTES, SECONDS, Kept
from puma.errors import AdmissionError
from puma.models.config import Config
from puma.net.endpoint import Endpoint
from puma.net.frame import Kind
from puma.net.tcp import Met
from puma.party.metrics import resident
from puma.wire.limits import FRAME_WORDS, MOST_BEAMS
from puma.wire.parameters import shared_bytes

GIB = 1 << 30
MODEL_BYTES = 64 * GIB
MINUTE, HOUR = 60.0, 3600.0
GUEST_QUEUE = 16 << 20  # bytes of a guest's frames that wait to be read
GUEST_FRAME = 8 * FRAME_WORDS  # of a parameter or a file; `prompts` lets more through once a model is open
MOST_IDS = 1 << 16  # of requests that one session prepares, and as many that it takes: a party remembers each
ASKED = "--requests-by-key"
PART = 0.75  # of what all may have together, which one key may have unless its operator says otherwise


class Allowance:
    """How much each key may still have: a bucket of `most` that fills again within so many `seconds`; 0: as much as it
    likes. `what` is counted, and an operator sets it by an `option`."""

    def __init__(
        self, most: int, clock: Callable[[], float] = monotonic, seconds: float = HOUR,
        what: str = "tokens of this hour", option: str = "--tokens-by-key",
    ) -> None:  # fmt: skip
        self.most, self._clock, self._seconds, self._what, self._option = most, clock, seconds, what, option
        self._left: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def spend(self, key: str, amount: int) -> None:
        """AdmissionError if so much is not left."""
        if not self.most:
            return
        with self._lock:
            now = self._clock()
            self._left = {
                k: found for k in self._left if (found := self._now(k, now))[0] < self.most
            }  # full: forgotten
            left = self._left.get(key, (float(self.most), now))[0]
            if amount > left:
                what = f"{key} has had its {self.most} {self._what}"
                raise AdmissionError(what, f"wait a little; the party's operator sets it by {self._option}")
            self._left[key] = left - amount, now

    def _now(self, key: str, now: float) -> tuple[float, float]:
        left, then = self._left[key]
        return min(float(self.most), left + self.most * (now - then) / self._seconds), now


class Flight:
    """How many tokens of each key may be under way at a time; 0: any number."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._now: Counter[str] = Counter()
        self._lock = threading.Lock()

    def begin(self, key: str, tokens: int) -> None:
        """AdmissionError if so many more are too many; `end` gives them back."""
        with self._lock:
            if self.most and self._now[key] + tokens > self.most:
                what = f"{key} has {self._now[key]} tokens under way, and may have {self.most} with {tokens} more"
                raise AdmissionError(what, "wait for answers; the party's operator sets it by --tokens-under-way")
            self._now[key] += tokens

    def end(self, key: str, tokens: int) -> None:
        """These are answered, or nobody waits for them any more."""
        with self._lock:
            self._now[key] -= tokens
            if not self._now[key]:
                del self._now[key]


@dataclass(frozen=True)
class Limits:
    """Sessions at a time, in all and by key (0: three quarters of all); tokens a request, and by key an hour and under
    way (0: any); requests by key a minute (0: any); bytes of its own memory (0: all there is), of a model's shares, and
    of what is prepared ahead, in all (0: nothing is) and by key (0: three quarters of all). Of requests that later ones
    may go on from so many bytes of memory are `kept`, three quarters of them by key, for so many seconds; and as many
    `aside` of sessions that are computed over links of their own.

    Clients see logits only if the cluster allows it (`reveal_logits`), and the model's owner too.
    """

    sessions: int
    tokens: int
    memory: int = 0
    reveal_logits: bool = False
    sessions_by_key: int = 0
    tokens_by_key: int = 0
    tokens_under_way: int = 0
    requests_by_key: int = 0
    model: int = MODEL_BYTES
    preprocessing: int = 0
    preprocessing_by_key: int = 0
    kept: int = BYTES
    kept_seconds: float = SECONDS
    spent: Allowance = field(init=False, repr=False, compare=False)
    asked: Allowance = field(init=False, repr=False, compare=False)
    flight: Flight = field(init=False, repr=False, compare=False)
    aside: Kept = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sessions_by_key", self.sessions_by_key or -(-self.sessions * 3 // 4))
        object.__setattr__(self, "preprocessing_by_key", self.preprocessing_by_key or int(PART * self.preprocessing))
        object.__setattr__(self, "spent", Allowance(self.tokens_by_key))
        often = Allowance(self.requests_by_key, seconds=MINUTE, what="requests of this minute", option=ASKED)
        object.__setattr__(self, "asked", often)
        object.__setattr__(self, "flight", Flight(self.tokens_under_way))
        object.__setattr__(self, "aside", self.keeping())

    @classmethod
    def within(cls, policy: Policy, sessions: int | None, tokens: int | None, **others: Any) -> Limits:
        """An operator's, which are no wider than what the cluster has agreed on."""
        most = min(sessions or policy.max_sessions, policy.max_sessions)
        request = min(tokens or policy.max_tokens, policy.max_tokens)
        return cls(most, request, reveal_logits=policy.reveal_logits, **others)

    def keeping(self) -> Kept:
        """A place for what is kept within these limits."""
        return Kept(self.kept, self.kept_seconds, int(PART * self.kept))

    def check_memory(self, party: str) -> None:
        """AdmissionError while this process takes more than it may."""
        if self.memory and resident() > self.memory:
            raise AdmissionError(f"{party} is short of memory", "try again when other sessions have ended")

    def check_model(self, config: Config) -> None:
        """AdmissionError for a model whose shares would take more room than the operator allows."""
        size = shared_bytes(config)
        if size > self.model:
            what = f"the model's shares take {size / GIB:.1f} GiB, and this party takes {self.model / GIB:.4g} at most"
            raise AdmissionError(what, "its operator allows larger ones by `puma party --max-model GIB`")

    def bound(self, link: Endpoint) -> None:
        """What a guest may send before it has opened a model, and how much of it may wait."""
        link.inbox.bound = GUEST_QUEUE
        link.accepts[Kind.DATA] = GUEST_FRAME

    def prompts(self, link: Endpoint, payload: Callable[[int, int], int]) -> None:
        """From now on as much as the largest request takes: `payload` tells the bytes of so many tokens and flags."""
        link.accepts[Kind.DATA] = max(GUEST_FRAME, payload(self.tokens, MOST_BEAMS**2 * self.tokens))


def key_of(guest: Met) -> str:
    """Whose sessions, tokens and preprocessing are counted together."""
    return f"{guest.role} {guest.name or guest.fingerprint}".strip()


def remember(ids: set[bytes], identity: bytes) -> None:
    """One more; none is ever forgotten, because it would name streams that begin where they have begun before."""
    if len(ids) >= MOST_IDS:
        what = f"a session names at most {MOST_IDS} requests that are prepared"
        raise AdmissionError(what, "open a new session for more")
    ids.add(identity)
