"""Terms of products with parameters that depend on no message, made by a thread of its own while the caller waits.

Masks never depend on masked values. So the same text, run on zeros by a second party of this rank that draws from the
same streams and talks to nobody, comes to the same parameters with the same masks, and an evaluator's product of its
mask with the masked parameter is known before there is anything to multiply otherwise (`known_terms` in mpc/seeded.py).
The run itself then makes the other term alone. Safe: nothing is sent, and words that are drawn twice are the same words
of the same party. This file must not know what the text is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import thread_time

import torch
from torch import Tensor

from puma import pool
from puma.net.endpoint import Buffer
from puma.net.null import NullLink

LEAD = 8  # products that the rehearsal may be ahead: about a layer's, so that what both read is still in memory


class _Over(Exception):
    """The run itself is done, or has failed."""


class Rehearsal:
    """A `PrecomputedTerms` of the rehearsal, and what the run itself takes from it. `text` runs once, from the first
    wait on, and goes on only while the run waits."""

    rehearsing = True

    def __init__(self, text: Callable[[Rehearsal], object], device: torch.device | str = "cpu") -> None:
        self._text, self._device = text, device
        self._changed = threading.Condition()
        self._made: dict[int, Tensor] = {}
        self._at = self._taken = 0  # products that the rehearsal and the run have come to
        self._waiting = self._over = False
        self._thread: threading.Thread | None = None
        self._seconds = 0.0
        self.problem: Exception | None = None  # why it ended early: the run is only slower for it

    # -- the run itself ----------------------------------------------------------------------------------------------

    def wait(self) -> None:
        """The run waits from now on."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._rehearse, name="puma rehearses", daemon=True)
            self._thread.start()
        with self._changed:
            self._waiting = True
            self._changed.notify_all()

    def go_on(self) -> None:
        """The run waits no more."""
        self._waiting = False

    def take(self) -> Tensor | None:
        """The known terms of the run's next product, which are the caller's to change; None if they are not there."""
        with self._changed:
            found = self._made.pop(self._taken, None)
            self._taken += 1
            return found

    def end(self) -> None:
        """The run is over."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            pool.credit(self._seconds)

    # -- the rehearsal -----------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Let the run go first."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or (self._waiting and self._at - self._taken < LEAD))
            if self._over:
                raise _Over

    def known(self, make: Callable[[], Tensor], shape: tuple[int, ...], bits: int) -> Tensor:
        """Made for the run, unless it has come farther already; the rehearsal itself goes on with zeros."""
        self.pause()
        number, words = self._at, make() if self._at >= self._taken else None
        with self._changed:
            self._at += 1
            if words is not None and number >= self._taken:
                self._made[number] = words
        return torch.zeros(shape, dtype=torch.int64, device=self._device)

    def _rehearse(self) -> None:
        began = thread_time()
        try:
            with pool.unsplit():  # the run has this machine's threads
                self._text(self)
        except _Over:
            pass
        except Exception as problem:
            self.problem = problem
        self._seconds = thread_time() - began


class Paced(NullLink):
    """A link of the rehearsal's: each message is a place at which it lets the run go first."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self._rehearsal = rehearsal

    def send(self, *buffers: Buffer) -> None:
        """Nothing leaves."""
        self._rehearsal.pause()
