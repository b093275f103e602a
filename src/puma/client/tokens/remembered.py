"""Which of a client's requests the parties keep, so that a prompt which begins like one of them need not be sent whole.

Only the client knows the tokens; the parties are told the name of an earlier request and how many of its tokens the new
one has in common with it. For all threads of one client. It must not know links, nor how parties keep anything.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from puma.crypto.prg import fresh_secret
from puma.models import architecture, preamble
from puma.models.config import Config
from puma.wire.beside.kept import PREAMBLE, Prefix
from puma.wire.limits import LEAST_NAME

LEAST = 8  # tokens in common below which a prompt is sent whole
MOST = 64  # requests that are remembered
TRIES = 3  # of these, for each prompt: all may be gone at once, and each is a word to the parties and back

Recall = Callable[[Prefix], bool]  # whether all parties still have it


@dataclass(eq=False)
class _Known:
    """A request that has ended: its name at the parties, its tokens there, and how many of them were its prompt's."""

    name: bytes
    ids: list[int]
    prompt: int

    def __repr__(self) -> str:
        return f"_Known({len(self.ids)} tokens)"


class Remembered:
    """Of one client and one model; the latest requests, as long as the parties have them too."""

    def __init__(self, least: int = LEAST, most: int = MOST) -> None:
        self._least, self._most = least, most
        self._known: list[_Known] = []  # the oldest first
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Remembered({len(self._known)} requests)"

    def begin(self, prompt: Sequence[int], recall: Recall, preamble: int = 0) -> Going:
        """How a request for this prompt is put: from where it goes on, and under which name it will be kept itself. It
        begins with the model's `preamble` of so many tokens, if any, which everybody may go on from."""
        for _ in range(TRIES):
            if (best := self._best(prompt, max(self._least, preamble + 1))) is None:
                break
            known, prefix = best
            if recall(prefix):
                return Going(self, list(prompt), prefix)
            self._forget(known)
        return Going(self, list(prompt), Prefix(PREAMBLE, preamble) if preamble else None)

    def _best(self, prompt: Sequence[int], least: int) -> tuple[_Known, Prefix] | None:
        """The request that has most in common with a prompt. One whose whole prompt it repeats, as the next turn of a
        chat does, is not needed any more afterwards, and nobody else goes on from it."""
        with self._lock:
            shared = [(min(common(known.ids, prompt), len(prompt) - 1), known) for known in self._known]
            length, known = max(shared, key=lambda each: each[0], default=(0, None))
            if known is None or length < least:
                return None
            last = length >= known.prompt
            if last:
                self._known.remove(known)
            return known, Prefix(known.name, length, last)

    def _forget(self, known: _Known) -> None:
        with self._lock:
            if known in self._known:
                self._known.remove(known)

    def keep(self, name: bytes, ids: list[int], prompt: int) -> None:
        """From now on the parties have these tokens under a name."""
        with self._lock:
            self._known.append(_Known(name, ids, prompt))
            del self._known[: -self._most]


@dataclass
class Going:
    """A request that goes on from a prefix, if there is one."""

    memory: Remembered = field(repr=False)
    prompt: list[int] = field(repr=False)
    prefix: Prefix | None = None
    name: bytes = field(default_factory=lambda: fresh_secret()[:LEAST_NAME], repr=False)

    @property
    def held(self) -> int:
        """Tokens of the prompt that the parties have."""
        return 0 if self.prefix is None else self.prefix.length

    @property
    def rest(self) -> list[int]:
        """What is to be sent of the prompt."""
        return self.prompt[self.held :]

    @property
    def named(self) -> dict[str, Any]:
        """What the request says of it."""
        return {"keep": self.name, "prefix": self.prefix}

    def put(self, order: Callable[..., Any]) -> tuple[int, Callable[..., Any], list[list[int]]]:
        """How many tokens the parties have, what makes the request, and what is left of the prompt."""
        return self.held, partial(order, **self.named), [self.rest]

    def ended(self, answer: Sequence[int]) -> None:
        """So many tokens were read of its answer; the last one has perhaps not been fed to the model."""
        if answer:
            self.memory.keep(self.name, [*self.prompt, *answer[:-1]], len(self.prompt))


def going_on(
    memory: Remembered | None, prompts: Sequence[Sequence[int]], config: Config, recall: Recall, public: bool = True
) -> Going | None:  # fmt: skip
    """How a request for these prompts is put, if the parties can keep it: a single text, by a model that remembers no
    more than columns. `public`: it may go on from the model's preamble."""
    if memory is None or len(prompts) > 1 or not architecture(config).foresees(config):
        return None
    return memory.begin(prompts[0], recall, preamble_of(config, prompts[0]) if public else 0)


def preamble_of(config: Config, prompt: Sequence[int]) -> int:
    """How many tokens of the model's preamble the parties need not be sent: all of them or none. Who begins otherwise
    after some words tells nobody how many they are, for that would be a part of the prompt."""
    begins = preamble(config) or ()
    return len(begins) if len(prompt) > len(begins) and tuple(prompt[: len(begins)]) == begins else 0


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many first tokens are the same."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
