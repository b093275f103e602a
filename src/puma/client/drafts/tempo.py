"""How long a draft is worth its time: what a step takes by how many tokens it reads, as the client measures it.

Over a network a step is mostly waiting, and a further token costs next to nothing; on one machine it costs its
computation. So the same guess is worth drafting here and not there. This file must not know what is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence

DECAY = 0.9  # of what a step told about the pace, with each later one
SHARE = 0.05  # of a step's time that a further token is taken to cost, before it has been measured
FAITH = 1.0  # how much that counts beside what was measured, as a variance of tokens read


class Tempo:
    """Of one session: seconds a step as a line over the tokens that it reads, by least squares that forget."""

    def __init__(self) -> None:
        self._count = self._read = self._seconds = self._squares = self._products = 0.0

    def heard(self, read: int, seconds: float) -> None:
        """A step that read so many tokens, of all texts together, took this long from the client's word to its end."""
        new = (1.0, read, seconds, read * read, read * seconds)
        kept = (self._count, self._read, self._seconds, self._squares, self._products)
        sums = (DECAY * old + more for old, more in zip(kept, new, strict=True))
        self._count, self._read, self._seconds, self._squares, self._products = sums

    @property
    def share(self) -> float:
        """What a further token adds to a step, as a part of the time of a step without it."""
        if not self._count:
            return SHARE
        read, seconds = self._read / self._count, self._seconds / self._count
        spread = max(0.0, self._squares / self._count - read * read)
        together = self._products / self._count - read * seconds
        slope = (together + FAITH * SHARE * seconds) / (spread + FAITH)
        slope = min(max(slope, 0.0), seconds / max(read, 1.0))
        alone = seconds - slope * (read - 1)
        return slope / max(alone, 1e-9)

    def seconds(self, read: int = 1) -> float:
        """About how long a step takes that reads so many tokens; 0 before any has been measured."""
        if not self._count:
            return 0.0
        mean, share = self._seconds / self._count, self.share
        alone = mean / (1 + share * (self._read / self._count - 1))
        return alone * (1 + share * (read - 1))

    def pays(self, chance: float, gained: float, count: int) -> bool:
        """Whether one more drafted token, right with this chance, makes a step of `count` of them, which gives so many
        tokens on average, more tokens a second."""
        return (gained + chance) * (1 + self.share * count) > gained * (1 + self.share * (count + 1))

    def worth(self, chances: Sequence[float], own: float = 0.0) -> int:
        """How many tokens of a draft to send, if each is right with this chance once those before it are.

        The most tokens a second: a step gives one, and each drafted token up to the first wrong one. `own` is what the
        client spends itself on a drafted token, as a part of a step's time.
        """
        share, certain, gained = self.share + own, 1.0, 1.0
        best, length = 1.0, 0
        for count, chance in enumerate(chances, 1):
            certain *= chance
            gained += certain
            speed = gained / (1 + share * count)
            if speed > best:
                best, length = speed, count
        return length
