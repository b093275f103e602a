"""Drafts as a test wants them: what comes next anyway, with mistakes where it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from puma.client.drafts.draft import Draft

Wrong = Callable[[int, int], bool]  # at this place of the answer, at this place of the draft


class Scripted:
    """Knows the answer to each prompt; what it drafts is wrong where it is told."""

    name = "scripted"

    def __init__(self, answers: dict[tuple[int, ...], Sequence[int]], most: int, wrong: Wrong, size: int) -> None:
        self.answers, self.most, self.wrong, self.size = answers, most, wrong, size

    def begin(self, ids: Sequence[int], how: Any, tempo: Any) -> Reader:
        return Reader(self, self.answers[tuple(ids)])


class Reader:
    def __init__(self, script: Scripted, answer: Sequence[int]) -> None:
        self.script, self.answer, self.at = script, answer, 0

    def propose(self, most: int) -> Draft:
        script, found = self.script, list[int]()
        for place, token in enumerate(self.answer[self.at : self.at + min(most, script.most)]):
            found.append((token + 1) % script.size if script.wrong(self.at, place) else token)
        return Draft(found)

    def learn(self, tokens: Sequence[int]) -> None:
        self.at += len(tokens)
