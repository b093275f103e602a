"""When something is said: the tokens of time that a Whisper model puts around what it writes down.

Which of them may follow, and what a window's tokens mean, is as the library has it (transformers 5,
WhisperTimeStampLogitsProcessor and _retrieve_segment; the paper is Radford et al. 2022, section 2.3). A client who sees
logits can follow that alone, since what may follow depends on what was written. This file must not know sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from puma.client.tokens.rules import NEVER
from puma.models.hearing.spectrum import RATE, STEP

ROWS = 2  # of a spectrum, from one token of time to the next
TICK = ROWS * STEP / RATE  # seconds


class Part(NamedTuple):
    """Tokens of a window that are said together, without those of time, and when that begins and ends, in ticks."""

    start: int
    end: int
    tokens: list[int]


class Clock(NamedTuple):
    """The tokens of time, from that of the `first` moment on; `plain` says that there are none, `eos` ends a text. A
    window's first one is the `latest` at most, in ticks, if that is said."""

    first: int
    plain: int
    eos: int
    latest: int | None = None

    def __call__(self, row: Tensor, new: Sequence[int]) -> None:
        """Bar what may not follow the `new` tokens of an answer; its logits (vocabulary,) are changed.

        Times come in pairs, but at the beginning and at the end, and never go back. One comes for certain where they
        are likelier, together, than any word.
        """
        row[self.plain] = NEVER
        last, before = bool(new) and new[-1] >= self.first, len(new) < 2 or new[-2] >= self.first
        if last and before:  # a word follows
            row[self.first :] = NEVER
        elif last:  # another time, or the end
            row[: self.eos] = NEVER
        told = self._told(new)
        if told:
            row[self.first : told[-1] + (0 if last and not before else 1)] = NEVER
        if not new:
            row[: self.first] = NEVER
            row[len(row) if self.latest is None else self.first + self.latest + 1 :] = NEVER
        chances = torch.log_softmax(row, -1)
        if chances[self.first :].logsumexp(-1) > chances[: self.first].max():
            row[: self.first] = NEVER

    def parts(self, tokens: Sequence[int], rows: int) -> tuple[list[Part], int]:
        """What a window of so many rows of sound says, part by part, and after how many of them the next one begins:
        where the last part ended that is whole, so that no word is cut."""
        marks = [token >= self.first for token in tokens]
        single = marks[-2:] == [False, True]  # nothing is said after it
        ends = [i + 1 for i in range(len(marks) - 1) if marks[i] and marks[i + 1]]
        if not ends:
            told = self._told(tokens)
            end = told[-1] - self.first if told and told[-1] != self.first else rows // ROWS
            return [self._part(0, end, tokens)], rows
        ends = [*ends, len(tokens)] if single else [*ends[:-1], ends[-1] + 1]
        found, begin = list[Part](), 0
        for end in ends:
            piece = tokens[begin:end]
            closing = piece[-1] if single or end != ends[-1] else piece[-2]
            found.append(self._part(piece[0] - self.first, closing - self.first, piece))
            begin = end
        step = rows if single else (tokens[begin - 2] - self.first) * ROWS
        return found, step if 0 < step < rows else rows

    def _told(self, tokens: Sequence[int]) -> list[int]:
        return [token for token in tokens if token >= self.first]

    def _part(self, start: int, end: int, tokens: Sequence[int]) -> Part:
        return Part(max(0, start), end, [token for token in tokens if token < self.first])
