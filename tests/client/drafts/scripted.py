"""Drafts as a test wants them: what comes next anyway, with mistakes where it says, or beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from puma.client.drafts.draft import Draft

Wrong = Callable[[int, int], bool]  # at this place of the answer, at this place of the draft


class Scripted:
    """Knows the answer to each prompt; what it drafts is wrong where it is told."""

    name = "scripted"

    def __init__(
        self, answers: Mapping[tuple[int, ...], Sequence[int]], most: int, wrong: Wrong, size: int, beside: bool = False
    ) -> None:
        self.answers, self.most, self.wrong, self.size, self.beside = answers, most, wrong, size, beside

    def begin(self, ids: Sequence[int], how: Any, tempo: Any) -> Reader:
        return Reader(self, self.answers[tuple(ids)])


class Reader:
    def __init__(self, script: Scripted, answer: Sequence[int]) -> None:
        self.script, self.answer, self.at = script, answer, 0

    def propose(self, most: int, deep: int) -> Draft:
        """One token behind the other; beside each wrong one that there is room for, the right one."""
        script, found, parents, last = self.script, list[int](), list[int](), 0
        for place, token in enumerate(self.answer[self.at : self.at + min(deep, script.most)]):
            if len(found) < most and script.wrong(self.at, place):
                found.append((token + 1) % script.size)
                parents.append(last)
                if not script.beside:
                    last = len(found)
                    continue
            if len(found) < most:
                found.append(token)
                parents.append(last)
                last = len(found)
        return Draft(found, None, parents)

    def learn(self, tokens: Sequence[int]) -> None:
        self.at += len(tokens)
