"""What the gateway needs of three parties that serve a model, which clusters here and elsewhere both give.

It must not know HTTP, nor where the parties run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from puma.client.client import Encoding
from puma.client.cost import Cost
from puma.client.heads.ranking import Ranked
from puma.client.model_info import ModelInfo
from puma.client.sentences import Asked, Reading
from puma.client.session import Session
from puma.models.reading.cutting import Cut


class Cluster(Protocol):
    """A session with three parties, and the public side of the model that they serve.

    `in_company`: whether what this session asks is computed together with what others ask.
    """

    in_company: bool

    @property
    def session(self) -> Session:
        """Whatever answers token ids."""
        ...

    model: ModelInfo

    @property
    def cost(self) -> Cost:
        """What the last request cost."""
        ...

    def encoded(self, read: Sequence[Reading], how: Asked) -> Iterator[list[Encoding]]:
        """The model's output for texts that have been read, request by request."""
        ...

    def ranking(
        self, query: str, texts: Sequence[str], top: int | None, label: str | None, cut: Cut, raw: bool
    ) -> Iterator[list[Ranked]]:  # fmt: skip
        """Texts in the order of how well they answer a query, after the last of several requests."""
        ...

    def another(self) -> Cluster:
        """The same parties and model in one more session, in company; AdmissionError where they let no more in."""
        ...

    def close(self) -> None:
        """End the session."""
        ...
