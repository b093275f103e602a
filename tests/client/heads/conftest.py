"""Who answers: three parties in threads, or, where only what a client makes of logits is tried, the plain model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from puma.client.client import Client
from puma.client.cost import Cost
from puma.local.cluster import LocalCluster
from puma.reference.plain_model import PlainModel
from tests.threads import Threads


class Plainly(Client):
    """A client whose session is the plain model; `asked` are the lengths of each request."""

    def __init__(self, folder: Path) -> None:
        self.model, self.asked = PlainModel(folder), list[list[int]]()
        self._encode = self.model.session.encode
        self.model.session.encode = self._noted  # type: ignore[method-assign]
        self.model.session.doubtful = set()  # type: ignore[attr-defined]

    def _noted(self, prompts: Any, output: str, types: Any = (), *more: Any, **named: Any) -> Any:
        self.asked.append([len(ids) for ids in prompts])
        self.session.cost = Cost(1.0, 1.0, 1, 1, 1, [1] * 3, 1, [1.0] * 3, [1.0] * 3, [])
        return self._encode(prompts, output, types, *more, **named)

    @property
    def session(self) -> Any:
        return self.model.session

    def close(self) -> None: ...


@pytest.fixture
def plainly() -> Callable[[Path], Plainly]:
    """Serve a folder by the plain model."""
    return Plainly


@pytest.fixture
def cluster() -> Iterator[Callable[[Path], Any]]:
    """Serve a folder by three parties."""
    trios = list[Threads]()

    def serve(folder: Path) -> LocalCluster:
        trios.append(Threads())
        return LocalCluster(PlainModel(folder), trio=trios[-1])  # type: ignore[arg-type]

    yield serve
    for trio in trios:
        trio.close()
